/**
 * Reads credential files. What is checked is what is read: the checks run on the opened descriptor, so nobody can swap
 * the file between check and read. Symbolic links are followed (Kubernetes and certbot use them). Fails closed.
 */
import { constants, type Stats } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { TlsPoolError } from 'libtlspool/protocol';

/** Cap on one certificate, trust or key file. The whole trust store of Debian is 220 KB. */
export const maxCredentialOctets = 1_048_576;

/** What the two kinds of file must not allow: keys must not even be read by others, the rest must not be written. */
const forbiddenBits = { key: { group: 0o060, others: 0o006, cure: 'chmod 0600' }, public: { group: 0o020, others: 0o002, cure: 'chmod go-w' } } as const;
export type FileKind = keyof typeof forbiddenBits;

/** Whose files are believed: root's and the daemon's own. */
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
    return `${file} has mode ${octal(stat.mode)}: it can be ${verbs[kind]} by the group ${stat.gid}, which is neither root's nor the pool's; run: ${cure} ${file}`;
  }
  return undefined;
}

function bad(text: string, cause?: unknown): TlsPoolError {
  return new TlsPoolError('IDENTITY_BAD', { text, ...(cause === undefined ? {} : { cause }) });
}

const cures: Readonly<Record<string, string>> = {
  ENOENT: 'the file does not exist; check the path', EACCES: 'permission denied; the pool must be able to read it', ELOOP: 'too many symbolic links',
  ENOTDIR: 'a part of the path is no folder', EMFILE: 'too many open descriptors; raise LimitNOFILE',
};

/** The sentence for a file that cannot be opened. */
export function openReason(file: string, error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code ?? String(error);
  return `${file}: ${cures[code] ?? 'it cannot be read'} (${code})`;
}

/** Reads at most `size` octets into one buffer of our own, never the shared pool: a key must be wipeable. */
async function readWhole(handle: FileHandle, size: number): Promise<Buffer> {
  const octets = Buffer.alloc(size);
  let length = 0;
  while (length < size) {
    const { bytesRead } = await handle.read(octets, length, size - length, null);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  return octets.subarray(0, length);
}

async function readChecked(file: string, kind: FileKind, owner: Owner): Promise<Buffer> {
  let handle: FileHandle;
  try {
    // O_NONBLOCK: opening a FIFO that somebody put there must not hang the pool.
    handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (error) {
    throw bad(openReason(file, error), error);
  }
  try {
    const stat = await handle.stat();
    if (!stat.isFile()) throw bad(`${file} is not a regular file`);
    if (stat.size > maxCredentialOctets) throw bad(`${file} has ${stat.size} octets; at most ${maxCredentialOctets} are read`);
    const reason = unsafeReason(file, stat, kind, owner);
    if (reason !== undefined) throw bad(reason);
    return await readWhole(handle, stat.size);
  } catch (error) {
    if (error instanceof TlsPoolError) throw error;
    throw bad(openReason(file, error), error);
  } finally {
    await handle.close();
  }
}

/**
 * Reads a private-key file. Refused with IDENTITY_BAD (the text names file, mode and cure) when it is readable or writable
 * by others or by a group other than root's and the pool's, when it belongs to somebody other than root and the pool,
 * when it is no regular file, or has more than 1 MiB. The buffer is the caller's to wipe.
 */
export function readKeyFile(file: string, owner: Owner = self()): Promise<Buffer> {
  return readChecked(file, 'key', owner);
}

/** Reads a certificate or trust file: as readKeyFile, but others may read it. Whoever can write trust can become a peer. */
export function readPublicFile(file: string, owner: Owner = self()): Promise<Buffer> {
  return readChecked(file, 'public', owner);
}
