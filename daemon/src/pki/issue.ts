/** Issues certificates of the development authority, in the folder layout that the pool reads (tls.crt, tls.key, ca.crt). */
import { webcrypto } from 'node:crypto';
import path from 'node:path';
import { TlsPoolError } from 'libtlspool/protocol';
import { backdateMs, ecdsa, exportKey, openCa } from './ca.js';
import { signLeaf } from './leaf.js';
import { checkCommonName, checkSubjectNames, type SubjectNames } from './names.js';
import { makePrivateFolder, writePrivateFiles } from './write.js';

const dayMs = 86_400_000;
/** Browsers refuse leaf certificates that are valid for longer (CA/Browser Forum ballot SC31, enforced by Apple and Chromium). */
export const maxLeafDays = 397;

export type KeyType = 'ecdsa' | 'rsa';

export interface IssueOptions extends SubjectNames {
  /** Common name, 1 to 64 octets; the DNS name or IP address too when no other name is given. */
  readonly name: string;
  /** ECDSA P-256 (default) or RSA 2048. */
  readonly keyType?: KeyType;
  /** For TLS clients (extended key usage clientAuth). Default false. */
  readonly client?: boolean;
  /** For TLS servers (serverAuth). Default: true unless `client` is; both may be set. */
  readonly server?: boolean;
  /** Lifetime, 1 to 397 days; default 397. */
  readonly days?: number;
  /** Start of validity; default five minutes ago. */
  readonly notBefore?: Date;
  /** Folder to write to; made with mode 0700 where it is missing. Files that are there are replaced. */
  readonly out: string;
  /** Base name of the pair, default `tls`; a second pair beside it (such as `tls-rsa`) gives the identity a second key type. */
  readonly pair?: string;
}

export interface Issued {
  readonly certificateFile: string;
  readonly keyFile: string;
  /** The authority's certificate, copied beside the pair: what clients of this identity are to trust, and whose client certificates it accepts. */
  readonly trustFile: string;
  readonly notAfter: Date;
}

function checkOptions(options: IssueOptions): { days: number; pair: string } {
  const { days = maxLeafDays, pair = 'tls' } = options;
  if (!Number.isInteger(days) || days < 1 || days > maxLeafDays) {
    throw new TlsPoolError('BAD_ARGUMENT', { field: 'days', text: `days: ${days} is not a whole number from 1 to ${maxLeafDays}; browsers refuse certificates that live longer` });
  }
  if (!/^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/.test(pair) || pair === 'ca') {
    throw new TlsPoolError('BAD_ARGUMENT', { field: 'pair', text: `pair: ${JSON.stringify(pair)} is not a file name of letters, digits, "-" and "_" other than "ca"` });
  }
  return { days, pair };
}

function generateKeys(keyType: KeyType): Promise<webcrypto.CryptoKeyPair> {
  if (keyType === 'ecdsa') return webcrypto.subtle.generateKey(ecdsa, true, ['sign', 'verify']);
  const rsa = { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256', modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]) };
  return webcrypto.subtle.generateKey(rsa, true, ['sign', 'verify']);
}

/** Who the certificate is for. */
function usagesOf({ client = false, server = !client }: IssueOptions): { server: boolean; client: boolean } {
  if (!server && !client) throw new TlsPoolError('BAD_ARGUMENT', { field: 'server', text: 'a certificate must be for a server, a client, or both' });
  return { server, client };
}

/**
 * Makes a key pair and a certificate signed by the authority in `caFolder`, and writes them (mode 0600, each atomically; when one of them cannot be written, none is replaced).
 * Throws BAD_ARGUMENT for names or lifetimes that cannot be used and where there is no authority, IDENTITY_BAD for an
 * unsafe or damaged authority, SYSTEM when a file cannot be written.
 */
export async function issue(caFolder: string, options: IssueOptions): Promise<Issued> {
  const { days, pair } = checkOptions(options);
  const name = checkCommonName(options.name);
  const names = checkSubjectNames(name, options);
  const signer = await openCa(caFolder);
  const keys = await generateKeys(options.keyType ?? 'ecdsa');
  const notBefore = options.notBefore ?? new Date(Date.now() - backdateMs);
  const notAfter = new Date(Math.min(notBefore.getTime() + days * dayMs, signer.certificate.notAfter.getTime()));
  if (notAfter <= notBefore) throw new TlsPoolError('BAD_ARGUMENT', { text: `the certificate authority in ${caFolder} expires on ${signer.certificate.notAfter.toISOString()}, before the new certificate would begin; make a new authority with: tlspool pki init` });
  const certificate = await signLeaf({ ...signer, algorithm: ecdsa }, { commonName: name, names, ...usagesOf(options), publicKey: keys.publicKey, notBefore, notAfter });

  const [certificateFile, keyFile, trustFile] = [`${pair}.crt`, `${pair}.key`, 'ca.crt'].map((file) => path.join(options.out, file)) as [string, string, string];
  const key = await exportKey(keys.privateKey);
  try {
    await makePrivateFolder(options.out);
    // All or none: a new key beside an old certificate would be of no use, and the old key be lost.
    await writePrivateFiles([[keyFile, key], [certificateFile, `${certificate.toString('pem')}\n`], [trustFile, signer.pem]]);
  } finally {
    key.fill(0);
  }
  return { certificateFile, keyFile, trustFile, notAfter };
}
