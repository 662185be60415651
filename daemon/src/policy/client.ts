/** Peer credentials to a Client: who is at the other end of a pool socket. */
import { readFileSync } from 'node:fs';
import { sockets, type OwnedFd, type PeerCredentials } from 'libtlspool/native';
import type { Client } from './access.js';
import { parseUnit } from './unit.js';

const pollIn = 1;

/** What identifying needs of the host; tests pass their own. */
export interface ClientHost {
  /** Text of /proc/PID/cgroup. Throws when there is no such process. */
  readCgroup(pid: number): string;
  /** Does the process of this pidfd run? */
  isRunning(pidfd: OwnedFd): boolean;
  close(pidfd: OwnedFd): void;
}

const realHost: ClientHost = {
  readCgroup: (pid) => readFileSync(`/proc/${pid}/cgroup`, 'utf8'),
  // pidfd_open(2): a pidfd becomes readable when its process ends.
  isRunning: (pidfd) => sockets.pollWait(pidfd, pollIn, 0) === 0,
  close: (pidfd) => sockets.close(pidfd),
};

function unitOf(pid: number, pidfd: OwnedFd, host: ClientHost): string | undefined {
  try {
    const unit = parseUnit(host.readCgroup(pid));
    // The order matters: if the process runs *after* the file was read, its number was not reused before.
    return unit !== undefined && host.isRunning(pidfd) ? unit : undefined;
  } catch {
    // Gone, hidden (hidepid) or out of descriptors: no unit, hence none of a unit's rights.
    return undefined;
  }
}

/**
 * Who the client is. Takes `credentials.pidfd` over and closes it, on every path. Never throws.
 *
 * Fails closed: a unit is only reported when a pidfd (SO_PEERPIDFD, Linux 6.5) proves that the process that was looked
 * at is the one that connected. Without it a client could pass its socket on, exit, and wait for its process number to
 * be given to a service with more rights.
 */
export function identifyClient(credentials: PeerCredentials, host: ClientHost = realHost): Client {
  const { pid, uid, gid, groups, pidfd } = credentials;
  if (pidfd === undefined) return { pid, uid, gid, groups };
  try {
    // Number 0: a process outside our pid namespace; /proc has nothing to say about it.
    const unit = pid > 0 ? unitOf(pid, pidfd, host) : undefined;
    return { pid, uid, gid, groups, ...(unit === undefined ? {} : { unit }) };
  } finally {
    host.close(pidfd);
  }
}
