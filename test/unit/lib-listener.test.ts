import assert from 'node:assert/strict';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import type { Listener, Pool } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import { descriptors, until } from '../support/index.js';
import { FakePool, sessionInfo } from './lib-fake-pool.js';
import type { FakeClient } from './lib-fake-pool.js';

const code = (wanted: string) => (error: unknown): boolean => {
  assert(error instanceof TlsPoolError, String(error));
  assert.equal(error.code, wanted, error.message);
  return true;
};

describe('libtlspool: listen and accept', () => {
  let fake: FakePool;
  let pool: Pool;
  FakePool.forEach((...made) => { [fake, pool] = made; });

  const listen = async (options = {}): Promise<{ listener: Listener; client: FakeClient }> => {
    const asked = fake.next('listen');
    const listener = await pool.listen({ host: '127.0.0.1', ...options });
    return { listener, client: (await asked).client };
  };

  it('a connection comes as a socket that tells of the protected connection', async () => {
    const { listener, client } = await listen();
    fake.owned.push(client.connection(1, 1, { ...sessionInfo, servername: 'a.example', alpn: 'http/1.1', authorizationError: 'CERT_HAS_EXPIRED' }));
    const socket = await listener.accept();
    assert.equal(socket.remoteAddress, '192.0.2.7');
    assert.equal(socket.remotePort, 4711);
    assert.equal(socket.remoteFamily, 'IPv4');
    assert.deepEqual(socket.address(), { address: '192.0.2.1', family: 'IPv4', port: 443 });
    assert.equal(socket.encrypted, true);
    assert.equal(socket.authorized, false);
    assert.equal(socket.authorizationError, 'CERT_HAS_EXPIRED');
    assert.equal(socket.servername, 'a.example');
    assert.equal(socket.alpnProtocol, 'http/1.1');
    assert.equal(socket.getProtocol(), 'TLSv1.3');
    assert.deepEqual(socket.getCipher(), { name: 'TLS_AES_128_GCM_SHA256', standardName: 'TLS_AES_128_GCM_SHA256', version: 'TLSv1.3' });
    assert.deepEqual(socket.getPeerCertificate(), {});
    assert.equal(socket.getPeerX509Certificate(), undefined);
    assert.equal(socket.isSessionReused(), false);
    assert.throws(() => socket.setServername(), code('BAD_STATE'));
    assert(!JSON.stringify(Object.keys(socket)).includes('ctlkey'));
    const closed = once(socket, 'close');
    socket.destroy();
    await closed;
    assert.equal(socket.getProtocol(), null);
    await listener.close();
  });

  it('without a server name, a protocol or an error, the answers are those of Node: false, false and null', async () => {
    const { listener, client } = await listen();
    fake.owned.push(client.connection(1));
    const socket = await listener.accept();
    assert.equal(socket.servername, false);
    assert.equal(socket.alpnProtocol, false);
    assert.equal(socket.authorizationError, null);
    socket.destroy();
    await listener.close();
  });

  it('accept() resolves in the order of arrival, for those who wait and for those who come later', async () => {
    const { listener, client } = await listen();
    const early = listener.accept();
    for (const n of [1, 2, 3]) fake.owned.push(client.connection(1, n));
    const accepted = [await early, await listener.accept(), await listener.accept()];
    assert.deepEqual(accepted.map(({ ctlkey }) => ctlkey[0]), [1, 2, 3]);
    for (const socket of accepted) socket.destroy();
    await listener.close();
  });

  it('a listener that does not accept stops reading at its high-water mark, and goes on when it accepts', async () => {
    const { listener, client } = await listen({ highWaterMark: 2 });
    let sent = 0;
    // Until the kernel's queue is full: nobody reads beyond the mark.
    await until(() => {
      try {
        for (;;) fake.owned.push(client.connection(1, (++sent % 250) + 1));
      } catch {
        return sent > 2;
      }
    }, { what: 'the queue to be full' });
    sent--;
    for (let n = 0; n < sent; n++) (await listener.accept()).destroy();
    fake.owned.push(client.connection(1, 251));
    const last = await listener.accept();
    assert.equal(last.ctlkey[0], 251);
    last.destroy();
    await listener.close();
  });

  it('a highWaterMark of 0 is refused, 1 is accepted', async () => {
    await assert.rejects(pool.listen({ highWaterMark: 0 }), code('BAD_ARGUMENT'));
    const { listener, client } = await listen({ highWaterMark: 1 });
    for (const n of [1, 2, 3]) fake.owned.push(client.connection(1, n));
    for (const n of [1, 2, 3]) {
      const socket = await listener.accept();
      assert.equal(socket.ctlkey[0], n);
      socket.destroy();
    }
    await listener.close();
  });

  it('after close(), accept() is LISTENER_CLOSED, also for those who wait, and what nobody accepted is closed', async () => {
    const { listener, client } = await listen();
    const waiting = listener.accept();
    const refused = assert.rejects(waiting, code('LISTENER_CLOSED'));
    await listener.close();
    await refused;
    await assert.rejects(listener.accept(), code('LISTENER_CLOSED'));
    assert.equal(listener.address(), null);
    await until(() => !fake.clients.has(client), { what: 'the connection of the idle listener to be closed' });
  });

  it('an aborted accept() is ABORTED and takes no connection away', async () => {
    const { listener, client } = await listen();
    const abort = new AbortController();
    const waiting = assert.rejects(listener.accept({ signal: abort.signal }), code('ABORTED'));
    abort.abort();
    await waiting;
    fake.owned.push(client.connection(1, 9));
    const socket = await listener.accept({ signal: new AbortController().signal });
    assert.equal(socket.ctlkey[0], 9);
    socket.destroy();
    await listener.close();
  });

  it('for await yields connections, and leaving the loop closes the listener', async () => {
    const { listener, client } = await listen();
    fake.owned.push(client.connection(1, 5));
    for await (const socket of listener) {
      assert.equal(socket.ctlkey[0], 5);
      socket.destroy();
      break;
    }
    await assert.rejects(listener.accept(), code('LISTENER_CLOSED'));
  });

  it('for await ends without an error when the listener is closed', async () => {
    const { listener } = await listen();
    const loop = (async () => { for await (const socket of listener) socket.destroy(); })();
    await listener.close();
    await loop;
  });

  it('a session goes on after its listener was closed, and ends the connection to the pool with it', async () => {
    const { listener, client } = await listen();
    const end = client.connection(1, 3);
    const socket = await listener.accept();
    await listener.close();
    assert(fake.clients.has(client));
    sockets.send(end, Buffer.from('still here'));
    const [chunk] = await once(socket, 'data') as [Buffer];
    assert.equal(chunk.toString(), 'still here');
    const ended = once(socket, 'end');
    client.closed(3, 'closed');
    sockets.close(end);
    await ended;
    await until(() => !fake.clients.has(client), { what: 'the connection to be closed' });
  });

  it('while the pool restarts the port stays open, accept() waits, and the same socket is handed over again', async () => {
    const { listener } = await listen();
    const { port } = listener.address() as net.AddressInfo;
    const waiting = listener.accept();
    const lost = once(listener, 'lost');
    fake.stop();
    await lost;
    const peer = net.connect(port, '127.0.0.1');
    await once(peer, 'connect');
    const asked = fake.next('listen');
    fake.start();
    const { client } = await asked;
    assert.equal((listener.address() as net.AddressInfo).port, port);
    fake.owned.push(client.connection(1, 8));
    const socket = await waiting;
    assert.equal(socket.ctlkey[0], 8);
    socket.destroy();
    peer.destroy();
    await listener.close();
  });

  it('a pool that comes back and refuses the listener is asked again', async () => {
    const { listener } = await listen();
    const { listen: accepts } = fake.handlers;
    const lost = once(listener, 'lost');
    fake.stop();
    await lost;
    fake.handlers.listen = () => { throw new TlsPoolError('IDENTITY_UNKNOWN'); };
    const refused = once(listener, 'refused');
    fake.start();
    const [error] = await refused as [TlsPoolError];
    assert.equal(error.code, 'IDENTITY_UNKNOWN');
    if (accepts !== undefined) fake.handlers.listen = accepts;
    await once(listener, 'reconnected');
    await listener.close();
  });

  it('a listener that the pool closes rejects accept() with the reason', async () => {
    const { listener, client } = await listen();
    const waiting = assert.rejects(listener.accept(), (error: unknown) => code('NOT_PERMITTED')(error) && /no more/.test((error as Error).message));
    client.send({ type: 'event', op: 'listenerClosed', body: { listener: 1, code: 'NOT_PERMITTED', text: 'no more' } });
    await waiting;
  });

  it('listen() that the pool refuses closes the socket: the port is free', async () => {
    fake.handlers.listen = () => { throw new TlsPoolError('IDENTITY_UNKNOWN'); };
    const probe = net.createServer().listen(0, '127.0.0.1');
    await once(probe, 'listening');
    const { port } = probe.address() as net.AddressInfo;
    probe.close();
    await once(probe, 'close');
    await assert.rejects(pool.listen({ host: '127.0.0.1', port }), code('IDENTITY_UNKNOWN'));
    probe.listen(port, '127.0.0.1');
    await once(probe, 'listening');
    probe.close();
  });

  it('port 65536 is refused, as are two places at once, and a descriptor that does not listen; port 0 is accepted', async () => {
    await assert.rejects(pool.listen({ port: 65_536 }), code('BAD_ARGUMENT'));
    await assert.rejects(pool.listen({ port: 1, path: '/x' }), code('BAD_ARGUMENT'));
    const [left, right] = sockets.socketpair('stream');
    fake.owned.push(right);
    await assert.rejects(pool.listen({ fd: left }), code('FD_KIND'));
    const { listener } = await listen({ port: 0 });
    assert.notEqual((listener.address() as net.AddressInfo).port, 0);
    await listener.close();
  });

  it('an inherited descriptor is taken over, and closed with the listener', async () => {
    const fd = sockets.tcpListen({ host: '127.0.0.1', port: 0 });
    const inode = descriptors(process.pid).get(fd);
    const asked = fake.next('listen');
    const listener = await pool.listen({ fd });
    await asked;
    await listener.close();
    assert(![...descriptors(process.pid).values()].includes(inode ?? ''), 'no copy of it is left');
  });

  it('a UNIX listener removes its path when it is closed', async () => {
    const path = `${fake.folder}/app.sock`;
    const listener = await pool.listen({ path });
    assert.equal(listener.address(), path);
    assert(fs.existsSync(path));
    await listener.close();
    assert(!fs.existsSync(path));
  });

  describe('onServername', () => {
    const ask = async (onServername: Parameters<Pool['listen']>[0]['onServername'], servername = 'a.example'): Promise<object> => {
      const { listener, client } = await listen({ onServername });
      const answered = fake.next('servername', 'answer');
      client.send({ type: 'callback', op: 'servername', id: 4, body: { listener: 1, servername, alpn: ['h2'] } });
      const { message } = await answered;
      await listener.close();
      return message.body;
    };
    it('true lets the pool choose, an object names the identity, false refuses', async () => {
      assert.deepEqual(await ask(() => true), {});
      assert.deepEqual(await ask(({ servername, alpn }) => ({ localid: `${servername ?? ''}/${alpn.join()}` })), { localid: 'a.example/h2' });
      assert.deepEqual(await ask(() => Promise.resolve(false)), { refuse: true });
    });
    it('an exception refuses, and is reported as a warning', async () => {
      const warned = once(process, 'warning');
      assert.deepEqual(await ask(() => { throw new Error('no table'); }), { refuse: true });
      const [warning] = await warned as [Error];
      assert.equal(warning.message, 'no table');
    });
  });

  describe('share', () => {
    it('joins a listener that is there, without opening a socket', async () => {
      fake.handlers.join = () => ({ listener: 5, local: { family: 'IPv4', address: '127.0.0.1', port: 4433 } });
      const listener = await pool.listen({ share: 'web', port: 4433 });
      assert.deepEqual(listener.address(), { family: 'IPv4', address: '127.0.0.1', port: 4433 });
      assert(!fake.seen.some(({ message }) => message.op === 'listen'));
      await listener.close();
    });
    it('opens the socket when nobody has, and joins when another was quicker', async () => {
      let joins = 0;
      fake.handlers.join = () => {
        if (++joins === 1) throw new TlsPoolError('LISTENER_UNKNOWN');
        return { listener: 6, local: { family: 'IPv4', address: '127.0.0.1', port: 1 } };
      };
      fake.handlers.listen = () => { throw new TlsPoolError('SHARE_TAKEN'); };
      const listener = await pool.listen({ share: 'web', host: '127.0.0.1' });
      assert.deepEqual(fake.seen.map(({ message }) => message.op).slice(-3), ['join', 'listen', 'join']);
      await listener.close();
    });
  });
});
