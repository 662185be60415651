/** What goes to the pool: packets, in order, and copies of the descriptors of those that wait for room in the socket. */
import { isErrno } from './errno.js';
import { closeAll } from './inlet.js';
import { sockets } from './native.js';
import type { BorrowedFd, OwnedFd } from './native.js';

interface Outgoing { readonly data: Uint8Array; readonly fds: readonly OwnedFd[] }

/** The socket is borrowed. */
export class Outlet {
  readonly #fd: BorrowedFd;
  #waiting: Outgoing[] = [];

  constructor(fd: BorrowedFd) {
    this.#fd = fd;
  }

  /** Something waits until the socket is writable. */
  get isBlocked(): boolean { return this.#waiting.length > 0; }

  /** Sends a packet now or, when the socket is full, later. The descriptors are borrowed for the duration of the call. Throws SYSTEM; nothing was sent then. */
  send(data: Uint8Array, fds: readonly BorrowedFd[]): void {
    if (this.#waiting.length === 0 && this.#sendNow(data, fds)) return;
    const copies: OwnedFd[] = [];
    try {
      for (const fd of fds) copies.push(sockets.dup(fd));
    } catch (error) {
      closeAll(copies);
      throw error;
    }
    this.#waiting.push({ data, fds: copies });
  }

  /** Sends what waits, as far as there is room. Throws SYSTEM when the socket is of no more use. */
  flush(): void {
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if (!this.#sendNow(next.data, next.fds)) return;
      this.#waiting.shift();
      closeAll(next.fds);
    }
  }

  /** Closes the descriptors of what was not sent. */
  close(): void {
    for (const { fds } of this.#waiting) closeAll(fds);
    this.#waiting = [];
  }

  #sendNow(data: Uint8Array, fds: readonly BorrowedFd[]): boolean {
    try {
      return sockets.send(this.#fd, data, fds) >= 0;
    } catch (error) {
      // A dead connection is reported by the reading side, which first takes in what the pool said before it went.
      if (isDisconnect(error)) return true;
      throw error;
    }
  }
}

function isDisconnect(error: unknown): boolean {
  return isErrno(error, 'EPIPE', 'ECONNRESET', 'ENOTCONN');
}
