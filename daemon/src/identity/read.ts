/** Reads the files of one identity at one moment: what all file sources share. */
import { createHash, type X509Certificate } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { TlsPoolError } from 'libtlspool/protocol';
import { readKeyFile, readPublicFile } from './files.js';
import { checkChain, checkPair, findKey, parseCertificates, parseKey, parseTrust } from './inspect.js';
import { checkSealed, isSealed, openSealed } from './sealed.js';
import type { Material } from './types.js';

export interface PairFiles { readonly certificate: string; readonly key: string }
export interface MaterialFiles { readonly pairs: readonly PairFiles[]; readonly trust?: string }

/** More key types than there are in TLS; the cap of the `identities` reply. */
export const maxPairs = 8;
const maxAttempts = 5;

/** One chain with its key, as read; `key` is the holder's to wipe, and empty while it is locked. */
export interface ReadPair {
  readonly chain: Buffer; readonly key: Buffer; readonly leaf: X509Certificate; readonly file: string;
  /** Digest of an encrypted key, in hexadecimal: another PIN for the same key is a change. Absent for a key that is not encrypted. */
  readonly sealed?: string;
}

const noKey = Buffer.alloc(0);

/** Digest of what is encrypted. */
export function sealedDigest(octets: Buffer): string {
  return createHash('sha256').update(octets).digest('hex');
}

async function readPair(files: PairFiles, pin: Buffer | undefined): Promise<ReadPair> {
  const { leaf, certificates, pem: chain } = parseCertificates(await readPublicFile(files.certificate), files.certificate);
  const octets = await readKeyFile(files.key);
  try {
    const block = findKey(octets, files.key);
    if (isSealed(block)) {
      const read = { chain, leaf, file: files.certificate, sealed: sealedDigest(block.octets) };
      checkSealed(block, files.key);
      if (pin === undefined) {
        checkChain({ leaf, certificates }, files.certificate);
        return { ...read, key: noKey };
      }
      const { key, pem } = openSealed(block, files.key, pin);
      return checkedOrWiped({ ...read, key: pem }, () => { checkPair({ leaf, certificates }, key, files); });
    }
    const { key, pem } = parseKey(octets, files.key);
    checkPair({ leaf, certificates }, key, files);
    // A copy of its own, not of the shared pool; `octets`, of which `pem` is a view, is wiped below.
    const own = Buffer.alloc(pem.length);
    pem.copy(own);
    return { chain, key: own, leaf, file: files.certificate };
  } finally {
    octets.fill(0);
  }
}

function checkedOrWiped(pair: ReadPair, check: () => void): ReadPair {
  try {
    check();
    return pair;
  } catch (error) {
    pair.key.fill(0);
    throw error;
  }
}

/** OpenSSL keeps one certificate per key type and would drop the first of two without a word. */
function checkTypes(pairs: readonly ReadPair[]): void {
  const seen = new Map<string, string>();
  for (const { leaf, file } of pairs) {
    const type = leaf.publicKey.asymmetricKeyType ?? 'unknown';
    const other = seen.get(type);
    if (other !== undefined) throw new TlsPoolError('IDENTITY_BAD', { text: `${other} and ${file} both have a key of type ${type}; an identity has one per type; take one of them away` });
    seen.set(type, file);
  }
}

/**
 * Pairs and trust as what one identity is made from. `read` reads the pairs into the list that it is given, and returns the digest of something encrypted of which nothing
 * can be read without a PIN. Throws IDENTITY_BAD; the keys in the list are wiped then.
 */
export async function toMaterial(trustFile: string | undefined, read: (pairs: ReadPair[]) => Promise<string | undefined>): Promise<Material> {
  const pairs: ReadPair[] = [];
  try {
    const sealed = await read(pairs);
    checkTypes(pairs);
    const trust = trustFile === undefined ? undefined : parseTrust(await readPublicFile(trustFile), trustFile).pem;
    const hash = createHash('sha256');
    // The certificate names its public key, and checkPair has tied the private one to it: no key octet goes into the digest.
    if (sealed === undefined) for (const { chain } of pairs) hash.update(`${chain.length}:`).update(chain);
    // The same whether it is open or not.
    for (const digest of [sealed, ...pairs.map((pair) => pair.sealed)]) if (digest !== undefined) hash.update(`sealed ${digest}`);
    if (trust !== undefined) hash.update(`trust ${trust.length}:`).update(trust);
    return {
      keyPairs: pairs.map(({ chain, key }) => ({ chain, key })), certificateFiles: pairs.map(({ file }) => file),
      ...(trust === undefined ? {} : { trust }), digest: hash.digest('hex'),
      ...(pairs.some(({ key }) => key.length === 0) || (sealed !== undefined && pairs.length === 0) ? { isLocked: true } : {}),
    };
  } catch (error) {
    for (const { key } of pairs) key.fill(0);
    throw error;
  }
}

/** What would change if a file were replaced while it is read. Missing files have a print too: they may come. */
export async function fingerprint(files: readonly string[]): Promise<string> {
  const prints = await Promise.all(files.map(async (file) => {
    try {
      const { dev, ino, size, mtimeNs, ctimeNs } = await stat(file, { bigint: true });
      return `${file} ${dev} ${ino} ${size} ${mtimeNs} ${ctimeNs}`;
    } catch (error) {
      return `${file} ${(error as NodeJS.ErrnoException).code ?? ''}`;
    }
  }));
  return prints.join('\n');
}

const allFiles = (files: MaterialFiles): string[] => [...files.pairs.flatMap(({ certificate, key }) => [certificate, key]), ...(files.trust === undefined ? [] : [files.trust])];

/** How a source reads at one moment. */
export interface Reading<Files> {
  /** For people. */
  readonly what: string;
  /** Which files there are now. */
  readonly list: () => Promise<Files>;
  readonly paths: (files: Files) => readonly string[];
  readonly read: (files: Files) => Promise<Material>;
}

/**
 * Reads everything so that all of it is of the same moment: Kubernetes and certbot replace certificate and key one after
 * the other, or swap a link between two reads. When anything changed meanwhile it is read again, up to five times.
 * Throws IDENTITY_BAD; keys read so far are wiped then.
 */
export async function readAtOneMoment<Files>({ what, list, paths, read }: Reading<Files>): Promise<Material> {
  for (let attempt = 1; attempt <= maxAttempts; attempt++) {
    const files = await list();
    const before = await fingerprint(paths(files));
    let material: Material | undefined;
    let failure: unknown;
    try {
      material = await read(files);
    } catch (error) {
      failure = error;
    }
    const after = await fingerprint(paths(await list()));
    if (before === after) {
      if (material === undefined) throw failure;
      return material;
    }
    for (const { key } of material?.keyPairs ?? []) key.fill(0);
  }
  throw new TlsPoolError('IDENTITY_BAD', { text: `${what} changed each time it was read; write the files once, or rename a finished folder into place` });
}

/** PEM files, read at one moment; with a PIN, encrypted keys are opened. Throws IDENTITY_BAD, WrongPinError. */
export function readMaterial(list: () => Promise<MaterialFiles>, what: string, pin?: Buffer): Promise<Material> {
  return readAtOneMoment<MaterialFiles>({
    what, list, paths: allFiles,
    read: (files) => toMaterial(files.trust, async (pairs) => {
      for (const pair of files.pairs) pairs.push(await readPair(pair, pin));
      return undefined;
    }),
  });
}
