/** Copies of the engine's own sockets, as a child has them between fork(2) and execve(2) (the daemon runs getent when it reads a configuration), and as a reader of /proc/PID/fd has. */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import net from 'node:net';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd, SocketInfo } from 'libtlspool/native';
import { countDescriptors } from '../support/native-fds.js';
import { descriptors } from '../support/process-info.js';
import { event, until } from '../support/wait.js';
import { connectTls, makeCertificates, Rig } from './engine-support.js';
import type { Certificates } from './engine-support.js';

interface Found { readonly fd: BorrowedFd; readonly inode: number }

/** The first socket of this process that is like that. */
function findSocket(isIt: (info: SocketInfo, inode: number) => boolean): Found | undefined {
  for (const [number, link] of descriptors(process.pid)) {
    const inode = Number(/^socket:\[(\d+)\]$/u.exec(link)?.[1]);
    const fd = number as BorrowedFd;
    if (!Number.isNaN(inode) && isIt(sockets.socketInfo(fd), inode)) return { fd, inode };
  }
  return undefined;
}

function connectedTo(port: number): Found {
  const found = findSocket(({ remote }) => remote?.port === port);
  assert.ok(found !== undefined, `nothing here is connected to port ${port}`);
  return found;
}

/** Does any epoll of this process watch the file with this inode? */
function isWatched(inode: number): boolean {
  return readdirSync('/proc/self/fdinfo').some((name) => {
    try {
      return new RegExp(`^tfd:.* ino:${inode.toString(16)} `, 'mu').test(readFileSync(`/proc/self/fdinfo/${name}`, 'utf8'));
    } catch {
      return false;
    }
  });
}

/** Nothing else in this process that an epoll watches is of this kind. */
const beingConnected = (): Found | undefined => findSocket(({ domain, type, listening, connected }, inode) => domain === 'IPv4' && type === 'stream' && !listening && !connected && isWatched(inode));

describe('engine: a session that is over is watched no more', () => {
  // Outside: the hooks of the inner suite close what the tests leave.
  countDescriptors();

  describe('although somebody has a copy of', () => {
    let certificates: Certificates;
    let rig: Rig;
    const owned: OwnedFd[] = [];
    const clients: net.Socket[] = [];
    before(() => { certificates = makeCertificates(); });
    beforeEach(() => { rig = new Rig(certificates); });
    afterEach(() => {
      rig.close();
      for (const client of clients.splice(0)) client.destroy();
      for (const fd of owned.splice(0)) sockets.close(fd);
    });

    /** A copy of the socket, which the engine watches now. */
    function copyOf({ fd, inode }: Found): number {
      owned.push(sockets.dup(fd));
      assert.ok(isWatched(inode));
      return inode;
    }

    it('the socket that was accepted', async () => {
      const client = await connectTls(rig.listen(rig.selector()).port, certificates.ca);
      clients.push(client.on('error', () => undefined));
      const { session, plainfd } = await rig.event('established');
      owned.push(plainfd as OwnedFd);
      const inode = copyOf(connectedTo(client.localPort ?? 0));
      rig.engine.close(session, 'abort');
      await rig.event('closed');
      await until(() => !isWatched(inode), { what: 'the watch to end', deadlineMs: 3000 });
    });

    it('the socket that was connected to a backend', async () => {
      const backend = sockets.tcpListen({ host: '127.0.0.1', port: 0 });
      owned.push(backend);
      const backendPort = sockets.socketInfo(backend).local?.port ?? 0;
      const client = await connectTls(rig.listen(rig.selector(), { backend: { host: '127.0.0.1', port: backendPort } }).port, certificates.ca);
      clients.push(client.on('error', () => undefined));
      const { session } = await rig.event('established');
      const inode = copyOf(connectedTo(backendPort));
      rig.engine.close(session, 'abort');
      await rig.event('closed');
      await until(() => !isWatched(inode), { what: 'the watch to end', deadlineMs: 3000 });
    });

    it('the socket that was being connected to a backend', async () => {
      const hasty = new Rig(certificates, { handshakeMs: 500 });
      try {
        // A backlog of 1 holds two connections; the SYN of another is left without an answer.
        const backend = sockets.tcpListen({ host: '127.0.0.1', port: 0, backlog: 1 });
        owned.push(backend);
        const backendPort = sockets.socketInfo(backend).local?.port ?? 0;
        for (let held = 0; held < 2; held++) {
          const filler = net.connect(backendPort, '127.0.0.1');
          clients.push(filler);
          await event(filler, 'connect');
        }
        const { port } = hasty.listen(hasty.selector(), { backend: { host: '127.0.0.1', port: backendPort } });
        clients.push((await connectTls(port, certificates.ca)).on('error', () => undefined));
        const inode = copyOf(await until(() => beingConnected(), { what: 'the connection to the backend to begin' }));
        assert.equal((await hasty.event('failed')).code, 'HANDSHAKE_TIMEOUT');
        await until(() => !isWatched(inode), { what: 'the watch to end', deadlineMs: 3000 });
      } finally {
        hasty.close();
      }
    });
  });
});
