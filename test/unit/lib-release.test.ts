/** Sessions that leave a process, and come into it, against a pool that does what the test says. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { connectPool, PoolSocket } from 'libtlspool';
import type { Listener, Pool } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import { reattachSession } from 'libtlspool/session';
import type { SessionEnd } from 'libtlspool/session';
import { event, until, within } from '../support/index.js';
import { FakePool, key, sessionInfo } from './lib-fake-pool.js';
import type { FakeClient } from './lib-fake-pool.js';

const code = (wanted: string, text = /./u) => (error: unknown): boolean => {
  assert(error instanceof TlsPoolError, String(error));
  assert.equal(error.code, wanted, error.message);
  assert.match(error.message, text);
  return true;
};
const closedPipe = 16;

describe('libtlspool: a session changes hands', () => {
  let fake: FakePool;
  let pool: Pool;
  let listener: Listener;
  let client: FakeClient;
  beforeEach(async () => {
    fake = new FakePool().start();
    fake.handlers.detach = () => ({});
    fake.handlers.reattach = () => ({ info: { ...sessionInfo, servername: 'from the pool' } });
    pool = await connectPool({ path: fake.path, timeoutMs: 2_000 });
    const asked = fake.next('listen');
    listener = await pool.listen({ host: '127.0.0.1' });
    ({ client } = await asked);
  });
  afterEach(async () => {
    pool.close();
    await fake.end();
  });

  const accept = async (n = 1): Promise<{ socket: PoolSocket; end: OwnedFd }> => {
    const end = client.connection(1, n);
    fake.owned.push(end);
    return { socket: await listener.accept(), end };
  };
  const keep = (fd: OwnedFd): OwnedFd => { fake.owned.push(fd); return fd; };
  const read = async (fd: OwnedFd): Promise<string> => {
    let text = '';
    await until(() => { text += sockets.receive(fd, 4096, 0)?.data.toString() ?? ''; return text !== ''; }, { what: 'octets' });
    return text;
  };
  /** Both ends of a stream, as two processes would have them. */
  const stream = (): [OwnedFd, OwnedFd] => {
    const [ours, theirs] = sockets.socketpair('stream');
    fake.owned.push(ours);
    return [ours, theirs];
  };

  describe('release()', () => {
    it('gives descriptor and control key, and the other end sees nothing of it', async () => {
      const { socket, end } = await accept();
      const closed = once(socket, 'close');
      const { fd, ctlkey } = await socket.release();
      assert.deepEqual(Buffer.from(ctlkey), key(1));
      await closed;
      assert.equal(sockets.pollWait(end, 1, 0), 0, 'neither octets nor an end');
      sockets.send(keep(fd), Buffer.from('from the next'));
      assert.equal(await read(end), 'from the next');
      sockets.send(end, Buffer.from('to the next'));
      assert.equal(await read(fd), 'to the next');
      assert.deepEqual(fake.seen.filter(({ message }) => message.op === 'detach' || message.op === 'close').map(({ message }) => message.op), ['detach']);
    });

    it('what was written before comes before what the next holder writes', async () => {
      const { socket, end } = await accept();
      const octets = Buffer.alloc(2_000_000, 'x');
      socket.write(octets);
      socket.write('last');
      assert.ok(socket.writableLength > 0, 'more than the kernel takes');
      const released = socket.release();
      let text = '';
      await until(() => { text += sockets.receive(end, 262_144, 0)?.data.toString() ?? ''; return text.length >= octets.length + 4; }, { what: 'everything that was written' });
      const { fd } = await released;
      sockets.send(keep(fd), Buffer.from('next'));
      text += await read(end);
      assert.equal(text.length, octets.length + 8);
      assert.ok(text.endsWith('xlastnext'));
    });

    it('corked writes are sent, and not lost', async () => {
      const { socket, end } = await accept();
      socket.cork();
      socket.write('corked');
      keep((await socket.release()).fd);
      assert.equal(await read(end), 'corked');
    });

    it('octets that arrive from the call on are for the next holder', async () => {
      const { socket, end } = await accept();
      let text = '';
      socket.on('data', (chunk: Buffer) => { text += chunk.toString(); });
      sockets.send(end, Buffer.from('mine'));
      await once(socket, 'data');
      const released = socket.release();
      sockets.send(end, Buffer.from('theirs'));
      const fd = keep((await released).fd);
      assert.equal(text, 'mine');
      assert.equal(await read(fd), 'theirs');
    });

    it('is refused while octets are read and not taken; once they are taken it is not', async () => {
      const { socket, end } = await accept();
      sockets.send(end, Buffer.from('read ahead'));
      await once(socket, 'readable');
      await assert.rejects(socket.release(), code('BAD_STATE', /10 octets were read and not taken/u));
      assert.equal(fake.seen.filter(({ message }) => message.op === 'detach').length, 0, 'control was not given up');
      assert.equal(String(socket.read()), 'read ahead');
      keep((await socket.release()).fd);
    });

    it('refused, the socket reads on', async () => {
      const { socket, end } = await accept();
      sockets.send(end, Buffer.from('one'));
      await once(socket, 'readable');
      await assert.rejects(socket.release(), code('BAD_STATE'));
      assert.equal(String(socket.read()), 'one');
      socket.setEncoding('utf8');
      const next = once(socket, 'data');
      sockets.send(end, Buffer.from('two'));
      assert.deepEqual(await within(next, 'the next octets'), ['two']);
      socket.destroy();
    });

    it('of an ended or destroyed socket is BAD_STATE', async () => {
      const { socket } = await accept();
      socket.end();
      await assert.rejects(socket.release(), code('BAD_STATE', /ended/u));
      const other = await accept(2);
      other.socket.destroy();
      await assert.rejects(other.socket.release(), code('BAD_STATE', /not open/u));
      socket.destroy();
    });

    it('of a session that is over is CTLKEY_UNKNOWN, and the socket tells how it ended', async () => {
      const { socket, end } = await accept();
      fake.handlers.detach = () => { throw new TlsPoolError('CTLKEY_UNKNOWN'); };
      const failed = event<Error>(socket, 'error');
      const released = socket.release();
      client.closed(1, 'truncated');
      sockets.close(fake.owned.splice(fake.owned.indexOf(end), 1)[0] as OwnedFd);
      await assert.rejects(released, code('CTLKEY_UNKNOWN'));
      socket.resume();
      code('TRUNCATED')(await failed);
    });

    it('a pool that dies meanwhile is POOL_LOST, and no descriptor stays', async () => {
      const { socket } = await accept();
      fake.handlers.detach = () => undefined;
      const asked = fake.next('detach');
      const released = socket.release();
      released.catch(() => undefined);
      await asked;
      fake.stop();
      await assert.rejects(released, code('POOL_LOST'));
      socket.destroy();
    });
  });

  describe('detach()', () => {
    it('gives the control key; octets flow on, and a half close is an end', async () => {
      const { socket, end } = await accept();
      socket.allowHalfOpen = true;
      assert.deepEqual(Buffer.from(await socket.detach()), key(1));
      assert.deepEqual(Buffer.from(await socket.detach()), key(1), 'may be called twice');
      assert.equal(fake.seen.filter(({ message }) => message.op === 'detach').length, 1);
      socket.write('out');
      assert.equal(await read(end), 'out');
      const ended = once(socket, 'end');
      let text = '';
      socket.on('data', (chunk: Buffer) => { text += chunk.toString(); });
      sockets.send(end, Buffer.from('in'));
      sockets.shutdown(end, 1);
      await ended;
      assert.equal(text, 'in');
      socket.destroy();
    });

    it('what the pool would say is no longer heard: the end of the session is SESSION_LOST, also when the pool said that it was complete', async () => {
      const { socket, end } = await accept();
      await socket.detach();
      const failed = event<Error>(socket, 'error');
      socket.resume();
      client.closed(1, 'closed');
      sockets.close(fake.owned.splice(fake.owned.indexOf(end), 1)[0] as OwnedFd);
      code('SESSION_LOST', /nobody told/u)(await failed);
    });

    it('nothing can be asked afterwards', async () => {
      const { socket } = await accept();
      await socket.detach();
      for (const asked of [socket.channelBindings(), socket.names(), socket.exportKeyingMaterialAsync(1, 'EXPORTER-x'), socket.reauthenticate()]) {
        await assert.rejects(asked, code('BAD_STATE', /no control of the session: it was detached/u));
      }
      assert.throws(() => socket.exportKeyingMaterial(1, 'EXPORTER-x'), code('BAD_STATE'));
      socket.destroy();
    });

    it('refused by the pool, control stays: the pool is still heard', async () => {
      const { socket, end } = await accept();
      fake.handlers.detach = () => { throw new TlsPoolError('CTLKEY_UNKNOWN'); };
      await assert.rejects(socket.detach(), code('CTLKEY_UNKNOWN'));
      const failed = event<Error>(socket, 'error');
      socket.resume();
      client.closed(1, 'truncated');
      sockets.close(fake.owned.splice(fake.owned.indexOf(end), 1)[0] as OwnedFd);
      code('TRUNCATED')(await failed);
    });

    it('release() after it gives the descriptor without asking the pool', async () => {
      const { socket } = await accept();
      await socket.detach();
      fake.handlers.detach = () => { throw new TlsPoolError('CTLKEY_UNKNOWN'); };
      const { fd, ctlkey } = await socket.release();
      keep(fd);
      assert.deepEqual(Buffer.from(ctlkey), key(1));
    });
  });

  describe('reattach()', () => {
    it('goes on with a descriptor, with what the pool knows of the session', async () => {
      const [end, fd] = stream();
      sockets.send(end, Buffer.from('waiting'));
      const socket = await pool.reattach(key(3), fd);
      assert.ok(socket instanceof PoolSocket);
      assert.deepEqual([socket.servername, socket.encrypted, Buffer.from(socket.ctlkey)], ['from the pool', true, key(3)]);
      const [chunk] = await once(socket, 'data') as [Buffer];
      assert.equal(chunk.toString(), 'waiting');
      socket.write('answer');
      assert.equal(await read(end), 'answer');
      socket.destroy();
    });

    it('hears how the session ended, also when that is right behind the reply', async () => {
      const [end, fd] = stream();
      fake.handlers.reattach = ({ client: asker, message }) => {
        asker.send({ type: 'reply', op: 'reattach', id: message.id, body: { info: sessionInfo } });
        asker.closed(3, 'truncated');
        return undefined;
      };
      const socket = await pool.reattach(key(3), fd);
      const failed = event<Error>(socket, 'error');
      socket.resume();
      sockets.close(fake.owned.splice(fake.owned.indexOf(end), 1)[0] as OwnedFd);
      code('TRUNCATED')(await failed);
    });

    it('takes a net.Socket of which nothing was read: what waits in the kernel is not lost', async () => {
      const [end, fd] = stream();
      const plain = new net.Socket({ fd, readable: true, writable: true });
      plain.write('first ');
      sockets.send(end, Buffer.from('waiting'));
      const socket = await pool.reattach(key(3), plain);
      assert.equal(plain.destroyed, true);
      const [chunk] = await once(socket, 'data') as [Buffer];
      assert.equal(chunk.toString(), 'waiting');
      socket.write('second');
      let text = '';
      await until(() => { text += sockets.receive(end, 100, 0)?.data.toString() ?? ''; return text.length >= 12; }, { what: 'both writes' });
      assert.equal(text, 'first second');
      socket.destroy();
    });

    it('refuses a net.Socket that has read octets, and closes it', async () => {
      const [end, fd] = stream();
      const plain = new net.Socket({ fd, readable: true, writable: true });
      sockets.send(end, Buffer.from('taken'));
      await once(plain, 'readable');
      await assert.rejects(pool.reattach(key(3), plain), code('BAD_STATE', /5 octets/u));
      await until(() => (sockets.pollWait(end, 0, 0) & closedPipe) !== 0, { what: 'the descriptor to be closed' });
    });

    it('pauseOnConnect and allowHalfOpen are as in net', async () => {
      const [end, fd] = stream();
      const socket = await pool.reattach(key(3), fd, { pauseOnConnect: true, allowHalfOpen: true });
      sockets.send(end, Buffer.from('x'));
      assert.equal(socket.allowHalfOpen, true);
      await pool.ping();
      assert.equal(socket.readableLength, 0);
      const data = once(socket, 'data');
      socket.resume();
      await within(data, 'octets after resume()');
      socket.destroy();
    });

    it('refused by the pool, the descriptor is closed', async () => {
      const [end, fd] = stream();
      fake.handlers.reattach = () => { throw new TlsPoolError('CTLKEY_UNKNOWN'); };
      await assert.rejects(pool.reattach(key(3), fd), code('CTLKEY_UNKNOWN'));
      assert.notEqual(sockets.pollWait(end, 0, 0) & closedPipe, 0);
    });

    it('a pool that dies meanwhile is POOL_LOST, and the descriptor is closed', async () => {
      const [end, fd] = stream();
      fake.handlers.reattach = () => undefined;
      const asked = fake.next('reattach');
      const attached = pool.reattach(key(3), fd);
      attached.catch(() => undefined);
      await asked;
      fake.stop();
      await assert.rejects(attached, code('POOL_LOST'));
      assert.notEqual(sockets.pollWait(end, 0, 0) & closedPipe, 0);
    });

    it('a key of 15 octets, a listening socket, packets and TCP are refused before the pool is asked, and closed', async () => {
      await assert.rejects(pool.reattach(key(1).subarray(1), stream()[1]), code('BAD_ARGUMENT', /16 octets, not 15/u));
      const listening = sockets.unixListen({ path: `${fake.folder}/x`, kind: 'stream' });
      await assert.rejects(pool.reattach(key(1), listening), code('FD_KIND', /listening/u));
      const [packets, other] = sockets.socketpair('seqpacket');
      keep(packets);
      await assert.rejects(pool.reattach(key(1), other), code('FD_KIND', /seqpacket/u));
      await assert.rejects(pool.reattach(key(1), sockets.tcpListen({ host: '127.0.0.1', port: 0 })), code('FD_KIND', /IPv4/u));
      assert.equal(fake.seen.filter(({ message }) => message.op === 'reattach').length, 0);
    });
  });

  describe('reattachSession()', () => {
    it('takes control without the plain text, and hears how the session ended', async () => {
      const ended = new Promise<SessionEnd>((resolve) => {
        void reattachSession(pool, key(3), { onClosed: resolve }).then((session) => {
          assert.deepEqual([session.plainfd, session.info.servername, Buffer.from(session.ctlkey)], [undefined, 'from the pool', key(3)]);
          const asked = fake.seen.find(({ message }) => message.op === 'reattach');
          asked?.client.closed(3, 'revoked');
        });
      });
      const end = await within(ended, 'the end');
      assert.equal('how' in end && end.how, 'revoked');
    });

    it('is refused as the pool refuses', async () => {
      fake.handlers.reattach = () => { throw new TlsPoolError('LIMIT_SESSIONS'); };
      await assert.rejects(reattachSession(pool, key(3)), code('LIMIT_SESSIONS'));
    });
  });
});
