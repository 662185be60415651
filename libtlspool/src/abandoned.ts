/** Paths of UNIX sockets that nobody listens on any more. */
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
