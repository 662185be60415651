import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import net from 'node:net';
import type tls from 'node:tls';
import { application, connectTls, failure, makeCertificates, readAll, Rig } from './engine-support.js';
import type { Certificates } from './engine-support.js';
import { sockets } from 'libtlspool/native';

describe('engine: handshakes', () => {
  let certificates: Certificates;
  let rig: Rig;
  const clients: net.Socket[] = [];
  const connect = async (port: number, options: tls.ConnectionOptions = {}): Promise<tls.TLSSocket> => {
    const socket = await connectTls(port, certificates.ca, options);
    clients.push(socket);
    return socket;
  };

  before(() => { certificates = makeCertificates(); });
  beforeEach(() => { rig = new Rig(certificates); });
  afterEach(() => {
    for (const client of clients.splice(0)) client.destroy();
    rig.close();
  });

  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    it(`reports what was negotiated over ${version}, as the client sees it`, async () => {
      const { port, listener } = rig.listen(rig.selector(), { alpn: ['h2', 'http/1.1'] });
      const client = await connect(port, { minVersion: version, maxVersion: version, ALPNProtocols: ['http/1.1', 'h2'] });
      const event = await rig.event('established');
      assert.equal(event.listener, listener);
      assert.equal(event.protocol, version);
      assert.equal(client.getProtocol(), version);
      assert.equal(event.cipher, client.getCipher().standardName);
      assert.equal(event.cipherName, client.getCipher().name);
      assert.equal(event.alpn, 'h2', 'the server prefers');
      assert.equal(client.alpnProtocol, 'h2');
      assert.equal(event.servername, 'server.test');
      assert.equal(event.remote?.port, client.localPort);
      assert.equal(event.local?.port, port);
      assert.deepEqual(event.localCertificate, client.getPeerX509Certificate()?.raw);
      sockets.close(event.plainfd as never);
    });
  }

  it('picks the RSA certificate for a client that cannot verify ECDSA', async () => {
    const context = rig.context({ keyPairs: [certificates.server, certificates.rsa] });
    const { port } = rig.listen(rig.selector(context));
    const rsa = await connect(port, { maxVersion: 'TLSv1.2', ciphers: 'ECDHE-RSA-AES128-GCM-SHA256' });
    const shown = rsa.getPeerX509Certificate();
    assert.equal(shown?.publicKey.asymmetricKeyType, 'rsa');
    const ec = await connect(port);
    assert.equal(ec.getPeerX509Certificate()?.publicKey.asymmetricKeyType, 'ec');
    const seen = [await rig.event('established'), await rig.event('established')];
    assert.deepEqual(seen[0]?.localCertificate, shown.raw);
    for (const event of seen) sockets.close(event.plainfd as never);
  });

  it('serves wildcard names one label deep, in any case and with a final dot, and refuses two with unrecognized_name', async () => {
    const { port } = rig.listen(rig.selector());
    for (const servername of ['A.Wild.test', 'server.test.', 'SERVER.TEST']) {
      await connect(port, { servername, checkServerIdentity: () => undefined });
      const event = await rig.event('established');
      assert.equal(event.servername, servername);
      sockets.close(event.plainfd as never);
    }
    const error = await failure(connect(port, { servername: 'a.b.wild.test' }));
    assert.match(error.message, /unrecognized name/i);
    const failed = await rig.event('failed');
    assert.equal(failed.code, 'NAME_REFUSED');
    assert.equal(failed.alert, 112);
  });

  it('gives the chosen identity its own policy, not the first one\'s', async () => {
    const strict = rig.context({ localid: 'strict', minVersion: 'TLSv1.3', ticketTag: 'strict' });
    const lax = rig.context({ localid: 'lax', ticketTag: 'lax' });
    for (const noName of [strict, lax]) {
      const { port } = rig.listen(rig.engine.selector({ names: [['server.test', strict], ['a.wild.test', lax]], noName }));
      const refused = await failure(connect(port, { maxVersion: 'TLSv1.2' }));
      assert.match(refused.message, /protocol version/i);
      await connect(port, { maxVersion: 'TLSv1.2', servername: 'a.wild.test' });
      const event = await rig.event('established');
      assert.equal(event.localid, 'lax');
      sockets.close(event.plainfd as never);
    }
  });

  it('gives the chosen identity its own order of suites, or that of the client', async () => {
    const suites = ['ECDHE-ECDSA-AES256-GCM-SHA384', 'ECDHE-ECDSA-AES128-GCM-SHA256'];
    const ours = rig.context({ localid: 'ours', ciphers: suites.join(':'), preferServerCiphers: true, ticketTag: 'ours' });
    const theirs = rig.context({ localid: 'theirs', ciphers: suites.join(':'), preferServerCiphers: false, ticketTag: 'theirs' });
    for (const noName of [ours, theirs]) {
      const { port } = rig.listen(rig.engine.selector({ names: [['server.test', ours], ['a.wild.test', theirs]], noName }));
      for (const [servername, suite] of [['server.test', suites[0]], ['a.wild.test', suites[1]]] as const) {
        const client = await connect(port, { maxVersion: 'TLSv1.2', servername, ciphers: suites.toReversed().join(':') });
        assert.equal(client.getCipher().name, suite, `${servername}, and ${noName === ours ? 'ours' : 'theirs'} without a name`);
        sockets.close((await rig.event('established')).plainfd as never);
      }
    }
  });

  it('answers a client without a common application protocol with no_application_protocol', async () => {
    const { port } = rig.listen(rig.selector(), { alpn: ['h2'] });
    const error = await failure(connect(port, { ALPNProtocols: ['smtp'] }));
    assert.match(error.message, /no application protocol/i);
    assert.equal((await rig.event('failed')).alert, 120);
  });

  it('ends a handshake of a silent peer at the deadline', async () => {
    rig.close();
    rig = new Rig(certificates, { handshakeMs: 100 });
    const { port } = rig.listen(rig.selector());
    const client = net.connect(port, '127.0.0.1');
    clients.push(client);
    const received = readAll(client);
    const failed = await rig.event('failed');
    assert.equal(failed.code, 'HANDSHAKE_TIMEOUT');
    assert.equal((await received).length, 0);
  });

  it('reports a peer that leaves in the middle of its ClientHello', async () => {
    const { port } = rig.listen(rig.selector());
    const client = net.connect(port, '127.0.0.1');
    clients.push(client);
    client.end(Buffer.from('160301020001', 'hex'));
    assert.equal((await rig.event('failed')).code, 'PEER_CLOSED');
  });

  it('waits for the owner\'s decision without holding up others', async () => {
    const other = rig.context({ localid: 'other' });
    const { port } = rig.listen(rig.selector(), { ask: true });
    const first = connect(port, { servername: 'asked.test', ALPNProtocols: ['x'], checkServerIdentity: () => undefined });
    const hello = await rig.event('hello');
    assert.equal(hello.servername, 'asked.test');
    assert.deepEqual(hello.alpn, ['x']);
    const second = failure(connect(port));
    const secondHello = await rig.event('hello');
    rig.engine.decide(secondHello.session, { refuse: true }, -1);
    assert.match((await second).message, /unrecognized name/i);
    rig.engine.decide(hello.session, { selector: rig.engine.selector({ names: [], unknownName: other }) }, -1);
    await first;
    const event = await rig.event('established');
    assert.equal(event.localid, 'other');
    assert.equal(event.session, hello.session);
    sockets.close(event.plainfd as never);
  });

  it('does both roles, from socket pair to socket pair', async () => {
    const [a, b] = sockets.socketpair('stream');
    const context = rig.context();
    const server = rig.engine.startTls(a, -1, { role: 'server', selector: rig.selector(context), ask: false });
    const client = rig.engine.startTls(b, -1, { role: 'client', context, remoteid: 'server.test', servername: 'server.test' });
    const established = { server: await rig.event('established', (e) => e.session === server), client: await rig.event('established', (e) => e.session === client) };
    assert.equal(established.client.authorized, true);
    assert.deepEqual(established.client.peerCertificates, [new X509Certificate(certificates.server.chain).raw, new X509Certificate(certificates.ca).raw], 'the root, which the server does not send, too');
    const left = application(established.server.plainfd);
    const right = application(established.client.plainfd);
    clients.push(left, right);
    left.end('from the server');
    right.end('from the client');
    assert.equal((await readAll(right)).toString(), 'from the server');
    assert.equal((await readAll(left)).toString(), 'from the client');
    assert.equal((await rig.event('closed')).how, 'closed');
    assert.equal((await rig.event('closed')).how, 'closed');
  });

  for (const [what, key, remoteid, why] of [
    ['another name', 'server', 'evil.test', /HOSTNAME_MISMATCH/], ['the names below it', 'server', 'a.b.wild.test', /HOSTNAME_MISMATCH/],
    ['a name of which a part is a wildcard (RFC 9525 section 6.3)', 'partial', 'server.wild.test', /HOSTNAME_MISMATCH/], ['another address', 'server', '127.0.0.2', /IP_ADDRESS_MISMATCH/],
  ] as const) {
    it(`refuses a server whose certificate is for ${what}`, async () => {
      const [a, b] = sockets.socketpair('stream');
      const context = rig.context({ keyPairs: [certificates[key]] });
      rig.engine.startTls(a, -1, { role: 'server', selector: rig.selector(context), ask: false });
      const client = rig.engine.startTls(b, -1, { role: 'client', context, remoteid, servername: 'server.test' });
      const failed = await rig.event('failed', (e) => e.session === client);
      assert.equal(failed.code, 'CERT_REJECTED');
      assert.match(failed.text, why);
    });
  }

  it('refuses to begin a client without a name to verify', () => {
    const [a, b] = sockets.socketpair('stream');
    assert.throws(() => rig.engine.startTls(a, -1, { role: 'client', context: rig.context() }), { code: 'BAD_ARGUMENT', field: 'remoteid' });
    sockets.close(a);
    sockets.close(b);
  });

  it('connects a backend itself, and says so when it cannot', async () => {
    const backend = net.createServer((socket) => { socket.end('backend'); });
    await new Promise<void>((resolve) => backend.listen(0, '127.0.0.1', resolve));
    const port = (backend.address() as net.AddressInfo).port;
    const first = rig.listen(rig.selector(), { backend: { host: '127.0.0.1', port } });
    const client = await connect(first.port);
    assert.equal((await readAll(client)).toString(), 'backend');
    assert.equal((await rig.event('established')).plainfd, -1);
    await new Promise((resolve) => backend.close(resolve));
    const second = rig.listen(rig.selector(), { backend: { host: '127.0.0.1', port } });
    await connect(second.port).catch(() => undefined);
    assert.equal((await rig.event('failed')).code, 'BACKEND_FAILED');
  });

  it('gives both ends the same exporter octets and channel bindings', async () => {
    for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
      const { port } = rig.listen(rig.selector());
      const client = await connect(port, { minVersion: version, maxVersion: version });
      const { session, plainfd } = await rig.event('established');
      rig.engine.exporter(session, 7, 'EXPERIMENTAL-test', Buffer.from('context'), 40);
      const answer = await rig.event('answer');
      assert.ok('octets' in answer);
      assert.deepEqual(answer.octets, client.exportKeyingMaterial(40, 'EXPERIMENTAL-test', Buffer.from('context')));
      rig.engine.bindings(session, 8);
      const { bindings } = await rig.event('answer') as { bindings: Record<string, Buffer | undefined> };
      assert.deepEqual(bindings['tlsUnique'], version === 'TLSv1.2' ? client.getFinished() : undefined);
      assert.deepEqual(bindings['tlsExporter'], client.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0)));
      assert.equal(bindings['tlsServerEndPoint']?.length, 32);
      sockets.close(plainfd as never);
    }
  });
});
