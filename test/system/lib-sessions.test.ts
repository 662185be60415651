import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import path from 'node:path';
import tls from 'node:tls';
import { connectPool, TlsPoolError } from 'libtlspool';
import type { Hello, Listener, ListenOptions, Pool, PoolSocket } from 'libtlspool';
import { event, expectBaseline, issue, nodeConnect, startPool, tempFolder, within } from '../support/index.js';
import type { Baseline, Target, TestPool } from '../support/index.js';

const portOf = (listener: Listener): number => (listener.address() as net.AddressInfo).port;
const code = (wanted: string) => (error: unknown): boolean => {
  assert(error instanceof TlsPoolError, String(error));
  assert.equal(error.code, wanted, error.message);
  return true;
};

describe('libtlspool with a pool: sessions', () => {
  let daemon: TestPool;
  let pool: Pool;
  let baseline: Baseline;
  before(async () => {
    daemon = await startPool({
      identities: [
        { localid: 'localhost', default: true, clientAuth: 'request', trust: true },
        { localid: 'other.example' },
      ],
    });
  });
  after(() => daemon.stop());
  beforeEach(async () => {
    baseline = daemon.baseline();
    pool = await connectPool({ path: daemon.socket });
  });
  afterEach(async () => {
    pool.close();
    await expectBaseline(daemon, baseline);
  });

  const listening = async (options: ListenOptions = {}): Promise<{ listener: Listener; target: Target }> => {
    const listener = await pool.listen({ host: '127.0.0.1', ...options });
    return { listener, target: { port: portOf(listener), caFile: daemon.caFile } };
  };
  const both = async (listener: Listener, target: Target, options: tls.ConnectionOptions = {}): Promise<[PoolSocket, tls.TLSSocket]> =>
    Promise.all([within(listener.accept(), 'a connection'), nodeConnect(target, options)]);

  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    it(`${version}: the socket answers what a TLSSocket answers, and exports what the client exports`, async () => {
      const { listener, target } = await listening({ alpn: ['h2', 'imap'] });
      const [socket, client] = await both(listener, target, { minVersion: version, maxVersion: version, ALPNProtocols: ['imap'] });
      assert.equal(socket.getProtocol(), version);
      assert.deepEqual(socket.getCipher(), client.getCipher());
      assert.equal(socket.servername, 'localhost');
      assert.equal(socket.alpnProtocol, 'imap');
      assert.equal(socket.remoteAddress, '127.0.0.1');
      assert.equal(socket.remotePort, client.localPort);
      assert.equal(socket.localPort, target.port);
      assert.equal(socket.authorized, false);
      assert.deepEqual(socket.getPeerCertificate(), {});
      assert.equal(socket.getX509Certificate()?.fingerprint256, client.getPeerX509Certificate()?.fingerprint256);
      assert.deepEqual(socket.exportKeyingMaterial(48, 'EXPORTER-tlspool', Buffer.from('context')), client.exportKeyingMaterial(48, 'EXPORTER-tlspool', Buffer.from('context')));
      assert.deepEqual(await socket.exportKeyingMaterialAsync(32, 'EXPORTER-tlspool'), client.exportKeyingMaterial(32, 'EXPORTER-tlspool', undefined as unknown as Buffer));
      const { tlsExporter } = await socket.channelBindings();
      assert.deepEqual(Buffer.from(tlsExporter ?? []), client.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0)));
      client.end();
      socket.end();
      await event(socket.resume(), 'close');
      await listener.close();
    });
  }

  it('a client certificate is verified and shown in both forms, with its chain', async () => {
    const folder = path.join(tempFolder(), 'client');
    await issue(daemon.ca, folder, { commonName: 'a client', sans: ['email:a@example.org'], usage: 'clientAuth' });
    const { listener, target } = await listening();
    const [socket, client] = await both(listener, { ...target, client: { certFile: `${folder}/tls.crt`, keyFile: `${folder}/tls.key` } });
    assert.equal(socket.authorized, true);
    assert.equal(socket.authorizationError, null);
    assert.equal(socket.getPeerCertificate().subject.CN, 'a client');
    assert.equal(socket.getPeerX509Certificate()?.subjectAltName, 'email:a@example.org');
    assert.equal(typeof socket.getPeerCertificate(true).fingerprint256, 'string');
    client.destroy();
    await event(socket.on('error', () => undefined).resume(), 'close');
    await listener.close();
  });

  it('an exporter label that TLS itself uses is refused', async () => {
    const { listener, target } = await listening();
    const [socket, client] = await both(listener, target);
    assert.throws(() => socket.exportKeyingMaterial(32, 'master secret'), code('EXPORTER'));
    client.end();
    await event(socket.resume(), 'close');
    await listener.close();
  });

  it('close_notify is a clean end; the end of TCP without it is TRUNCATED', async () => {
    const { listener, target } = await listening();
    const [polite, first] = await both(listener, target);
    first.end('all of it');
    let text = '';
    polite.on('data', (chunk: Buffer) => { text += chunk.toString(); });
    await event(polite, 'end');
    assert.equal(text, 'all of it');
    const raw = net.connect(target.port, '127.0.0.1');
    await once(raw, 'connect');
    const [rude, second] = await Promise.all([
      listener.accept(),
      (async () => {
        const client = tls.connect({ socket: raw, ca: [await daemonCa()], servername: 'localhost' });
        await once(client, 'secureConnect');
        return client;
      })(),
    ]);
    second.write('half of it');
    await once(rude, 'data');
    const failed = event<Error>(rude, 'error');
    // FIN of TCP, with no record before it.
    raw.end();
    code('TRUNCATED')(await failed);
    second.destroy();
    await listener.close();
  });

  const daemonCa = async (): Promise<string> => (await import('node:fs/promises')).readFile(daemon.caFile, 'utf8');

  it('half-close goes both ways: each side may end first and still receive', async () => {
    const { listener, target } = await listening({ allowHalfOpen: true });
    const [socket, client] = await both(listener, target, { allowHalfOpen: true } as tls.ConnectionOptions);
    client.end('request');
    let asked = '';
    socket.on('data', (chunk: Buffer) => { asked += chunk.toString(); });
    await event(socket, 'end');
    assert.equal(asked, 'request');
    socket.end('answer after the end');
    let answer = '';
    client.on('data', (chunk: Buffer) => { answer += chunk.toString(); });
    await event(client, 'end');
    assert.equal(answer, 'answer after the end');
    await listener.close();
  });

  it('our own end first: the rest of the peer still arrives, with a clean end', async () => {
    const { listener, target } = await listening({ allowHalfOpen: true });
    const [socket, client] = await both(listener, target, { allowHalfOpen: true } as tls.ConnectionOptions);
    socket.end('first');
    let text = '';
    socket.on('data', (chunk: Buffer) => { text += chunk.toString(); });
    const ended = event(socket, 'end');
    await event(client.resume(), 'end');
    client.end('and still talking');
    await ended;
    assert.equal(text, 'and still talking');
    await listener.close();
  });

  it('resetAndDestroy() makes the peer see a stream that is not complete', async () => {
    const { listener, target } = await listening();
    const [socket, client] = await both(listener, target);
    let ending = 'none';
    client.on('end', () => { ending = 'end'; });
    client.on('error', () => { ending = 'error'; });
    client.resume();
    socket.resetAndDestroy();
    await event(client, 'close');
    assert.equal(ending, 'error');
    await listener.close();
  });

  it('onServername lets the pool choose, names the identity, and refuses', async () => {
    const seen: Hello[] = [];
    const { listener, target } = await listening({
      onServername: (hello) => {
        seen.push(hello);
        return hello.servername === 'refused.example' ? false : hello.servername === 'localhost' ? true : { localid: 'other.example' };
      },
    });
    const first = await nodeConnect(target);
    assert.match(first.getPeerX509Certificate()?.subjectAltName ?? '', /DNS:localhost/);
    const second = await nodeConnect({ ...target, servername: 'other.example' });
    assert.equal(second.getPeerX509Certificate()?.subjectAltName, 'DNS:other.example');
    await assert.rejects(nodeConnect({ ...target, servername: 'refused.example' }));
    assert.deepEqual(seen.map(({ servername }) => servername), ['localhost', 'other.example', 'refused.example']);
    first.destroy();
    second.destroy();
    await listener.close();
  });

  it('an identity that does not exist is IDENTITY_UNKNOWN', async () => {
    await assert.rejects(pool.listen({ host: '127.0.0.1', localid: 'nobody.example' }), code('IDENTITY_UNKNOWN'));
  });

  it('a pool that is killed gives each socket POOL_LOST, and the listener accepts again on the same port', async () => {
    const { listener, target } = await listening();
    const [socket, client] = await both(listener, target);
    client.on('error', () => undefined);
    const failed = event<Error>(socket, 'error');
    const back = event(listener, 'reconnected', 20_000);
    await daemon.kill('SIGKILL');
    code('POOL_LOST')(await failed);
    await daemon.restart();
    await back;
    assert.equal(portOf(listener), target.port);
    const [again, other] = await both(listener, target);
    other.end('hello again');
    const [chunk] = await once(again, 'data') as [Buffer];
    assert.equal(chunk.toString(), 'hello again');
    again.end();
    await event(again, 'close');
    client.destroy();
    await listener.close();
  });

  it('two listeners of one share both get connections, and the second opens no port', async () => {
    const first = await listening({ share: 'pair' });
    const other = await connectPool({ path: daemon.socket });
    const second = await other.listen({ share: 'pair', host: '127.0.0.1' });
    assert.deepEqual(second.address(), first.listener.address());
    const seen = [first.listener.accept(), second.accept()];
    const clients = [await nodeConnect(first.target), await nodeConnect(first.target)];
    for (const accepted of seen) (await within(accepted, 'a connection for each')).destroy();
    for (const client of clients) client.destroy();
    await first.listener.close();
    const next = second.accept();
    const last = await nodeConnect(first.target);
    (await next).destroy();
    last.destroy();
    await second.close();
    other.close();
  });
});
