/** The PROXY protocol, to backends and from load balancers. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { behindHeader, issue, PlainClient, startPool, startTls, tempFolder, TestProxy, ToyBackend, toyImap, until } from '../support/index.js';
import type { TestPool, TlsWishes, ToyConnection } from '../support/index.js';

describe('proxy: the PROXY protocol', function () {
  this.timeout(30_000);
  let pool: TestPool;
  let proxy: TestProxy;
  let backend: ToyBackend;
  let certified: TlsWishes['client'];
  let bare: ToyBackend;
  const at = (name: string) => ({ port: proxy.port(name), host: proxy.host(name), protocol: 'imap' });
  const connect = (name: string): Promise<PlainClient> => PlainClient.connect(at(name).port, at(name).host);
  /** The connection of the backend on which somebody has logged in. */
  const session = (): Promise<ToyConnection> => until(() => backend.connections.find(({ text }) => text.includes('LOGIN')), { what: 'the login' });

  before(async () => {
    pool = await startPool({ identities: [
      { localid: 'localhost', default: true },
      { localid: 'rsa', sans: ['DNS:rsa.example'], keyType: 'rsa', policy: 'intermediate', clientAuth: 'request', trust: true },
    ] });
    certified = await issue(pool.ca, path.join(tempFolder(), 'joe'), { commonName: 'Joe Doe', sans: ['DNS:joe.example'], usage: 'clientAuth' });
    backend = await ToyBackend.listen(behindHeader(toyImap));
    bare = await ToyBackend.listen(toyImap);
    const to = (proxyProtocol: number) => ({ connect: backend.address, proxyProtocol });
    proxy = await TestProxy.start(pool, [
      { name: 'v1', protocol: 'imap', backend: to(1) },
      { name: 'v2', protocol: 'imap', backend: to(2), routes: [{ alpn: ['imap'], backend: to(2) }] },
      { name: 'behind', protocol: 'imap', backend: to(2), proxyFrom: ['127.0.0.0/8'] },
      { name: 'behind-other', protocol: 'imap', backend: to(2), proxyFrom: ['192.0.2.0/24'] },
      { name: 'none', protocol: 'none', backend: { connect: bare.address } },
    ]);
  });
  after(async () => {
    await proxy.stop();
    await backend.close();
    await bare.close();
    await pool.stop();
  });
  beforeEach(() => { backend.forget(); });

  async function login(name: string, wishes: Partial<TlsWishes> = {}): Promise<{ readonly client: { localPort?: number | undefined }; readonly told: ToyConnection }> {
    const plain = await connect(name);
    const { localPort } = plain.socket;
    await plain.askForTls('imap');
    const client = await plain.secure({ caFile: pool.caFile, ...wishes });
    await client.ask('a LOGIN joe secret\r\n', /^a OK/mu);
    await client.finish();
    return { client: { localPort }, told: await session() };
  }

  it('version 1: the addresses of the client, before anything else', async () => {
    const { client, told } = await login('v1');
    assert.deepEqual([told.header?.version, told.header?.command, told.header?.addresses], [1, 'PROXY', {
      source: { family: 'IPv4', address: '127.0.0.1', port: client.localPort }, destination: { family: 'IPv4', address: proxy.host('v1'), port: proxy.port('v1') },
    }]);
    assert.equal(told.text, 'a LOGIN joe secret\r\n');
  });

  it('the question of the proxy itself is not taken for a client: LOCAL in version 2, its own address in version 1', async () => {
    // What was learnt a moment ago is not asked again.
    for (const name of ['v2', 'v1']) {
      await until(async () => {
        const client = await connect(name);
        await client.hears(/^\* OK/u);
        client.close();
        return backend.connections.some(({ header }) => header?.version === Number(name[1]));
      }, { what: 'the proxy to ask' });
    }
    assert.equal(backend.connections.find(({ header }) => header?.version === 2)?.header?.command, 'LOCAL');
    const { header, ports } = backend.connections.find((one) => one.header?.version === 1)!;
    assert.deepEqual([header?.addresses?.source.port, header?.addresses?.destination.port], ports);
  });

  it('version 2: the facts of the session, and that no certificate was shown', async () => {
    const { client, told: { header } } = await login('v2', { servername: 'localhost', alpn: ['smtp', 'imap'] });
    const { addresses, alpn, authority, ssl } = header!;
    assert.deepEqual([addresses?.source.port, alpn, authority], [client.localPort, 'imap', 'localhost']);
    const { verify, ...rest } = ssl!;
    assert.notEqual(verify, 0);
    assert.deepEqual(rest, { tls: true, certConn: false, certSess: false, protocol: 'TLSv1.3', cipher: 'TLS_AES_128_GCM_SHA256', signatureAlgorithm: 'ecdsa-with-SHA256', keyAlgorithm: 'EC256' });
  });

  it('version 2: a certificate that was verified, with its common name; TLS 1.2 and an RSA key are told as they are', async () => {
    const { client, told: { header } } = await login('v2', { servername: 'rsa.example', maxVersion: 'TLSv1.2', ...(certified !== undefined && { client: certified }) });
    assert.deepEqual(header!.ssl, {
      tls: true, certConn: true, certSess: true, verify: 0, commonName: 'Joe Doe', protocol: 'TLSv1.2', cipher: header!.ssl?.cipher, signatureAlgorithm: 'ecdsa-with-SHA256', keyAlgorithm: 'RSA2048',
    });
    assert.match(String(header!.ssl?.cipher), /^ECDHE-RSA-/u);
    assert.deepEqual([header!.alpn, header!.authority], [undefined, 'rsa.example']);
    assert.equal((await proxy.recordOf('v2', client.localPort)).clientSubject, 'CN=Joe Doe');
  });

  it('version 2: an identity that asks for a certificate, and a client without', async () => {
    const { told: { header } } = await login('v2', { servername: 'rsa.example' });
    assert.deepEqual([header!.ssl?.certConn, header!.ssl?.commonName, header!.ssl?.verify === 0], [false, undefined, false]);
  });

  for (const [what, port, head] of [
    ['1', 4711, Buffer.from('PROXY TCP4 203.0.113.7 192.0.2.1 4711 143\r\n')],
    ['2', 4712, Buffer.from('0d0a0d0a000d0a515549540a2111000ccb007107c00002011268008f', 'hex')],
  ] as const) {
    it(`from a balancer that is listed, version ${what}: the client in the log and in what the backend is told is the one in the header`, async () => {
      const plain = await connect('behind');
      plain.say(head);
      await plain.askForTls('imap');
      const client = await plain.secure(pool);
      await client.ask('a LOGIN joe secret\r\n', /^a OK/mu);
      await client.finish();
      assert.equal((await proxy.recordOf('behind', port)).peer, `203.0.113.7:${port}`);
      assert.deepEqual((await session()).header?.addresses, { source: { family: 'IPv4', address: '203.0.113.7', port }, destination: { family: 'IPv4', address: '192.0.2.1', port: 143 } });
    });
  }

  it('from a balancer that is listed, in version 2 with LOCAL: the peer is the balancer', async () => {
    const plain = await connect('behind');
    plain.say(Buffer.from('0d0a0d0a000d0a515549540a20000000', 'hex'));
    await plain.hears(/^\* OK/u);
    plain.close();
    assert.match(String((await proxy.recordOf('behind', plain.localPort)).peer), /^127\.0\.0\.1:/u);
  });

  it('from a balancer that is listed a header is required', async () => {
    const plain = await connect('behind');
    plain.say('a CAPABILITY\r\nb CAPABILITY\r\n');
    await plain.ended();
    plain.close();
    assert.doesNotMatch(plain.text, /CAPABILITY/u);
    const { ended, code, error } = await proxy.recordOf('behind', plain.localPort);
    assert.deepEqual([ended, code], ['refused', 'PREAMBLE']);
    assert.match(error ?? '', /PROXY header/u);
  });

  it('from an address that is not listed a header is believed by nobody: it is garbage in the protocol', async () => {
    const plain = await connect('behind-other');
    plain.say('PROXY TCP4 203.0.113.7 192.0.2.1 4711 143\r\n');
    await plain.hears(/^\* BAD /mu);
    await plain.askForTls('imap');
    const client = await plain.secure(pool);
    await client.ask('a LOGIN joe secret\r\n', /^a OK/mu);
    await client.finish();
    assert.match(String((await proxy.recordOf('behind-other', plain.localPort)).peer), /^127\.0\.0\.1:/u);
    assert.equal((await session()).header?.addresses?.source.address, '127.0.0.1');
  });

  it('where TLS begins at once, a header that nobody listed is no ClientHello', async () => {
    const plain = await connect('none');
    plain.say('PROXY TCP4 203.0.113.7 192.0.2.1 4711 143\r\n');
    await plain.ended();
    plain.close();
    assert.deepEqual([(await proxy.recordOf('none', plain.localPort)).code, bare.connections.length], ['PREAMBLE', 0]);
    const client = await startTls({ ...at('none'), protocol: 'none' }, pool);
    await client.hears(/Toy IMAP ready/u);
    await client.finish();
  });
});
