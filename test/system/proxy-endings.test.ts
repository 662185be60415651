/** What goes on and what ends when the proxy or the pool is stopped, reloaded or killed. */
import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import path from 'node:path';
import { listenForHandoff } from 'libtlspool';
import type { HandoffListener } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import { expectBaseline, PlainClient, startPool, startTls, tempFolder, TestProxy, ToyBackend, toyMail, until, within } from '../support/index.js';
import type { ServiceYaml, TestPool, TlsClient } from '../support/index.js';
import { Backend } from '../support/handoff-ends.js';
import { RawListener } from '../support/handoff-wire.js';

describe('proxy: ends and restarts', function () {
  this.timeout(40_000);
  let pool: TestPool;
  let backend: ToyBackend;
  let listener: HandoffListener;
  let services: ServiceYaml[];
  const file = path.join(tempFolder(), 'h.sock');

  before(async () => {
    pool = await startPool();
    backend = await ToyBackend.listen(toyMail('EHLO'));
    listener = await listenForHandoff({ path: file, reattach: false, allowHalfOpen: true });
    (async () => {
      for await (const socket of listener) {
        socket.on('error', () => undefined).on('end', () => socket.end());
        socket.pipe(socket, { end: false });
      }
    })().catch(() => undefined);
    services = [
      { name: 'connect', protocol: 'smtp', backendMs: 500, backend: { connect: backend.address } },
      { name: 'fd', protocol: 'smtp', backendMs: 500, backend: { fd: file } },
    ];
  });
  after(async () => {
    await listener.close();
    await backend.close();
    await pool.stop();
  });

  const tls = (proxy: TestProxy, name: string): Promise<TlsClient> => startTls({ port: proxy.port(name), host: proxy.host(name), protocol: 'smtp' }, pool);
  const greeted = async (proxy: TestProxy, name: string): Promise<PlainClient> => {
    const client = await PlainClient.connect(proxy.port(name), proxy.host(name));
    await client.hears(/^220 /u);
    return client;
  };
  const exchange = (client: TlsClient): Promise<string> => client.ask('EHLO again\r\n', /\r\n$/u);
  const ended = (proxy: TestProxy) => within(proxy.program.ended, 'tlspool-proxy to end', 15_000, () => proxy.program.tail());

  it('SIGTERM: nobody new is let in, a session under way goes on to its end, which the log still tells, and that is the end', async () => {
    const proxy = await TestProxy.start(pool, services, { config: { drainMs: 20_000 } });
    const client = await tls(proxy, 'connect');
    await exchange(client);
    const { localPort } = client.socket;
    proxy.program.kill('SIGTERM');
    await proxy.said('draining');
    await assert.rejects(PlainClient.connect(proxy.port('connect'), proxy.host('connect')), /ECONNREFUSED/u);
    await exchange(client);
    await client.finish();
    assert.deepEqual(await ended(proxy), { code: 0, signal: null });
    assert.equal((await proxy.recordOf('connect', localPort)).ended, 'closed');
    assert.equal(proxy.program.stderr, '');
  });

  it('SIGTERM, the deadline: who is still in plain text is told; sessions go on without the proxy; each has its line in the log', async () => {
    const before = pool.baseline();
    const proxy = await TestProxy.start(pool, services, { config: { drainMs: 300 } });
    const [plain, shaking, client, handed] = [await greeted(proxy, 'connect'), await greeted(proxy, 'fd'), await tls(proxy, 'connect'), await tls(proxy, 'fd')];
    await shaking.askForTls('smtp');
    await exchange(client);
    const ports = [plain, shaking, client, handed].map(({ socket }) => socket.localPort);
    proxy.program.kill('SIGTERM');
    assert.deepEqual(await ended(proxy), { code: 0, signal: null });
    await plain.ended();
    assert.match(plain.text, /^421 4\.3\.2 /mu);
    await shaking.ended();
    const names = ['connect', 'fd', 'connect', 'fd'];
    const lines = await Promise.all(ports.map((port, index) => proxy.recordOf(names[index]!, port)));
    assert.deepEqual(lines.map((line) => [line.ended, line.code]), [['refused', 'ABORTED'], ['refused', 'ABORTED'], ['unknown', undefined], ['handed-over', undefined]]);
    await exchange(client);
    await exchange(handed);
    await client.finish();
    await handed.finish();
    plain.close();
    shaking.close();
    await expectBaseline(pool, before);
  });

  it('kill -9 of the proxy: sessions of `connect`, and of `fd` without relay, go on; what was under way ends; the pool keeps nothing', async () => {
    const before = pool.baseline();
    const proxy = await TestProxy.start(pool, services);
    const [client, handed, plain, shaking] = [await tls(proxy, 'connect'), await tls(proxy, 'fd'), await greeted(proxy, 'connect'), await greeted(proxy, 'fd')];
    await exchange(client);
    await exchange(handed);
    await shaking.askForTls('smtp');
    await until(() => pool.baseline().sessions === 3, { what: 'two sessions and a handshake' });
    await proxy.kill();
    await plain.ended();
    await shaking.ended();
    for (const one of [client, handed]) {
      await exchange(one);
      await one.finish();
      assert.equal(one.error, undefined);
    }
    plain.close();
    shaking.close();
    await expectBaseline(pool, before);
  });

  it('a proxy that was killed starts again on the same addresses, and serves', async () => {
    const proxy = await TestProxy.start(pool, [{ ...services[0]!, listen: '127.0.1.77:0' }]);
    const port = proxy.port('connect');
    await proxy.kill();
    const again = await TestProxy.start(pool, [{ ...services[0]!, listen: `127.0.1.77:${port}` }]);
    const client = await tls(again, 'connect');
    await exchange(client);
    await client.finish();
    await again.stop();
  });

  it('reload: services move, sockets that stay are kept, and connections go on as they began', async () => {
    const proxy = await TestProxy.start(pool, services);
    const before = proxy.baseline();
    const [waiting, client] = [await greeted(proxy, 'connect'), await tls(proxy, 'connect')];
    await exchange(client);
    const [port, gone] = [proxy.port('connect'), proxy.port('fd')];
    const goneHost = proxy.host('fd');
    // The address of the one becomes the other's; the second address is given up.
    await proxy.reload([{ ...services[1]!, listen: '127.0.1.1:0' }, { name: 'new', protocol: 'smtp', hostname: 'new.example', backend: { connect: backend.address }, listen: '127.0.1.9:0' }]);
    assert.equal(proxy.port('fd'), port);
    await assert.rejects(PlainClient.connect(gone, goneHost), /ECONNREFUSED/u);
    await waiting.askForTls('smtp');
    const late = await waiting.secure(pool);
    await late.ask('EHLO x\r\n', /^250 /mu);
    await exchange(client);
    const echoed = await tls(proxy, 'fd');
    assert.equal(await echoed.ask('echo', /echo/u), 'echo');
    for (const one of [late, client, echoed]) await one.finish();
    await until(() => proxy.connections().length === 3, { what: 'all to be logged' });
    assert.deepEqual(proxy.connections().map(({ service }) => service).sort(), ['connect', 'connect', 'fd']);
    await proxy.reload(services);
    await proxy.expectBaseline(before);
    await proxy.stop();
  });

  it('reload: the permissions of a UNIX socket are those of the configuration in force', async () => {
    const inside = path.join(tempFolder(), 'in.sock');
    const at = (mode: string): ServiceYaml => ({ ...services[0]!, listen: { address: `unix:${inside}`, mode } });
    const permissions = (): string => (statSync(inside).mode & 0o777).toString(8);
    const proxy = await TestProxy.start(pool, [at('0666')]);
    assert.equal(permissions(), '666');
    await proxy.reload([at('0600')]);
    assert.equal(permissions(), '600');
    await proxy.stop();
  });

  it('reload: who waits for a balancer to speak is served by the service as it was, though that is gone', async () => {
    const proxy = await TestProxy.start(pool, [{ ...services[0]!, name: 'old', proxyFrom: ['127.0.0.0/8'] }]);
    const client = await PlainClient.connect(proxy.port('old'), proxy.host('old'));
    const before = proxy.baseline().proxy.length;
    assert(before > 0);
    await until(() => proxy.baseline().proxy.filter((link) => link.startsWith('socket')).length >= 3, { what: 'the connection to be accepted' });
    await proxy.reload([services[0]!]);
    client.say('PROXY UNKNOWN\r\n');
    await client.hears(/^220 /u);
    client.close();
    await proxy.stop();
  });

  it('a backend behind a relay that gives up control is on its own: the proxy lets go, and the session goes on', async () => {
    const raw = new RawListener(path.join(tempFolder(), 'r.sock'));
    const proxy = await TestProxy.start(pool, [{ name: 'relay', protocol: 'smtp', backend: { fd: raw.path, relay: true } }]);
    const before = proxy.baseline();
    const client = await tls(proxy, 'relay');
    const { localPort } = client.socket;
    const taker = await raw.accept();
    const { message, fds: [plainfd] } = await taker.got();
    const { ctlkey } = message.body as { readonly ctlkey: Uint8Array };
    assert.equal((await taker.ask('taken', { ctlkey })).type, 'reply');
    assert.equal((await taker.ask('detach', { ctlkey })).type, 'reply');
    assert.equal(await taker.next(), 'end');
    assert.equal((await proxy.recordOf('relay', localPort)).ended, 'handed-over');
    sockets.send(plainfd!, Buffer.from('still here'));
    await client.hears(/^still here$/u);
    sockets.close(plainfd!);
    await client.finish();
    taker.close();
    raw.close();
    await proxy.expectBaseline(before);
    await proxy.stop();
  });

  describe('a proxy that relays', () => {
    /** Serves lines; what it has of the pool is up to the test. */
    async function relaying(poolSocket: string, config: object): Promise<{ proxy: TestProxy; process_: Backend; client: TlsClient; release: () => Promise<void> }> {
      const at = path.join(tempFolder(), 'relayed.sock');
      const listening = sockets.unixListen({ path: at, kind: 'seqpacket' });
      const process_ = new Backend({ name: 'backend' }, listening, poolSocket);
      await process_.told('listening');
      const proxy = await TestProxy.start(pool, [{ name: 'relay', protocol: 'imap', backend: { fd: at, relay: true } }], { config: { ...config } });
      const client = await startTls({ port: proxy.port('relay'), host: proxy.host('relay'), protocol: 'imap' }, pool);
      assert.equal(await client.ask('export\n', /\n$/u), exported(client));
      return { proxy, process_, client, release: async () => { await process_.end(); sockets.close(listening); } };
    }
    const exported = ({ socket }: TlsClient): string => `${socket.exportKeyingMaterial(16, 'EXPORTER-handoff', undefined as unknown as Buffer).toString('hex')}\n`;
    const answers = (client: TlsClient, pattern: RegExp): Promise<unknown> => until(async () => pattern.test(await client.ask('export\n', /\n$/u)), { what: `the backend to answer ${String(pattern)}` });

    it('and is stopped: its sessions go on; the backend asks the pool itself, and knows a cut stream', async () => {
      const before = pool.baseline();
      const { proxy, process_, client, release } = await relaying(pool.socket, { drainMs: 100 });
      const { localPort } = client.socket;
      proxy.program.kill('SIGTERM');
      assert.deepEqual(await ended(proxy), { code: 0, signal: null });
      assert.equal((await proxy.recordOf('relay', localPort)).ended, 'handed-over');
      await answers(client, new RegExp(exported(client), 'u'));
      client.close();
      assert.equal(await process_.told('ended'), 'TRUNCATED');
      await release();
      await expectBaseline(pool, before);
    });

    it('and is stopped, with a backend that has no pool: its sessions go on, and the backend is told that it is on its own', async () => {
      const before = pool.baseline();
      const { proxy, process_, client, release } = await relaying(path.join(tempFolder(), 'none'), { drainMs: 100 });
      proxy.program.kill('SIGTERM');
      assert.deepEqual(await ended(proxy), { code: 0, signal: null });
      await answers(client, /^BAD_STATE$/mu);
      client.close();
      assert.equal(await process_.told('ended'), 'SESSION_LOST');
      await release();
      await expectBaseline(pool, before);
    });

    it('and is killed: its sessions go on; the backend asks the pool itself', async () => {
      const before = pool.baseline();
      const { proxy, process_, client, release } = await relaying(pool.socket, {});
      await proxy.kill();
      await answers(client, new RegExp(exported(client), 'u'));
      client.close();
      assert.equal(await process_.told('ended'), 'TRUNCATED');
      await release();
      await expectBaseline(pool, before);
    });

    it('and is killed, with a backend that has no pool: its sessions go on, and their end is not taken for complete', async () => {
      const before = pool.baseline();
      const { proxy, process_, client, release } = await relaying(path.join(tempFolder(), 'none'), {});
      await proxy.kill();
      await answers(client, /^POOL_LOST$/mu);
      client.socket.end();
      assert.equal(await process_.told('ended'), 'POOL_LOST');
      await client.finish();
      await release();
      await expectBaseline(pool, before);
    });
  });

  it('kill -9 of the pool: sessions end, clients are refused in the words of the protocol until it is back, and then served', async () => {
    const proxy = await TestProxy.start(pool, services);
    const client = await tls(proxy, 'connect');
    await exchange(client);
    const { localPort } = client.socket;
    await pool.kill();
    await client.over();
    client.close();
    assert.equal((await proxy.recordOf('connect', localPort)).ended, 'unknown');
    for (const name of ['connect', 'fd']) {
      const refused = await greeted(proxy, name);
      const port = refused.socket.localPort;
      refused.say('EHLO c\r\nSTARTTLS\r\n');
      await refused.ended();
      assert.match(refused.text, /^454 4\.7\.0 [^\r]*\r\n$/mu);
      assert.doesNotMatch(refused.text, /^421/mu, 'one answer, and no other');
      refused.close();
      assert.equal((await proxy.recordOf(name, port)).code, 'POOL_LOST');
    }
    await pool.restart();
    await proxy.said('the pool is back');
    const again = await tls(proxy, 'connect');
    await exchange(again);
    await again.finish();
    await proxy.stop();
  });

  it('a restart of the pool that is quick costs a new client nothing but the wait', async () => {
    const proxy = await TestProxy.start(pool, [{ ...services[0]!, backendMs: 20_000 }]);
    await pool.stop();
    const client = await greeted(proxy, 'connect');
    client.say('EHLO c\r\nSTARTTLS\r\n');
    await pool.restart();
    await client.hears(/^220 2\.0\.0 /mu);
    const secured = await client.secure(pool);
    await exchange(secured);
    await secured.finish();
    await proxy.stop();
  });
});
