/** Bare descriptors and callbacks, against a pool that does what the test says. */
import assert from 'node:assert/strict';
import { connectPool } from 'libtlspool';
import type { Pool } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { encodeMessage, TlsPoolError } from 'libtlspool/protocol';
import type { EventBody } from 'libtlspool/protocol';
import { Channel, protectFd } from 'libtlspool/session';
import type { ChannelOwner, ProtectOptions, ProtectedSession, SessionEnd } from 'libtlspool/session';
import { descriptors, until, within } from '../support/index.js';
import { FakePool, key, sessionInfo } from './lib-fake-pool.js';
import type { FakeClient, Seen } from './lib-fake-pool.js';

const code = (wanted: string) => (error: unknown): boolean => {
  assert(error instanceof TlsPoolError, String(error));
  assert.equal(error.code, wanted, error.message);
  return true;
};

describe('libtlspool: bare descriptors', () => {
  let fake: FakePool;
  let pool: Pool;
  beforeEach(async () => {
    fake = new FakePool().start();
    pool = await connectPool({ path: fake.path, timeoutMs: 2_000 });
  });
  afterEach(async () => {
    pool.close();
    await fake.end();
  });

  /** One end of a stream; the other is closed with the test. */
  function stream(): OwnedFd {
    const [ours, passed] = sockets.socketpair('stream');
    fake.owned.push(ours);
    return passed;
  }
  /** The request has arrived and waits for the test's answer. */
  async function started(options: Partial<ProtectOptions> = {}): Promise<{ session: Promise<ProtectedSession>; client: FakeClient; id: number; seen: Seen }> {
    fake.handlers.starttls = () => undefined;
    const arrives = fake.next('starttls');
    const session = protectFd(pool, stream(), { role: 'server', ...options });
    session.catch(() => undefined);
    const seen = await within(arrives, 'the request');
    return { session, client: seen.client, id: seen.message.id, seen };
  }
  const reply = (client: FakeClient, id: number, n = 1): boolean => client.send({ type: 'reply', op: 'starttls', id, body: { ctlkey: key(n), info: sessionInfo } });
  const plainside = (client: FakeClient, id: number, body: object): boolean =>
    client.send({ type: 'callback', op: 'plainside', id, body: { ctlkey: key(1), info: sessionInfo, ...body } });
  const answerOf = ({ message, fdCount }: Seen): unknown => [message.id, message.body, fdCount];

  it('asks for what there is somebody to ask, and sends the options as they are', async () => {
    const { seen } = await started({ role: 'server', localid: 'a', alpn: ['x'], onServername: () => true, onPlainside: () => 'pair', handshakeMs: 5 });
    assert.deepEqual([seen.message.body, seen.fdCount], [{ role: 'server', localid: 'a', alpn: ['x'], handshakeMs: 5, askServername: true, askPlainside: true }, 1]);
    const other = await started({ backend: { path: '/x' }, plainfd: stream() });
    assert.deepEqual([other.seen.message.body, other.seen.fdCount], [{ role: 'server', backend: { path: '/x' } }, 2]);
  });

  it('a callback is answered by the request that it names, in whatever order they come', async () => {
    const first = await started({ onPlainside: () => stream() });
    const second = await started({ onPlainside: () => 'refuse', onServername: () => ({ localid: 'two', alpn: ['h2'] }) });
    const answers: unknown[] = [];
    for (const [id, request] of [[10, second.id], [11, first.id]] as const) {
      const answer = fake.next('plainside', 'answer');
      plainside(first.client, id, { request });
      answers.push(answerOf(await within(answer, 'the answer')));
    }
    assert.deepEqual(answers, [[10, { refuse: true }, 0], [11, {}, 1]]);
    const named = fake.next('servername', 'answer');
    first.client.send({ type: 'callback', op: 'servername', id: 12, body: { request: second.id, alpn: [] } });
    assert.deepEqual(answerOf(await within(named, 'the answer')), [12, { localid: 'two', alpn: ['h2'] }, 0]);
  });

  it('a callback that nobody answers is refused: for no request, for one that is over, and without the handler', async () => {
    const { client, id, session } = await started();
    const over = await started({ onPlainside: () => 'pair' });
    over.client.send({ type: 'error', op: 'starttls', id: over.id, body: { code: 'HANDSHAKE_FAILED', text: 'no' } });
    await assert.rejects(over.session, code('HANDSHAKE_FAILED'));
    for (const body of [{}, { listener: 1 }, { request: over.id }, { request: id }, { request: 12_345 }]) {
      const answer = fake.next('plainside', 'answer');
      plainside(client, 20, body);
      assert.deepEqual(answerOf(await within(answer, 'the answer')), [20, { refuse: true }, 0], JSON.stringify(body));
    }
    reply(client, id);
    await session;
  });

  it('an answer that no message can carry is a refusal, and a warning', async () => {
    const warned = new Promise<Error>((resolve) => process.once('warning', resolve));
    const { client, id } = await started({ onServername: () => ({ alpn: Array.from({ length: 33 }, () => 'x') }) });
    const answer = fake.next('servername', 'answer');
    client.send({ type: 'callback', op: 'servername', id: 1, body: { request: id, alpn: [] } });
    assert.deepEqual(answerOf(await within(answer, 'the answer')), [1, { refuse: true }, 0]);
    assert.match((await warned).message, /33 items; at most 32/u);
  });

  it('32 protocols in an answer are carried', async () => {
    const alpn = Array.from({ length: 32 }, () => 'x');
    const { client, id } = await started({ onServername: () => ({ alpn }) });
    const answer = fake.next('servername', 'answer');
    client.send({ type: 'callback', op: 'servername', id: 1, body: { request: id, alpn: [] } });
    assert.deepEqual(answerOf(await within(answer, 'the answer')), [1, { alpn }, 0]);
  });

  it('a closed event right behind the reply reaches the session that was not there yet', async () => {
    let ended: SessionEnd | undefined;
    const { client, id, session } = await started({ onClosed: (end) => { ended = end; } });
    reply(client, id);
    client.closed(1, 'truncated');
    const { end } = await session;
    assert.equal((end as EventBody<'closed'> | undefined)?.how ?? 'not yet', 'truncated');
    await until(() => ended !== undefined, { what: 'onClosed' });
    assert.equal(ended, end);
  });

  it('the loss of the pool is the end of a session, told once; of one that was detached nothing is told', async () => {
    fake.handlers.detach = () => ({});
    const ends: unknown[] = [];
    const first = await started({ onClosed: (end) => { ends.push(end); } });
    reply(first.client, first.id, 1);
    const second = await started({ onClosed: () => { ends.push('detached'); } });
    reply(second.client, second.id, 2);
    await first.session;
    await (await second.session).detach();
    fake.stop();
    await until(() => ends.length > 0, { what: 'onClosed' });
    await new Promise((resolve) => { setImmediate(resolve); });
    assert.equal(ends.length, 1);
    assert(code('POOL_LOST')(ends[0]));
    assert.equal((await second.session).end, undefined);
  });

  it('a reply that comes too late ends its session, and closes what came with it', async () => {
    fake.dispose();
    fake = new FakePool().start();
    pool.close();
    pool = await connectPool({ path: fake.path, timeoutMs: 50 });
    const { client, id, session } = await started({ handshakeMs: 1 });
    await assert.rejects(session, code('TIMEOUT'));
    const close = fake.next('close');
    const [ours, theirs] = sockets.socketpair('stream');
    fake.owned.push(ours);
    client.send({ type: 'reply', op: 'starttls', id, body: { ctlkey: key(9), info: sessionInfo } }, [theirs]);
    sockets.close(theirs);
    assert.deepEqual({ ...(await within(close, 'the session to be ended')).message.body }, { ctlkey: key(9), abort: true });
    assert.equal(sockets.pollWait(ours, 1, 2_000) & 16, 16, 'its descriptor is closed');
  });

  it('a server that spoke first is EARLY_OCTETS in the client role, and both descriptors are closed', async () => {
    const [ours, passed] = sockets.socketpair('stream');
    fake.owned.push(ours);
    sockets.send(ours, Buffer.from('x'));
    await assert.rejects(protectFd(pool, passed, { role: 'client', remoteid: 'a', plainfd: stream() }), code('EARLY_OCTETS'));
    for (const fd of fake.owned) assert.equal(sockets.pollWait(fd, 1, 0) & 16, 16);
  });

  it('our plain-text side is closed when the request is sent, the crypt side when it settles', async () => {
    const { client, id, session } = await started({ plainfd: stream() });
    const [plain, crypt] = fake.owned as [OwnedFd, OwnedFd];
    assert.equal(sockets.pollWait(plain, 1, 2_000) & 16, 16);
    assert.equal(sockets.pollWait(crypt, 1, 0), 0);
    reply(client, id);
    await session;
    assert.equal(sockets.pollWait(crypt, 1, 2_000) & 16, 16);
  });
});

describe('libtlspool: a channel without hello', () => {
  const plain = { preamble: { protocol: 'smtp', tls: false } };
  let theirs: OwnedFd;
  const send = (message: object, fds: OwnedFd[]): void => { sockets.send(theirs, encodeMessage(message as never), fds); };

  /** The owner's channel, and what came over it. */
  function opened(extra: Partial<ChannelOwner> = {}): { channel: Channel; lost: Promise<TlsPoolError> } {
    const [ours, other] = sockets.socketpair('seqpacket');
    theirs = other;
    let onLost: (error: TlsPoolError) => void = () => undefined;
    const lost = new Promise<TlsPoolError>((resolve) => { onLost = resolve; });
    const channel = new Channel(ours, {
      connection: () => undefined, listenerClosed: () => undefined, drain: () => undefined, lost: (_channel, error) => { onLost(error); }, ...extra,
    });
    return { channel, lost };
  }

  it('a plain connection comes with its preamble and its descriptor', async () => {
    let came: [EventBody<'plainConnection'>, OwnedFd] | undefined;
    const { channel } = opened({ plainConnection: (body, fd) => { came = [body, fd]; } });
    const [ours, passed] = sockets.socketpair('stream');
    send({ type: 'event', op: 'plainConnection', body: plain }, [passed]);
    sockets.close(passed);
    await until(() => came !== undefined, { what: 'the connection' });
    const [body, fd] = came as [EventBody<'plainConnection'>, OwnedFd];
    assert.deepEqual(body, plain);
    assert.equal(sockets.socketInfo(fd).connected, true);
    for (const one of [ours, fd, theirs]) sockets.close(one);
    channel.close();
  });

  it('one that nobody takes is closed, and the channel goes on', async () => {
    let next = false;
    const { channel } = opened({ drain: () => { next = true; } });
    const [ours, passed] = sockets.socketpair('stream');
    send({ type: 'event', op: 'plainConnection', body: plain }, [passed]);
    send({ type: 'event', op: 'drain', body: { deadlineMs: 1 } }, []);
    sockets.close(passed);
    await until(() => next, { what: 'the next event' });
    assert.equal(sockets.pollWait(ours, 1, 0) & 16, 16);
    channel.close();
    for (const fd of [ours, theirs]) sockets.close(fd);
  });

  it('requests that find the socket full wait with copies of their descriptors, which are closed when the channel ends', async () => {
    const open = descriptors(process.pid).size;
    const { channel } = opened();
    const [ours, passed] = sockets.socketpair('stream');
    const refused = Array.from({ length: 2_000 }, () => channel.request('starttls', { role: 'server' }, [passed], 5_000).catch((error: TlsPoolError) => error.code));
    assert(descriptors(process.pid).size > open + 4, 'nothing had to wait');
    channel.close();
    assert.deepEqual(new Set(await Promise.all(refused)), new Set(['POOL_LOST']));
    for (const fd of [ours, passed, theirs]) sockets.close(fd);
    assert.equal(descriptors(process.pid).size, open);
  });
});
