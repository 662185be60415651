/** What is said about certificates and keys before they are used. Every refusal names the file and the cure. */
import { createPrivateKey, X509Certificate, type KeyObject } from 'node:crypto';
import { TlsPoolError } from 'libtlspool/protocol';
import { pemBlocks, type PemBlock } from './pem.js';
import { isSealed } from './sealed.js';

/** Of keys here, of peers and of roots: the security level of the engine. */
export const minRsaBits = 2048;
/** Certificates in one file: chains are short, trust stores are not. */
export const maxChain = 16;
const maxRoots = 1000;
const serverAuthOid = '1.3.6.1.5.5.7.3.1';
const clientAuthOid = '1.3.6.1.5.5.7.3.2';
const goodCurves: ReadonlySet<string> = new Set(['prime256v1', 'secp384r1', 'secp521r1']);

function bad(text: string, cause?: unknown): TlsPoolError {
  return new TlsPoolError('IDENTITY_BAD', { text, ...(cause === undefined ? {} : { cause }) });
}

/** A distinguished name on one line, without control characters, at most `maxOctets` long. */
export function oneLine(name: string | undefined, maxOctets = 512): string {
  const text = (name ?? '').split('\n').filter((part) => part !== '').join(', ').replace(/\p{Cc}/gu, '?');
  return Buffer.byteLength(text) <= maxOctets ? text : `${Buffer.from(text).subarray(0, maxOctets - 4).toString('utf8').replace(/\ufffd+$/, '')}...`;
}

export interface Certificates { /** The first of the file. */ readonly leaf: X509Certificate; readonly certificates: readonly X509Certificate[]; /** Only the certificates, LF line ends. */ readonly pem: Buffer }

function certificateOf(block: PemBlock, file: string): X509Certificate {
  if (block.label.endsWith('PRIVATE KEY')) throw bad(`${file}:${block.line}: a private key in a file of certificates; move it to a key file of mode 0600`);
  if (block.label !== 'CERTIFICATE' && block.label !== 'X509 CERTIFICATE') throw bad(`${file}:${block.line}: ${block.label} is not CERTIFICATE; only certificates belong here`);
  try {
    return new X509Certificate(block.octets);
  } catch (error) {
    throw bad(`${file}:${block.line}: not a certificate; the file is damaged`, error);
  }
}

/** Parses a file of certificates. Throws IDENTITY_BAD with file and line. */
export function parseCertificates(octets: Buffer, file: string, max = maxChain): Certificates {
  const blocks = pemBlocks(octets, file);
  if (blocks.length > max) throw bad(`${file} has ${blocks.length} certificates; at most ${max} are used`);
  const certificates = blocks.map((block) => certificateOf(block, file));
  const [leaf] = certificates;
  if (leaf === undefined) throw bad(`${file} has no certificate`);
  return { leaf, certificates, pem: Buffer.from(certificates.map((certificate) => certificate.toString()).join('')) };
}

/** Parses a file of trust roots, at most 1000. Throws IDENTITY_BAD with file and line. */
export function parseTrust(octets: Buffer, file: string): Certificates {
  return parseCertificates(octets, file, maxRoots);
}

/** The one private key of a file, encrypted or not. Throws IDENTITY_BAD. */
export function findKey(octets: Buffer, file: string): PemBlock {
  const keys = pemBlocks(octets, file).filter((block) => block.label.endsWith('PRIVATE KEY'));
  const [block, second] = keys;
  if (block === undefined) throw bad(`${file} has no private key`);
  if (second !== undefined) throw bad(`${file}:${second.line}: a second private key; a key file has one`);
  if (block.hasHeaders) {
    throw bad(`${file}:${block.line}: the key is encrypted with a passphrase in the way of old (RFC 1421), which is not read here; bring it into PKCS#8 with: openssl pkcs8 -topk8 -in ${file} -out NEW, keep NEW at mode 0600, and use that`);
  }
  return block;
}

/** Parses the one private key of a file, which must not be encrypted; `pem` is a view of `octets`, to be wiped with it. Throws IDENTITY_BAD. */
export function parseKey(octets: Buffer, file: string): { readonly key: KeyObject; readonly pem: Buffer } {
  const block = findKey(octets, file);
  if (isSealed(block)) throw bad(`${file}:${block.line}: the key is encrypted with a passphrase, which nobody can be asked for here; decrypt it with: openssl pkey -in ${file} -out NEW, keep NEW at mode 0600, and use that`);
  try {
    return { key: createPrivateKey(block.octets), pem: block.octets };
  } catch (error) {
    throw bad(`${file}:${block.line}: not a private key that can be used; the file is damaged`, error);
  }
}

/** Such as `EC P-256`, `RSA 2048`, `ED25519`. */
export function keyTypeOf(key: KeyObject): string {
  const details = key.asymmetricKeyDetails ?? {};
  const curves: Readonly<Record<string, string>> = { prime256v1: 'P-256', secp384r1: 'P-384', secp521r1: 'P-521' };
  if (key.asymmetricKeyType === 'ec') return `EC ${curves[details.namedCurve ?? ''] ?? details.namedCurve ?? ''}`.slice(0, 32);
  if (details.modulusLength !== undefined) return `${(key.asymmetricKeyType ?? '').toUpperCase()} ${details.modulusLength}`.slice(0, 32);
  return (key.asymmetricKeyType ?? 'unknown').toUpperCase().slice(0, 32);
}

/** Refuses keys that are too weak or of no use in TLS. Throws IDENTITY_BAD. */
export function checkStrength(key: KeyObject, what: string): void {
  const type = key.asymmetricKeyType;
  if (type === 'rsa' || type === 'rsa-pss') {
    if ((key.asymmetricKeyDetails?.modulusLength ?? 0) < minRsaBits) throw bad(`${what} has an ${keyTypeOf(key)} bit key; at least ${minRsaBits} bits are needed; make a new key, ECDSA P-256 for choice`);
  } else if (type === 'ec') {
    if (!goodCurves.has(key.asymmetricKeyDetails?.namedCurve ?? '')) throw bad(`${what} has a key on the curve ${key.asymmetricKeyDetails?.namedCurve ?? 'unknown'}; P-256, P-384 and P-521 can be used`);
  } else if (type !== 'ed25519' && type !== 'ed448') {
    throw bad(`${what} has a ${keyTypeOf(key)} key, which this pool does not use; make an ECDSA P-256 key`);
  }
}

/** Each certificate must have been issued by the next one. Throws IDENTITY_BAD. */
export function checkOrder(chain: readonly X509Certificate[], file: string): void {
  for (const [index, subject] of chain.entries()) {
    const issuer = chain[index + 1];
    if (issuer !== undefined && (!subject.checkIssued(issuer) || !subject.verify(issuer.publicKey))) {
      throw bad(`${file}: the chain is broken: certificate ${index + 1} (${oneLine(subject.subject)}) was not issued by certificate ${index + 2} (${oneLine(issuer.subject)}); put the leaf first, then each one's issuer`);
    }
  }
}

/** Extended key usages; absent means every one (RFC 5280 section 4.2.1.12). */
export function mayServe(certificate: X509Certificate): boolean {
  const usages = certificate.keyUsage as readonly string[] | undefined;
  return usages === undefined || usages.includes(serverAuthOid);
}

export function mayBeClient(certificate: X509Certificate): boolean {
  const usages = certificate.keyUsage as readonly string[] | undefined;
  return usages === undefined || usages.includes(clientAuthOid);
}

/** Checks that chain and key belong together and can be used. Time is not looked at here. Throws IDENTITY_BAD. */
export function checkPair(certificates: Pick<Certificates, 'leaf' | 'certificates'>, key: KeyObject, files: { readonly certificate: string; readonly key: string }): void {
  const { leaf, certificates: chain } = certificates;
  if (!leaf.checkPrivateKey(key)) {
    const at = chain.findIndex((certificate) => certificate.checkPrivateKey(key));
    throw bad(at > 0
      ? `${files.certificate}: the key belongs to certificate ${at + 1} of the chain; put that one first, then each one's issuer`
      : `${files.key} is not the key of ${files.certificate} (${oneLine(leaf.subject)}); put the two that were made together`);
  }
  checkChain(certificates, files.certificate);
}

/** As much of that as can be said without the key. Throws IDENTITY_BAD. */
export function checkChain({ leaf, certificates: chain }: Pick<Certificates, 'leaf' | 'certificates'>, file: string): void {
  checkStrength(leaf.publicKey, file);
  checkOrder(chain, file);
  // RFC 9525 section 2: the common name is no longer looked at by clients.
  if (mayServe(leaf) && !leaf.subjectAltName) throw bad(`${file} has no subjectAltName; clients do not look at the common name any more; have it issued again with a DNS name or address`);
}

const dates = (certificate: X509Certificate) => ({ notBeforeMs: Date.parse(certificate.validFrom), notAfterMs: Date.parse(certificate.validTo) });

/** Refuses what has expired or is not valid yet, anywhere in the chain. A date that cannot be read counts as expired. Throws IDENTITY_BAD. */
export function checkDates(chain: readonly X509Certificate[], file: string, nowMs: number): void {
  for (const certificate of chain) {
    const { notBeforeMs, notAfterMs } = dates(certificate);
    const who = `${file}: the certificate of ${oneLine(certificate.subject)}`;
    if (!(notAfterMs >= nowMs)) throw bad(`${who} expired on ${certificate.validTo}; renew it`);
    if (!(notBeforeMs <= nowMs)) throw bad(`${who} is not valid before ${certificate.validFrom}; check the clock of this machine, or wait`);
  }
}

export interface CertificateSummary {
  readonly subject: string; readonly issuer: string; readonly serial: string; readonly keyType: string; readonly fingerprint: string;
  readonly notBeforeMs: number; readonly notAfterMs: number;
}

/** The fields that the `identities` operation shows. The fingerprint is SHA-256 in hexadecimal. */
export function summarize(certificate: X509Certificate): CertificateSummary {
  const { notBeforeMs, notAfterMs } = dates(certificate);
  return {
    subject: oneLine(certificate.subject), issuer: oneLine(certificate.issuer), serial: certificate.serialNumber.slice(0, 80),
    keyType: keyTypeOf(certificate.publicKey), fingerprint: certificate.fingerprint256.replaceAll(':', '').toLowerCase(),
    // The protocol's moments begin in 1970, and certificates may be older.
    notBeforeMs: Math.max(0, notBeforeMs), notAfterMs: Math.max(0, notAfterMs),
  };
}
