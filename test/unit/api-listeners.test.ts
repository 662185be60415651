import assert from 'node:assert/strict';
import { sockets } from 'libtlspool/native';
import { Bench, benchForEach, closed, established, openDescriptors, descriptorsLeft, userA, userB } from './api-support.js';
import type { TestClient } from './api-support.js';
import { until } from '../support/wait.js';

describe('listeners', () => {
  let bench: Bench;
  benchForEach(() => bench, (made) => { bench = made; });

  async function listen(client: TestClient, body: object = {}): Promise<number> {
    const reply = await client.request('listen', body, [bench.listenFd()]);
    assert.equal(reply.message.type, 'reply', JSON.stringify(reply.body));
    return reply.body['listener'] as number;
  }

  it('a connection comes with key, information and descriptor', async () => {
    const client = await bench.client();
    const listener = await listen(client);
    bench.emit(established(1, { listener, plainfd: bench.plainPair(), alpn: 'h2', remote: { family: 'IPv4', address: '192.0.2.1', port: 5 } }));
    const { message, body, fds } = await client.next();
    assert.deepEqual([message.type, message.op, body['listener'], fds.length], ['event', 'connection', listener, 1]);
    assert.deepEqual((body['info'] as { remote: object }).remote, { family: 'IPv4', address: '192.0.2.1', port: 5 });
    for (const fd of fds) sockets.close(fd);
  });

  it('take listening stream sockets only', async () => {
    const client = await bench.client();
    for (const fd of [bench.pair()[0], bench.pair('seqpacket')[0]]) assert.equal((await client.request('listen', {}, [fd])).body['code'], 'FD_KIND');
  });

  it('one more than a client may have is refused', async () => {
    const client = await bench.client();
    await listen(client);
    const second = await listen(client);
    assert.equal((await client.request('listen', {}, [bench.listenFd()])).body['code'], 'LIMIT_LISTENERS');
    await client.request('unlisten', { listener: second });
    await listen(client);
  });

  it('a shared one serves its members in turn', async () => {
    const [first, second] = [await bench.client(userA), await bench.client(userA)];
    const listener = await listen(first, { share: 'web' });
    assert.equal((await second.request('join', { share: 'web' })).body['listener'], listener);
    bench.emit(...[1, 2, 3, 4].map((session) => established(session, { listener })));
    await first.next();
    await second.next();
    await first.next();
    await second.next();
    assert.deepEqual([first.received.length, second.received.length], [0, 0]);
  });

  it('can be joined by processes of the same user only, by name, and once', async () => {
    const [first, second, foreign] = [await bench.client(userA), await bench.client(userA), await bench.client(userB)];
    await listen(first, { share: 'web' });
    assert.equal((await foreign.request('join', { share: 'web' })).body['code'], 'LISTENER_UNKNOWN');
    assert.equal((await second.request('join', { share: 'other' })).body['code'], 'LISTENER_UNKNOWN');
    assert.equal((await first.request('join', { share: 'web' })).body['code'], 'BAD_STATE');
    assert.equal((await second.request('listen', { share: 'web' }, [bench.listenFd()])).body['code'], 'SHARE_TAKEN');
    await listen(foreign, { share: 'web' });
  });

  it('cannot be joined by a process that may not use its identity', async () => {
    const [first, second] = [await bench.client(userA), await bench.client({ ...userA, pid: 99 })];
    await listen(first, { share: 'web', localid: 'localhost' });
    bench.access.identities = ({ pid }) => pid !== 99;
    assert.equal((await second.request('join', { share: 'web' })).body['code'], 'NOT_PERMITTED');
  });

  it('the last member to leave closes the listening socket, and a number of somebody else is unknown', async () => {
    const [first, second] = [await bench.client(userA), await bench.client(userA)];
    const listener = await listen(first, { share: 'web' });
    assert.equal((await second.request('unlisten', { listener })).body['code'], 'LISTENER_UNKNOWN');
    await second.request('join', { share: 'web' });
    await first.request('unlisten', { listener });
    assert.equal(bench.engine.named('unlisten').length, 0);
    second.close();
    await bench.client();
    assert.deepEqual(bench.engine.named('unlisten'), [['unlisten', listener]]);
    assert.equal((await first.request('listen', { share: 'web' }, [bench.listenFd()])).message.type, 'reply', 'the name is free again');
  });

  it('a connection whose listener is gone is ended', async () => {
    const client = await bench.client();
    const listener = await listen(client);
    await client.request('unlisten', { listener });
    bench.emit(established(9, { listener, plainfd: bench.plainPair() }));
    assert.deepEqual(bench.engine.last('close'), ['close', 9, 'abort']);
    assert.equal(bench.front.sessions.size, 0);
  });

  it('pause at the limit of their user\'s sessions and go on below it', async () => {
    bench.access.sessionsPerClient = 2;
    const client = await bench.client(userA);
    const listener = await listen(client);
    const foreign = await listen(await bench.client(userB));
    bench.emit(established(1, { listener }));
    assert.equal(bench.engine.named('pauseListener').length, 0);
    bench.emit(established(2, { listener }));
    assert.deepEqual(bench.engine.named('pauseListener'), [['pauseListener', listener, true]]);
    bench.emit(closed(1));
    assert.deepEqual(bench.engine.last('pauseListener'), ['pauseListener', listener, false]);
    assert.notEqual(foreign, listener);
  });

  it('pause when all members are clogged, are skipped by the turn before, and go on when they read again', async () => {
    bench.access.sessionsPerClient = 100_000;
    const [slow, quick] = [await bench.client(userA), await bench.client(userA)];
    const listener = await listen(slow, { share: 'web' });
    await quick.request('join', { share: 'web' });
    slow.pause();
    let session = 0;
    const emit = () => { bench.emit(established(session += 1, { listener, localCertificate: Buffer.alloc(8000) })); };
    const [slowEnd, quickEnd] = [...bench.front.clients];
    while (slowEnd?.isClogged === false) {
      emit();
      // The quick one reads between two connections.
      await new Promise(setImmediate);
    }
    assert.equal(bench.engine.named('pauseListener').length, 0, 'one member keeps up');
    const before = slowEnd?.sessions.size;
    for (let count = 0; count < 4; count += 1) emit();
    assert.equal(slowEnd?.sessions.size, before, 'the clogged one gets nothing more');
    quick.pause();
    while (quickEnd?.isClogged === false) emit();
    assert.deepEqual(bench.engine.last('pauseListener'), ['pauseListener', listener, true]);
    slow.resume();
    while (slowEnd?.isClogged === true) await slow.next();
    assert.deepEqual(bench.engine.last('pauseListener'), ['pauseListener', listener, false]);
  });

  it('pause for a member that does not read what it is asked, too', async () => {
    const client = await bench.client(userA);
    const { body } = await client.request('listen', { askServername: true }, [bench.listenFd()]);
    const listener = body['listener'] as number;
    client.pause();
    const [member] = bench.front.clients;
    let session = 0;
    const hello = (): void => {
      const alpn = Array.from({ length: 64 }, () => 'x'.repeat(255));
      bench.emit({ kind: 'hello', session: session += 1, listener, servername: 'localhost', alpn }, { kind: 'failed', session, listener, code: 'TIMEOUT', text: 'nobody has answered' });
    };
    while (member?.isClogged === false && session < 1000) hello();
    assert.equal(member?.unsentCallbacks, 8);
    assert.deepEqual(bench.engine.last('pauseListener'), ['pauseListener', listener, true]);
    client.resume();
    while (member.isClogged) await client.next();
    assert.deepEqual(bench.engine.last('pauseListener'), ['pauseListener', listener, false]);
  });

  it('get new tables after a publication, and serve no name when the identity is gone', async () => {
    const client = await bench.client();
    const listener = await listen(client, { localid: 'localhost' });
    bench.store.published(['localhost']);
    assert.deepEqual(bench.engine.last('setSelector'), ['setSelector', listener, { localid: 'localhost' }]);
    bench.store.known.clear();
    bench.store.published(['localhost']);
    assert.deepEqual(bench.engine.last('setSelector'), ['setSelector', listener, { empty: true }]);
  });

  it('one that has failed is told to its members', async () => {
    const client = await bench.client();
    const listener = await listen(client);
    bench.emit({ kind: 'listener', listener, code: 'SYSTEM', text: 'gone' });
    assert.deepEqual(bench.engine.named('unlisten'), [['unlisten', listener]], 'the engine has its socket until it is told');
    const { message, body } = await client.next();
    assert.deepEqual([message.op, body], ['listenerClosed', { listener, code: 'SYSTEM', text: 'gone' }]);
    assert.equal(bench.front.listeners.size, 0);
  });

  it('a connection whose peer\'s leaf does not fit into a message is ended, and its descriptor closed', async () => {
    const client = await bench.client();
    const listener = await listen(client);
    bench.emit(established(1, { listener, plainfd: bench.plainPair(), peerCertificates: [Buffer.alloc(32_769)] }));
    assert.deepEqual(bench.engine.last('close'), ['close', 1, 'abort']);
    bench.emit(closed(1));
    assert.equal(bench.front.sessions.size, 0);
    assert.equal((await client.request('ping')).message.type, 'reply');
  });

  it('a batch of connections comes in a few packets, each with its own descriptor, and clogs nobody who reads', async () => {
    const client = await bench.client();
    const listener = await listen(client);
    const before = client.packets;
    const count = 80;
    const ours = Array.from({ length: count }, () => sockets.socketpair('stream'));
    bench.emit(...ours.map(([, theirs], n) => established(n + 1, { listener, plainfd: theirs, servername: `n${n}` })), closed(1), closed(2));
    for (const [n, [end]] of ours.entries()) {
      const { message, body, fds } = await client.next();
      assert.deepEqual([message.op, (body['info'] as { servername: string }).servername, fds.length], ['connection', `n${n}`, 1]);
      sockets.send(end, Buffer.from(`${n}`));
      for (const fd of fds) {
        assert.equal(sockets.receive(fd, 10, 0)?.data.toString(), `${n}`);
        sockets.close(fd);
      }
      sockets.close(end);
    }
    assert.deepEqual([(await client.next()).message.op, (await client.next()).message.op], ['closed', 'closed']);
    assert.equal(client.packets - before, Math.ceil((count + 2) / 32));
    assert.equal(bench.engine.named('pauseListener').length, 0);
  });

  it('a client that dies in the middle of a batch loses its own connections only, and no descriptor stays open', async () => {
    const [dead, alive] = [await bench.client(userA), await bench.client(userA)];
    const [one, other] = [await listen(dead), await listen(alive)];
    dead.close();
    bench.emit(...[1, 2, 3, 4].map((session) => established(session, { listener: session % 2 === 0 ? one : other, plainfd: bench.plainPair() })));
    for (const _ of [1, 2]) for (const fd of (await alive.next()).fds) sockets.close(fd);
    await bench.client();
    assert.deepEqual(bench.engine.named('close').map(([, session]) => session).sort(), [2, 4]);
  });

  for (const [name, narrow] of [
    ['the identity', (): void => { bench.access.identities = ({ uid }) => uid !== userA.uid; }],
    ['the server role', (): void => { bench.access.permissions = ({ uid }, permission) => uid !== userA.uid || permission !== 'server'; }],
  ] as const) {
    it(`after a reload that takes ${name} away the member is told NOT_PERMITTED, the socket is closed, and its sessions go on`, async () => {
      const [mine, foreign] = [await bench.client(userA), await bench.client(userB)];
      const [lost, kept] = [await listen(mine, { localid: 'localhost' }), await listen(foreign, { localid: 'localhost' })];
      bench.emit(established(1, { listener: lost }));
      const { body: { ctlkey } } = await mine.next();
      narrow();
      bench.store.published([]);
      const { message, body } = await mine.next();
      assert.deepEqual([message.op, body['listener'], body['code']], ['listenerClosed', lost, 'NOT_PERMITTED']);
      assert.deepEqual(bench.engine.named('unlisten'), [['unlisten', lost]]);
      assert.equal(bench.engine.last('setSelector')[1], kept);
      assert.equal(bench.engine.named('close').length, 0, 'established sessions go on');
      assert.equal((await mine.request('close', { ctlkey })).message.type, 'reply');
      assert.equal((await mine.request('unlisten', { listener: lost })).body['code'], 'LISTENER_UNKNOWN');
      assert.equal((await foreign.request('unlisten', { listener: kept })).message.type, 'reply');
    });
  }

  it('after a reload that takes backends away, a listener with one is closed, and one without stays', async () => {
    const client = await bench.client(userA);
    const [lost] = [await listen(client, { backend: { path: '/run/x' } }), await listen(client)];
    bench.access.permissions = (_client, permission) => permission !== 'backend';
    bench.store.published([]);
    assert.deepEqual((await client.next()).body['listener'], lost);
    assert.equal(bench.front.listeners.size, 1);
  });

  it('of a shared one only those leave who lost the permission; when its maker has lost it, all do', async () => {
    const [maker, second, third] = [await bench.client(userA), await bench.client({ ...userA, pid: 98 }), await bench.client({ ...userA, pid: 99 })];
    const listener = await listen(maker, { share: 'web', localid: 'localhost' });
    for (const one of [second, third]) await one.request('join', { share: 'web' });
    bench.access.identities = ({ pid }) => pid !== 99;
    bench.store.published([]);
    assert.equal((await third.next()).message.op, 'listenerClosed');
    bench.emit(...[1, 2].map((session) => established(session, { listener })));
    assert.deepEqual([(await maker.next()).message.op, (await second.next()).message.op, third.received.length], ['connection', 'connection', 0]);
    assert.equal(bench.engine.named('unlisten').length, 0);
    bench.access.identities = ({ pid }) => pid === 98;
    bench.store.published([]);
    for (const one of [maker, second]) assert.deepEqual((await one.next()).body['code'], 'NOT_PERMITTED');
    assert.deepEqual(bench.engine.named('unlisten'), [['unlisten', listener]]);
  });

  it('a socket in the abstract namespace is taken, and shown as unnamed', async () => {
    const client = await bench.client();
    const fd = sockets.unixListen({ path: `\0tlspool-${process.pid}`, kind: 'stream' });
    const { body } = await client.request('listen', {}, [fd]);
    sockets.close(fd);
    assert.deepEqual(body['local'], { family: 'unix', address: '', port: 0 });
  });

  it('draining closes them, tells the clients, and refuses what is new', async () => {
    const client = await bench.client();
    const listener = await listen(client);
    bench.front.drain(1234);
    const { message, body } = await client.next();
    assert.deepEqual([message.op, body], ['drain', { deadlineMs: 1234 }]);
    assert.deepEqual(bench.engine.named('unlisten'), [['unlisten', listener]]);
    for (const [op, asked, fd] of [['listen', {}, bench.listenFd()], ['starttls', { role: 'server' }, bench.pair()[0]]] as const) {
      assert.equal((await client.request(op, asked, [fd])).body['code'], 'POOL_DRAINING');
    }
  });
});

describe('servername callbacks', () => {
  let bench: Bench;
  let descriptors: number;
  let client: TestClient;
  let listener: number;
  beforeEach(async () => {
    descriptors = openDescriptors();
    bench = new Bench();
    client = await bench.client(userA);
    listener = (await client.request('listen', { askServername: true, localid: 'localhost' }, [bench.listenFd()])).body['listener'] as number;
  });
  afterEach(async () => {
    bench.close();
    await descriptorsLeft(descriptors);
  });

  async function ask(session: number, changed: { servername?: string; alpn?: string[] } = {}): Promise<number> {
    bench.emit({ kind: 'hello', session, listener, servername: 'localhost', alpn: ['h2'], ...changed });
    const { message, body } = await client.next();
    assert.deepEqual([message.type, message.op, body['servername']], ['callback', 'servername', changed.servername ?? 'localhost']);
    return 'id' in message ? message.id : -1;
  }
  async function answer(id: number, body: object, plainfd?: number): Promise<void> {
    client.send({ type: 'answer', op: 'servername', id, body } as never, plainfd === undefined ? [] : [plainfd as never]);
    await client.request('ping');
  }

  it('an empty answer lets the listener\'s own identity serve', async () => {
    await answer(await ask(1), {});
    assert.deepEqual(bench.engine.last('decide'), ['decide', 1, { selector: { localid: 'localhost' } }, -1]);
  });

  it('an answer names another identity, if the client may use it', async () => {
    bench.store.known.add('other');
    await answer(await ask(1), { localid: 'other' });
    assert.deepEqual(bench.engine.last('decide')[2], { selector: { localid: 'other' } });
    bench.access.identities = (_client, localid) => localid !== 'other';
    await answer(await ask(2), { localid: 'other' });
    assert.deepEqual(bench.engine.last('decide'), ['decide', 2, { refuse: true }, -1]);
  });

  it('an answer brings the plain-text side', async () => {
    await answer(await ask(1), {}, bench.pair()[0]);
    assert.notEqual(bench.engine.last('decide')[3], -1);
  });

  it('a plain-text side that is no connected socket refuses the name', async () => {
    await answer(await ask(1), {}, bench.listenFd());
    assert.deepEqual(bench.engine.last('decide'), ['decide', 1, { refuse: true }, -1]);
  });

  it('a refusal and an error refuse the name', async () => {
    await answer(await ask(1), { refuse: true });
    assert.deepEqual(bench.engine.last('decide'), ['decide', 1, { refuse: true }, -1]);
    client.send({ type: 'error', op: 'servername', id: await ask(2), body: { code: 'INTERNAL', text: 'no' } });
    await client.request('ping');
    assert.deepEqual(bench.engine.last('decide'), ['decide', 2, { refuse: true }, -1]);
  });

  it('the death of the client refuses the name', async () => {
    await ask(1);
    client.close();
    await bench.client();
    assert.deepEqual(bench.engine.last('decide'), ['decide', 1, { refuse: true }, -1]);
  });

  it('an answer that comes after the deadline decides nothing and its descriptor is closed', async () => {
    const id = await ask(1);
    bench.emit({ kind: 'failed', session: 1, listener, code: 'HANDSHAKE_TIMEOUT', text: 'late' });
    await answer(id, {}, bench.pair()[0]);
    assert.equal(bench.engine.named('decide').length, 0);
  });

  it('an answer to another client\'s question decides nothing', async () => {
    const id = await ask(1);
    const other = await bench.client(userA);
    other.send({ type: 'answer', op: 'servername', id, body: {} });
    await other.request('ping');
    assert.equal(bench.engine.named('decide').length, 0);
    await answer(id, {});
  });

  it('names of the peer that no message can carry are asked about in a form that is no valid name', async () => {
    bench.emit({ kind: 'hello', session: 1, listener, servername: '\ufeffa\0b', alpn: ['\ud800', `h2${'\ufffd'.repeat(253)}`, 'h2'] });
    const { body } = await client.next();
    assert.deepEqual([body['servername'], body['alpn']], ['\ufffda\ufffdb', ['\ufffd', `h2${'\ufffd'.repeat(84)}`, 'h2']]);
    assert.equal(bench.engine.named('decide').length, 0);
  });

  it('a question that does not fit into a message is not asked, and the name refused', () => {
    bench.emit({ kind: 'hello', session: 1, listener, alpn: [], remote: { family: 'IPv4', address: 'x', port: 65_536 } });
    assert.deepEqual(bench.engine.last('decide'), ['decide', 1, { refuse: true }, -1]);
  });

  it('the one that was asked gets the connection, in a shared listener too', async () => {
    const shared = (await client.request('listen', { askServername: true, share: 'web' }, [bench.listenFd()])).body['listener'] as number;
    const other = await bench.client(userA);
    await other.request('join', { share: 'web' });
    for (let session = 1; session <= 4; session += 1) {
      bench.emit({ kind: 'hello', session, listener: shared, alpn: [] });
      await until(() => client.received.length + other.received.length === 1, { what: 'a question' });
      const asked = client.received.length > 0 ? client : other;
      const { message } = await asked.next();
      asked.send({ type: 'answer', op: 'servername', id: 'id' in message ? message.id : -1, body: {} });
      await asked.request('ping');
      bench.emit(established(session, { listener: shared }));
      assert.equal((await asked.next()).message.op, 'connection');
      asked.send({ type: 'request', op: 'ping', id: 5000 + session, body: {} });
      await asked.next();
    }
  });
});
