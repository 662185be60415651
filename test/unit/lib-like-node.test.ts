/** Where code that was written for node:tls sees a PoolSocket behave as a tls.TLSSocket does. */
import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import { once } from 'node:events';
import https from 'node:https';
import net from 'node:net';
import { Agent, connectPool } from 'libtlspool';
import type { Pool, PoolSocket } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import type { SessionInfo } from 'libtlspool/protocol';
import { event, until } from '../support/index.js';
import { FakePool, key, sessionInfo } from './lib-fake-pool.js';
import type { FakeClient } from './lib-fake-pool.js';

describe('libtlspool: as node:tls does it', () => {
  let fake: FakePool;
  let pool: Pool;
  let target: net.Server;
  let sessions: { client: FakeClient; end: OwnedFd; n: number }[];
  beforeEach(async () => {
    sessions = [];
    fake = new FakePool().start();
    fake.handlers.starttls = ({ client, message }) => { session(client, message.id); return undefined; };
    pool = await connectPool({ path: fake.path });
    target = net.createServer((socket) => { socket.on('error', () => undefined).resume(); }).listen(0, '127.0.0.1');
    await once(target, 'listening');
  });
  afterEach(async () => {
    pool.close();
    target.close();
    await fake.end();
  });

  /** Answers starttls. */
  const session = (client: FakeClient, id: number, info: SessionInfo = { ...sessionInfo, role: 'client', alpn: 'http/1.1' }): void => {
    const [end, theirs] = sockets.socketpair('stream');
    fake.owned.push(end);
    const n = sessions.push({ client, end, n: sessions.length + 1 });
    client.send({ type: 'reply', op: 'starttls', id, body: { ctlkey: key(n), info } }, [theirs]);
    sockets.close(theirs);
  };
  const port = (): number => (target.address() as net.AddressInfo).port;
  const listen = async (options = {}) => {
    const asked = fake.next('listen');
    const listener = await pool.listen({ host: '127.0.0.1', ...options });
    return { listener, client: (await asked).client };
  };

  describe('asynchronous context', () => {
    const who = new AsyncLocalStorage<string>();
    /** In which context the octets, the end and the close of a socket are told; the peer's end comes after our own, so that it is the pool that tells. */
    const told = async (socket: PoolSocket, { client, end, n }: { client: FakeClient; end: OwnedFd; n: number }): Promise<(string | undefined)[]> => {
      const seen: (string | undefined)[] = [];
      for (const name of ['data', 'end', 'close']) socket.on(name, () => seen.push(who.getStore()));
      sockets.send(end, Buffer.from('octets'));
      await event(socket, 'data');
      socket.end();
      sockets.shutdown(end, 1);
      client.closed(n, 'closed');
      await event(socket, 'close');
      return seen;
    };

    it('of a connection that was made is the caller\'s, and not that of whoever connected to the pool', async () => {
      const other = await who.run('the first to use the pool', () => connectPool({ path: fake.path }));
      for (const [n, name] of ['alice', 'bob'].entries()) {
        const seen = await who.run(name, async () => {
          const socket = await other.connect({ host: '127.0.0.1', port: port() });
          return told(socket, sessions[n] as typeof sessions[number]);
        });
        assert.deepEqual(seen, [name, name, name]);
      }
      other.close();
    });

    it('of an accepted connection is that of accept(), whether it waited or was waited for', async () => {
      const { listener, client } = await who.run('listening', () => listen());
      const end1 = client.connection(1, 1);
      await pool.ping();
      const end2 = who.run('alice', async () => {
        const first = await listener.accept();
        const accepting = listener.accept();
        const end = client.connection(1, 2);
        return { first, second: await accepting, end };
      });
      const { first, second, end } = await end2;
      fake.owned.push(end1, end);
      assert.deepEqual(await told(first, { client, end: end1, n: 1 }), ['alice', 'alice', 'alice']);
      assert.deepEqual(await told(second, { client, end, n: 2 }), ['alice', 'alice', 'alice']);
      await listener.close();
    });

    it('of a session that was taken over is that of reattach()', async () => {
      fake.handlers.reattach = () => ({ info: sessionInfo });
      const [end, theirs] = sockets.socketpair('stream');
      fake.owned.push(end);
      const seen = await who.run('alice', async () => {
        const socket = await pool.reattach(key(1), theirs);
        const [client] = [...fake.clients];
        return told(socket, { client: client as FakeClient, end, n: 1 });
      });
      assert.deepEqual(seen, ['alice', 'alice', 'alice']);
    });
  });

  describe('answers', () => {
    const accepted = async (options: object, info: Partial<SessionInfo> = {}): Promise<PoolSocket> => {
      const { listener, client } = await listen(options);
      fake.owned.push(client.connection(1, 1, { ...sessionInfo, ...info }));
      const socket = await listener.accept();
      socket.on('error', () => undefined);
      return socket;
    };

    it('a client that was asked for a certificate and has none has an authorizationError; one that was not asked has not, nor has one that is authorized', async () => {
      assert.equal((await accepted({ clientAuth: 'request' })).authorizationError, 'UNABLE_TO_GET_ISSUER_CERT');
      assert.equal((await accepted({ clientAuth: 'request' }, { authorizationError: 'CERT_HAS_EXPIRED' })).authorizationError, 'CERT_HAS_EXPIRED');
      assert.equal((await accepted({ clientAuth: 'request' }, { authorized: true, peerCertificates: [Buffer.of(1)] })).authorizationError, null);
      assert.equal((await accepted({ clientAuth: 'none' })).authorizationError, null);
      assert.equal((await accepted({})).authorizationError, null);
    });

    it('the handshake is over: secureConnecting is false', async () => {
      assert.equal((await accepted({})).secureConnecting, false);
    });

    it('groups have Node\'s names', async () => {
      for (const [group, name, size] of [['x25519', 'X25519', 253], ['secp256r1', 'prime256v1', 256], ['secp384r1', 'secp384r1', 384], ['X25519MLKEM768', 'X25519MLKEM768', 0]] as const) {
        assert.deepEqual((await accepted({}, { role: 'client', group })).getEphemeralKeyInfo(), { type: 'ECDH', name, size });
      }
    });
  });

  describe('the timeout of a request', () => {
    const get = (options: object): Promise<unknown> => new Promise((resolve) => {
      https.get({ host: '127.0.0.1', port: port(), agent: new Agent({ pool }), ...options }, resolve).on('error', resolve);
    });

    it('ends a handshake that does not', async () => {
      fake.handlers.starttls = ({ client, message, fds }) => {
        // The pool hears the end of the connection, as it would of a peer that left.
        const crypt = sockets.dup(fds[0] as OwnedFd);
        const poll = sockets.poll(crypt, () => {
          poll.close();
          sockets.close(crypt);
          client.send({ type: 'error', op: 'starttls', id: message.id, body: { code: 'PEER_CLOSED', text: 'gone' } });
        });
        poll.start(1);
        return undefined;
      };
      const error = await get({ timeout: 50 });
      assert(error instanceof TlsPoolError, String(error));
      assert.equal(error.code, 'TIMEOUT');
      assert.match(error.message, /50 ms/u);
    });

    it('does no harm to a connection that is made in time', async () => {
      const answer = get({ timeout: 60_000 });
      const { end } = await until(() => sessions[0], { what: 'the session' });
      await until(() => sockets.receive(end, 65_536, 0) !== null, { what: 'the request' });
      sockets.send(end, Buffer.from('HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n'));
      assert.equal((await answer as { statusCode: number }).statusCode, 204);
    });
  });
});
