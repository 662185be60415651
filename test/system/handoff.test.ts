/** Connections handed over by descriptor: a real pool, the proxy's own code in this process, backends in processes of their own. */
import assert from 'node:assert/strict';
import { chmodSync, readFileSync, readlinkSync } from 'node:fs';
import path from 'node:path';
import { connectPool, listenForHandoff } from 'libtlspool';
import type { Pool } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import type { EventBody } from 'libtlspool/protocol';
import { protectFd } from 'libtlspool/session';
import { HandoffOffer } from 'tlspool-proxy/dist/handoff/fd.js';
import type { HandedOver, SecuredConnection } from 'tlspool-proxy/dist/handoff/types.js';
import { descriptors, event, expectBaseline, fdCount, needProgram, run, startPool, tempFolder, until, within } from '../support/index.js';
import { Backend, LineClient } from '../support/handoff-ends.js';
import { RawListener } from '../support/handoff-wire.js';
import type { Baseline, TestPool } from '../support/index.js';

const nobody = 65_534;
const code = (wanted: string, text = /(?:)/u) => (error: unknown): boolean => {
  assert(error instanceof TlsPoolError, String(error));
  assert.equal(error.code, wanted, error.message);
  assert.match(error.message, text);
  return true;
};

describe('hand-over by descriptor', function () {
  this.timeout(60_000);
  let pool: TestPool;
  let baseline: Baseline;
  let link: Pool;
  let ca: Buffer;
  let port: number;
  let tcp: OwnedFd;
  let file: string;
  let listening: OwnedFd;
  let backends: Backend[];
  let clients: LineClient[];
  let ours: number;

  before(async () => {
    pool = await startPool();
    ca = readFileSync(pool.caFile);
    link = await connectPool({ path: pool.socket });
    tcp = sockets.tcpListen({ host: '127.0.0.1', port: 0 });
    port = sockets.socketInfo(tcp).local?.port ?? 0;
    baseline = pool.baseline();
  });
  after(async () => {
    link.close();
    sockets.close(tcp);
    await pool.stop();
  });
  beforeEach(() => {
    backends = [];
    clients = [];
    ours = fdCount(process.pid);
    file = path.join(tempFolder(), 'backend.sock');
    listening = sockets.unixListen({ path: file, kind: 'seqpacket' });
  });
  afterEach(async () => {
    for (const { socket } of clients) socket.destroy();
    for (const backend of backends) await backend.end();
    sockets.close(listening);
    await expectBaseline(pool, baseline);
    await until(() => fdCount(process.pid) <= ours, { what: 'the descriptors of the proxy to be back at the baseline' });
  });

  /** A backend that shares the hand-off socket. It has no pool to go to unless the test says so. */
  async function backend(options: object = {}, at = `${file}.none`): Promise<Backend> {
    const made = new Backend({ name: 'backend', ...options }, listening, at);
    backends.push(made);
    await made.told('listening');
    return made;
  }

  /** A client whose handshake the pool has done. */
  async function secured(onServername?: Parameters<typeof protectFd>[2]['onServername']): Promise<{ client: LineClient; connection: SecuredConnection & { readonly plainfd: OwnedFd }; cryptfd: string }> {
    const client = new LineClient(port, ca);
    clients.push(client);
    const cryptfd = await until(() => sockets.accept(tcp) ?? undefined, { what: 'the client' });
    const link_ = readlinkSync(`/proc/self/fd/${cryptfd}`);
    const { ready } = client;
    let end: (closed: EventBody<'closed'> | undefined) => void = () => undefined;
    const closed = new Promise<EventBody<'closed'> | undefined>((resolve) => { end = resolve; });
    const session = await protectFd(link, cryptfd, {
      role: 'server', localid: 'localhost', ...(onServername === undefined ? {} : { onServername }), onClosed: (how) => end(how instanceof TlsPoolError ? undefined : how),
    });
    await ready;
    const connection: SecuredConnection & { readonly plainfd: OwnedFd } = {
      ctlkey: session.ctlkey, info: session.info, plainfd: session.plainfd as OwnedFd, protocol: 'imap', state: undefined,
      remote: { family: 'IPv4', address: '203.0.113.9', port: 4711 }, local: undefined, closed,
      request: (op, body) => session.request(op, body),
      detach: async () => { await session.detach(); end(undefined); },
    };
    return { client, connection, cryptfd: link_ };
  }

  const offer = (relay: boolean, deadlineMs = 10_000): Promise<HandoffOffer> => HandoffOffer.connect({ handoff: 'fd', path: file, relay, checkServername: false }, { deadlineMs });

  /** As the proxy does it; the descriptor is closed when the backend has it. */
  async function handOver(connection: SecuredConnection & { readonly plainfd: OwnedFd }, relay: boolean): Promise<HandedOver> {
    const handed = await (await offer(relay)).give(connection);
    sockets.close(connection.plainfd);
    return handed;
  }

  async function served(relay: boolean): Promise<{ client: LineClient; handed: HandedOver; connection: SecuredConnection }> {
    const { client, connection } = await secured();
    return { client, connection, handed: await handOver(connection, relay) };
  }

  /** After a failure: last words, then the end, whatever copies there are. */
  function turnAway({ plainfd }: { readonly plainfd: OwnedFd }): void {
    sockets.send(plainfd, Buffer.from('* BYE\n'));
    sockets.shutdown(plainfd, 2);
    sockets.close(plainfd);
  }

  describe('without relay', () => {
    it('the proxy holds no descriptor of the connection once it is taken, and the connection goes on', async () => {
      await backend({}, pool.socket);
      const { client, connection, cryptfd } = await secured();
      const plainfd = readlinkSync(`/proc/self/fd/${connection.plainfd}`);
      assert([...descriptors(process.pid).values()].includes(plainfd));
      const before = fdCount(process.pid);
      const handed = await handOver(connection, false);
      assert.equal(handed.followed, false);
      await handed.done;
      const left = [...descriptors(process.pid).values()];
      assert(!left.includes(plainfd) && !left.includes(cryptfd));
      assert.equal(left.length, before - 1);
      assert.equal(await client.say('who'), 'backend');
      assert.equal(await client.say('peer'), '203.0.113.9 imap');
    });

    it('the backend reattaches at the pool: it exports what the client exports, and knows a cut stream from a complete one', async () => {
      const process_ = await backend({}, pool.socket);
      const cut = await served(false);
      assert.equal(await cut.client.say('export'), cut.client.exported);
      cut.client.cut();
      assert.equal(await process_.told('ended'), 'TRUNCATED');
      const whole = await served(false);
      assert.equal(await whole.client.say('who'), 'backend');
      whole.client.socket.end();
      assert.equal(await process_.told('ended'), 'end');
    });

    it('a backend without access to the pool serves, cannot ask, and takes no end for complete that it cannot know of', async () => {
      const process_ = await backend();
      const { client } = await served(false);
      assert.equal(await client.say('who'), 'backend');
      assert.equal(await client.say('export'), 'BAD_STATE');
      client.cut();
      assert.equal(await process_.told('ended'), 'SESSION_LOST');
    });

    it('a user whom the pool does not serve is such a backend, one with reattach true refuses the connection', async () => {
      for (const folder of [path.dirname(file), path.dirname(pool.socket)]) chmodSync(folder, 0o755);
      const soft = await backend({ uid: nobody }, pool.socket);
      const { client } = await served(false);
      assert.equal(await client.say('export'), 'BAD_STATE');
      await soft.end();
      const strict = await backend({ uid: nobody, reattach: true }, pool.socket);
      const second = await secured();
      await handOver(second.connection, false);
      assert.match(await strict.told('refused'), /^(?:NOT_PERMITTED|POOL_UNREACHABLE)$/u);
      await second.client.closed;
    });

    it('the backend outlives the proxy\'s connection to the pool', async () => {
      await backend({}, pool.socket);
      const other = await connectPool({ path: pool.socket });
      const kept = link;
      link = other;
      const { client } = await served(false);
      link = kept;
      other.close();
      assert.equal(await client.say('who'), 'backend');
    });

    it('processes that have the same socket share the work', async () => {
      await backend({ name: 'first' });
      await backend({ name: 'second' });
      const tally = new Map<string, number>();
      // Which of the two accepts is the kernel's choice: both must, sooner or later.
      await until(async () => {
        const names = await Promise.all(Array.from({ length: 10 }, async () => {
          const { client } = await served(false);
          const name = await client.say('who');
          client.socket.destroy();
          return name;
        }));
        for (const name of names) tally.set(name, (tally.get(name) ?? 0) + 1);
        return tally.has('first') && tally.has('second');
      }, { what: 'both to serve', deadlineMs: 30_000, context: () => JSON.stringify([...tally]) });
      assert.deepEqual([...tally.keys()].sort(), ['first', 'second']);
    });

    it('after 300 hand-overs, twenty at a time, the descriptors of pool, proxy and backend are at the baseline', async () => {
      const process_ = await backend({}, pool.socket);
      await (async () => { const { client } = await served(false); await client.say('who'); client.socket.destroy(); await client.closed; })();
      const settled = await until(() => { const now = fdCount(process_.pid); return now; }, { what: 'the backend' });
      for (let round = 0; round < 15; round++) {
        await Promise.all(Array.from({ length: 20 }, async () => {
          const { client } = await served(round % 2 === 0);
          assert.equal(await client.say('who'), 'backend');
          client.socket.end();
          await client.closed;
        }));
      }
      await until(() => fdCount(process_.pid) <= settled, { what: 'the backend to be at its baseline', context: () => `${settled} -> ${fdCount(process_.pid)}` });
    });
  });

  describe('with relay', () => {
    it('a backend without access to the pool asks through the proxy, and knows a cut stream from a complete one', async () => {
      for (const folder of [path.dirname(file), path.dirname(pool.socket)]) chmodSync(folder, 0o755);
      const process_ = await backend({ uid: nobody }, pool.socket);
      const cut = await served(true);
      assert.equal(cut.handed.followed, true);
      assert.equal(await cut.client.say('export'), cut.client.exported);
      cut.client.cut();
      assert.equal(await process_.told('ended'), 'TRUNCATED');
      await within(cut.handed.done, 'the relay to be done');
      const whole = await served(true);
      assert.equal(await whole.client.say('who'), 'backend');
      whole.client.socket.end();
      assert.equal(await process_.told('ended'), 'end');
      await within(whole.handed.done, 'the relay to be done');
    });

    it('a backend that releases its session has the proxy detach it and leave, and whoever has access to the pool goes on', async () => {
      const { client, connection } = await secured();
      const listener = await listenForHandoff({ path: `${file}.inside` });
      const inside = await HandoffOffer.connect({ handoff: 'fd', path: `${file}.inside`, relay: true, checkServername: false }, { deadlineMs: 10_000 });
      const [{ done }, socket] = await Promise.all([inside.give(connection), listener.accept()]);
      sockets.close(connection.plainfd);
      const { fd, ctlkey } = await socket.release();
      await within(done, 'the relay to be done');
      const next = await link.reattach(ctlkey, fd);
      next.once('data', () => { next.write('still here\n'); });
      assert.equal(await client.say('who'), 'still here');
      assert.equal((await next.exportKeyingMaterialAsync(16, 'EXPORTER-handoff')).toString('hex'), client.exported);
      next.destroy();
      await listener.close();
    });

    it('a connection that the backend ends first is complete for both', async () => {
      const process_ = await backend();
      const { client, handed } = await served(true);
      assert.equal(await client.say('end'), 'bye');
      client.socket.end();
      assert.equal(await process_.told('ended'), 'end');
      await within(handed.done, 'the relay to be done');
    });

    it('a request about a session of another backend is refused, and that session goes on', async () => {
      await backend();
      const other = await served(true);
      const { connection, client } = await secured();
      const raw = new RawListener(`${file}.raw`);
      const mine = await HandoffOffer.connect({ handoff: 'fd', path: raw.path, relay: true, checkServername: false }, { deadlineMs: 10_000 });
      const given = mine.give(connection);
      const probe = await raw.accept();
      const { fds } = await probe.got();
      assert.equal((await probe.ask('taken', { ctlkey: connection.ctlkey })).type, 'reply');
      const { done } = await given;
      sockets.close(connection.plainfd);
      const foreign = other.connection.ctlkey;
      for (const [op, more] of [['close', { abort: true }], ['detach', {}], ['info', {}], ['prng', { label: 'EXPORTER-x', length: 16 }]] as const) {
        assert.equal(((await probe.ask(op, { ctlkey: foreign, ...more })).body as { code?: string }).code, 'CTLKEY_UNKNOWN', op);
      }
      assert.equal((await probe.ask('info', { ctlkey: connection.ctlkey })).type, 'reply');
      assert.equal(await other.client.say('who'), 'backend');
      // Hanging up ends the session, although the descriptor is open still.
      probe.close();
      await within(done, 'the relay to be done');
      await client.closed;
      raw.close();
      for (const fd of fds) sockets.close(fd);
    });

    it('a backend that is killed ends its sessions, and the proxy is done with them', async () => {
      const process_ = await backend();
      const { client, handed } = await served(true);
      await process_.end();
      await within(handed.done, 'the relay to be done');
      await client.closed;
    });
  });

  describe('a backend that dies', () => {
    it('before it accepts: BACKEND_FAILED, and the client hears the proxy\'s last words', async () => {
      const process_ = await backend();
      process_.signal('SIGSTOP');
      const { client, connection } = await secured();
      const given = assert.rejects((await offer(true, 300)).give(connection), code('BACKEND_FAILED', /within 300 ms/u));
      await given;
      turnAway(connection);
      await client.closed;
      assert.equal(client.text, '* BYE\n');
    });

    it('before it accepts, with the socket gone: BACKEND_FAILED at once', async () => {
      const alone = path.join(tempFolder(), 'alone.sock');
      const process_ = new Backend({ name: 'alone', fd: undefined, path: alone }, listening, `${file}.none`);
      backends.push(process_);
      await process_.told('listening');
      await process_.end();
      await assert.rejects(HandoffOffer.connect({ handoff: 'fd', path: alone, relay: false, checkServername: false }, { deadlineMs: 10_000 }), code('BACKEND_FAILED', /ECONNREFUSED/u));
    });

    for (const relay of [true, false]) {
      it(`between the connection and taken, ${relay ? 'with' : 'without'} relay: BACKEND_FAILED, and the client hears the proxy's last words`, async () => {
        const process_ = await backend({ stall: true });
        const { client, connection } = await secured();
        const failed = assert.rejects((await offer(relay)).give(connection), code('BACKEND_FAILED', /hung up/u));
        await process_.told('stalled');
        await process_.end();
        await failed;
        turnAway(connection);
        await client.closed;
        assert.equal(client.text, '* BYE\n');
      });
    }

    it('one that hangs with a copy of the descriptor does not keep the client from being turned away', async () => {
      const process_ = await backend({ stall: true });
      const { client, connection } = await secured();
      const failed = assert.rejects((await offer(false, 200)).give(connection), code('BACKEND_FAILED', /within 200 ms/u));
      await process_.told('stalled');
      await failed;
      turnAway(connection);
      await client.closed;
      assert.equal(client.text, '* BYE\n');
    });

    it('after taken: the client sees the end of its connection', async () => {
      const process_ = await backend({}, pool.socket);
      const { client } = await served(false);
      assert.equal(await client.say('who'), 'backend');
      await process_.end();
      await client.closed;
    });
  });

  describe('server names', () => {
    it('the backend decides over the name during the handshake, and gets the connection over the same hand-off connection', async () => {
      await backend({ serve: 'localhost' });
      const asked = await offer(false);
      const { client, connection } = await secured((hello) => asked.ask(hello));
      await asked.give(connection);
      sockets.close(connection.plainfd);
      assert.equal(await client.say('who'), 'backend');
    });

    it('a name that the backend refuses is refused to the client', async () => {
      await backend({ serve: 'other.example' });
      const asked = await offer(false);
      const client = new LineClient(port, ca);
      clients.push(client);
      const fd = await until(() => sockets.accept(tcp) ?? undefined, { what: 'the client' });
      await assert.rejects(protectFd(link, fd, { role: 'server', onServername: (hello) => asked.ask(hello) }), code('NAME_REFUSED'));
      asked.close();
      await client.closed;
    });
  });

  it('a process of a user that is not allowed is hung up on before it is heard', async () => {
    const open = path.join(tempFolder(), 'open.sock');
    chmodSync(path.dirname(open), 0o755);
    const knock = `import os, socket; os.setgroups([]); os.setgid(${nobody}); os.setuid(${nobody}); s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect('${open}'); s.settimeout(10); print('answered', len(s.recv(100)))`;
    for (const [allow, wanted] of [[[0], 'NOT_PERMITTED'], [[nobody], 'POOL_LOST']] as const) {
      const listener = await listenForHandoff({ path: open, mode: 0o666, allow });
      const refused = event<TlsPoolError>(listener, 'refused');
      // With permission it is heard, and what it says makes no sense.
      const script = wanted === 'POOL_LOST' ? knock.replace('s.settimeout', "s.send(b'x'); s.settimeout") : knock;
      const { stdout } = await run(needProgram('python3', 'python3'), ['-c', script]);
      assert.equal(stdout.trim(), 'answered 0');
      assert.equal((await refused).code, wanted);
      await listener.close();
    }
  });
});
