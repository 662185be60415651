/** The pool socket: taking its place in the file system, and letting clients in. */
import { chmodSync, chownSync, lstatSync, mkdirSync, unlinkSync } from 'node:fs';
import { constants } from 'node:os';
import path from 'node:path';
import { TlsPoolError } from 'libtlspool/protocol';
import { pollReadable, sockets } from 'libtlspool/native';
import type { OwnedFd, Poll } from 'libtlspool/native';
import type { Log } from '../observe/index.js';
import { asPoolError } from './faults.js';

export interface PoolSocketOptions {
  readonly path: string;
  /** Permission bits. */
  readonly mode: number;
  /** Group that owns the socket; absent: the pool's own. */
  readonly gid?: number;
}

/** A listening pool socket. `close` closes it and removes its file; to be called once. */
export interface PoolSocket {
  readonly fd: OwnedFd;
  close(): void;
}

const backlog = 128;
/** Clients let in per wake-up. */
const acceptsPerTurn = 16;
/** accept(2) fails with these while the host or the process is short of something. */
const shortage: ReadonlySet<number> = new Set([constants.errno.EMFILE, constants.errno.ENFILE, constants.errno.ENOMEM, constants.errno.ENOBUFS]);
/** How long the queue is left alone then; the kernel keeps those who wait. */
const backOffMs = 100;

/**
 * Takes the path and listens. A socket that nobody answers at is a left-over and is removed; anything else that is there stays.
 * Throws BAD_STATE when a pool lives there, CONFIG_BAD when the path is no socket, SYSTEM.
 */
export function openPoolSocket(options: PoolSocketOptions): PoolSocket {
  const { path: file, mode, gid } = options;
  makeFolder(path.dirname(file));
  clearPath(file);
  const fd = sockets.unixListen({ path: file, kind: 'seqpacket', backlog, mode: gid === undefined ? mode : 0o600 });
  const { ino } = lstatSync(file);
  const socket = {
    fd,
    close: () => {
      sockets.close(fd);
      // Another pool may have taken the place meanwhile, if somebody has removed our file.
      if (lstatSync(file, { throwIfNoEntry: false })?.ino === ino) unlinkSync(file);
    },
  };
  if (gid === undefined) return socket;
  try {
    // Until now only our own user could connect; the group may once the file is the group's.
    chownSync(file, -1, gid);
    chmodSync(file, mode);
    return socket;
  } catch (error) {
    socket.close();
    throw new TlsPoolError('SYSTEM', { text: `the socket ${file} cannot be given to group ${gid}: ${String(error)}; name another one under socket.group`, cause: error });
  }
}

/** Only the last folder is made: a path that is wrong further up is a mistake, not a wish. */
function makeFolder(folder: string): void {
  try {
    mkdirSync(folder, { mode: 0o755 });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EEXIST') throw new TlsPoolError('SYSTEM', { text: `the folder ${folder} for the pool socket cannot be made: ${String(error)}`, cause: error });
  }
}

function clearPath(file: string): void {
  const stat = lstatSync(file, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket()) throw new TlsPoolError('CONFIG_BAD', { text: `${file} exists and is no socket; remove it, or give another socket path`, field: 'socket.path' });
  if (isAlive(file)) throw new TlsPoolError('BAD_STATE', { text: `a pool is already running at ${file}; stop it, or give another path with --socket` });
  unlinkSync(file);
}

/** Does somebody live at this socket? Whoever does not clearly refuse is taken to be alive. */
function isAlive(file: string): boolean {
  try {
    sockets.close(sockets.unixConnect(file, 'seqpacket'));
    return true;
  } catch (error) {
    return asPoolError(error).errno !== -constants.errno.ECONNREFUSED;
  }
}

export interface AcceptorOptions {
  /** Owned by the acceptor from now on. */
  readonly socket: PoolSocket;
  readonly log: Log;
  /** Each new connection, owned by whom it is given to. What it throws is logged. */
  admit(fd: OwnedFd): void;
}

/** Lets clients in as they come; survives being out of descriptors. */
export class Acceptor {
  readonly #options: AcceptorOptions;
  readonly #poll: Poll;
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
    this.#options.socket.close();
  }

  #onReady(): void {
    for (let turn = 0; turn < acceptsPerTurn && !this.#isClosed; turn += 1) {
      let fd;
      try {
        fd = sockets.accept(this.#options.socket.fd);
      } catch (thrown) {
        this.#failed(asPoolError(thrown));
        return;
      }
      if (fd === null) return;
      this.#isShort = false;
      try {
        this.#options.admit(fd);
      } catch (thrown) {
        this.#options.log.failure('a client could not be admitted', { text: asPoolError(thrown).message });
      }
    }
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
