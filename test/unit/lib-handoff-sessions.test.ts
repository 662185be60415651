/** Sessions that came over hand-off sockets: who controls them, and what is known of their end. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { mock } from 'node:test';
import { PlainSocket, connectPool, listenForHandoff } from 'libtlspool';
import type { HandoffOptions, Pool, PoolSocket } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import { event, until, within } from '../support/index.js';
import { readSome } from '../support/handoff-wire.js';
import type { RawProxy } from '../support/handoff-wire.js';
import { Handoffs, client, code, isOver, refusalOf } from './handoff-fixture.js';
import { FakePool, key, sessionInfo } from './lib-fake-pool.js';

const counters = { octetsReceived: 0, octetsSent: 0 };

describe('libtlspool: sessions from hand-off sockets', () => {
  const at = new Handoffs();

  describe('a proxy that relays', () => {
    async function relayed(options: Omit<HandoffOptions, 'plain'> = {}): Promise<{ from: RawProxy; inner: OwnedFd; socket: PoolSocket }> {
      const listener = await at.listening(options);
      const from = at.proxy();
      const inner = at.hand(from);
      await at.letGo(from, { relay: true });
      return { from, inner, socket: await at.accepted(listener) };
    }

    it('is asked for keying material and channel bindings', async () => {
      const { from, socket } = await relayed();
      const asked = socket.exportKeyingMaterialAsync(6, 'EXPORTER-x');
      const { message } = await from.got();
      assert(message.type === 'request' && message.op === 'prng');
      from.send({ type: 'reply', op: 'prng', id: message.id, body: { octets: Buffer.from('keying') } });
      assert.equal(String(await asked), 'keying');
      const bindings = socket.channelBindings();
      const second = (await from.got()).message;
      assert(second.type === 'request' && second.op === 'info');
      from.send({ type: 'reply', op: 'info', id: second.id, body: { info: sessionInfo, tlsExporter: Buffer.alloc(32, 7) } });
      assert.deepEqual(await bindings, { tlsExporter: Buffer.alloc(32, 7) });
    });

    it('tells of a truncated stream, even if that comes after the end itself', async () => {
      const { from, inner, socket } = await relayed();
      const failed = event<TlsPoolError>(socket, 'error');
      socket.resume();
      at.endOf(inner);
      // The proxy hears of it and passes it on only now.
      await until(() => isOver((socket as unknown as { _handle: { fd: BorrowedFd } })._handle.fd), { what: 'the end to be there' });
      from.send({ type: 'event', op: 'closed', body: { ctlkey: key(1), how: 'truncated', ...counters } });
      code('TRUNCATED')(await failed);
      assert.equal(await from.next(), 'end', 'with its session the hand-off connection is over');
    });

    it('has five seconds to tell how a session ended whose end was read; after that the stream is not complete', async () => {
      for (const waitedMs of [4_999, 5_000]) {
        at.file = `${at.file}.${waitedMs}`;
        const { from, inner, socket } = await relayed();
        const failed = once(socket, 'error') as Promise<[TlsPoolError]>;
        socket.resume();
        mock.timers.enable({ apis: ['setTimeout'] });
        try {
          at.endOf(inner);
          // The end is read on one of the next turns.
          for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => { setImmediate(resolve); });
          mock.timers.tick(waitedMs);
        } finally {
          mock.timers.reset();
        }
        from.send({ type: 'event', op: 'closed', body: { ctlkey: key(1), how: 'truncated', ...counters } });
        code(waitedMs < 5_000 ? 'TRUNCATED' : 'SESSION_LOST')((await failed)[0]);
      }
    });

    it('tells of a complete stream, also when our own side was ended before', async () => {
      const { from, inner, socket } = await relayed();
      const ended = once(socket, 'end');
      socket.end('bye').resume();
      assert.equal(await readSome(inner), 'bye');
      from.send({ type: 'event', op: 'closed', body: { ctlkey: key(1), how: 'closed', ...counters } });
      at.endOf(inner);
      await within(ended, 'end');
    });

    it('that dies leaves a stream that is not complete', async () => {
      const { from, inner, socket } = await relayed();
      const failed = event<TlsPoolError>(socket, 'error');
      socket.resume();
      from.close();
      at.endOf(inner);
      code('POOL_LOST')(await failed);
    });

    it('that is stopped says so, and the session goes on: nobody can be asked, a half close is complete, and an end is not', async () => {
      for (const [how, name] of [[1, 'end'], [2, 'error']] as const) {
        at.file = `${at.file}.${how}`;
        const { from, inner, socket } = await relayed({ allowHalfOpen: true });
        from.send({ type: 'event', op: 'drain', body: { deadlineMs: 0 } });
        from.close();
        await until(() => socket.channelBindings().then(() => false, (error: unknown) => (error as TlsPoolError).code === 'BAD_STATE' && /was stopped/u.test((error as TlsPoolError).message)), { what: 'the loss to be seen' });
        sockets.send(inner, Buffer.from('still here'));
        assert.equal(String(await event(socket, 'data')), 'still here');
        const ended = event<TlsPoolError | undefined>(socket, name);
        sockets.shutdown(inner, how);
        const error = await ended;
        if (name === 'error') code('SESSION_LOST')(error);
        socket.destroy();
      }
    });

    it('that goes is replaced by the pool, where that gives control, if not at once: it is asked, and tells of the end', async () => {
      const fake = new FakePool().start();
      let attempts = 0;
      fake.handlers.reattach = () => {
        // Of a proxy that was killed it learns later than the backend.
        if (++attempts % 2 === 1) throw new TlsPoolError('CTLKEY_UNKNOWN');
        return { info: sessionInfo };
      };
      fake.handlers.prng = () => ({ octets: Buffer.from('keying') });
      const pool = await connectPool({ path: fake.path });
      at.open.push(() => fake.dispose(), () => { pool.close(); });
      for (const isTold of [true, false]) {
        at.file = `${at.file}.${isTold}`;
        const { from, inner, socket } = await relayed({ reattach: pool });
        const reattached = fake.next('reattach');
        if (isTold) from.send({ type: 'event', op: 'drain', body: { deadlineMs: 0 } });
        from.close();
        const { client: at_ } = await reattached;
        await until(() => socket.exportKeyingMaterialAsync(6, 'EXPORTER-x').then((octets) => octets.toString() === 'keying', () => false), { what: 'the pool to be asked' });
        const failed = event<TlsPoolError>(socket, 'error');
        at_.closed(1, 'truncated');
        socket.resume();
        at.endOf(inner);
        code('TRUNCATED')(await failed);
      }
    });

    it('that goes, where the pool must give control and does not, leaves a stream that is not complete', async () => {
      const fake = new FakePool().start();
      fake.handlers.reattach = () => { throw new TlsPoolError('CTLKEY_UNKNOWN'); };
      const pool = await connectPool({ path: fake.path });
      at.open.push(() => fake.dispose(), () => { pool.close(); });
      const { from, inner, socket } = await relayed({ reattach: pool });
      const reattached = fake.next('reattach');
      from.send({ type: 'event', op: 'drain', body: { deadlineMs: 0 } });
      from.close();
      await reattached;
      const failed = event<TlsPoolError>(socket, 'error');
      socket.resume();
      at.endOf(inner);
      code('POOL_LOST')(await failed);
    });

    it('may tell of the end together with its answer to taken', async () => {
      const listener = await at.listening();
      const from = at.proxy();
      const inner = at.hand(from);
      const { message } = await from.got();
      assert(message.type === 'request');
      from.send({ type: 'reply', op: 'taken', id: message.id, body: { relay: true } });
      from.send({ type: 'event', op: 'closed', body: { ctlkey: key(1), how: 'reset', ...counters } });
      at.endOf(inner);
      const socket = await at.accepted(listener);
      const failed = event<TlsPoolError>(socket, 'error');
      socket.resume();
      code('SESSION_LOST', /reset/u)(await failed);
      assert.equal(await from.next(), 'end');
    });

    it('is told to abort when the socket is destroyed with an error before all was written', async () => {
      const { from, socket } = await relayed();
      socket.on('error', () => undefined);
      socket.destroy(new Error('enough'));
      const { message } = await from.got();
      assert(message.type === 'request' && message.op === 'close');
      assert.equal(message.body.abort, true);
      from.send({ type: 'reply', op: 'close', id: message.id, body: {} });
      from.send({ type: 'event', op: 'closed', body: { ctlkey: key(1), how: 'closed', ...counters } });
      assert.equal(await from.next(), 'end');
    });
  });

  describe('a proxy that leaves', () => {
    let fake: FakePool;
    let pool: Pool;
    beforeEach(async () => {
      fake = new FakePool().start();
      fake.handlers.reattach = () => ({ info: { ...sessionInfo, authorized: true } });
      pool = await connectPool({ path: fake.path });
      at.open.push(() => fake.dispose(), () => { pool.close(); });
    });

    async function left(options: Omit<HandoffOptions, 'plain'>): Promise<{ inner: OwnedFd; socket: PoolSocket }> {
      at.file = `${at.file}.next`;
      const listener = await at.listening(options);
      const from = at.proxy();
      const inner = at.hand(from);
      await at.letGo(from, {});
      return { inner, socket: await at.accepted(listener) };
    }

    it('the pool gives control; what it says of the session counts, but the client\'s address is the proxy\'s word', async () => {
      const reattached = fake.next('reattach');
      const { socket } = await left({ reattach: pool });
      assert.deepEqual(Buffer.from(((await reattached).message.body as { ctlkey: Uint8Array }).ctlkey), key(1));
      assert.equal(socket.authorized, true);
      assert.equal(socket.remoteAddress, '203.0.113.9');
      fake.handlers.prng = () => ({ octets: Buffer.from('keying') });
      assert.equal(String(await socket.exportKeyingMaterialAsync(6, 'EXPORTER-x')), 'keying');
    });

    it('the pool tells of a truncated stream, and of a complete one', async () => {
      for (const [how, name] of [['truncated', 'error'], ['closed', 'end']] as const) {
        const reattached = fake.next('reattach');
        const { inner, socket } = await left({ reattach: pool });
        const told = event<TlsPoolError | undefined>(socket, name);
        socket.end().resume();
        (await reattached).client.closed(1, how);
        at.endOf(inner);
        const error = await told;
        if (name === 'error') code('TRUNCATED')(error);
        socket.destroy();
      }
    });

    it('a session that ended before it was accepted, right behind the reply, is known to be truncated', async () => {
      fake.handlers.reattach = ({ client: from, message }) => {
        assert(message.type === 'request');
        from.send({ type: 'reply', op: 'reattach', id: message.id, body: { info: sessionInfo } });
        from.closed(1, 'truncated');
        return undefined;
      };
      const { inner, socket } = await left({ reattach: pool });
      const failed = event<TlsPoolError>(socket, 'error');
      at.endOf(inner);
      socket.resume();
      code('TRUNCATED')(await failed);
    });

    it('by default the pool of this process is asked, and without one the session is served all the same', async () => {
      const { inner, socket } = await left({});
      sockets.send(inner, Buffer.from('hello'));
      assert.equal(String(await event(socket, 'data')), 'hello');
      await assert.rejects(socket.exportKeyingMaterialAsync(6, 'EXPORTER-x'), code('BAD_STATE', /no control.*no pool answers/u));
      assert.throws(() => socket.exportKeyingMaterial(6, 'EXPORTER-x'), code('BAD_STATE'));
    });

    it('reattach: false asks nobody', async () => {
      const { socket } = await left({ reattach: false });
      await assert.rejects(socket.channelBindings(), code('BAD_STATE', /reattach is false/u));
      assert(!fake.seen.some(({ message }) => message.op === 'reattach'));
    });

    it('without anybody\'s word a half close is complete, an end is not', async () => {
      const half = await left({ reattach: false });
      sockets.send(half.inner, Buffer.from('all of it'));
      sockets.shutdown(half.inner, 1);
      const ended = once(half.socket, 'end');
      half.socket.resume();
      await within(ended, 'end');
      const whole = await left({ reattach: false });
      const failed = event<TlsPoolError>(whole.socket, 'error');
      whole.socket.resume();
      at.endOf(whole.inner);
      code('SESSION_LOST', /nobody told/u)(await failed);
    });

    it('without anybody\'s word the end that follows our own is not complete either, and does not hang', async () => {
      const { inner, socket } = await left({ reattach: false });
      const failed = event<TlsPoolError>(socket, 'error');
      socket.end('bye').resume();
      assert.equal(await readSome(inner), 'bye');
      at.endOf(inner);
      code('SESSION_LOST', /nobody told/u)(await failed);
    });

    for (const [what, option] of [['true', (): true => true], ['a Pool', (): Pool => pool]] as const) {
      it(`reattach: ${what} refuses the connection when the pool gives no control`, async () => {
        fake.handlers.reattach = () => { throw new TlsPoolError('CTLKEY_UNKNOWN'); };
        const listener = await at.listening({ reattach: option() });
        const refused = refusalOf(listener);
        const from = at.proxy();
        const inner = at.hand(from);
        await at.letGo(from, {});
        code(what === 'true' ? 'POOL_UNREACHABLE' : 'CTLKEY_UNKNOWN')(await refused);
        await until(() => isOver(inner), { what: 'the connection to be closed' });
      });
    }
  });

  describe('without TLS', () => {
    async function connected(): Promise<[net.Socket, OwnedFd]> {
      const server = sockets.tcpListen({ host: '127.0.0.1', port: 0 });
      const peer = net.connect((sockets.socketInfo(server).local?.port ?? 0), '127.0.0.1');
      await once(peer, 'connect');
      const fd = await until(() => sockets.accept(server) ?? undefined, { what: 'the connection' });
      sockets.close(server);
      at.open.push(() => peer.destroy());
      return [peer, fd];
    }

    it('with `plain` the client\'s own socket comes, what went ahead is read first, and it does not look like TLS', async () => {
      const listener = await listenForHandoff({ path: at.file, plain: true });
      at.open.push(() => listener.close());
      const [peer, fd] = await connected();
      const from = at.proxy();
      from.send({ type: 'event', op: 'plainConnection', body: { preamble: { protocol: 'imap', tls: false }, remote: client, ahead: Buffer.from('a1 LOGIN ') } }, [fd]);
      sockets.close(fd);
      peer.write('alice secret\r\n');
      const { message } = await from.got();
      assert(message.type === 'request' && message.op === 'taken');
      assert.deepEqual(message.body, {});
      from.send({ type: 'reply', op: 'taken', id: message.id, body: {} });
      const socket = await at.accepted(listener);
      assert(socket instanceof PlainSocket);
      assert.equal(socket.encrypted, false);
      assert.deepEqual(socket.preamble, { protocol: 'imap', tls: false });
      assert.equal(socket.remoteAddress, '203.0.113.9');
      let text = '';
      socket.setEncoding('latin1').on('data', (chunk: string) => { text += chunk; });
      await until(() => text === 'a1 LOGIN alice secret\r\n', { what: 'the whole command', context: () => text });
      socket.end('a1 OK\r\n');
      assert.equal(String(await event(peer, 'data')), 'a1 OK\r\n');
    });
  });
});
