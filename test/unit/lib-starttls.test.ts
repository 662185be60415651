import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { connectPool } from 'libtlspool';
import type { Pool } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import { descriptors, event, until } from '../support/index.js';
import { FakePool, key, sessionInfo } from './lib-fake-pool.js';

const code = (wanted: string) => (error: unknown): boolean => {
  assert(error instanceof TlsPoolError, String(error));
  assert.equal(error.code, wanted, error.message);
  return true;
};

describe('libtlspool: starttls', () => {
  let fake: FakePool;
  let pool: Pool;
  let server: net.Server;
  beforeEach(async () => {
    fake = new FakePool().start();
    fake.handlers.starttls = ({ client, message, fds }) => {
      fake.owned.push(sockets.dup(fds[0] as OwnedFd));
      const [ours, theirs] = sockets.socketpair('stream');
      fake.owned.push(ours);
      client.send({ type: 'reply', op: 'starttls', id: message.id, body: { ctlkey: key(1), info: sessionInfo } }, [theirs]);
      sockets.close(theirs);
      return undefined;
    };
    pool = await connectPool({ path: fake.path });
    server = net.createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
  });
  afterEach(async () => {
    pool.close();
    server.close();
    await fake.end();
  });

  /** A connection: the peer's end, and the end that is upgraded. */
  const pair = async (): Promise<{ peer: net.Socket; socket: net.Socket }> => {
    const accepted = once(server, 'connection') as Promise<[net.Socket]>;
    const peer = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1');
    peer.on('error', () => undefined);
    const [socket] = await accepted;
    await (peer.connecting ? once(peer, 'connect') : undefined);
    return { peer, socket };
  };

  /** Everything that can be read from the descriptor that the pool was given. */
  const read = (fd: OwnedFd, octets: number): string => {
    let text = '';
    while (text.length < octets) {
      assert.notEqual(sockets.pollWait(fd, 1, 5_000), 0, `only ${JSON.stringify(text)} came`);
      text += sockets.receive(fd, 65_536, 0)?.data.toString() ?? '';
    }
    return text;
  };

  it('octets that follow the go-ahead in the same turn are left for the pool, to the last one', async () => {
    const { peer, socket } = await pair();
    peer.write('STARTTLS\r\n');
    await once(socket, 'data');
    // The peer speaks as soon as it sees the go-ahead, long before the pool has the descriptor.
    peer.once('data', () => peer.write('first TLS octets'));
    const plain = await pool.starttls(socket, { role: 'server', goAhead: '220 ready\r\n' });
    assert.equal(read(fake.owned[0] as OwnedFd, 16), 'first TLS octets');
    assert.equal(socket.bytesRead, 10, 'nothing after the command was read in this process');
    plain.destroy();
    peer.destroy();
  });

  it('octets that are in the kernel before the go-ahead reach the pool as TLS, never the plain text', async () => {
    const { peer, socket } = await pair();
    peer.write('STARTTLS\r\n');
    await once(socket, 'data');
    const upgrading = pool.starttls(socket, { role: 'server', goAhead: '220 ready\r\n' });
    peer.write('INJECTED\r\n');
    const plain = await upgrading;
    let seen = '';
    plain.on('data', (chunk: Buffer) => { seen += chunk.toString(); });
    assert.equal(read(fake.owned[0] as OwnedFd, 10), 'INJECTED\r\n');
    assert.equal(seen, '');
    plain.destroy();
    peer.destroy();
  });

  it('octets that were read as plain text already are EARLY_OCTETS, and the connection is closed', async () => {
    const { peer, socket } = await pair();
    peer.write('STARTTLS\r\nINJECTED');
    await once(socket, 'readable');
    socket.read(10);
    const closed = event(peer, 'close');
    peer.resume();
    await assert.rejects(pool.starttls(socket, { role: 'server', goAhead: '220 ready\r\n' }), code('EARLY_OCTETS'));
    await closed;
    assert.equal(socket.destroyed, true);
    assert.equal(peer.bytesRead, 0, 'the go-ahead was not sent');
    assert.equal(fake.owned.length, 0);
  });

  it('a client refuses a server that speaks between its go-ahead and our ClientHello', async () => {
    const { peer, socket } = await pair();
    peer.write('220 go');
    await once(socket, 'data');
    peer.write('and 250 injected');
    const fd = (socket as unknown as { _handle: { fd: number; readStop(): void } })._handle;
    fd.readStop();
    sockets.pollWait(fd.fd as OwnedFd, 1, 5_000);
    await assert.rejects(pool.starttls(socket, { role: 'client', remoteid: 'localhost' }), code('EARLY_OCTETS'));
    peer.destroy();
  });

  it('the connection lives on after the original socket is destroyed, in both directions', async () => {
    const { peer, socket } = await pair();
    const plain = await pool.starttls(socket, { role: 'server' });
    assert.equal(socket.destroyed, true);
    peer.write('to the pool');
    assert.equal(read(fake.owned[0] as OwnedFd, 11), 'to the pool');
    const came = once(peer, 'data');
    sockets.send(fake.owned[0] as OwnedFd, Buffer.from('from the pool'));
    assert.equal(String((await came)[0]), 'from the pool');
    plain.destroy();
    peer.destroy();
  });

  it('what was written before is sent before the hand-over, corked or not', async () => {
    const { peer, socket } = await pair();
    let seen = '';
    peer.on('data', (chunk: Buffer) => { seen += chunk.toString(); });
    socket.cork();
    socket.write('250 ok\r\n');
    const plain = await pool.starttls(socket, { role: 'server', goAhead: '220 ready\r\n' });
    await until(() => seen.length === 19, { what: 'both lines' });
    assert.equal(seen, '250 ok\r\n220 ready\r\n');
    plain.destroy();
    peer.destroy();
  });

  it('a failed handshake rejects once with the code of the pool, and the connection is closed', async () => {
    fake.handlers.starttls = () => { throw new TlsPoolError('HANDSHAKE_FAILED', { text: 'no shared cipher' }); };
    const { peer, socket } = await pair();
    const closed = event(peer, 'close');
    peer.resume();
    await assert.rejects(pool.starttls(socket, { role: 'server' }), code('HANDSHAKE_FAILED'));
    await closed;
  });

  it('the death of the pool during the handshake is POOL_LOST, and the connection is closed', async () => {
    fake.handlers.starttls = () => undefined;
    const { peer, socket } = await pair();
    const closed = event(peer, 'close');
    peer.resume();
    const asked = fake.next('starttls');
    const upgrading = assert.rejects(pool.starttls(socket, { role: 'server' }), code('POOL_LOST'));
    await asked;
    fake.stop();
    await upgrading;
    await closed;
  });

  it('a socket that is not connected, was ended, or is protected already is BAD_STATE', async () => {
    await assert.rejects(pool.starttls(new net.Socket(), { role: 'server' }), code('BAD_STATE'));
    const ended = await pair();
    ended.socket.end();
    await assert.rejects(pool.starttls(ended.socket, { role: 'server' }), code('BAD_STATE'));
    ended.peer.destroy();
    const once_ = await pair();
    const plain = await pool.starttls(once_.socket, { role: 'server' });
    await assert.rejects(pool.starttls(plain, { role: 'server' }), code('BAD_STATE'));
    once_.peer.destroy();
  });

  it('a descriptor is taken over, and closed on success and on failure', async () => {
    for (const outcome of ['success', 'failure']) {
      if (outcome === 'failure') fake.handlers.starttls = () => { throw new TlsPoolError('NOT_PERMITTED'); };
      const [left, right] = sockets.socketpair('stream');
      const inode = descriptors(process.pid).get(left) ?? '';
      const upgraded = await pool.starttls(left, { role: 'server' }).catch((error: unknown) => error);
      if (upgraded instanceof net.Socket) upgraded.destroy();
      else code('NOT_PERMITTED')(upgraded);
      const copies = [...descriptors(process.pid).values()].filter((target) => target === inode).length;
      assert.equal(copies, outcome === 'success' ? 1 : 0, 'only the copy of the pool is left');
      sockets.close(right);
    }
  });

  it('connect() to a port where nobody listens is the error of the connection', async () => {
    const { port } = server.address() as net.AddressInfo;
    server.close();
    await once(server, 'close');
    await assert.rejects(pool.connect({ host: '127.0.0.1', port }), { code: 'ECONNREFUSED' });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
  });

  it('connect() asks the pool to verify the host, or the name that was given, and passes an abort on', async () => {
    const { port } = server.address() as net.AddressInfo;
    server.on('connection', (socket) => { socket.on('error', () => undefined); socket.resume(); });
    const asked = async (extra: object): Promise<object> => {
      const request = fake.next('starttls');
      const plain = await pool.connect({ host: '127.0.0.1', port, ...extra });
      plain.destroy();
      return (await request).message.body;
    };
    assert.deepEqual(await asked({}), { role: 'client', remoteid: '127.0.0.1' });
    assert.deepEqual(await asked({ servername: 'a.example' }), { role: 'client', remoteid: 'a.example', servername: 'a.example' });
    const abort = AbortSignal.abort();
    await assert.rejects(pool.connect({ host: '127.0.0.1', port, signal: abort }), code('ABORTED'));
    for (const fd of fake.owned.splice(0)) sockets.close(fd);
  });
});
