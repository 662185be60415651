/**
 * Where log lines go: a descriptor whose reader may be slow, stop or go away, or whose disk may be full, none of which may hold up the pool or its end.
 *
 * Not an asynchronous write: a thread of libuv's pool that blocks in write(2) keeps the process from exiting. Not
 * O_NONBLOCK: standard output is shared with whoever started us. A pipe that poll(2) calls writable takes PIPE_BUF octets
 * without blocking, and files always do.
 */
import { writeSync } from 'node:fs';
import { constants } from 'node:os';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd } from 'libtlspool/native';

/** PIPE_BUF of Linux. */
const pieceOctets = 4096;
/** Log that may wait for its reader, or for room on the disk; lines beyond that are lost. */
const maxWaitingOctets = 4 * 1024 * 1024;
const retryMs = 50;
const pollOut = 4;
const { EAGAIN, EDQUOT, EINTR, ENOSPC } = constants.errno;
/** What goes away by itself, or by somebody who makes room. */
const passing: ReadonlySet<number | undefined> = new Set([EAGAIN, EDQUOT, EINTR, ENOSPC].map((errno) => -errno));

export class Output {
  readonly #fd: BorrowedFd;
  #waiting: Buffer[] = [];
  #octets = 0;
  #isBroken = false;
  #retry: NodeJS.Timeout | undefined;
  #drained: (() => void) | undefined;

  /** The descriptor stays the caller's. */
  constructor(fd: number) {
    this.#fd = fd as BorrowedFd;
  }

  /** One line. Never blocks, never throws. */
  write(line: string): void {
    if (this.#isBroken || this.#octets >= maxWaitingOctets) return;
    const data = Buffer.from(line);
    this.#waiting.push(data);
    this.#octets += data.length;
    if (this.#retry === undefined) this.#pump();
  }

  /** Resolves when everything is written, the reader has gone, or the time is over. */
  async drain(withinMs: number): Promise<void> {
    if (this.#waiting.length === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, withinMs);
      this.#drained = () => { clearTimeout(timer); resolve(); };
    });
    this.#stop();
  }

  #pump(): void {
    this.#retry = undefined;
    try {
      for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
        if (sockets.pollWait(this.#fd, pollOut, 0) === 0) {
          this.#later();
          return;
        }
        const written = writeSync(this.#fd, next, 0, Math.min(next.length, pieceOctets));
        this.#octets -= written;
        if (written === next.length) this.#waiting.shift();
        else this.#waiting[0] = next.subarray(written);
      }
      this.#drained?.();
    } catch (error) {
      if (passing.has((error as NodeJS.ErrnoException).errno)) this.#later();
      else this.#stop();
    }
  }

  #later(): void {
    this.#retry = setTimeout(() => { this.#pump(); }, retryMs).unref();
  }

  /** The reader has gone, or nobody waits for it any more: there is nobody to tell. */
  #stop(): void {
    this.#isBroken = true;
    this.#waiting = [];
    clearTimeout(this.#retry);
    this.#drained?.();
  }
}
