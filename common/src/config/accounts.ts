/** User and group names to numbers: /etc/passwd and /etc/group first, then whatever the host's NSS knows. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

export type Database = 'passwd' | 'group';

/** uid_t -1 means "no change" to chown and friends. */
const maxId = 0xffff_fffe;

function idIn(entries: string, name: string): number | undefined {
  for (const line of entries.split('\n')) {
    const fields = line.split(':');
    if (fields[0] === name && /^\d{1,10}$/.test(fields[2] ?? '') && Number(fields[2]) <= maxId) return Number(fields[2]);
  }
  return undefined;
}

function askNss(database: Database, name: string): string {
  try {
    return execFileSync('/usr/bin/getent', [database, name], { encoding: 'utf8', timeout: 5000, stdio: ['ignore', 'pipe', 'ignore'] });
  } catch {
    return '';
  }
}

/** The number of a user or group, given as name or number (0 to 2^32 - 2); undefined when it does not exist. Numbers need not exist. */
export function lookupId(database: Database, id: string | number): number | undefined {
  if (typeof id === 'number') return Number.isInteger(id) && id >= 0 && id <= maxId ? id : undefined;
  if (/^\d+$/.test(id)) return lookupId(database, Number(id));
  if (!/^[A-Za-z_][A-Za-z0-9_.@-]{0,63}\$?$/.test(id)) return undefined;
  let local = '';
  try {
    local = readFileSync(`/etc/${database}`, 'utf8');
  } catch {
    // A host without the file may still have NSS.
  }
  return idIn(local, id) ?? idIn(askNss(database, id), id);
}
