/** Encrypted private keys: PKCS#8 `ENCRYPTED PRIVATE KEY` (RFC 5958 section 3), opened with a PIN and back to PEM, in buffers that can be wiped. */
import { createPrivateKey, type KeyObject } from 'node:crypto';
import { TlsPoolError } from 'libtlspool/protocol';
import { toPem, type PemBlock } from './pem.js';

/** The PIN does not open the key: another one may. Nothing else is wrong as far as can be told. */
export class WrongPinError extends TlsPoolError {
  constructor(file: string) {
    super('IDENTITY_BAD', { text: `${file}: the PIN does not open the key` });
  }
}

export function isSealed({ label }: PemBlock): boolean {
  return label === 'ENCRYPTED PRIVATE KEY';
}

const sequence = 0x30;
const octetString = 0x04;

/** Where a DER value with this tag begins and ends; undefined when there is none. Lengths of up to 65,535 octets: keys are shorter. */
function derValue(der: Buffer, at: number, tag: number): { readonly start: number; readonly end: number } | undefined {
  const first = der[at + 1];
  if (der[at] !== tag || first === undefined || first === 0x80 || first > 0x82) return undefined;
  const more = first < 0x80 ? 0 : first & 0x7f;
  const start = at + 2 + more;
  if (start > der.length) return undefined;
  const end = start + (more === 0 ? first : der.readUIntBE(at + 2, more));
  return end <= der.length ? { start, end } : undefined;
}

/** EncryptedPrivateKeyInfo ::= SEQUENCE { encryptionAlgorithm AlgorithmIdentifier, encryptedData OCTET STRING } */
function isWhole(der: Buffer): boolean {
  const all = derValue(der, 0, sequence);
  const algorithm = all === undefined ? undefined : derValue(der, all.start, sequence);
  const data = algorithm === undefined ? undefined : derValue(der, algorithm.end, octetString);
  return all?.end === der.length && data?.end === all.end;
}

/** What is between BEGIN and END. As a string on the way, which is no leak: it is encrypted. */
const derOf = (octets: Buffer): Buffer => Buffer.from(octets.toString('latin1').replace(/-----[^-]*-----/gu, ''), 'base64');

/** Could a PIN open it? Throws IDENTITY_BAD with file and line when not: nobody should be asked for one. */
export function checkSealed({ octets, line }: PemBlock, file: string): void {
  if (isWhole(derOf(octets))) return;
  throw new TlsPoolError('IDENTITY_BAD', { text: `${file}:${line}: not an encrypted private key (PKCS#8); the file is damaged` });
}

/** The key, and as PEM for the engine; the buffer is the caller's to wipe, the PIN stays the caller's. Throws WrongPinError. */
export function openSealed({ octets }: PemBlock, file: string, pin: Buffer): { readonly key: KeyObject; readonly pem: Buffer } {
  let key: KeyObject;
  try {
    // Not as PEM: Node 26 leaves a copy of the PIN on the stack then.
    key = createPrivateKey({ key: derOf(octets), format: 'der', type: 'pkcs8', passphrase: pin });
  } catch {
    // Without OpenSSL's error as cause: it says nothing that the caller could use. A wrong PIN may look like garbage of any kind.
    throw new WrongPinError(file);
  }
  return { key, pem: keyToPem(key) };
}

/** The key as PKCS#8 in PEM, in a buffer of its own that is the caller's to wipe. */
export function keyToPem(key: KeyObject): Buffer {
  const der = key.export({ format: 'der', type: 'pkcs8' });
  try {
    return toPem('PRIVATE KEY', der);
  } finally {
    der.fill(0);
  }
}
