/** An outgoing connection that nobody reads. */
import net from 'node:net';
import { borrowedFd, stopReading } from '../handle.js';
import { sockets } from '../native.js';
import type { OwnedFd } from '../native.js';
import { TlsPoolError } from '../protocol/errors.js';

/** A TCP service by name or address, or a UNIX stream socket by path. */
export type DialAddress =
  | {
    /** Name or address. */
    readonly host: string;
    /** 1 to 65535. */
    readonly port: number;
  }
  | {
    /** Of at most 107 octets. */
    readonly path: string;
  };

/** How long, and until when. */
export interface DialOptions {
  /** In milliseconds, name resolution included. */
  readonly deadlineMs: number;
  /** Ends it with ABORTED. */
  readonly signal?: AbortSignal;
}

/**
 * Connects and gives the descriptor, which is the caller's from then on; not an octet has been read. TCP_NODELAY is set.
 * Names are resolved as net.connect() does it, addresses tried in turn. Rejects with BACKEND_FAILED, TIMEOUT or ABORTED.
 */
export function dial(to: DialAddress, { deadlineMs, signal }: DialOptions): Promise<OwnedFd> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(new TlsPoolError('ABORTED', { cause: signal.reason }));
      return;
    }
    const socket = net.connect('path' in to ? { path: to.path } : { host: to.host, port: to.port, noDelay: true });
    // Before it is connected: Node starts to read in the same turn.
    socket.pause();
    const settle = (act: () => void): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      try {
        act();
      } catch (error) {
        reject(error instanceof Error ? error : new TlsPoolError('INTERNAL'));
      } finally {
        socket.destroy(); // closes its own descriptor and shuts nothing down
      }
    };
    const onAbort = (): void => settle(() => reject(new TlsPoolError('ABORTED', { cause: signal?.reason })));
    const timer = setTimeout(() => settle(() => reject(new TlsPoolError('TIMEOUT', { text: `${nameOf(to)} was not connected within ${deadlineMs} ms` }))), deadlineMs);
    signal?.addEventListener('abort', onAbort, { once: true });
    socket.once('connect', () => settle(() => {
      stopReading(socket);
      const fd = borrowedFd(socket);
      if (fd === undefined) throw new TlsPoolError('BACKEND_FAILED', { text: `the connection to ${nameOf(to)} was lost at once` });
      resolve(sockets.dup(fd));
    }));
    socket.on('error', (error: NodeJS.ErrnoException) => settle(() => {
      reject(new TlsPoolError('BACKEND_FAILED', { text: `${nameOf(to)} cannot be connected: ${error.code ?? error.message}`, cause: error }));
    }));
  });
}

/** For texts and logs. */
export function nameOf(to: DialAddress): string {
  if ('path' in to) return to.path;
  return to.host.includes(':') ? `[${to.host}]:${to.port}` : `${to.host}:${to.port}`;
}
