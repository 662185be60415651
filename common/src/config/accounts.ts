/** User and group names to numbers: /etc/passwd and /etc/group first, then whatever the host's NSS knows. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

export type Database = 'passwd' | 'group';

/** A user of the host, as a program is run under. */
export interface Account {
  /** As it was asked for. */
  readonly name: string;
  readonly uid: number;
  /** Its own group. */
  readonly gid: number;
}

/** uid_t -1 means "no change" to chown and friends. */
const maxId = 0xffff_fffe;

/** Columns of both databases. */
const [nameColumn, idColumn] = [0, 2];
/** Of passwd alone. */
const groupColumn = 3;

/** Reads the files and asks a program, and waits for both (some milliseconds): for configurations, not for connections. */
function entryOf(database: Database, value: string, column = nameColumn): readonly string[] | undefined {
  const isIt = (line: string): boolean => line.split(':')[column] === value;
  const local = readLocal(database).split('\n').find(isIt);
  return (local ?? askNss(database, value).split('\n').find(isIt))?.split(':');
}

function readLocal(database: Database): string {
  try {
    return readFileSync(`/etc/${database}`, 'utf8');
  } catch {
    // A host without the file may still have NSS.
    return '';
  }
}

function askNss(database: Database, value: string): string {
  try {
    return execFileSync('/usr/bin/getent', [database, value], { encoding: 'utf8', timeout: 5000, stdio: ['ignore', 'pipe', 'ignore'] });
  } catch {
    return '';
  }
}

const isNumber = (text: string): boolean => /^\d+$/.test(text);
const isName = (text: string): boolean => /^[A-Za-z_][A-Za-z0-9_.@-]{0,63}\$?$/.test(text);

function idFrom(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,10}$/.test(text) && Number(text) <= maxId ? Number(text) : undefined;
}

/** The number of a user or group, given as name or number (0 to 2^32 - 2); undefined when it does not exist. Numbers need not exist. */
export function lookupId(database: Database, id: string | number): number | undefined {
  if (typeof id === 'number') return Number.isInteger(id) && id >= 0 && id <= maxId ? id : undefined;
  if (isNumber(id)) return lookupId(database, Number(id));
  return isName(id) ? idFrom(entryOf(database, id)?.[idColumn]) : undefined;
}

/** The account of a user, given as name or number; undefined when it does not exist: of a number alone the group is not known. */
export function lookupAccount(user: string): Account | undefined {
  if (!isNumber(user) && !isName(user)) return undefined;
  const entry = entryOf('passwd', user, isNumber(user) ? idColumn : nameColumn);
  const [uid, gid] = [idFrom(entry?.[idColumn]), idFrom(entry?.[groupColumn])];
  return uid === undefined || gid === undefined ? undefined : { name: user, uid, gid };
}
