import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connectPool, socketPaths } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import { FakePool } from './lib-fake-pool.js';

const code = (wanted: string) => (error: unknown): boolean => {
  assert(error instanceof TlsPoolError, String(error));
  assert.equal(error.code, wanted, error.message);
  return true;
};

describe('libtlspool: the pool connection', () => {
  let fake: FakePool;
  beforeEach(() => { fake = new FakePool().start(); });
  afterEach(async () => {
    await fake.end();
  });

  it('a named path is the only one tried; the system path comes before the user path', () => {
    assert.deepEqual(socketPaths('/x', { TLSPOOL_SOCKET: '/y' }), ['/x']);
    assert.deepEqual(socketPaths(undefined, { TLSPOOL_SOCKET: '/y', XDG_RUNTIME_DIR: '/run/user/1' }), ['/y']);
    assert.deepEqual(socketPaths(undefined, { XDG_RUNTIME_DIR: '/run/user/1' }), ['/run/tlspool/pool.sock', '/run/user/1/tlspool/pool.sock']);
    assert.deepEqual(socketPaths(undefined, { TLSPOOL_SOCKET: '', XDG_RUNTIME_DIR: '' }), ['/run/tlspool/pool.sock']);
  });

  it('a pool that is not there is POOL_UNREACHABLE, naming the path, the reason and the cure', async () => {
    await assert.rejects(connectPool({ path: `${fake.folder}/none.sock` }), (error: unknown) => {
      assert(error instanceof TlsPoolError);
      assert.equal(error.code, 'POOL_UNREACHABLE');
      assert.match(error.message, /none\.sock \(ENOENT\)/);
      assert.match(error.message, /tlspoold/);
      assert.match(error.message, /TLSPOOL_SOCKET/);
      return true;
    });
  });

  it('a path that looks like the name of an error is not taken for one', async () => {
    await assert.rejects(connectPool({ path: `${fake.folder}/EAGAIN` }), (error: unknown) => error instanceof TlsPoolError && /EAGAIN \(ENOENT\)/.test(error.message));
  });

  it('hello is the first message, and ping echoes', async () => {
    const pool = await connectPool({ path: fake.path });
    const { payload, pid } = await pool.ping(Buffer.from('octets'));
    assert.equal(Buffer.from(payload ?? []).toString(), 'octets');
    assert.equal(pid, 1);
    assert.deepEqual(fake.seen.map(({ message }) => message.op), ['hello', 'ping']);
    pool.close();
  });

  it('a pool of another protocol version is refused with VERSION', async () => {
    fake.handlers.hello = () => ({ version: 2, pool: 'fake', maxMessageOctets: 65_536 });
    await assert.rejects(connectPool({ path: fake.path }), code('VERSION'));
  });

  it('an error reply rejects with its code and text', async () => {
    fake.handlers.reload = () => { throw new TlsPoolError('CONFIG_BAD', { text: 'line 3' }); };
    const pool = await connectPool({ path: fake.path });
    await assert.rejects(pool.request('reload', {}), (error: unknown) => code('CONFIG_BAD')(error) && (error as Error).message === 'line 3');
    pool.close();
  });

  it('a code that this library does not know keeps its name in the text', async () => {
    fake.handlers.reload = ({ client, message }) => {
      client.send({ type: 'error', op: 'reload', id: message.id, body: { code: 'FROM_THE_FUTURE', text: 'unheard of' } });
      return undefined;
    };
    const pool = await connectPool({ path: fake.path });
    await assert.rejects(pool.request('reload', {}), /FROM_THE_FUTURE: unheard of/);
    pool.close();
  });

  it('a request that is not answered is TIMEOUT, and a late reply is dropped with its descriptors', async () => {
    let late: (() => void) | undefined;
    fake.handlers.ping = ({ client, message }) => {
      late = () => client.send({ type: 'reply', op: 'ping', id: message.id, body: { pool: 'late', pid: 1, uptimeMs: 1 } });
      return undefined;
    };
    const pool = await connectPool({ path: fake.path, timeoutMs: 30 });
    await assert.rejects(pool.ping(), code('TIMEOUT'));
    late?.();
    fake.handlers.ping = () => ({ pool: 'prompt', pid: 1, uptimeMs: 1 });
    assert.equal((await pool.ping()).pool, 'prompt');
    pool.close();
  });

  it('outstanding requests are rejected with POOL_LOST when the pool dies, and the library connects again', async () => {
    fake.handlers.status = () => undefined;
    const pool = await connectPool({ path: fake.path });
    const asked = fake.next('status');
    const outstanding = pool.request('status', {});
    await asked;
    const lost = once(pool, 'lost');
    fake.stop();
    await assert.rejects(outstanding, code('POOL_LOST'));
    await lost;
    const back = once(pool, 'reconnected');
    fake.start();
    const held = pool.ping();
    await back;
    assert.equal((await held).pool, 'fake');
    pool.close();
  });

  it('without reconnect, requests after the loss are POOL_LOST at once', async () => {
    const pool = await connectPool({ path: fake.path, reconnect: false });
    const lost = once(pool, 'lost');
    fake.stop();
    await lost;
    await assert.rejects(pool.ping(), code('POOL_LOST'));
  });

  it('an abort while connecting is ABORTED; an abort afterwards changes nothing', async () => {
    fake.handlers.hello = () => undefined;
    const early = new AbortController();
    const asked = fake.next('hello');
    const connecting = connectPool({ path: fake.path, signal: early.signal });
    await asked;
    early.abort();
    await assert.rejects(connecting, code('ABORTED'));
    fake.handlers.hello = () => ({ version: 1, pool: 'fake', maxMessageOctets: 65_536 });
    const late = new AbortController();
    const pool = await connectPool({ path: fake.path, signal: late.signal });
    late.abort();
    assert.equal((await pool.ping()).pool, 'fake');
    pool.close();
  });

  it('a packet that is no message ends the connection, and its descriptors are closed', async () => {
    fake.handlers.ping = ({ client }) => {
      const [left, right] = sockets.socketpair('stream');
      client.sendRaw(Buffer.from([0xc1]), [left, right]);
      sockets.close(left);
      sockets.close(right);
      return undefined;
    };
    const pool = await connectPool({ path: fake.path, reconnect: false });
    await assert.rejects(pool.ping(), code('POOL_LOST'));
  });

  it('descriptors that the message table does not allow end the connection and are closed', async () => {
    fake.handlers.ping = ({ client, message }) => {
      const [left, right] = sockets.socketpair('stream');
      client.send({ type: 'reply', op: 'ping', id: message.id, body: { pool: 'fake', pid: 1, uptimeMs: 1 } }, [left]);
      sockets.close(left);
      sockets.close(right);
      return undefined;
    };
    const pool = await connectPool({ path: fake.path, reconnect: false });
    await assert.rejects(pool.ping(), code('POOL_LOST'));
  });

  it('an event of a newer pool is ignored', async () => {
    fake.handlers.ping = ({ client }) => {
      // {type: "event", op: "news", body: {}}
      client.sendRaw(Buffer.from('83a474797065a56576656e74a26f70a46e657773a4626f647980', 'hex'));
      return { pool: 'fake', pid: 1, uptimeMs: 1 };
    };
    const pool = await connectPool({ path: fake.path });
    assert.equal((await pool.ping()).pool, 'fake');
    pool.close();
  });

  it('a callback of a newer pool is answered with UNKNOWN_OP', async () => {
    const answered = fake.next('news', 'error').then(({ message }) => message.body);
    fake.handlers.ping = ({ client }) => {
      // {type: "callback", op: "news", id: 7, body: {}}
      client.sendRaw(Buffer.from('84a474797065a863616c6c6261636ba26f70a46e657773a2696407a4626f647980', 'hex'));
      return { pool: 'fake', pid: 1, uptimeMs: 1 };
    };
    const pool = await connectPool({ path: fake.path });
    await pool.ping();
    assert.equal((await answered as { code: string }).code, 'UNKNOWN_OP');
    pool.close();
  });

  it('requests beyond the room in the socket wait for it and are all answered', async () => {
    const pool = await connectPool({ path: fake.path });
    const payload = Buffer.alloc(1024, 1);
    const replies = await Promise.all(Array.from({ length: 2000 }, () => pool.ping(payload)));
    assert.equal(replies.filter((reply) => reply.payload?.length === 1024).length, 2000);
    pool.close();
  });

});
