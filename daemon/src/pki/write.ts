/** Files that appear whole or not at all. */
import { randomBytes } from 'node:crypto';
import { mkdir, open, rename, unlink } from 'node:fs/promises';
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

/**
 * Writes a file of mode 0600 atomically: a new file beside it, fsync, rename. Nobody sees a half-written key, and a
 * crash leaves the old one. Throws SYSTEM.
 */
export async function writePrivateFile(file: string, content: Uint8Array | string): Promise<void> {
  const fresh = path.join(path.dirname(file), `.${path.basename(file)}.${randomBytes(6).toString('hex')}`);
  try {
    // wx: a link that somebody put there in advance is not followed. The mode is there before the first octet.
    const handle = await open(fresh, 'wx', 0o600);
    try {
      await handle.writeFile(content);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(fresh, file);
  } catch (error) {
    await unlink(fresh).catch(() => undefined);
    throw systemError(error, `write ${file}`);
  }
}
