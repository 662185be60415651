import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Listener, Pool, PoolSocket } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import type { EventBody } from 'libtlspool/protocol';
import { event, until } from '../support/index.js';
import { FakePool } from './lib-fake-pool.js';
import type { FakeClient } from './lib-fake-pool.js';

/** Reads to the end; what came and how it ended. */
async function outcome(socket: PoolSocket): Promise<{ text: string; ending: string }> {
  let text = '';
  let ending = 'closed without end';
  socket.on('data', (chunk: Buffer) => { text += chunk.toString(); });
  socket.on('end', () => { ending = 'end'; });
  socket.on('error', (error) => { ending = error instanceof TlsPoolError ? error.code : String(error); });
  await event(socket, 'close');
  return { text, ending };
}

describe('libtlspool: a truncated stream never looks complete', () => {
  let fake: FakePool;
  let pool: Pool;
  let listener: Listener;
  let client: FakeClient;
  FakePool.forEach((...made) => { [fake, pool] = made; });
  beforeEach(async () => {
    const asked = fake.next('listen');
    listener = await pool.listen({ host: '127.0.0.1' });
    ({ client } = await asked);
  });

  const accept = async (options: { n?: number } = {}): Promise<{ socket: PoolSocket; end: OwnedFd }> => {
    const end = client.connection(1, options.n ?? 1);
    return { socket: await listener.accept(), end };
  };

  it('closed, then the close of the plain text: all octets and a clean end', async () => {
    const { socket, end } = await accept();
    const done = outcome(socket);
    sockets.send(end, Buffer.from('complete'));
    client.closed(1, 'closed');
    sockets.close(end);
    assert.deepEqual(await done, { text: 'complete', ending: 'end' });
  });

  const abnormal: [EventBody<'closed'>['how'], string][] = [
    ['truncated', 'TRUNCATED'], ['reset', 'SESSION_LOST'], ['alert', 'SESSION_LOST'], ['error', 'SESSION_LOST'], ['timeout', 'SESSION_LOST'],
    ['revoked', 'SESSION_LOST'], ['drained', 'SESSION_LOST'],
  ];
  for (const [how, code] of abnormal) {
    it(`${how}, then the close of the plain text: all octets, then ${code}`, async () => {
      const { socket, end } = await accept();
      const done = outcome(socket);
      sockets.send(end, Buffer.from('incomplete'));
      client.closed(1, how);
      sockets.close(end);
      assert.deepEqual(await done, { text: 'incomplete', ending: code });
    });
  }

  it('a late reader gets all octets before the error, and readableEnded stays false', async () => {
    const { socket, end } = await accept();
    socket.pause();
    sockets.send(end, Buffer.from('late reader'));
    client.closed(1, 'truncated');
    sockets.close(end);
    await until(() => socket.readableLength > 0, { what: 'the octets to be buffered' });
    // The end of stream has been read when the stream takes no more.
    await until(() => (socket as unknown as { _readableState: { ended: boolean } })._readableState.ended, { what: 'the end of stream' });
    const done = outcome(socket);
    socket.resume();
    assert.deepEqual(await done, { text: 'late reader', ending: 'TRUNCATED' });
    assert.equal(socket.readableEnded, false);
  });

  it('for await over a truncated stream throws after the last octet', async () => {
    const { socket, end } = await accept();
    sockets.send(end, Buffer.from('part'));
    client.closed(1, 'truncated');
    sockets.close(end);
    let text = '';
    await assert.rejects(async () => { for await (const chunk of socket) text += String(chunk); }, { code: 'TRUNCATED' });
    assert.equal(text, 'part');
  });

  it('a half close is an end, and the other direction goes on', async () => {
    const { socket, end } = await accept();
    socket.allowHalfOpen = true;
    const ended = once(socket, 'end');
    socket.resume();
    sockets.shutdown(end, 1);
    await ended;
    socket.write('answer');
    sockets.pollWait(end, 1, 5_000);
    await until(() => sockets.receive(end, 100, 0)?.data.toString() === 'answer', { what: 'the answer' });
    const done = outcome(socket);
    socket.end();
    client.closed(1, 'closed');
    sockets.close(end);
    assert.equal((await done).ending, 'closed without end');
  });

  it('a plain-text side that closes without a word is SESSION_LOST', async () => {
    const { socket, end } = await accept();
    const done = outcome(socket);
    sockets.send(end, Buffer.from('half'));
    sockets.close(end);
    assert.deepEqual(await done, { text: 'half', ending: 'SESSION_LOST' });
  });

  it('a pool that dies is POOL_LOST for each of its sockets', async () => {
    const first = await accept({ n: 1 });
    const second = await accept({ n: 2 });
    const done = Promise.all([outcome(first.socket), outcome(second.socket)]);
    sockets.send(first.end, Buffer.from('half'));
    sockets.close(first.end);
    sockets.close(second.end);
    fake.stop();
    assert.deepEqual(await done, [{ text: 'half', ending: 'POOL_LOST' }, { text: '', ending: 'POOL_LOST' }]);
  });

  it('after our own end, the end of stream waits for the word of the pool: truncated is an error', async () => {
    const { socket, end } = await accept();
    const done = outcome(socket);
    socket.end('bye');
    await once(socket, 'finish');
    sockets.send(end, Buffer.from('half'));
    sockets.shutdown(end, 1);
    await once(socket, 'data');
    client.closed(1, 'truncated');
    sockets.close(end);
    assert.deepEqual(await done, { text: 'half', ending: 'TRUNCATED' });
  });

  it('after our own end, the end of stream waits for the word of the pool: closed is a clean end', async () => {
    const { socket, end } = await accept();
    const done = outcome(socket);
    socket.end('bye');
    await once(socket, 'finish');
    // The pool takes what was written before it closes; octets left unread would make the close a reset.
    assert.equal(sockets.receive(end, 100, 0)?.data.toString(), 'bye');
    sockets.send(end, Buffer.from('all'));
    sockets.shutdown(end, 1);
    await once(socket, 'data');
    client.closed(1, 'closed');
    sockets.close(end);
    assert.deepEqual(await done, { text: 'all', ending: 'end' });
  });

  it('after our own end, a pool that dies without a word is POOL_LOST', async () => {
    const { socket, end } = await accept();
    const done = outcome(socket);
    socket.end('bye');
    await once(socket, 'finish');
    sockets.close(end);
    fake.stop();
    assert.equal((await done).ending, 'POOL_LOST');
  });

  it('a session that ends before it is accepted still tells how, and does not bring the process down', async () => {
    const end = client.connection(1, 7);
    sockets.send(end, Buffer.from('early'));
    client.closed(7, 'truncated');
    sockets.close(end);
    const [other, otherEnd] = await (async () => {
      const fd = client.connection(1, 8);
      const first = await listener.accept();
      assert.deepEqual(await outcome(first), { text: 'early', ending: 'TRUNCATED' });
      return [await listener.accept(), fd] as const;
    })();
    const done = outcome(other);
    client.closed(8, 'closed');
    sockets.close(otherEnd);
    assert.equal((await done).ending, 'end');
  });

  it('destroy(error) before all was written aborts the session; a clean end does not', async () => {
    const broken = await accept({ n: 1 });
    broken.socket.on('error', () => undefined);
    const aborted = fake.next('close');
    broken.socket.destroy(new Error('application failed'));
    const { message } = await aborted;
    assert.equal((message.body as { abort?: boolean }).abort, true);
    sockets.close(broken.end);
    const clean = await accept({ n: 2 });
    const done = outcome(clean.socket);
    clean.socket.end();
    client.closed(2, 'closed');
    sockets.close(clean.end);
    assert.equal((await done).ending, 'end');
    assert.equal(fake.seen.filter(({ message: { op } }) => op === 'close').length, 1);
  });

  it('what the peer sends while destroy(error) waits for the pool is left unread, and does not bring the process down', async () => {
    const { socket, end } = await accept();
    const [done, asked] = [outcome(socket), fake.next('close')];
    fake.handlers.close = () => ({});
    socket.destroy(new Error('enough'));
    await asked;
    sockets.send(end, Buffer.from('the peer has not heard yet'));
    // A turn of the loop in which the plain-text side is readable.
    await pool.ping();
    client.closed(1, 'closed');
    assert.deepEqual(await done, { text: '', ending: 'Error: enough' });
    assert.equal(socket.bytesRead, 0);
    sockets.close(end);
  });

  it('an exporter length of 0 or 4097 is refused without asking the pool', async () => {
    const { socket, end } = await accept();
    for (const length of [0, 4097, 1.5]) {
      assert.throws(() => socket.exportKeyingMaterial(length, 'EXPORTER-test'), (error: unknown) => error instanceof TlsPoolError && error.code === 'BAD_ARGUMENT');
    }
    assert(!fake.seen.some(({ message }) => message.op === 'prng'));
    socket.destroy();
    sockets.close(end);
  });

  it('exporter lengths of 1 and 4096 are asked for', async () => {
    fake.handlers.prng = ({ message }) => ({ octets: Buffer.alloc((message.body as { length: number }).length, 7) });
    const { socket, end } = await accept();
    for (const length of [1, 4096]) assert.equal((await socket.exportKeyingMaterialAsync(length, 'EXPORTER-test')).length, length);
    socket.destroy();
    sockets.close(end);
  });
});
