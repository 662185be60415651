/** The backend's end of hand-off sockets: who may hand over, and what is taken. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import fs from 'node:fs';
import { mock } from 'node:test';
import { PoolSocket, listenForHandoff } from 'libtlspool';
import type { HandoffListener, HandoffOptions } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { TlsPoolError, highestMaxMessageOctets } from 'libtlspool/protocol';
import { descriptors, event, until } from '../support/index.js';
import { RawProxy, readSome } from '../support/handoff-wire.js';
import { Handoffs, client, code, isOver, refusalOf } from './handoff-fixture.js';
import { key, sessionInfo } from './lib-fake-pool.js';

describe('libtlspool: hand-off sockets', () => {
  const at = new Handoffs();

  describe('taking', () => {
    it('a connection is accepted once the proxy has answered taken, and not before', async () => {
      const listener = await at.listening();
      const from = at.proxy();
      const inner = at.hand(from, 1, { preamble: { protocol: 'mysql', tls: true, state: Buffer.from('greeting') } });
      let isAccepted = false;
      const waiting = at.accepted(listener).then((socket) => { isAccepted = true; return socket; });
      const { message } = await from.got();
      assert(message.type === 'request' && message.op === 'taken');
      assert.equal(isAccepted, false);
      from.send({ type: 'reply', op: 'taken', id: message.id, body: {} });
      const socket = await waiting;
      assert(socket instanceof PoolSocket);
      assert.deepEqual(socket.preamble, { protocol: 'mysql', tls: true, state: Buffer.from('greeting') });
      assert.equal(socket.encrypted, true);
      assert.equal(socket.remoteAddress, '203.0.113.9');
      assert.deepEqual(Buffer.from(socket.ctlkey), key(1));
      sockets.send(inner, Buffer.from('hello'));
      assert.equal(String(await event(socket, 'data')), 'hello');
      socket.write('world');
      assert.equal(await readSome(inner), 'world');
      assert.equal(await from.next(), 'end', 'without relay the hand-off connection is closed');
    });

    it('connections come in the order in which they became ready, and for await ends when the listener is closed', async () => {
      const listener = await at.listening();
      const [first, second] = [at.proxy(), at.proxy()];
      at.hand(first, 1);
      at.hand(second, 2);
      await at.letGo(second, {}, 2);
      await at.letGo(first, {}, 1);
      const seen: number[] = [];
      for await (const socket of listener) {
        seen.push(socket.ctlkey[0] ?? 0);
        socket.destroy();
        if (seen.length === 2) await listener.close();
      }
      assert.deepEqual(seen, [2, 1]);
    });

    it('a proxy that dies before it has answered keeps the connection: nothing is accepted, and our copy is closed', async () => {
      const listener = await at.listening();
      const from = at.proxy();
      const inner = at.hand(from);
      const refused = refusalOf(listener);
      await from.got();
      from.close();
      code('POOL_LOST', /did not let go/u)(await refused);
      assert(isOver(inner));
    });

    it('a proxy that answers with an error keeps the connection', async () => {
      const listener = await at.listening();
      const from = at.proxy();
      const inner = at.hand(from);
      const refused = refusalOf(listener);
      const { message } = await from.got();
      assert(message.type === 'request');
      from.send({ type: 'error', op: 'taken', id: message.id, body: { code: 'BAD_STATE', text: 'too late' } });
      code('BAD_STATE', /too late/u)(await refused);
      assert.equal(await from.next(), 'end');
      assert(isOver(inner));
    });

    it('what nobody accepts waits up to highWaterMark; the rest stays in the kernel for others', async () => {
      const listener = await at.listening({ highWaterMark: 2 });
      const proxies = [1, 2, 3].map((n) => { const from = at.proxy(); at.hand(from, n); return from; });
      for (const n of [0, 1]) await at.letGo(proxies[n] as RawProxy, {}, n + 1);
      for (const n of [0, 1]) assert.equal(await (proxies[n] as RawProxy).next(), 'end');
      // Somebody else who shares the socket would get the third: its packet lies there unread.
      assert.equal(sockets.receive((proxies[2] as RawProxy).fd, 1000, 0), null);
      assert.equal((await at.accepted(listener)).ctlkey[0], 1);
      await at.letGo(proxies[2] as RawProxy, {}, 3);
      assert.equal((await at.accepted(listener)).ctlkey[0], 2);
      assert.equal((await at.accepted(listener)).ctlkey[0], 3);
    });

    it('a proxy that waits for a handshake keeps nobody away', async () => {
      const listener = await at.listening({ highWaterMark: 1, onServername: () => true });
      const asking = Array.from({ length: 20 }, () => at.proxy());
      for (const from of asking) {
        from.send({ type: 'callback', op: 'servername', id: 1, body: { alpn: [] } });
        assert.equal((await from.got()).message.type, 'answer');
      }
      const [last] = asking as [RawProxy];
      at.hand(last);
      await at.letGo(last, {});
      await at.accepted(listener);
    });

    it('close() gives back what is under way, closes what nobody accepted, rejects accept() and removes the path', async () => {
      const listener = await at.listening();
      const [ready, underWay] = [at.proxy(), at.proxy()];
      const first = at.hand(ready, 1);
      await at.letGo(ready, {}, 1);
      assert.equal(await ready.next(), 'end');
      at.hand(underWay, 2);
      await underWay.got();
      await listener.close();
      await assert.rejects(listener.accept(), code('LISTENER_CLOSED'));
      assert.equal(await underWay.next(), 'end');
      await until(() => isOver(first), { what: 'the connection that nobody accepted to be closed' });
      assert.equal(fs.existsSync(at.file), false);
      assert.equal(listener.address(), null);
      await listener.close();
    });

    it('a proxy that hands nothing over is hung up on after offerMs, one that just leaves is forgotten', async () => {
      const listener = await at.listening({ offerMs: 30 });
      const refused = refusalOf(listener);
      const from = at.proxy();
      code('TIMEOUT', /within 30 ms/u)(await refused);
      assert.equal(await from.next(), 'end');
      const open_ = descriptors(process.pid).size;
      RawProxy.to(at.file).close();
      at.hand(at.proxy(), 1);
      await until(() => descriptors(process.pid).size >= open_, { what: 'the next connection to be looked at' });
    });

    it('a process without a descriptor to spare says so, and accepts when it has one again', async () => {
      const listener = await at.listening();
      const refused = refusalOf(listener);
      const accept = mock.method(sockets, 'accept', () => { throw new TlsPoolError('SYSTEM', { text: 'accept4: EMFILE', errno: -24, syscall: 'accept4' }); }, { times: 1 });
      const from = at.proxy();
      at.hand(from);
      code('SYSTEM', /EMFILE/u)(await refused);
      accept.mock.restore();
      await at.letGo(from, {});
      await at.accepted(listener);
    });

    it('a process that has no descriptor left to watch with hangs up on the proxy and says so; one that begins to listen rejects; nothing is kept', async () => {
      const listener = await at.listening();
      const refused = refusalOf(listener);
      const before = descriptors(process.pid).size;
      const from = RawProxy.to(at.file);
      const poll = mock.method(sockets, 'poll', () => { throw new TlsPoolError('SYSTEM', { text: 'fcntl: EMFILE', errno: -24, syscall: 'fcntl' }); });
      try {
        code('SYSTEM', /EMFILE/u)(await refused);
        await assert.rejects(listenForHandoff({ path: `${at.file}.more` }), code('SYSTEM', /EMFILE/u));
      } finally {
        poll.mock.restore();
      }
      assert.equal(fs.existsSync(`${at.file}.more`), false);
      assert.equal(await from.next(), 'end');
      from.close();
      assert.equal(descriptors(process.pid).size, before);
    });

    it('after 300 hand-overs the descriptors are at the baseline', async () => {
      const listener = await at.listening();
      const open_ = descriptors(process.pid).size;
      for (let n = 0; n < 300; n++) {
        const from = RawProxy.to(at.file);
        const inner = at.hand(from);
        const socket = listener.accept();
        await at.letGo(from, {});
        const closed = once(await socket, 'close');
        (await socket).destroy();
        await closed;
        from.close();
        at.endOf(inner);
      }
      await until(() => descriptors(process.pid).size <= open_, { what: 'descriptors to be back at the baseline' });
    });
  });

  describe('what a proxy must not send', () => {
    const refusals: [what: string, send: (to: RawProxy) => void, wanted: string][] = [
      ['garbage', (to) => to.sendRaw(Buffer.from('not msgpack')), 'POOL_LOST'],
      ['a packet of one octet more than the limit', (to) => to.sendRaw(Buffer.alloc(highestMaxMessageOctets + 1)), 'POOL_LOST'],
      ['a connection with two descriptors', (to) => to.send({ type: 'event', op: 'connection', body: { listener: 0, ctlkey: key(1), info: sessionInfo } }, [to.fd, to.fd]), 'POOL_LOST'],
      ['a connection without a descriptor', (to) => to.send({ type: 'event', op: 'connection', body: { listener: 0, ctlkey: key(1), info: sessionInfo } }), 'FD_COUNT'],
      ['a socket of packets as plain-text side', (to) => to.send({ type: 'event', op: 'connection', body: { listener: 0, ctlkey: key(1), info: sessionInfo } }, [to.fd]), 'FD_KIND'],
      ['a connection without TLS', (to) => to.send({ type: 'event', op: 'plainConnection', body: { preamble: { protocol: 'imap', tls: false } } }, [to.fd]), 'NOT_PERMITTED'],
    ];
    for (const [what, send, wanted] of refusals) {
      it(`${what}: the proxy is hung up on, and the next one is served`, async () => {
        const listener = await at.listening();
        const refused = refusalOf(listener);
        const from = at.proxy();
        send(from);
        code(wanted)(await refused);
        assert.equal(await from.next(), 'end');
        const next = at.proxy();
        at.hand(next);
        await at.letGo(next, {});
        await at.accepted(listener);
      });
    }

    it('a second connection on one hand-off connection ends it, and neither is accepted', async () => {
      const listener = await at.listening();
      const refused = refusalOf(listener);
      const from = at.proxy();
      const [first, second] = [at.hand(from, 1), at.hand(from, 2)];
      code('POOL_LOST')(await refused);
      await until(() => isOver(first) && isOver(second), { what: 'both to be closed' });
    });

    it('a file and a listening socket are no plain-text side', async () => {
      const listener = await at.listening();
      const quiet = fs.openSync('/dev/null', 'r') as OwnedFd;
      const server = sockets.unixListen({ path: `${at.file}.other`, kind: 'stream' });
      for (const fd of [quiet, server]) {
        const refused = refusalOf(listener);
        at.proxy().send({ type: 'event', op: 'connection', body: { listener: 0, ctlkey: key(1), info: sessionInfo } }, [fd]);
        code('FD_KIND')(await refused);
        sockets.close(fd);
      }
    });
  });

  describe('who may hand over', () => {
    it('a user that is not in allow is refused before anything is read, one that is may', async () => {
      const strict = await at.listening({ allow: [65_534] });
      const refused = refusalOf(strict);
      const from = at.proxy();
      code('NOT_PERMITTED', new RegExp(`process ${process.pid} of user ${process.getuid?.() ?? 0}`, 'u'))(await refused);
      assert.equal(await from.next(), 'end');
      await strict.close();
      const listener = await at.listening({ allow: [65_534, process.geteuid?.() ?? 0] });
      const next = at.proxy();
      at.hand(next);
      await at.letGo(next, {});
      await at.accepted(listener);
    });

    it('the path is for our own user alone, and for everybody with allow, which decides then', async () => {
      const listener = await at.listening();
      assert.equal(fs.statSync(at.file).mode & 0o777, 0o600);
      await listener.close();
      await at.listening({ allow: [0] });
      assert.equal(fs.statSync(at.file).mode & 0o777, 0o666);
    });

    it('a path that a killed process left behind is taken over; one that is served is EADDRINUSE, as is a file', async () => {
      sockets.close(sockets.unixListen({ path: at.file, kind: 'seqpacket' }));
      const listener = await at.listening();
      assert.equal(listener.address(), at.file);
      await assert.rejects(listenForHandoff({ path: at.file }), code('SYSTEM', /EADDRINUSE/u));
      fs.writeFileSync(`${at.file}.txt`, 'mine');
      await assert.rejects(listenForHandoff({ path: `${at.file}.txt` }), code('SYSTEM', /EADDRINUSE/u));
      assert.equal(fs.readFileSync(`${at.file}.txt`, 'utf8'), 'mine');
    });

    it('an inherited socket is taken when it is a listening UNIX seqpacket socket', async () => {
      const listener = await at.listening({ fd: sockets.unixListen({ path: at.file, kind: 'seqpacket' }) });
      assert.equal(listener.address(), at.file);
      const from = at.proxy();
      at.hand(from);
      await at.letGo(from, {});
      await at.accepted(listener);
      await assert.rejects(listenForHandoff({ fd: sockets.unixListen({ path: `${at.file}.stream`, kind: 'stream' }) }), code('FD_KIND'));
      const [left, right] = sockets.socketpair('seqpacket');
      sockets.close(left);
      await assert.rejects(listenForHandoff({ fd: right }), code('FD_KIND'));
    });

    it('options out of range are BAD_ARGUMENT, and a descriptor that came with them is closed', async () => {
      for (const wrong of [{}, { path: at.file, fd: -1 }, { path: at.file, highWaterMark: 0 }, { path: at.file, highWaterMark: 1025 }, { path: at.file, offerMs: 0 }, { path: at.file, allow: [-1] }]) {
        await assert.rejects(listenForHandoff(wrong), code('BAD_ARGUMENT'), JSON.stringify(wrong));
      }
      await assert.rejects(listenForHandoff({ fd: sockets.unixListen({ path: at.file, kind: 'seqpacket' }), highWaterMark: 0 }), code('BAD_ARGUMENT'));
      fs.rmSync(at.file);
      await at.listening({ highWaterMark: 1024, offerMs: 1 });
    });
  });

  describe('server names', () => {
    const ask = async (options: Pick<HandoffOptions, 'onServername'>): Promise<{ from: RawProxy; body: object; listener: HandoffListener }> => {
      const listener = await at.listening(options);
      const from = at.proxy();
      from.send({ type: 'callback', op: 'servername', id: 1, body: { servername: 'a.example', alpn: ['imap'], remote: client } });
      const { message } = await from.got();
      assert(message.type === 'answer' && message.op === 'servername');
      return { from, body: message.body, listener };
    };

    it('onServername answers, and the connection comes over the same hand-off connection', async () => {
      const { from, body, listener } = await ask({ onServername: ({ servername, remote }) => ({ localid: `${servername ?? ''} ${remote?.address ?? ''}` }) });
      assert.deepEqual(body, { localid: 'a.example 203.0.113.9' });
      at.hand(from);
      await at.letGo(from, {});
      await at.accepted(listener);
    });
    it('without onServername every name is refused', async () => {
      assert.deepEqual((await ask({})).body, { refuse: true });
    });
    it('a handshake that fails afterwards is no refusal: the proxy just leaves', async () => {
      const { from, listener } = await ask({ onServername: () => true });
      listener.once('refused', (error) => { assert.fail(error); });
      from.close();
      const next = at.proxy();
      at.hand(next);
      await at.letGo(next, {});
      await at.accepted(listener);
    });
  });
});
