/** Where the pool's socket is, and how to reach it. */
import { errnoName } from './errno.js';
import path from 'node:path';
import { sockets } from './native.js';
import type { OwnedFd } from './native.js';
import { TlsPoolError } from './protocol/index.js';

/** The system's pool. */
export const systemSocket = '/run/tlspool/pool.sock';

/**
 * The paths to try, in order: an explicit one or $TLSPOOL_SOCKET alone, else the system's pool, else the user's.
 * A path that was named is never replaced by another: a program that was told which pool to trust must not talk to a different one.
 */
export function socketPaths(explicit?: string, env: NodeJS.ProcessEnv = process.env): string[] {
  if (explicit !== undefined) return [explicit];
  const named = env['TLSPOOL_SOCKET'];
  if (named !== undefined && named !== '') return [named];
  const runtime = env['XDG_RUNTIME_DIR'];
  return runtime === undefined || runtime === '' ? [systemSocket] : [systemSocket, path.join(runtime, 'tlspool', 'pool.sock')];
}

/** The backlog of the pool's socket is full just now; trying again soon is the cure. */
export class PoolBusy extends Error {}

/**
 * Connects to the first path that answers. The descriptor is the caller's.
 * Throws POOL_UNREACHABLE with all the paths tried and why each failed, or PoolBusy.
 */
export function connectPath(paths: readonly string[]): OwnedFd {
  const tried: string[] = [];
  let last: unknown;
  for (const candidate of paths) {
    try {
      return sockets.unixConnect(candidate, 'seqpacket');
    } catch (error) {
      const name = errnoName(error);
      if (name === 'EAGAIN') throw new PoolBusy(candidate, { cause: error });
      tried.push(`${candidate} (${name ?? (error instanceof Error ? error.message : String(error))})`);
      last = error;
    }
  }
  const system = last instanceof TlsPoolError ? last : undefined;
  throw new TlsPoolError('POOL_UNREACHABLE', {
    text: `no pool answers; tried ${tried.join(', ')}. Start tlspoold, give this user access to its socket, or name the socket in $TLSPOOL_SOCKET`,
    cause: last,
    ...(system?.errno === undefined ? {} : { errno: system.errno }),
    ...(system?.syscall === undefined ? {} : { syscall: system.syscall }),
  });
}
