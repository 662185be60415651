/** Lets clients in at the pool socket, also when descriptors are short. */
import { constants } from 'node:os';
import type { TlsPoolError } from 'libtlspool/protocol';
import { pollReadable, sockets } from 'libtlspool/native';
import type { OwnedFd, Poll } from 'libtlspool/native';
import type { Log } from '../observe/index.js';
import { asPoolError } from './faults.js';
import type { PoolSocket } from './poolsocket.js';

export interface AcceptorOptions {
  /** Owned by the acceptor from now on. */
  readonly socket: PoolSocket;
  readonly log: Log;
  /** Each new connection, owned by whom it is given to. What it throws is logged. */
  admit(fd: OwnedFd): void;
}

/** Clients let in per wake-up. */
const acceptsPerTurn = 16;
/** System calls fail with these while the host or the process is short of something. */
const shortage: ReadonlySet<number> = new Set([constants.errno.EMFILE, constants.errno.ENFILE, constants.errno.ENOMEM, constants.errno.ENOBUFS]);
/** How long the queue is left alone then; the kernel keeps those who wait. */
const backOffMs = 100;
/** What a client takes while it is let in: its socket, a second number of it for its watcher, its pidfd, its cgroup file. */
const reserved = 4;

/**
 * Lets clients in as they come. Nobody is let in unless there are descriptors for all that it takes: a client that waits in the
 * kernel's queue is better off than one that is accepted and then dropped.
 */
export class Acceptor {
  readonly #options: AcceptorOptions;
  readonly #poll: Poll;
  readonly #reserve: OwnedFd[] = [];
  #timer: NodeJS.Timeout | undefined;
  #isShort = false;
  #isClosed = false;

  constructor(options: AcceptorOptions) {
    this.#options = options;
    this.#poll = sockets.poll(options.socket.fd, () => { this.#onReady(); });
    this.#poll.start(pollReadable);
  }

  /** Closes the listening socket and removes its file. May be called twice. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#poll.close();
    this.#release();
    this.#options.socket.close();
  }

  #onReady(): void {
    try {
      for (let turn = 0; turn < acceptsPerTurn && !this.#isClosed; turn += 1) if (!this.#acceptOne()) break;
    } catch (thrown) {
      this.#failed(asPoolError(thrown));
    }
    this.#release();
  }

  /** False when nobody is waiting. Throws what the system says. */
  #acceptOne(): boolean {
    while (this.#reserve.length < reserved) this.#reserve.push(sockets.dup(this.#options.socket.fd));
    this.#release();
    const fd = sockets.accept(this.#options.socket.fd);
    if (fd === null) return false;
    this.#isShort = false;
    try {
      this.#options.admit(fd);
    } catch (thrown) {
      this.#options.log.failure('a client could not be admitted', { text: asPoolError(thrown).message });
    }
    return true;
  }

  #release(): void {
    for (const fd of this.#reserve.splice(0)) sockets.close(fd);
  }

  #failed(error: TlsPoolError): void {
    const isShort = shortage.has(-(error.errno ?? 0));
    // The socket stays readable, so that going on at once would be a busy loop.
    this.#poll.stop();
    this.#timer = setTimeout(() => { this.#poll.start(pollReadable); }, isShort ? backOffMs : 0);
    if (isShort && this.#isShort) return;
    this.#isShort = isShort;
    const cure = isShort ? '; raise the limit on open files (LimitNOFILE)' : '';
    this.#options.log.error(`clients cannot be let in: ${error.message}${cure}`, { errno: error.errno });
  }
}
