/** Listening sockets that were opened before us: sd_listen_fds_with_names(3). */
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd } from 'libtlspool/native';
import { escapeText, TlsPoolError } from 'libtlspool/protocol';

/** SD_LISTEN_FDS_START. */
const firstFd = 3;
/** More is no service manager's doing. */
const maxFds = 1024;
/** What sd_listen_fds_with_names(3) calls a descriptor without a name. */
const noName = 'unknown';

export interface Passed { readonly fd: number; readonly name: string }

type Environment = Record<string, string | undefined>;

function bad(text: string): TlsPoolError {
  return new TlsPoolError('CONFIG_BAD', { text });
}

/**
 * What the variables LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES say; nothing when they are not there, or meant for another process. Looks at no
 * descriptor. Throws CONFIG_BAD when they make no sense.
 */
export function parseListenFds(env: Environment, pid: number): readonly Passed[] {
  const { LISTEN_FDS: count, LISTEN_PID: meant, LISTEN_FDNAMES: names } = env;
  if (count === undefined || meant === undefined || meant !== String(pid)) return [];
  if (!/^\d{1,5}$/.test(count) || Number(count) > maxFds) throw bad(`LISTEN_FDS is ${escapeText(JSON.stringify(count))}; it must be a number of descriptors from 0 to ${maxFds}`);
  const list = names === undefined ? Array.from({ length: Number(count) }, () => noName) : names.split(':');
  if (Number(count) === 0) return [];
  if (list.length !== Number(count)) throw bad(`LISTEN_FDNAMES has ${list.length} names for LISTEN_FDS=${count} descriptors`);
  const twice = list.find((name, index) => list.indexOf(name) !== index);
  if (twice !== undefined) throw bad(`two of the sockets that systemd passed have the name ${escapeText(twice)}; give each .socket unit a FileDescriptorName= of its own, with one ListenStream=`);
  return list.map((name, index) => ({ fd: firstFd + index, name }));
}

function checkKind({ fd, name }: Passed): void {
  const shown = `the socket ${escapeText(name)} (descriptor ${fd}) that systemd passed`;
  let info;
  try {
    info = sockets.socketInfo(fd as BorrowedFd);
  } catch (error) {
    throw new TlsPoolError('CONFIG_BAD', { text: `${shown} is no socket; LISTEN_FDS must be the number of sockets that were passed`, cause: error });
  }
  const { domain, type, listening } = info;
  if (type !== 'stream' || !listening || domain === 'other') throw bad(`${shown} is a ${domain} ${type} socket${listening ? '' : ' that does not listen'}; it must be a listening TCP or UNIX stream socket (ListenStream= with Accept=no)`);
}

/**
 * Takes descriptors over: from now on they are CLOEXEC, which a service manager cannot make them. Throws CONFIG_BAD when one is no listening stream
 * socket; none is touched then.
 */
export function adopt(passed: readonly Passed[]): Map<string, OwnedFd> {
  // All before the first is closed: with a wrong number, what follows is not ours to close.
  for (const one of passed) checkKind(one);
  const owned = new Map<string, OwnedFd>();
  for (const { fd, name } of passed) {
    owned.set(name, sockets.dup(fd as BorrowedFd));
    sockets.close(fd as OwnedFd);
  }
  return owned;
}

/** The sockets that systemd passed to this process, by name, as the caller's own. Clears the variables: no program that we start must take them for its own. */
export function takeSystemdSockets(env: Environment = process.env): Map<string, OwnedFd> {
  const passed = parseListenFds(env, process.pid);
  for (const name of ['LISTEN_FDS', 'LISTEN_PID', 'LISTEN_FDNAMES']) delete env[name];
  return adopt(passed);
}
