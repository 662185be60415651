/**
 * Source: a PKCS#12 file (RFC 7292) with one private key, its certificate and perhaps the chain, and a file with its password. Without that file the
 * identity is locked until a PIN entry gives the password: until then not even its certificate can be read.
 */
import { createPrivateKey, X509Certificate, type KeyObject } from 'node:crypto';
import { TlsPoolError } from 'libtlspool/protocol';
import { watchPaths } from 'tlspool-common/files';
import { readKeyFile, readSecretLine } from './files.js';
import { checkPair, maxChain, oneLine } from './inspect.js';
import { openPkcs12 } from './pkcs12-open.js';
import type { Contents } from './pkcs12-open.js';
import { readAtOneMoment, sealedDigest, toMaterial, type ReadPair } from './read.js';
import { keyToPem, WrongPinError } from './sealed.js';
import type { IdentitySource, Material } from './types.js';

export interface Pkcs12Files {
  readonly file: string;
  readonly passwordFile?: string;
  readonly trust?: string;
  /** How long opening may take, in milliseconds; tests set it. */
  readonly openMs?: number;
}

const maxPasswordOctets = 1024;

function bad(text: string): TlsPoolError {
  // Without the library's error as cause: it may carry what was decrypted.
  return new TlsPoolError('IDENTITY_BAD', { text });
}

/** Printable ASCII: anything else means different octets to the parts of one file (RFC 7292 appendix B.1, RFC 8018). */
const isPassword = (octets: Buffer): boolean => octets.every((octet) => octet >= 0x20 && octet <= 0x7e);

/** The first line, which is the caller's to wipe. Anything but printable ASCII is refused. */
async function readPassword(file: string): Promise<Buffer> {
  const line = await readSecretLine(file);
  try {
    if (line.length > maxPasswordOctets) throw bad(`${file}: the password has more than ${maxPasswordOctets} octets; is this the right file?`);
    if (!isPassword(line)) throw bad(`${file}: the password has characters other than printable ASCII; give the PKCS#12 file another one, with: openssl pkcs12`);
    return line;
  } catch (error) {
    line.fill(0);
    throw error;
  }
}

/** The library's words for a wrong password: a checksum that differs, or a padding that is none. */
const wrongPassword = /MAC could not be verified|wrong password|Failed to decrypt/i;

/** The keys are the caller's to wipe. Throws IDENTITY_BAD. */
async function openFile(octets: Buffer, password: Buffer, { file, passwordFile, openMs }: Pkcs12Files): Promise<Contents> {
  const opened = await openPkcs12(octets, password, openMs);
  if (!('fault' in opened)) return opened;
  const reason = oneLine(opened.reason, 200);
  if (opened.fault === 'time') throw bad(`${file}: ${reason}; export it again with fewer iterations: openssl pkcs12 -export -iter 2048`);
  if (opened.fault === 'thread') throw bad(`${file}: the thread that opens it failed (${reason}); when there are descriptors and memory again: tlspool reload`);
  if (wrongPassword.test(reason) && passwordFile === undefined) throw new WrongPinError(file);
  if (wrongPassword.test(reason)) throw bad(`${file}: the password in ${passwordFile ?? ''} does not open it; correct the password, which is the first line of that file`);
  throw bad(`${file}: not a PKCS#12 file that can be read (${reason}); convert it with: openssl pkcs12 -export, or use PEM files`);
}

function parseKey(der: Uint8Array, file: string): KeyObject {
  try {
    return createPrivateKey({ key: Buffer.from(der.buffer, der.byteOffset, der.length), format: 'der', type: 'pkcs8' });
  } catch {
    throw bad(`${file}: its private key is of a kind that cannot be used; make an ECDSA P-256 key`);
  }
}

function parseCertificate(der: Uint8Array, file: string): X509Certificate {
  try {
    return new X509Certificate(der);
  } catch {
    throw bad(`${file}: a certificate in it cannot be read; the file is damaged`);
  }
}

/** The key's certificate and its issuers, in order, as far as the file has them. A root is left out: whoever trusts it has it. */
function chainOf(key: KeyObject, certificates: readonly X509Certificate[], file: string): readonly X509Certificate[] {
  const leaf = certificates.find((certificate) => certificate.checkPrivateKey(key));
  if (leaf === undefined) throw bad(`${file} has ${certificates.length} certificates, and none belongs to its private key; export the two that were made together`);
  const chain = [leaf];
  const isIssuer = (subject: X509Certificate, issuer: X509Certificate) => subject.checkIssued(issuer) && subject.verify(issuer.publicKey);
  for (let subject: X509Certificate | undefined = leaf; subject !== undefined && chain.length < maxChain;) {
    const last: X509Certificate = subject;
    subject = certificates.find((issuer) => !chain.includes(issuer) && !isIssuer(issuer, issuer) && isIssuer(last, issuer));
    if (subject !== undefined) chain.push(subject);
  }
  return chain;
}

async function readPair(octets: Buffer, password: Buffer, files: Pkcs12Files): Promise<ReadPair> {
  const { file } = files;
  let keys: Contents['keys'] = [];
  try {
    const contents = await openFile(octets, password, files);
    keys = contents.keys;
    const [der, second] = keys;
    if (der === undefined) throw bad(`${file} has no private key; export it together with its certificate: openssl pkcs12 -export -inkey KEY -in CERTIFICATE`);
    if (second !== undefined) throw bad(`${file} has ${keys.length} private keys, and which is meant cannot be told; export one, and use a folder of PEM files for several key types`);
    const key = parseKey(der, file);
    const certificates = chainOf(key, contents.certificates.map((one) => parseCertificate(one, file)), file);
    const [leaf] = certificates;
    if (leaf === undefined) throw bad(`${file} has no certificate`);
    checkPair({ leaf, certificates }, key, { certificate: file, key: file });
    return { chain: Buffer.from(certificates.map(String).join('')), key: keyToPem(key), leaf, file };
  } finally {
    for (const key of keys) key.fill(0);
  }
}

/** Puts the pair into the list, where there is a password; without one, gives the digest of the file. */
async function readInto(pairs: ReadPair[], files: Pkcs12Files, pin: Buffer | undefined): Promise<string | undefined> {
  const { file, passwordFile } = files;
  const octets = await readKeyFile(file);
  try {
    if (passwordFile !== undefined) {
      const password = await readPassword(passwordFile);
      try {
        pairs.push(await readPair(octets, password, files));
      } finally {
        password.fill(0);
      }
      return undefined;
    }
    if (octets[0] !== 0x30) throw bad(`${file}: not a PKCS#12 file; nobody is asked for its password`);
    if (pin !== undefined && !isPassword(pin)) throw new WrongPinError(file);
    if (pin !== undefined) pairs.push(await readPair(octets, pin, files));
    return sealedDigest(octets);
  } finally {
    octets.fill(0);
  }
}

async function load(files: Pkcs12Files, paths: readonly string[], pin: Buffer | undefined): Promise<Material> {
  return readAtOneMoment<readonly string[]>({
    what: files.file, list: () => Promise.resolve(paths), paths: (all) => all,
    read: () => toMaterial(files.trust, (pairs) => readInto(pairs, files, pin)),
  });
}

/** Credentials in a PKCS#12 file; file and password file are held to the permissions of a key. Nothing is read before `load`. */
export function pkcs12Source(files: Pkcs12Files): IdentitySource {
  const { file, passwordFile, trust } = files;
  const paths = [file, ...(passwordFile === undefined ? [] : [passwordFile]), ...(trust === undefined ? [] : [trust])];
  return {
    description: file,
    load: (pin) => load(files, paths, pin),
    watch: (changed) => watchPaths(paths.map((one) => ({ file: one })), changed),
  };
}
