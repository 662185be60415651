/** Sockets of the native addon: opening, connecting, listening, looking at them. */
import assert from 'node:assert/strict';
import { existsSync, lstatSync, openSync, symlinkSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { constants } from 'node:os';
import path from 'node:path';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd, SocketKind } from 'libtlspool/native';
import { tempFolder } from '../support/cleanup.js';
import { borrowed, countDescriptors, throwsCode, withPair, wrong } from '../support/native-fds.js';
import { descriptors } from '../support/process-info.js';

const { EADDRINUSE, EBADF, ECONNREFUSED, ENOENT, ENOTCONN } = constants.errno;
const pollIn = 1;
const pollOut = 4;
const pollHup = 16;

const modeOf = (file: string): string => (lstatSync(file).mode & 0o7777).toString(8);
const longPath = (octets: number): string => path.join(tempFolder(), 'x'.repeat(200)).slice(0, octets);

function accepted(listener: BorrowedFd): OwnedFd {
  assert.equal(sockets.pollWait(listener, pollIn, 5000), pollIn);
  const fd = sockets.accept(listener);
  assert(fd !== null);
  return fd;
}

describe('native addon: UNIX sockets', () => {
  countDescriptors();

  for (const kind of ['stream', 'seqpacket'] satisfies SocketKind[]) {
    it(`${kind}: a client connects by path and both ends talk`, () => {
      const file = path.join(tempFolder(), 's');
      const listener = sockets.unixListen({ path: file, kind });
      assert.equal(sockets.accept(listener), null);
      const client = sockets.unixConnect(file, kind);
      const server = accepted(listener);
      sockets.send(client, Buffer.from('ping'));
      assert.equal(sockets.receive(server, 10, 0)?.data.toString(), 'ping');
      assert.deepEqual(sockets.socketInfo(server), {
        domain: 'unix', type: kind, listening: false, connected: true,
        local: { family: 'unix', address: file, port: 0 }, remote: { family: 'unix', address: '', port: 0 },
      });
      for (const fd of [listener, client, server]) sockets.close(fd);
    });

    it(`${kind}: the abstract namespace works and leaves no file`, () => {
      const name = `\0tlspool-test-${String(process.pid)}-${kind}`;
      const listener = sockets.unixListen({ path: name, kind });
      const client = sockets.unixConnect(name, kind);
      const server = accepted(listener);
      assert.equal(sockets.socketInfo(server).local?.address, name);
      for (const fd of [listener, client, server]) sockets.close(fd);
    });
  }

  it('the path gets the mode that was asked for, whatever the umask', () => {
    const folder = tempFolder();
    const before = process.umask(0o077);
    try {
      for (const [name, mode, expected] of [['a', undefined, '600'], ['b', 0o666, '666'], ['c', 0, '0'], ['d', 0o777, '777']] as const) {
        const file = path.join(folder, name);
        const fd = sockets.unixListen({ path: file, kind: 'stream', ...(mode === undefined ? {} : { mode }) });
        assert.equal(modeOf(file), expected);
        sockets.close(fd);
      }
      process.umask(0);
      const fd = sockets.unixListen({ path: path.join(folder, 'e'), kind: 'stream' });
      assert.equal(modeOf(path.join(folder, 'e')), '600');
      sockets.close(fd);
    } finally {
      process.umask(before);
    }
  });

  it('a mode outside the permission bits is refused', () => {
    for (const mode of [0o1000, -1, 0.5]) throwsCode(() => sockets.unixListen({ path: longPath(50), kind: 'stream', mode }), 'BAD_ARGUMENT');
  });

  it('a path of 107 octets is served; one of 108 is refused and not cut', () => {
    const fits = longPath(107);
    const listener = sockets.unixListen({ path: fits, kind: 'stream' });
    assert(existsSync(fits));
    sockets.close(sockets.unixConnect(fits, 'stream'));
    sockets.close(listener);
    for (const file of [longPath(108), longPath(200), 'x'.repeat(5000), '']) {
      throwsCode(() => sockets.unixListen({ path: file, kind: 'stream' }), 'BAD_ARGUMENT');
      throwsCode(() => sockets.unixConnect(file, 'stream'), 'BAD_ARGUMENT');
    }
  });

  it('octets are counted, not characters', () => {
    throwsCode(() => sockets.unixConnect(`/${'é'.repeat(54)}`, 'stream'), 'BAD_ARGUMENT');
    throwsCode(() => sockets.unixConnect(`/${'é'.repeat(53)}`, 'stream'), 'SYSTEM', -ENOENT);
  });

  it('a NUL inside a path is refused: the kernel would serve another path', () => {
    throwsCode(() => sockets.unixConnect('/tmp/a\0b', 'stream'), 'BAD_ARGUMENT');
    throwsCode(() => sockets.unixListen({ path: '/tmp/a\0b', kind: 'stream' }), 'BAD_ARGUMENT');
  });

  it('an existing path is never replaced, and stays as it was', () => {
    const folder = tempFolder();
    const file = path.join(folder, 'file');
    const link = path.join(folder, 'link');
    writeFileSync(file, 'precious', { mode: 0o640 });
    symlinkSync(file, link);
    for (const taken of [file, link]) throwsCode(() => sockets.unixListen({ path: taken, kind: 'stream', mode: 0o666 }), 'SYSTEM', -EADDRINUSE);
    assert.equal(modeOf(file), '640');
    assert(lstatSync(link).isSymbolicLink());
  });

  it('connecting says whether the path is missing or nobody listens', () => {
    const file = path.join(tempFolder(), 's');
    const missing = throwsCode(() => sockets.unixConnect(file, 'stream'), 'SYSTEM', -ENOENT);
    assert.equal(missing.syscall, 'connect');
    assert(missing.message.includes(file) && missing.message.includes('ENOENT'), missing.message);
    sockets.close(sockets.unixListen({ path: file, kind: 'stream' }));
    throwsCode(() => sockets.unixConnect(file, 'stream'), 'SYSTEM', -ECONNREFUSED);
  });

  it('options of the wrong type are refused before anything is opened', () => {
    const options = { path: '/nonexistent/x', kind: 'stream' };
    for (const bad of [undefined, null, 1, 'x', {}, { ...options, path: 1 }, { ...options, kind: 'dgram' }, { ...options, kind: 1 },
      { ...options, backlog: 0 }, { ...options, backlog: 65_536 }, { ...options, mode: '600' }]) {
      throwsCode(() => sockets.unixListen(wrong(bad)), 'BAD_ARGUMENT');
    }
    throwsCode(() => sockets.unixListen(wrong({ ...options, backlog: 65_535 })), 'SYSTEM', -ENOENT);
    for (const kind of [undefined, null, 'Stream', {}]) throwsCode(() => sockets.socketpair(wrong(kind)), 'BAD_ARGUMENT');
  });

  it('peer credentials are those of this process, with a pidfd that is ours', () => withPair('seqpacket', (left) => {
    const peer = sockets.peerCredentials(left);
    assert.deepEqual([peer.pid, peer.uid, peer.gid], [process.pid, process.geteuid?.(), process.getegid?.()]);
    assert.deepEqual([...peer.groups].sort(), (process.getgroups?.() ?? []).filter((group) => peer.groups.includes(group)).sort());
    if (peer.pidfd !== undefined) {
      assert.match(descriptors(process.pid).get(peer.pidfd) ?? '', /pidfd/u);
      sockets.close(peer.pidfd);
    }
  }));

  it('peer credentials of what has no peer are refused, never nobody', () => {
    const tcp = sockets.tcpListen({ host: '127.0.0.1', port: 0 });
    throwsCode(() => sockets.peerCredentials(tcp), 'FD_KIND');
    sockets.close(tcp);
    const file = openSync('/dev/null', 'r') as OwnedFd;
    throwsCode(() => sockets.peerCredentials(file), 'FD_KIND');
    sockets.close(file);
  });
});

describe('native addon: TCP', () => {
  countDescriptors();

  for (const [host, family] of [['127.0.0.1', 'IPv4'], ['::1', 'IPv6']] as const) {
    it(`${family}: accept gives a descriptor from which nothing was read`, async () => {
      const listener = sockets.tcpListen({ host, port: 0 });
      const { local, listening, connected } = sockets.socketInfo(listener);
      assert.deepEqual([listening, connected, local?.family, local?.address], [true, false, family, host]);
      assert.equal(sockets.accept(listener), null);
      const client = net.connect({ host, port: local?.port ?? 0 });
      const ended = new Promise((resolve) => { client.once('close', resolve); });
      await new Promise((resolve) => { client.once('connect', resolve); });
      client.end('early octets');
      const server = accepted(listener);
      const info = sockets.socketInfo(server);
      assert.deepEqual([info.domain, info.type, info.connected, info.listening], [family, 'stream', true, false]);
      assert.deepEqual(info.remote, { family, address: host, port: client.localPort });
      assert.equal(sockets.pollWait(server, pollIn, 5000), pollIn);
      assert.equal(sockets.receive(server, 100, 0)?.data.toString(), 'early octets');
      sockets.close(server);
      sockets.close(listener);
      client.resume();
      await ended;
    });
  }

  it('a taken port is EADDRINUSE and names the address; with reusePort it can be shared', () => {
    const first = sockets.tcpListen({ host: '127.0.0.1', port: 0, reusePort: true });
    const port = sockets.socketInfo(first).local?.port ?? 0;
    const error = throwsCode(() => sockets.tcpListen({ host: '127.0.0.1', port }), 'SYSTEM', -EADDRINUSE);
    assert(error.message.includes(`127.0.0.1 port ${String(port)}`), error.message);
    sockets.close(sockets.tcpListen({ host: '127.0.0.1', port, reusePort: true }));
    sockets.close(first);
  });

  it(':: serves IPv4 too, unless ipv6Only', async () => {
    const connects = (port: number): Promise<boolean> => new Promise((resolve) => {
      const socket = net.connect({ host: '127.0.0.1', port }).once('connect', () => { resolve(true); }).once('error', () => { resolve(false); });
      socket.once('connect', () => socket.destroy());
    });
    for (const ipv6Only of [false, true]) {
      const listener = sockets.tcpListen({ host: '::', port: 0, ipv6Only });
      assert.equal(await connects(sockets.socketInfo(listener).local?.port ?? 0), !ipv6Only);
      sockets.close(listener);
    }
  });

  it('only numeric addresses are taken, because the resolver blocks', () => {
    for (const host of ['localhost', '', '127.1', '1.2.3.4.5', '::1%nonexistent0', '::1%', 'fe80::1\0', '[::1]', ' 127.0.0.1', '127.0.0.1\0x']) {
      throwsCode(() => sockets.tcpListen({ host, port: 0 }), 'BAD_ARGUMENT');
    }
  });

  it('ports are checked at both ends', () => {
    for (const port of [-1, 65_536, 1.5, NaN, '80', undefined, 2 ** 40]) throwsCode(() => sockets.tcpListen({ host: '127.0.0.1', port: wrong(port) }), 'BAD_ARGUMENT');
    for (const option of [{ reusePort: 1 }, { ipv6Only: 'yes' }, { backlog: 0 }]) throwsCode(() => sockets.tcpListen(wrong({ host: '127.0.0.1', port: 0, ...option })), 'BAD_ARGUMENT');
    sockets.close(sockets.tcpListen({ host: '127.0.0.1', port: 0, backlog: 1, reusePort: false, ipv6Only: false }));
  });
});

describe('native addon: descriptors', () => {
  countDescriptors();

  it('a descriptor is closed once; the second close is EBADF', () => withPair('stream', (left) => {
    sockets.close(left);
    throwsCode(() => { sockets.close(left); }, 'SYSTEM', -EBADF);
  }));

  it('numbers that are no descriptors are refused by every verb, and a closed one is EBADF', () => {
    const verbs: ((fd: never) => unknown)[] = [
      (fd) => { sockets.close(fd); }, (fd) => sockets.dup(fd), (fd) => { sockets.shutdown(fd, 1); }, (fd) => sockets.socketInfo(fd), (fd) => sockets.accept(fd),
      (fd) => sockets.peerCredentials(fd), (fd) => sockets.receive(fd, 1, 0), (fd) => sockets.send(fd, Buffer.alloc(1)), (fd) => sockets.poll(fd, () => undefined),
    ];
    for (const verb of verbs) {
      for (const fd of [-1, 0.5, NaN, 2 ** 31, -(2 ** 31), 1e300, '1', null, undefined, {}, [], 1n, Symbol('fd')]) throwsCode(() => verb(wrong(fd)), 'BAD_ARGUMENT');
      throwsCode(() => verb(wrong(2 ** 31 - 1)), 'SYSTEM', -EBADF);
    }
    throwsCode(() => sockets.pollWait(borrowed(-1), pollIn, 0), 'BAD_ARGUMENT');
  });

  it('a duplicate is another descriptor of the same socket, CLOEXEC', () => withPair('stream', (left, right) => {
    const copy = sockets.dup(left);
    assert.notEqual(copy, left);
    sockets.close(left);
    sockets.send(copy, Buffer.from('still here'));
    assert.equal(sockets.receive(right, 100, 0)?.data.toString(), 'still here');
    sockets.close(copy);
    assert.equal(sockets.receive(right, 100, 0)?.eof, true);
  }));

  it('shutdown of one direction leaves the other', () => withPair('stream', (left, right) => {
    sockets.shutdown(left, 1);
    assert.equal(sockets.receive(right, 10, 0)?.eof, true);
    sockets.send(right, Buffer.from('back'));
    assert.equal(sockets.receive(left, 10, 0)?.data.toString(), 'back');
    for (const how of [3, -1, '1', undefined]) throwsCode(() => { sockets.shutdown(left, wrong(how)); }, 'BAD_ARGUMENT');
  }));

  it('shutdown of a socket without a peer is ENOTCONN', () => {
    const listener = sockets.tcpListen({ host: '127.0.0.1', port: 0 });
    throwsCode(() => sockets.receive(listener, 1, 0), 'SYSTEM', -ENOTCONN);
    sockets.close(listener);
  });

  it('socketInfo of a file is FD_KIND', () => {
    const file = openSync('/dev/null', 'r') as OwnedFd;
    throwsCode(() => sockets.socketInfo(file), 'FD_KIND');
    sockets.close(file);
  });

  it('pollWait gives poll(2) bits, and 0 when the time is over', () => withPair('stream', (left, right) => {
    assert.equal(sockets.pollWait(left, pollIn, 0), 0);
    assert.equal(sockets.pollWait(left, pollIn, 1), 0);
    assert.equal(sockets.pollWait(left, pollIn | pollOut, 1000), pollOut);
    sockets.close(right);
    assert.equal(sockets.pollWait(left, pollIn, -1), pollIn | pollHup);
    for (const [events, timeout] of [[-1, 0], [32_768, 0], [1, -2], [1, 2 ** 31], [1, NaN]] as const) throwsCode(() => sockets.pollWait(left, events, timeout), 'BAD_ARGUMENT');
  }));
});
