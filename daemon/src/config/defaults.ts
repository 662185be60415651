/** What holds where the configuration says nothing: paths by the user that runs the pool, rules, roots. */
import { existsSync } from 'node:fs';
import { availableParallelism, homedir } from 'node:os';
import path from 'node:path';
import { lookupId } from 'tlspool-common/config';
import { self } from 'tlspool-common/files';
import type { AccessRule } from './types.js';

/** The process as far as defaults depend on it; tests pass their own. */
export interface Surroundings {
  readonly uid: number;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly home: string;
  readonly cwd: string;
  readonly workers: number;
  /** Number of the group `tlspool`, where it exists. */
  readonly tlspoolGid?: number;
  /** The system's trust store, where it exists. */
  readonly systemRoots?: string;
}

const systemRootsFile = '/etc/ssl/certs/ca-certificates.crt';

type Fixed = Omit<Surroundings, 'systemRoots'>;

function fixedSurroundings(): Fixed {
  const tlspoolGid = lookupId('group', 'tlspool');
  return {
    uid: self().uid, env: process.env, home: homedir(), cwd: process.cwd(), workers: Math.min(availableParallelism(), 256),
    ...(tlspoolGid === undefined ? {} : { tlspoolGid }),
  };
}

/**
 * `atStart`: those that the running pool was started in. Its threads and its socket are as they were made then, so a host that has got fewer processors or
 * a new group meanwhile is no reason to refuse a reload.
 */
export function surroundings(atStart: Fixed = fixedSurroundings()): Surroundings {
  const { uid, env, home, cwd, workers, tlspoolGid } = atStart;
  return {
    uid, env, home, cwd, workers, ...(tlspoolGid === undefined ? {} : { tlspoolGid }), ...(existsSync(systemRootsFile) ? { systemRoots: systemRootsFile } : {}),
  };
}

/** XDG base directory specification: a value that is not absolute is to be ignored. */
function xdg(value: string | undefined): string | undefined {
  return value !== undefined && path.isAbsolute(value) ? value : undefined;
}

export function defaultState({ uid, env, home }: Surroundings): string {
  if (uid === 0) return '/var/lib/tlspool';
  return path.join(xdg(env['XDG_STATE_HOME']) ?? path.join(home, '.local/state'), 'tlspool');
}

/** `name`: of the socket's file. */
export function defaultSocket({ uid, env }: Surroundings, state: string, name = 'pool.sock'): string {
  if (uid === 0) return `/run/tlspool/${name}`;
  const runtime = xdg(env['XDG_RUNTIME_DIR']);
  return runtime === undefined ? path.join(state, name) : path.join(runtime, 'tlspool', name);
}

/** The group `tlspool` may use every identity; it gets neither backends nor the operator's operations. */
export function defaultAccess({ tlspoolGid }: Surroundings): readonly AccessRule[] {
  return tlspoolGid === undefined ? [] : [{ gids: [tlspoolGid], identities: ['*'], permissions: ['server', 'client'] }];
}
