/** A program without descriptors to spare, and threads that end without closing theirs. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { mock } from 'node:test';
import { Worker } from 'node:worker_threads';
import type { Pool } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { encodeMessage, TlsPoolError } from 'libtlspool/protocol';
import type { Message } from 'libtlspool/protocol';
import { Program, until } from '../support/index.js';
import { FakePool, key, sessionInfo } from './lib-fake-pool.js';

const library = JSON.stringify(import.meta.resolve('libtlspool'));
const native = JSON.stringify(import.meta.resolve('libtlspool/native'));
const pollHangUp = 16;
const emfile = -24;

const isLost = (error: unknown): boolean => error instanceof TlsPoolError && error.code === 'SYSTEM' && error.errno === emfile && /descriptor/u.test(error.message);

/** The next packet that brings descriptors to the library finds room for so many of them. */
function roomFor(count: number): void {
  const receive = sockets.receive.bind(sockets);
  const mocked = mock.method(sockets, 'receive', (...args: Parameters<typeof receive>) => {
    const received = receive(...args);
    // Only the library takes packets that have lost something; the pool of the test does not.
    if (received === null || args[3] !== true || received.fds.length === 0) return received;
    mocked.mock.restore();
    for (const fd of received.fds.slice(count)) sockets.close(fd);
    return { ...received, fds: received.fds.slice(0, count), lost: emfile };
  });
}

describe('libtlspool: descriptors', () => {
  let fake: FakePool;
  let pool: Pool;
  afterEach(() => { mock.restoreAll(); });
  FakePool.forEach((...made) => { [fake, pool] = made; });

  const isHungUp = (fd: OwnedFd): boolean => (sockets.pollWait(fd, 0, 0) & pollHangUp) !== 0;

  it('a process at its limit loses the connection that has no room, says so, and keeps all others', async () => {
    const asked = fake.next('listen');
    const program = new Program('/bin/sh', ['-c', 'ulimit -n 64; exec "$0" --input-type=module --eval "$1"', process.execPath, `
      import { connectPool } from ${library};
      import { sockets } from ${native};
      const pool = await connectPool();
      const listener = await pool.listen({ host: '127.0.0.1' });
      const hoard = [];
      listener.on('lost', (error) => console.log('lost', error.message));
      listener.on('refused', (error) => {
        for (const fd of hoard) sockets.close(fd);
        console.log('refused', error.code, error.errno, error.message);
      });
      const first = await listener.accept();
      const [one] = sockets.socketpair('stream');
      try { for (;;) hoard.push(sockets.dup(one)); } catch { console.log('full'); }
      await listener.accept();
      first.write('still here');
    `], { env: { TLSPOOL_SOCKET: fake.path } });
    const { client } = await asked;
    const first = client.connection(1, 1);
    fake.owned.push(first);
    await program.output(/^full$/mu);
    const second = client.connection(1, 2);
    fake.owned.push(second);
    const [text] = await program.output(/^(?:refused|lost) .*$/mu);
    assert.match(text, /^refused SYSTEM -24 .*RLIMIT_NOFILE/u);
    assert(isHungUp(second), 'the pool sees the end of the session that was lost');
    fake.owned.push(client.connection(1, 3));
    await until(() => sockets.receive(first, 100, 0)?.data.toString() === 'still here', { what: 'the first connection to write', context: () => program.tail() });
    program.kill('SIGKILL');
    await program.ended;
  });

  it('of several connections in one packet those that had room are accepted, in order, and each other is reported', async () => {
    const asked = fake.next('listen');
    const listener = await pool.listen({ host: '127.0.0.1' });
    const { client } = await asked;
    const refused: unknown[] = [];
    listener.on('refused', (error) => refused.push(error));
    const ends = [1, 2, 3].map(() => sockets.socketpair('stream'));
    const event = (n: number): Message => ({ type: 'event', op: 'connection', body: { listener: 1, ctlkey: key(n), info: { ...sessionInfo, servername: `${n}.example` } } });
    roomFor(1);
    client.sendRaw(Buffer.concat([1, 2, 3].map((n) => encodeMessage(event(n)))), ends.map(([theirs]) => theirs));
    for (const [theirs, end] of ends) { sockets.close(theirs); fake.owned.push(end); }
    const socket = await listener.accept();
    assert.equal(socket.servername, '1.example');
    await until(() => refused.length === 2, { what: 'two to be reported' });
    assert(refused.every(isLost), String(refused));
    assert.deepEqual(ends.map(([, end]) => isHungUp(end)), [false, true, true]);
    socket.destroy();
    await listener.close();
  });

  it('starttls whose plain-text side had no room rejects with SYSTEM, and the connection to the pool is as good as before', async () => {
    fake.handlers.starttls = ({ client, message }) => {
      const [end, theirs] = sockets.socketpair('stream');
      fake.owned.push(end);
      client.send({ type: 'reply', op: 'starttls', id: message.id, body: { ctlkey: key(1), info: sessionInfo } }, [theirs]);
      sockets.close(theirs);
      return undefined;
    };
    const lost: unknown[] = [];
    pool.on('lost', (error) => lost.push(error));
    const crypt = (): OwnedFd => {
      const [mine, peer] = sockets.socketpair('stream');
      fake.owned.push(peer);
      return mine;
    };
    roomFor(0);
    await assert.rejects(pool.starttls(crypt(), { role: 'server' }), isLost);
    const socket = await pool.starttls(crypt(), { role: 'server' });
    assert.deepEqual(lost, []);
    socket.destroy();
  });

  it('a worker that is terminated leaves neither its port nor its connection to the pool open', async () => {
    const asked = fake.next('listen');
    const worker = new Worker(`
      (async () => {
        const { connectPool } = await import(${library});
        const pool = await connectPool({ path: ${JSON.stringify(fake.path)} });
        const listener = await pool.listen({ host: '127.0.0.1' });
        require('node:worker_threads').parentPort.postMessage(listener.address().port);
        for (;;) await listener.accept();
      })();
    `, { eval: true });
    const [port] = await once(worker, 'message') as [number];
    const { client } = await asked;
    assert(fake.clients.has(client));
    await worker.terminate();
    await until(() => !fake.clients.has(client), { what: 'the pool to see the end of the connection of the worker' });
    const late = net.connect(port, '127.0.0.1');
    const [error] = await once(late, 'error') as [NodeJS.ErrnoException];
    assert.equal(error.code, 'ECONNREFUSED');
    assert.equal((await pool.ping()).pool, 'fake');
  });
});
