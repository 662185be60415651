/** The descriptors that came with one message: each is either released to somebody or closed, exactly once. */
import { TlsPoolError } from 'libtlspool/protocol';
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

/** Closes a descriptor of an engine event, if there is one. It may be a client's own, too. */
export function closeFd(fd: number): void {
  if (fd >= 0) sockets.discard(fd as OwnedFd);
}

/** More than the kernel passes in one packet is never there. */
const kernelMaxFds = 253;
const readOctets = 65_536;

/**
 * Closes the socket of a client, and with it what nobody has read: descriptors among it would be closed by the kernel, as slowly as the client likes. Nothing can come behind
 * what is there. Unread packets would also turn our last message into ECONNRESET at the client.
 */
export function closeClient(fd: OwnedFd): void {
  try {
    sockets.shutdown(fd, 0);
  } catch {
    // The client has closed: nothing can come any more.
  }
  while (!hasEnded(fd)) { /* the next one */ }
  sockets.close(fd);
}

/** Throws away one packet, or what a stream has at hand. True when nothing is left. */
function hasEnded(fd: OwnedFd): boolean {
  try {
    const received = sockets.receive(fd, readOctets, kernelMaxFds);
    if (received === null || received.eof) return true;
    new FdBag(received.fds).close();
    return false;
  } catch (error) {
    return !(error instanceof TlsPoolError) || error.code === 'SYSTEM';
  }
}
