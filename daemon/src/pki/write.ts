/** Files that appear whole or not at all. */
import { randomBytes } from 'node:crypto';
import { link, mkdir, open, rename, unlink } from 'node:fs/promises';
import path from 'node:path';
import { TlsPoolError } from 'libtlspool/protocol';

/** A failed system call as TlsPoolError SYSTEM; `doing` completes the sentence "cannot ...". */
export function systemError(error: unknown, doing: string): TlsPoolError {
  const { errno, syscall, code } = error as NodeJS.ErrnoException;
  return new TlsPoolError('SYSTEM', {
    text: `cannot ${doing}: ${code ?? String(error)}`, cause: error,
    ...(errno === undefined ? {} : { errno }), ...(syscall === undefined ? {} : { syscall }),
  });
}

/** Makes a folder, mode 0700, with the parents that are missing. One that exists keeps its mode. Throws SYSTEM. */
export async function makePrivateFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw systemError(error, `make the folder ${folder}`);
  }
}

/** A file that is complete on the disk under a name of its own, and not yet in its place. */
export interface Staged {
  /** Puts it there, instead of what is there. Throws SYSTEM. */
  replace(): Promise<void>;
  /** Puts it there if nothing is; else resolves with false. Throws SYSTEM. */
  create(): Promise<boolean>;
  /** Gives it up, unless it is in its place. Never rejects. */
  discard(): Promise<void>;
}

/** What file systems say that have no hard links. */
const noLinks: ReadonlySet<string | undefined> = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS']);

/** Writes a file of mode 0600 beside its place: a full disk shows here, and not when half of several files have been replaced. Throws SYSTEM. */
export async function stagePrivateFile(file: string, content: Uint8Array | string): Promise<Staged> {
  const fresh = path.join(path.dirname(file), `.${path.basename(file)}.${randomBytes(6).toString('hex')}`);
  const discard = () => unlink(fresh).catch(() => undefined);
  const attempt = async <T>(step: () => Promise<T>): Promise<T> => {
    try {
      return await step();
    } catch (error) {
      await discard();
      throw systemError(error, `write ${file}`);
    }
  };
  await attempt(async () => {
    // wx: a link that somebody put there in advance is not followed. The mode is there before the first octet.
    const handle = await open(fresh, 'wx', 0o600);
    try {
      await handle.writeFile(content);
      await handle.sync();
    } finally {
      await handle.close();
    }
  });
  return { replace: () => attempt(() => rename(fresh, file)), create: () => attempt(() => linkOrRename(fresh, file)), discard };
}

async function linkOrRename(fresh: string, file: string): Promise<boolean> {
  try {
    await link(fresh, file);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EEXIST' && !noLinks.has(code)) throw error;
    if (code !== 'EEXIST') await rename(fresh, file);
    else await unlink(fresh);
    return code !== 'EEXIST';
  }
  await unlink(fresh);
  return true;
}

/**
 * Writes a file of mode 0600 atomically: a new file beside it, fsync, rename. Nobody sees a half-written key, and a
 * crash leaves the old one. Throws SYSTEM.
 */
export async function writePrivateFile(file: string, content: Uint8Array | string): Promise<void> {
  await (await stagePrivateFile(file, content)).replace();
}

/** The same for several that belong together: when one cannot be written, none is replaced. Throws SYSTEM. */
export async function writePrivateFiles(files: readonly (readonly [file: string, content: Uint8Array | string])[]): Promise<void> {
  const staged: Staged[] = [];
  try {
    for (const [file, content] of files) staged.push(await stagePrivateFile(file, content));
    for (const one of staged) await one.replace();
  } catch (error) {
    for (const one of staged) await one.discard();
    throw error;
  }
}
