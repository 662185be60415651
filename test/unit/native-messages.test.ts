/** send and receive of the native addon: octets with descriptors. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { openSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { sockets } from 'libtlspool/native';
import type { OwnedFd, Received, SocketKind } from 'libtlspool/native';
import { borrowed, countDescriptors, throwsCode, withPair, wrong } from '../support/native-fds.js';
import { descriptors } from '../support/process-info.js';

const { EBADF, EPIPE, EMSGSIZE } = constants.errno;
const mostFds = 253;

function received(fd: OwnedFd, maxOctets = 65_536, maxFds = 4): Received {
  const packet = sockets.receive(fd, maxOctets, maxFds);
  assert(packet !== null);
  return packet;
}

describe('native addon: messages', () => {
  countDescriptors();

  for (const kind of ['stream', 'seqpacket'] satisfies SocketKind[]) {
    it(`${kind}: octets arrive as they were sent`, () => withPair(kind, (left, right) => {
      assert.equal(sockets.send(left, Buffer.from('hello')), 5);
      assert.deepEqual(received(right), { data: Buffer.from('hello'), fds: [], eof: false });
    }));

    it(`${kind}: nothing to read is null, not the end`, () => withPair(kind, (_left, right) => {
      assert.equal(sockets.receive(right, 10, 0), null);
    }));

    it(`${kind}: a closed peer is the end of the stream, after what it sent`, () => withPair(kind, (left, right) => {
      sockets.send(left, Buffer.from('last'));
      sockets.close(left);
      assert.equal(received(right).data.toString(), 'last');
      assert.deepEqual(received(right), { data: Buffer.alloc(0), fds: [], eof: true });
    }));

    it(`${kind}: descriptors arrive in order, CLOEXEC, and refer to the same sockets`, () => withPair(kind, (left, right) => {
      const [a, b] = sockets.socketpair('stream');
      sockets.send(left, Buffer.from('x'), [a, b]);
      const { fds } = received(right);
      const open = descriptors(process.pid);
      assert.deepEqual(fds.map((fd) => open.get(fd)), [open.get(a), open.get(b)]);
      for (const fd of fds) assert.match(fdInfo(fd), /^flags:\s+0?2\d{6}$/mu); // O_CLOEXEC is 02000000
      for (const fd of [a, b, ...fds]) sockets.close(fd);
    }));

    it(`${kind}: a full socket takes nothing and says -1`, () => withPair(kind, (left, right) => {
      const part = Buffer.alloc(4096, 7);
      let sent = 0;
      for (let taken = 0; taken >= 0; taken = sockets.send(left, part)) sent += taken;
      assert(sent > 0);
      let arrived = 0;
      for (let packet = sockets.receive(right, 65_536, 0); packet !== null; packet = sockets.receive(right, 65_536, 0)) arrived += packet.data.length;
      assert.equal(arrived, sent);
      assert.equal(sockets.send(left, part), part.length);
    }));

    it(`${kind}: sending to a peer that has gone is EPIPE, not a signal`, () => withPair(kind, (left, right) => {
      sockets.close(right);
      throwsCode(() => sockets.send(left, Buffer.from('x')), 'SYSTEM', -EPIPE);
    }));
  }

  it('a packet of exactly maxOctets is accepted', () => withPair('seqpacket', (left, right) => {
    sockets.send(left, Buffer.alloc(100, 1));
    assert.equal(received(right, 100).data.length, 100);
  }));

  it('a packet that did not fit is refused and its descriptors are closed', () => withPair('seqpacket', (left, right) => {
    sockets.send(left, Buffer.alloc(101, 1), [left, right]);
    throwsCode(() => sockets.receive(right, 100, 2), 'MESSAGE_TOO_LARGE');
    // The packet after it is not harmed.
    sockets.send(left, Buffer.from('next'));
    assert.equal(received(right, 100).data.toString(), 'next');
  }));

  it('exactly maxFds descriptors are accepted', () => withPair('seqpacket', (left, right) => {
    sockets.send(left, Buffer.from('x'), [left, left]);
    const { fds } = received(right, 100, 2);
    assert.equal(fds.length, 2);
    for (const fd of fds) sockets.close(fd);
  }));

  it('more than maxFds descriptors are refused and all of them closed', () => withPair('seqpacket', (left, right) => {
    for (const maxFds of [0, 2]) {
      sockets.send(left, Buffer.from('x'), [left, left, left]);
      throwsCode(() => sockets.receive(right, 100, maxFds), 'FD_COUNT');
    }
  }));

  it('as many descriptors as the kernel passes arrive; one more is refused before the kernel sees it', () => withPair('seqpacket', (left, right) => {
    sockets.send(left, Buffer.from('x'), Array.from({ length: mostFds }, () => left));
    const { fds } = received(right, 100, mostFds);
    assert.equal(fds.length, mostFds);
    for (const fd of fds) sockets.close(fd);
    throwsCode(() => sockets.send(left, Buffer.from('x'), Array.from({ length: mostFds + 1 }, () => left)), 'FD_COUNT');
    assert.equal(sockets.receive(right, 100, mostFds), null);
  }));

  it('an empty packet with a descriptor is not the end of the stream', () => withPair('seqpacket', (left, right) => {
    sockets.send(left, Buffer.alloc(0), [left]);
    const packet = received(right);
    assert.deepEqual([packet.data.length, packet.fds.length, packet.eof], [0, 1, false]);
    for (const fd of packet.fds) sockets.close(fd);
  }));

  it('descriptors without an octet are refused on a stream, where the kernel would lose them', () => withPair('stream', (left, right) => {
    throwsCode(() => sockets.send(left, Buffer.alloc(0), [left]), 'BAD_ARGUMENT');
    assert.equal(sockets.send(left, Buffer.alloc(1), [left]), 1);
    for (const fd of received(right).fds) sockets.close(fd);
  }));

  it('a packet larger than the socket buffer is an error with its errno', () => withPair('seqpacket', (left) => {
    const error = throwsCode(() => sockets.send(left, Buffer.alloc(4 << 20)), 'SYSTEM', -EMSGSIZE);
    assert.equal(error.syscall, 'sendmsg');
    assert.match(error.message, /EMSGSIZE/u);
  }));

  it('the received buffer is a copy: the next packet does not change it', () => withPair('seqpacket', (left, right) => {
    sockets.send(left, Buffer.from('first'));
    const first = received(right);
    sockets.send(left, Buffer.from('other'));
    received(right);
    assert.equal(first.data.toString(), 'first');
  }));

  it('a view is sent, not the buffer behind it', () => withPair('seqpacket', (left, right) => {
    sockets.send(left, Buffer.from('abcdef').subarray(2, 4), []);
    assert.equal(received(right).data.toString(), 'cd');
  }));

  it('data that is no Uint8Array, is shared or detached is refused', () => withPair('seqpacket', (left, right) => {
    const detached = new Uint8Array(8);
    structuredClone(detached.buffer, { transfer: [detached.buffer] });
    const shared = new Uint8Array(new SharedArrayBuffer(8));
    for (const data of ['text', 1, null, undefined, {}, [], new ArrayBuffer(4), new Uint16Array(2), new DataView(new ArrayBuffer(2)), detached, shared]) {
      throwsCode(() => sockets.send(left, wrong(data)), 'BAD_ARGUMENT');
    }
    assert.equal(sockets.receive(right, 10, 0), null);
  }));

  it('a getter in the list of descriptors cannot pull the data away', () => withPair('seqpacket', (left, right) => {
    const data = new Uint8Array(8);
    const fds = [left];
    Object.defineProperty(fds, 0, { get: () => { structuredClone(data.buffer, { transfer: [data.buffer] }); return left; } });
    throwsCode(() => sockets.send(left, data, fds), 'BAD_ARGUMENT');
    assert.equal(sockets.receive(right, 10, 1), null);
  }));

  it('what a getter throws comes through unchanged', () => withPair('seqpacket', (left) => {
    const fds = [left];
    Object.defineProperty(fds, 0, { get: () => { throw new RangeError('mine'); } });
    assert.throws(() => sockets.send(left, Buffer.from('x'), fds), new RangeError('mine'));
  }));

  it('descriptors that are no descriptors are refused', () => withPair('seqpacket', (left) => {
    for (const fds of [[-1], [1.5], ['3'], [null], 'fds', 7, { length: 1, 0: 0 }, [2 ** 31]]) {
      throwsCode(() => sockets.send(left, Buffer.from('x'), wrong(fds)), 'BAD_ARGUMENT');
    }
    throwsCode(() => sockets.send(left, Buffer.from('x'), [borrowed(2 ** 31 - 1)]), 'SYSTEM', -EBADF);
  }));

  it('limits of receive are checked at both ends', () => withPair('seqpacket', (left, right) => {
    for (const [octets, fds] of [[0, 0], [2 ** 24 + 1, 0], [-1, 0], [1.5, 0], [NaN, 0], [Infinity, 0], [1, -1], [1, mostFds + 1], [1e300, 0]] as const) {
      throwsCode(() => sockets.receive(right, octets, fds), 'BAD_ARGUMENT');
    }
    assert.equal(sockets.receive(right, 1, 0), null);
    assert.equal(sockets.receive(right, 2 ** 24, mostFds), null);
    sockets.send(left, Buffer.from('x'));
    throwsCode(() => sockets.receive(wrong('1'), 1, 0), 'BAD_ARGUMENT');
    assert.equal(received(right, 1, 0).data.length, 1);
  }));

  it('descriptors that are lost because the process has no more are told as such, and none of the rest stays open', () => {
    const source = `
      import { readdirSync } from 'node:fs';
      import { sockets } from ${JSON.stringify(import.meta.resolve('libtlspool/native'))};
      const [left, right] = sockets.socketpair('seqpacket');
      const count = () => readdirSync('/proc/self/fd').length;
      sockets.send(left, Buffer.from('x'), [left, left]);
      const before = count();
      const hoard = [];
      let full;
      try { for (;;) hoard.push(sockets.dup(left)); } catch (error) { full = error.errno; }
      sockets.close(hoard.pop()); // Room for one of two.
      let seen;
      try { sockets.receive(right, 10, 2); } catch (error) { seen = [error.code, error.errno === full]; }
      // What arrived with it is closed by another thread.
      let room;
      for (const end = Date.now() + 5000; room === undefined && Date.now() < end; await new Promise((done) => { setTimeout(done, 5); })) {
        try { room = sockets.dup(left); } catch { /* not yet */ }
      }
      for (const fd of [...hoard, room]) sockets.close(fd);
      console.log(JSON.stringify([seen, count() - before]));
      sockets.send(left, Buffer.from('next'));
      console.log(sockets.receive(right, 10, 0).data.toString());`;
    const printed = execFileSync('/bin/sh', ['-c', 'ulimit -n 64; exec "$0" --input-type=module --eval "$1"', process.execPath, source]).toString();
    assert.equal(printed, '[["FD_COUNT",true],0]\nnext\n');
  });

  it('a file is not a socket', () => {
    const file = openSync('/dev/null', 'r+') as OwnedFd;
    throwsCode(() => sockets.receive(file, 1, 0), 'FD_KIND');
    throwsCode(() => sockets.send(file, Buffer.from('x')), 'FD_KIND');
    sockets.close(file);
    throwsCode(() => sockets.receive(file, 1, 0), 'SYSTEM', -EBADF);
  });
});

const fdInfo = (fd: number): string => readFileSync(`/proc/self/fdinfo/${String(fd)}`, 'utf8');
