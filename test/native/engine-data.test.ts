import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type tls from 'node:tls';
import { application, connectTls, makeCertificates, readAll, readSome, Rig } from './engine-support.js';
import type { Certificates, EventOf } from './engine-support.js';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { until } from '../support/index.js';

const mebibyte = 1024 * 1024;

describe('engine: data', () => {
  let certificates: Certificates;
  let rig: Rig;
  const open: net.Socket[] = [];
  before(() => { certificates = makeCertificates(); });
  beforeEach(() => { rig = new Rig(certificates); });
  afterEach(() => {
    for (const socket of open.splice(0)) socket.destroy();
    rig.close();
  });

  async function session(options: tls.ConnectionOptions = {}): Promise<{ client: tls.TLSSocket; app: net.Socket; event: EventOf<'established'> }> {
    const { port } = rig.listen(rig.selector());
    const client = await connectTls(port, certificates.ca, options);
    const event = await rig.event('established');
    const app = application(event.plainfd);
    open.push(client, app);
    return { client, app, event };
  }

  const digest = (data: Buffer): string => createHash('sha256').update(data).digest('hex');

  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    it(`carries 32 MiB each way at once over ${version}`, async () => {
      const { client, app } = await session({ minVersion: version, maxVersion: version, allowHalfOpen: true } as tls.ConnectionOptions);
      const [up, down] = [randomBytes(32 * mebibyte), randomBytes(32 * mebibyte)];
      client.end(up);
      app.end(down);
      const [gotDown, gotUp] = await Promise.all([readAll(client), readAll(app)]);
      assert.equal(digest(gotDown), digest(down));
      assert.equal(digest(gotUp), digest(up));
      assert.equal((await rig.event('closed')).how, 'closed');
    });
  }

  it('begins with records that fit a TCP segment and grows them, and again after a second without data', async () => {
    const { client, app } = await session();
    const octets = 256 * 1024;
    let sizes: number[] = [];
    client.on('data', (chunk: Buffer) => { sizes.push(chunk.length); });
    const recordsOf = async (pauseMs: number): Promise<readonly number[]> => {
      await sleep(pauseMs);
      sizes = [];
      app.write(Buffer.alloc(octets));
      await until(() => sizes.reduce((sum, size) => sum + size, 0) === octets, { what: 'the answer' });
      return sizes;
    };
    const first = await recordsOf(0);
    assert.equal(first[0], 1369);
    assert.ok(first.includes(16_384), 'full records later');
    assert.equal((await recordsOf(0))[0], 16_384, 'what follows at once');
    assert.equal((await recordsOf(1300))[0], 1369, 'what follows after a pause');
  });

  for (const direction of ['sent', 'received'] as const) {
    it(`changes keys after the configured number of records that it has ${direction}, and nothing is lost`, async () => {
      rig.close();
      rig = new Rig(certificates, { keyUpdateRecords: 3 });
      const { client, app } = await session({ allowHalfOpen: true } as tls.ConnectionOptions);
      // RFC 8446 section 7.2, in the words in which the client logs what follows the first secrets.
      const secrets = { SERVER_TRAFFIC_SECRET_N: 0, CLIENT_TRAFFIC_SECRET_N: 0 };
      client.on('keylog', (line: Buffer) => { secrets[line.toString('latin1').split(' ')[0] as keyof typeof secrets] += 1; });
      const octets = randomBytes(mebibyte);
      const [from, to] = direction === 'sent' ? [app, client] : [client, app];
      from.end(octets);
      to.end();
      const [got] = await Promise.all([readAll(to), readAll(from)]);
      assert.equal(digest(got), digest(octets));
      // 64 records or more. The peer's keys are changed by asking it, which it reads when much is on its way already; whoever asks changes its own, too.
      if (direction === 'sent') assert.ok(secrets.SERVER_TRAFFIC_SECRET_N > 10 && secrets.CLIENT_TRAFFIC_SECRET_N === 0, JSON.stringify(secrets));
      else assert.ok(secrets.CLIENT_TRAFFIC_SECRET_N > 0, JSON.stringify(secrets));
    });
  }

  it('passes a half-close on, from the peer to the application', async () => {
    const { client, app } = await session({ allowHalfOpen: true } as tls.ConnectionOptions);
    client.end('question');
    assert.equal((await readAll(app)).toString(), 'question');
    app.write('late ');
    app.end('answer');
    assert.equal((await readAll(client)).toString(), 'late answer');
    assert.equal((await rig.event('closed')).how, 'closed');
  });

  it('passes a half-close on, from the application to the peer', async () => {
    const { client, app } = await session({ allowHalfOpen: true } as tls.ConnectionOptions);
    app.end('greeting');
    assert.equal((await readAll(client)).toString(), 'greeting');
    client.end('reply');
    assert.equal((await readAll(app)).toString(), 'reply');
    assert.equal((await rig.event('closed')).how, 'closed');
  });

  it('reports a FIN without close_notify as truncated, and closes the plain side only when it was told', async () => {
    rig.closePlain = false;
    const { port } = rig.listen(rig.selector());
    const raw = net.connect(port, '127.0.0.1');
    const client = await connectTls(port, certificates.ca, { socket: raw });
    const event = await rig.event('established');
    open.push(client, raw);
    client.write('half a mess');
    const app = application(event.plainfd);
    open.push(app);
    assert.equal((await readSome(app, 11)).toString(), 'half a mess');
    raw.end();
    const closed = await rig.event('closed');
    assert.equal(closed.how, 'truncated');
    assert.equal(sockets.pollWait(event.plainfd as OwnedFd, 1, 0), 0, 'no end of stream before the owner was told');
    sockets.close(closed.plainfd as OwnedFd);
    assert.notEqual(sockets.pollWait(event.plainfd as OwnedFd, 1, 1000), 0);
  });

  it('turns a truncation into RST where the plain side is TCP', async () => {
    // Read raw: libuv takes a RST right behind data for an end of stream.
    const backend = sockets.tcpListen({ host: '127.0.0.1', port: 0 });
    const { port } = rig.listen(rig.selector(), { backend: { host: '127.0.0.1', port: sockets.socketInfo(backend).local?.port ?? 0 } });
    const raw = net.connect(port, '127.0.0.1');
    const client = await connectTls(port, certificates.ca, { socket: raw });
    open.push(client, raw);
    await rig.event('established');
    const accepted = sockets.accept(backend);
    assert.ok(accepted !== null);
    client.write('x', () => { raw.end(); });
    assert.equal((await rig.event('closed')).how, 'truncated');
    assert.equal(sockets.receive(accepted, 10, 0)?.data.toString(), 'x');
    assert.throws(() => sockets.receive(accepted, 10, 0), /ECONNRESET/);
    sockets.close(accepted);
    sockets.close(backend);
  });

  it('stops reading from an application whose peer does not read', async () => {
    const { client, app } = await session();
    client.pause();
    let taken = 0;
    let resumed = false;
    const chunk = Buffer.alloc(256 * 1024);
    // Write until the kernel and the engine take nothing more for a while: a watched condition, not a guess at buffers.
    const stuck = new Promise<void>((resolve) => {
      const write = (): void => {
        const timer = setTimeout(resolve, 400);
        app.write(chunk, () => {
          clearTimeout(timer);
          taken += chunk.length;
          if (!resumed) write();
        });
      };
      write();
    });
    await stuck;
    assert.ok(taken < 48 * mebibyte, `${String(taken)} octets were taken`);
    resumed = true;
    let received = 0;
    client.on('data', (data: Buffer) => { received += data.length; });
    client.resume(); // paused by hand above
    app.end();
    await new Promise((resolve) => client.once('end', resolve));
    assert.ok(received >= taken);
  });

  it('works with a plain side of packets and one of TCP', async () => {
    const [left, right] = sockets.socketpair('seqpacket');
    const [cryptA, cryptB] = sockets.socketpair('stream');
    const context = rig.context();
    rig.engine.startTls(cryptA, left, { role: 'server', selector: rig.selector(context), ask: false });
    const client = rig.engine.startTls(cryptB, -1, { role: 'client', context, remoteid: 'server.test' });
    const app = application((await rig.event('established', (e) => e.session === client)).plainfd);
    open.push(app);
    await rig.event('established');
    const sent = randomBytes(100_000);
    app.write(sent);
    app.end();
    const parts: Buffer[] = [];
    for (;;) {
      const packet = sockets.receive(right, 65_536, 0);
      if (packet?.eof === true) break;
      if (packet === null) await new Promise((resolve) => setImmediate(resolve));
      else parts.push(packet.data);
    }
    assert.deepEqual(Buffer.concat(parts), sent);
    sockets.send(right, Buffer.from('one packet'));
    sockets.shutdown(right, 1);
    assert.equal((await readAll(app)).toString(), 'one packet');
    sockets.close(right);
  });

  it('an orderly close delivers what is under way; an abort does not wait', async () => {
    const first = await session();
    first.app.write('last words');
    assert.equal((await readSome(first.client, 10)).toString(), 'last words');
    rig.engine.close(first.event.session, 'orderly');
    assert.equal((await readAll(first.client)).length, 0);
    assert.equal((await rig.event('closed')).how, 'closed');
    const second = await session();
    const error = new Promise<NodeJS.ErrnoException>((resolve) => second.client.once('error', resolve));
    rig.engine.close(second.event.session, 'abort');
    assert.equal((await error).code, 'ECONNRESET');
  });

  it('sends the alert and ends the connection at once when a record is forged', async () => {
    const { port } = rig.listen(rig.selector());
    const raw = net.connect(port, '127.0.0.1');
    const client = await connectTls(port, certificates.ca, { socket: raw });
    const event = await rig.event('established');
    const app = application(event.plainfd);
    open.push(client, raw, app);
    const alert = new Promise<Error>((resolve) => client.once('error', resolve));
    raw.write(Buffer.concat([Buffer.from('1703030020', 'hex'), randomBytes(32)]));
    assert.match((await alert).message, /bad record mac/i);
    assert.equal((await rig.event('closed')).how, 'error');
  });

  it('refuses descriptors that are not what the call takes, and leaves them to the caller', () => {
    const [a, b] = sockets.socketpair('seqpacket');
    const listening = sockets.tcpListen({ host: '127.0.0.1', port: 0 });
    const selector = rig.selector();
    const server = { role: 'server', selector, ask: false } as const;
    assert.throws(() => rig.engine.startTls(a, -1, server), { code: 'FD_KIND' });
    assert.throws(() => rig.engine.startTls(listening, -1, server), { code: 'FD_KIND' });
    assert.throws(() => rig.engine.startTls(0 as OwnedFd, -1, server), { code: 'FD_KIND' });
    assert.throws(() => rig.engine.startTls(99_999 as OwnedFd, -1, server), { code: 'FD_KIND' });
    assert.throws(() => rig.engine.startTls(-1 as OwnedFd, -1, server), { code: 'FD_KIND' });
    assert.throws(() => rig.engine.listen(a, { selector, ask: false }), { code: 'FD_KIND' });
    for (const fd of [a, b, listening]) sockets.close(fd);
  });

  it('refuses credentials that cannot be used, and says why', () => {
    const { server, rsa } = certificates;
    assert.throws(() => rig.context({ keyPairs: [{ chain: server.chain, key: rsa.key }] }), { code: 'IDENTITY_BAD', field: 'keyPairs[0]', message: /does not belong/ });
    assert.throws(() => rig.context({ keyPairs: [{ chain: Buffer.from('x'), key: rsa.key }] }), { code: 'IDENTITY_BAD' });
    assert.throws(() => rig.context({ trust: Buffer.from('no certificate') }), { code: 'IDENTITY_BAD', field: 'trust' });
    assert.throws(() => rig.context({ groups: ['no such group'] }), { code: 'IDENTITY_BAD', field: 'groups' });
    assert.throws(() => rig.context({ ciphersuites: 'TLS_NULL' }), { code: 'IDENTITY_BAD', field: 'ciphersuites' });
    assert.throws(() => rig.context({ minVersion: 'TLSv1.3', maxVersion: 'TLSv1.2' }), { code: 'IDENTITY_BAD', field: 'minVersion' });
    assert.throws(() => rig.engine.selector({ names: [['x.test', {} as never]] }), { code: 'BAD_ARGUMENT' });
  });

  it('can be stopped with sessions in every state, and twice', async () => {
    const { port } = rig.listen(rig.selector(), { ask: true });
    const asked = connectTls(port, certificates.ca).catch(() => undefined);
    await rig.event('hello');
    await session();
    const half = net.connect(port, '127.0.0.1');
    half.on('error', () => undefined);
    open.push(half);
    half.write(Buffer.from('16', 'hex'));
    rig.engine.stop();
    rig.engine.stop();
    await asked;
    assert.throws(() => rig.engine.counters(), { code: 'BAD_STATE' });
  });
});
