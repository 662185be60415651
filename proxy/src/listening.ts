/** Listening sockets of the proxy: opened once per address, kept across configurations, and accepted from without reading. */
import { chmodSync, unlinkSync } from 'node:fs';
import { isErrno, pollReadable, sockets } from 'libtlspool/native';
import type { OwnedFd, Poll } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import { isAbandoned, removerOf } from 'libtlspool/session';
import type { ListenAddress } from './config/types.js';

/** Clients that wait in the kernel; it takes less where net.core.somaxconn says so. */
const backlog = 4096;
/** Connections that are accepted before others get their turn. */
const acceptsPerTurn = 32;
/** Without descriptors or memory accepting goes on after this long; connections wait in the kernel. */
const restMs = 100;

/** Makes the key under which an address is kept: two that are equal share a socket, one after the other. */
export function addressName(address: ListenAddress): string {
  switch (address.kind) {
    case 'tcp': return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
    case 'unix': return address.path;
    case 'systemd': return `systemd:${address.name}`;
  }
}

/** A socket that listens. Accepts while it has a taker. */
export class ListeningSocket {
  readonly #fd: OwnedFd;
  readonly #poll: Poll;
  #taker: ((fd: OwnedFd) => void) | undefined;
  #rest: NodeJS.Timeout | undefined;

  /** Owns the descriptor until `release` gets it, at the end, or when this throws (SYSTEM). */
  constructor(fd: OwnedFd, private readonly release: (fd: OwnedFd) => void, private readonly onError: (error: TlsPoolError) => void) {
    this.#fd = fd;
    try {
      this.#poll = sockets.poll(fd, () => this.#accept());
    } catch (error) {
      release(fd);
      throw error;
    }
  }

  /** Where it listens: the port that the kernel chose, where it had to. */
  get port(): number { return sockets.socketInfo(this.#fd).local?.port ?? 0; }

  /** Who gets connections, as descriptors of their own, from now on; undefined: nobody, they wait in the kernel. */
  give(taker: ((fd: OwnedFd) => void) | undefined): void {
    this.#taker = taker;
    if (taker === undefined) this.#poll.stop();
    else this.#poll.start(pollReadable);
  }

  close(): void {
    clearTimeout(this.#rest);
    this.#taker = undefined;
    this.#poll.close();
    this.release(this.#fd);
  }

  #accept(): void {
    try {
      for (let count = 0; count < acceptsPerTurn && this.#taker !== undefined; count++) {
        const fd = sockets.accept(this.#fd);
        if (fd === null) return;
        this.#taker(fd);
      }
    } catch (error) {
      if (!(error instanceof TlsPoolError)) throw error;
      if (isErrno(error, 'ECONNABORTED', 'EINTR')) return;
      this.onError(error);
      this.#poll.stop();
      this.#rest = setTimeout(() => { if (this.#taker !== undefined) this.#poll.start(pollReadable); }, restMs);
    }
  }
}

/** Opens one. `passed`: sockets from systemd, by name; one that is used is taken out until it is closed, since nobody could open it again. Throws SYSTEM or CONFIG_BAD with the address in the text. */
export function openListening(address: ListenAddress, passed: Map<string, OwnedFd>, onError: (error: TlsPoolError) => void): ListeningSocket {
  const name = addressName(address);
  try {
    if (address.kind === 'tcp') return new ListeningSocket(sockets.tcpListen({ host: address.host, port: address.port, backlog }), (fd) => sockets.close(fd), onError);
    if (address.kind === 'unix') return listenUnix(address, onError);
    const fd = passed.get(address.name);
    if (fd === undefined) throw new TlsPoolError('CONFIG_BAD', { text: `systemd passed no socket of this name; it passed ${[...passed.keys()].join(', ') || 'none'} (FileDescriptorName= of the .socket unit)` });
    passed.delete(address.name);
    return new ListeningSocket(fd, (kept) => { passed.set(address.name, kept); }, onError);
  } catch (error) {
    if (!(error instanceof TlsPoolError)) throw error;
    throw new TlsPoolError(error.code, { text: `cannot listen on ${name}: ${error.message}`, cause: error });
  }
}

/** Gives a socket that is kept across configurations the permissions of the new one. Throws SYSTEM. */
export function updateMode(address: ListenAddress): void {
  if (address.kind !== 'unix') return;
  try {
    chmodSync(address.path, address.mode);
  } catch (error) {
    throw new TlsPoolError('SYSTEM', { text: `the permissions of ${address.path} cannot be changed: ${error instanceof Error ? error.message : 'unknown failure'}`, cause: error });
  }
}

/** A path that nobody answers on is left over from a process that was killed. */
function listenUnix({ path, mode }: Extract<ListenAddress, { kind: 'unix' }>, onError: (error: TlsPoolError) => void): ListeningSocket {
  if (isAbandoned(path, 'stream')) unlinkSync(path);
  const fd = sockets.unixListen({ path, kind: 'stream', mode, backlog });
  const remove = removerOf(path);
  return new ListeningSocket(fd, () => { remove(); sockets.close(fd); }, onError);
}
