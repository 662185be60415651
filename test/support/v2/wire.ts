/** V2 frames by hand: what no C program would send, and what it would not notice. Synchronous, like PoolWire. */
import assert from 'node:assert/strict';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd } from 'libtlspool/native';
import { codec, commands, frameOctets } from 'tlspool/dist/v2/frames.js';
import type { Arm, Fields } from 'tlspool/dist/v2/frames.js';
import { numberOf } from 'tlspool/dist/v2/errors.js';
import type { SystemError, TableError } from 'tlspool/dist/v2/errors.js';

const pollIn = 1;
const pollOut = 4;
const pollHup = 16;

export interface FrameHead { readonly reqid?: number; readonly cbid?: number }

/** A frame with these fields and zeros. */
export function frameOf<A extends Arm>(cmd: number, arm: A, fields: Partial<Fields<A>> = {}, { reqid = 0, cbid = 0 }: FrameHead = {}): Buffer {
  const frame = Buffer.alloc(frameOctets);
  codec.patch(frame, 'head', { reqid, cbid, cmd });
  codec.patch(frame, arm, fields);
  return frame;
}

export const headOf = (frame: Buffer): Fields<'head'> => codec.read(frame, 'head');
export const startOf = (frame: Buffer): Fields<'starttls'> => codec.read(frame, 'starttls');

/** A key that no other test has. */
let keys = 0;
export function newKey(): Buffer {
  const key = Buffer.alloc(16);
  keys += 1;
  key.writeUInt32BE(process.pid, 0);
  key.writeUInt32BE(keys, 12);
  return key;
}

export class V2Wire {
  readonly fd: OwnedFd;
  #closed = false;

  constructor(path: string) {
    this.fd = sockets.unixConnect(path, 'stream');
  }

  /** Blocks while the socket is full. */
  send(frame: Uint8Array, ...fds: readonly BorrowedFd[]): void {
    for (;;) {
      const sent = sockets.send(this.fd, frame, fds);
      if (sent === frame.length) return;
      assert.equal(sent, -1, 'half a message was taken');
      assert.notEqual(sockets.pollWait(this.fd, pollOut, 10_000), 0, 'the pool does not read');
    }
  }

  /** The next frame. Blocks. One recvmsg is one frame, without descriptors, or it throws. */
  next(deadlineMs = 10_000): Buffer {
    assert.notEqual(sockets.pollWait(this.fd, pollIn, deadlineMs), 0, `the pool sent nothing for ${String(deadlineMs)} ms`);
    const received = sockets.receive(this.fd, frameOctets, 4);
    assert.ok(received !== null && !received.eof, 'the pool has closed the connection');
    assert.deepEqual([received.data.length, received.fds.length], [frameOctets, 0]);
    return received.data;
  }

  /** Is nothing there to be read, now? */
  isQuiet(): boolean {
    return sockets.pollWait(this.fd, pollIn, 0) === 0;
  }

  isClosed(deadlineMs = 10_000): boolean {
    return (sockets.pollWait(this.fd, pollIn, deadlineMs) & pollHup) !== 0 || (sockets.receive(this.fd, frameOctets, 4)?.eof ?? false);
  }

  request(frame: Uint8Array, ...fds: readonly BorrowedFd[]): Buffer {
    this.send(frame, ...fds);
    return this.next();
  }

  /** All requests before this one have been looked at when it returns. */
  ping(): void {
    const reply = this.request(frameOf(commands.PING, 'ping', { facilities: 1 }, { reqid: 0xfffe }));
    assert.equal(headOf(reply).cmd, commands.PING);
  }

  /** The same, past whatever else there is to be read. */
  pingPast(): void {
    this.send(frameOf(commands.PING, 'ping', { facilities: 1 }, { reqid: 0xfffe }));
    for (;;) {
      const { reqid, cmd } = headOf(this.next());
      if (reqid === 0xfffe && cmd === commands.PING) return;
    }
  }

  control(cmd: typeof commands.CONTROL_DETACH | typeof commands.CONTROL_REATTACH, ctlkey: Buffer): Buffer {
    return this.request(frameOf(cmd, 'control', { ctlkey }));
  }

  /** May be called twice. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    sockets.close(this.fd);
  }
}

/** The frame is this error, for this request, with cbid 0. Returns its text. */
export function expectError(frame: Buffer, error: TableError | SystemError, reqid = 0): string {
  const head = headOf(frame);
  const { tlserrno, message } = codec.read(frame, 'error');
  assert.deepEqual({ ...head, tlserrno }, { reqid, cbid: 0, cmd: commands.ERROR, tlserrno: numberOf(error) }, `${error} expected, not ${tlserrno}: ${message}`);
  assert.match(message, /^[\x20-\x7e]{1,127}$/u);
  return message;
}

export function expectSuccess(frame: Buffer, reqid = 0): void {
  assert.deepEqual({ ...headOf(frame) }, { reqid, cbid: 0, cmd: commands.SUCCESS }, codec.read(frame, 'error').message);
}
