/** Descriptors of the process: those that whoever started us has left open, which programs that we start must not get; and how many there may be. */
import { closeSync, readdirSync, readFileSync } from 'node:fs';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';

const lastStandardFd = 2;
/** As /proc shows it. */
const closeOnExec = 0o2000000;

/**
 * Makes every open descriptor above 2 one that is closed on exec, by putting a copy in its place: closing it would give up what hangs on it, such as the lock of
 * flock(1). Our own are so from the beginning; Node sees to some of the inherited ones, up to the first gap in their numbers.
 * To be called once, before anything else is started or opened. Throws SYSTEM without /proc, and when there is no room for the copies; then no program may be started.
 */
export function hideInherited(): void {
  for (const fd of openFds()) {
    if (fd <= lastStandardFd || isHidden(fd)) continue;
    // Open until we end, like the one that it stands for.
    sockets.dup(fd as BorrowedFd);
    closeSync(fd);
  }
}

function openFds(): number[] {
  try {
    return readdirSync('/proc/self/fd').map(Number);
  } catch (error) {
    throw new TlsPoolError('SYSTEM', { text: 'the list of our descriptors cannot be read; is /proc mounted?', cause: error });
  }
}

function isHidden(fd: number): boolean {
  let info: string;
  try {
    info = readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1');
  } catch {
    return true; // that of the list itself, which is closed by now
  }
  return (Number.parseInt(/^flags:\s*([0-7]+)$/mu.exec(info)?.[1] ?? '0', 8) & closeOnExec) !== 0;
}

/** How many descriptors this process may have (RLIMIT_NOFILE; Node raises it to the hard limit at its start); undefined where that cannot be known. */
export function mostDescriptors(): number | undefined {
  try {
    const [, soft] = /^Max open files +(\d+)/mu.exec(readFileSync('/proc/self/limits', 'latin1')) ?? [];
    return soft === undefined ? undefined : Number(soft);
  } catch {
    return undefined;
  }
}
