/** The pool socket: taking its place in the file system. */
import { chmodSync, chownSync, lstatSync, mkdirSync, unlinkSync } from 'node:fs';
import { constants } from 'node:os';
import path from 'node:path';
import { TlsPoolError } from 'libtlspool/protocol';
import { sockets } from 'libtlspool/native';
import type { OwnedFd, SocketKind } from 'libtlspool/native';
import { asPoolError } from './faults.js';

export interface PoolSocketOptions {
  readonly path: string;
  /** Permission bits. */
  readonly mode: number;
  /** Group that owns the socket; absent: the pool's own. */
  readonly gid?: number;
  /** What clients connect: packets for the pool protocol, which is the default, or a stream. */
  readonly kind?: SocketKind;
  /** Configuration key of the socket, for texts. */
  readonly key?: string;
}

/** A listening pool socket. `close` closes it and removes its file; to be called once. */
export interface PoolSocket {
  readonly fd: OwnedFd;
  close(): void;
}

const backlog = 128;

/**
 * Takes the path and listens. A socket that nobody answers at is a left-over and is removed; anything else that is there stays.
 * Throws BAD_STATE when a pool lives there, CONFIG_BAD when the path is no socket, SYSTEM.
 */
export function openPoolSocket(options: PoolSocketOptions): PoolSocket {
  const { path: file, mode, gid, kind = 'seqpacket', key = 'socket' } = options;
  makeFolder(path.dirname(file));
  clearPath(file, kind, key);
  const fd = sockets.unixListen({ path: file, kind, backlog, mode: gid === undefined ? mode : 0o600 });
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
    throw new TlsPoolError('SYSTEM', { text: `the socket ${file} cannot be given to group ${gid}: ${String(error)}; name another one under ${key}.group`, cause: error });
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

function clearPath(file: string, kind: SocketKind, key: string): void {
  const stat = lstatSync(file, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket()) throw new TlsPoolError('CONFIG_BAD', { text: `${file} exists and is no socket; remove it, or give another socket path`, field: `${key}.path` });
  if (isAlive(file, kind)) throw new TlsPoolError('BAD_STATE', { text: `a pool is already running at ${file}; stop it, or give another path with ${key === 'socket' ? '--socket' : `${key}.path`}` });
  unlinkSync(file);
}

/** Does somebody live at this socket? Whoever does not clearly refuse is taken to be alive. */
function isAlive(file: string, kind: SocketKind): boolean {
  try {
    sockets.close(sockets.unixConnect(file, kind));
    return true;
  } catch (error) {
    return asPoolError(error).errno !== -constants.errno.ECONNREFUSED;
  }
}
