/**
 * Reads credential files. What is checked is what is read: the checks run on the opened descriptor, so nobody can swap
 * the file between check and read. Symbolic links are followed (Kubernetes and certbot use them). Fails closed.
 */
import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { TlsPoolError } from 'libtlspool/protocol';
import { openReason, self, unsafePlaceReason, unsafeReason, type FileKind, type Owner } from 'tlspool-common/files';

/** Cap on one certificate, trust or key file. The whole trust store of Debian is 220 KB. */
export const maxCredentialOctets = 1_048_576;

function bad(text: string, cause?: unknown): TlsPoolError {
  return new TlsPoolError('IDENTITY_BAD', { text, ...(cause === undefined ? {} : { cause }) });
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

async function readChecked(file: string, kind: FileKind, owner: Owner, maxOctets = maxCredentialOctets): Promise<Buffer> {
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
    if (stat.size > maxOctets) throw bad(`${file} has ${stat.size} octets; at most ${maxOctets} are read`);
    const reason = unsafeReason(file, stat, kind, owner) ?? unsafePlaceReason(file, owner);
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
 * when it is no regular file, or has more than 1 MiB, or when others could put another file in its place. The buffer is the caller's to wipe.
 */
export function readKeyFile(file: string, owner: Owner = self()): Promise<Buffer> {
  return readChecked(file, 'key', owner);
}

/** The first line (LF, CR LF or neither) of a file that is held to the rules for keys. A view that is the caller's to wipe; what follows it is wiped. */
export async function readSecretLine(file: string): Promise<Buffer> {
  const octets = await readKeyFile(file);
  const newline = octets.indexOf(0x0a);
  let end = newline === -1 ? octets.length : newline;
  if (end > 0 && octets[end - 1] === 0x0d) end--;
  octets.fill(0, end);
  return octets.subarray(0, end);
}

/** Reads a file of the pool's own, of at most `maxOctets`: held to the permissions of a key. */
export function readOwnFile(file: string, maxOctets: number): Promise<Buffer> {
  return readChecked(file, 'key', self(), maxOctets);
}

/** Reads a certificate or trust file: as readKeyFile, but others may read it. Whoever can write trust can become a peer. */
export function readPublicFile(file: string, owner: Owner = self()): Promise<Buffer> {
  return readChecked(file, 'public', owner);
}
