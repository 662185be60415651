/** Whose files are believed. Fails closed. */
import type { Stats } from 'node:fs';

/** What the two kinds of file must not allow: keys must not even be read by others, the rest must not be written. */
const forbiddenBits = { key: { group: 0o060, others: 0o006, cure: 'chmod 0600' }, public: { group: 0o020, others: 0o002, cure: 'chmod go-w' } } as const;
export type FileKind = keyof typeof forbiddenBits;

/** Whose files are believed: root's and the process's own. */
export interface Owner { readonly uid: number; readonly gid: number }

/** The running process. */
export function self(): Owner {
  // Where there were no such calls, nobody's number would be ours: fails closed.
  return { uid: process.geteuid?.() ?? NaN, gid: process.getegid?.() ?? NaN };
}

const octal = (mode: number): string => `0${(mode & 0o7777).toString(8)}`;
const verbs = { key: 'read or written', public: 'written' } as const;

/** Why a file with these attributes is not safe to use, or undefined when it is. */
export function unsafeReason(file: string, stat: Pick<Stats, 'mode' | 'uid' | 'gid'>, kind: FileKind, owner: Owner = self()): string | undefined {
  const { group, others, cure } = forbiddenBits[kind];
  if (stat.uid !== 0 && stat.uid !== owner.uid) {
    return `${file} belongs to uid ${stat.uid}, who can change it at any time; it must belong to root or to uid ${owner.uid}: chown ${owner.uid} ${file}`;
  }
  if ((stat.mode & others) !== 0) {
    return `${file} has mode ${octal(stat.mode)}: it can be ${verbs[kind]} by everybody; run: ${cure} ${file}`;
  }
  if ((stat.mode & group) !== 0 && stat.gid !== 0 && stat.gid !== owner.gid) {
    return `${file} has mode ${octal(stat.mode)}: it can be ${verbs[kind]} by the group ${stat.gid}, which is neither root's nor that of uid ${owner.uid}; run: ${cure} ${file}`;
  }
  return undefined;
}

const cures: Readonly<Record<string, string>> = {
  ENOENT: 'the file does not exist; check the path', EACCES: 'permission denied; the user that we run as must be able to read it', ELOOP: 'too many symbolic links',
  ENOTDIR: 'a part of the path is no folder', EMFILE: 'too many open descriptors; raise LimitNOFILE',
};

/** The sentence for a file that cannot be opened. */
export function openReason(file: string, error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code ?? String(error);
  return `${file}: ${cures[code] ?? 'it cannot be read'} (${code})`;
}
