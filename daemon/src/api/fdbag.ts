/** The descriptors that came with one message: each is either released to somebody or closed, exactly once. */
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';

export class FdBag {
  readonly #fds: (OwnedFd | -1)[];

  /** Takes ownership of all of them. */
  constructor(fds: readonly OwnedFd[]) {
    this.#fds = [...fds];
  }

  get count(): number { return this.#fds.length; }

  /** The descriptor at this place, still the bag's; -1 when there is none. */
  at(index: number): OwnedFd | -1 {
    return this.#fds[index] ?? -1;
  }

  /** The descriptor at this place now belongs to somebody else. */
  release(index: number): void {
    this.#fds[index] = -1;
  }

  /** What has not been released, in a bag of its own; this one is empty then. */
  take(): FdBag {
    return new FdBag(this.#fds.splice(0).filter((fd): fd is OwnedFd => fd !== -1));
  }

  /** Closes what has not been released. May be called twice. */
  close(): void {
    for (const [index, fd] of this.#fds.entries()) {
      this.#fds[index] = -1;
      if (fd !== -1) sockets.discard(fd);
    }
  }
}

/** Closes the application's end of a session, if there is one: it was made here, and nobody but the engine has sent anything there. */
export function closeFd(fd: number): void {
  if (fd >= 0) sockets.close(fd as OwnedFd);
}

/** Closes a client's descriptor, if there is one. */
export function discardFd(fd: number): void {
  if (fd >= 0) sockets.discard(fd as OwnedFd);
}

/** Closes the engine's end of a session that is over, or what the client gave in its place, if there is one. */
export function closeEnded(fd: number): void {
  if (fd >= 0) sockets.closeDrained(fd as OwnedFd, true);
}
