/** Paths of UNIX sockets: those that nobody listens on any more, and our own at the end. */
import fs from 'node:fs';
import { isErrno } from './errno.js';
import { sockets } from './native.js';
import type { SocketKind } from './native.js';

/**
 * Is this the socket of a process that was killed? One that refuses is nobody's. Everything else, a full queue included, may have an owner. Connects to find out.
 */
export function isAbandoned(path: string, kind: SocketKind): boolean {
  try {
    sockets.close(sockets.unixConnect(path, kind));
    return false;
  } catch (error) {
    return isErrno(error, 'ECONNREFUSED') && fs.lstatSync(path, { throwIfNoEntry: false })?.isSocket() === true;
  }
}

/**
 * For who has just made a socket: gives the function that removes its path again, unless something else is there by then; if somebody has removed our file,
 * another process may have taken the place. Call it before the socket is closed: until then nobody else's file has the same number. Neither throws.
 */
export function removerOf(path: string): () => void {
  const made = identityOf(path);
  return () => {
    try {
      if (made !== undefined && identityOf(path) === made) fs.unlinkSync(path);
    } catch { /* whoever listens there next replaces it */ }
  };
}

function identityOf(path: string): string | undefined {
  try {
    const { dev, ino } = fs.lstatSync(path, { bigint: true });
    return `${dev} ${ino}`;
  } catch {
    return undefined;
  }
}
