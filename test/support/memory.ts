/** Looking for octets in the memory of another process, through /proc/PID/mem; needs the rights of ptrace. */
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { createPrivateKey } from 'node:crypto';

export interface Needle { readonly name: string; readonly octets: Buffer }

const chunkOctets = 4 * 1024 * 1024;

/**
 * Names of the needles that are somewhere in the readable memory of the process. Throws when less than a MiB could be read:
 * a scan that sees nothing proves nothing.
 */
export function scanMemory(pid: number, needles: readonly Needle[]): string[] {
  const overlap = Math.max(...needles.map(({ octets }) => octets.length)) - 1;
  const found = new Set<string>();
  const memory = openSync(`/proc/${String(pid)}/mem`, 'r');
  const chunk = Buffer.alloc(chunkOctets);
  let scanned = 0;
  try {
    for (const { from, to } of readableRegions(pid)) {
      for (let at = from; at < to; at += BigInt(chunkOctets - overlap)) {
        const wanted = Number(to - at < BigInt(chunkOctets) ? to - at : BigInt(chunkOctets));
        const got = readSome(memory, chunk, wanted, at);
        scanned += got;
        const seen = chunk.subarray(0, got);
        for (const { name, octets } of needles) if (!found.has(name) && seen.includes(octets)) found.add(name);
      }
    }
  } finally {
    closeSync(memory);
  }
  if (scanned < 1024 * 1024) throw new Error(`only ${String(scanned)} octets of process ${String(pid)} could be read`);
  return [...found];
}

function readableRegions(pid: number): { from: bigint; to: bigint }[] {
  return readFileSync(`/proc/${String(pid)}/maps`, 'utf8').split('\n').flatMap((line) => {
    const match = /^([0-9a-f]+)-([0-9a-f]+) r/u.exec(line);
    // The kernel's own pages in every process; they cannot be read this way.
    if (match === null || /\[v(?:var|syscall|var_vclock)\]/u.test(line)) return [];
    return [{ from: BigInt(`0x${match[1] ?? '0'}`), to: BigInt(`0x${match[2] ?? '0'}`) }];
  });
}

/** A region may be gone or have holes (EIO, EFAULT) since the list was read; what cannot be read holds nothing to find. */
function readSome(fd: number, into: Buffer, length: number, position: bigint): number {
  try {
    return readSync(fd, into, 0, length, position as unknown as number);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EIO' || code === 'EFAULT') return 0;
    throw error;
  }
}

const pieceOctets = 16;
const secretFields = ['d', 'p', 'q', 'dp', 'dq', 'qi'] as const;

/**
 * Everything that would give a private key (PEM, PKCS#8, not encrypted) away: its secret numbers in pieces of 16 octets, in
 * network order and in the order in which big-number libraries keep them, and the lines of its PEM and DER text.
 */
export function keyNeedles(pem: string, name: string): Needle[] {
  const key = createPrivateKey(pem);
  const jwk = key.export({ format: 'jwk' });
  const needles: Needle[] = [];
  for (const field of secretFields) {
    const value = jwk[field];
    if (value === undefined) continue;
    const number = Buffer.from(value, 'base64url');
    for (const [order, octets] of [['big-endian', number], ['little-endian', Buffer.from(number).reverse()]] as const) {
      for (let at = 0; at + pieceOctets <= octets.length; at += pieceOctets) {
        needles.push({ name: `${name} ${field} ${order} ${String(at)}`, octets: Buffer.from(octets.subarray(at, at + pieceOctets)) });
      }
    }
  }
  return [...needles, ...pemLines(pem, name, Buffer.from(String(jwk.d), 'base64url'))];
}

/** The lines of the PEM text from the one with the first octet of `secret` to the one with its last. */
function pemLines(pem: string, name: string, secret: Buffer): Needle[] {
  const lines = pem.split('\n').filter((line) => line !== '' && !line.startsWith('-----'));
  const at = Buffer.from(lines.join(''), 'base64').indexOf(secret);
  if (at < 0) throw new Error('the secret number is not in the DER of the key');
  const lineOf = (octet: number): number => Math.floor(octet / 48);
  return lines.map((line, number) => ({ name: `${name} PEM line ${String(number)}`, octets: Buffer.from(line), number }))
    .filter(({ number, octets }) => octets.length === 64 && number >= lineOf(at) && number <= lineOf(at + secret.length - 1));
}
