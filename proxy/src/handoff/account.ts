/** Users of the host, as a program is run under. */
import { execFileSync } from 'node:child_process';
import { escapeText, TlsPoolError } from 'libtlspool/protocol';

/** Numbers of a user and of its own group. */
export interface Account { readonly uid: number; readonly gid: number }

/** uid_t -1 means "no change" to setuid and friends. */
const maxId = 0xffff_fffe;

/**
 * The account of a user name, from whatever the host's NSS knows. Asks a program and waits for it (some milliseconds): for configurations, not
 * for connections. Throws CONFIG_BAD when there is no such user.
 */
export function accountOf(user: string): Account {
  const fields = /^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}\$?$/u.test(user) ? askNss(user).split(':') : [];
  const [uid, gid] = [fields[2], fields[3]].map((text) => (text !== undefined && /^\d{1,10}$/u.test(text) && Number(text) <= maxId ? Number(text) : undefined));
  if (uid === undefined || gid === undefined) {
    throw new TlsPoolError('CONFIG_BAD', { field: 'user', text: `there is no user ${escapeText(user)} on this host (getent passwd)` });
  }
  return { uid, gid };
}

function askNss(user: string): string {
  try {
    return execFileSync('/usr/bin/getent', ['passwd', user], { encoding: 'utf8', timeout: 5000, stdio: ['ignore', 'pipe', 'ignore'] }).split('\n')[0] ?? '';
  } catch {
    return '';
  }
}
