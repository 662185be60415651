/** The signing CA of the configuration: read, checked, and what it may sign. Every refusal names the file and the cure. Fails closed. */
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import { createHash, webcrypto, type KeyObject, type X509Certificate } from 'node:crypto';
import { TlsPoolError } from 'libtlspool/protocol';
import type { OnTheFlyConfig } from '../config/types.js';
import type { Issuer, SigningAlgorithm } from '../pki/leaf.js';
import { readKeyFile, readPublicFile } from './files.js';
import { checkDates, checkOrder, checkStrength, keyTypeOf, mayBeClient, mayServe, oneLine, parseCertificates, parseKey, parseTrust } from './inspect.js';
import { isWithin, parseNameConstraints, type NameConstraints } from './name-constraints.js';
import type { SignedName } from './signed-names.js';

/** A CA that is in order, with what the configuration says of its use. */
export interface Authority {
  readonly settings: OnTheFlyConfig;
  readonly issuer: Issuer;
  /** PEM of the CA and its issuers, to be sent behind the leaf. */
  readonly chain: Buffer;
  readonly certificates: readonly X509Certificate[];
  /** Of the CA and its issuers. */
  readonly constraints: readonly NameConstraints[];
  /** When the first of the CA and its issuers ends. */
  readonly notAfterMs: number;
  /** When the last of them began. */
  readonly notBeforeMs: number;
  /** PEM roots for peers. */
  readonly trust?: Buffer;
  /** Of all that a certificate which was made depends on: equal means that those in use stay good. */
  readonly digest: string;
}

const nameConstraintsOid = '2.5.29.30';

function bad(text: string, cause?: unknown): TlsPoolError {
  return new TlsPoolError('IDENTITY_BAD', { text: `onTheFly: ${text}`, ...(cause === undefined ? {} : { cause }) });
}

const curves: Readonly<Record<string, SigningAlgorithm>> = {
  prime256v1: { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' },
  secp384r1: { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-384' },
  secp521r1: { name: 'ECDSA', namedCurve: 'P-521', hash: 'SHA-512' },
};

function algorithmOf(key: KeyObject, file: string): SigningAlgorithm {
  const algorithm = key.asymmetricKeyType === 'rsa' ? { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' } as const : curves[key.asymmetricKeyDetails?.namedCurve ?? ''];
  if (algorithm === undefined) throw bad(`${file}: a ${keyTypeOf(key)} key; certificates that every client accepts are signed with ECDSA (P-256, P-384, P-521) or RSA; use such a CA`);
  return algorithm;
}

/** RFC 5280 sections 4.2.1.3 and 4.2.1.9. `below`: certificates of authorities between this one and the leaf. */
function checkIsAuthority(certificate: x509.X509Certificate, below: number, file: string): void {
  const who = `${file}: the certificate of ${oneLine(certificate.subject)}`;
  const basic = certificate.getExtension(x509.BasicConstraintsExtension);
  if (basic?.ca !== true) throw bad(`${who} is not one of a certificate authority (basicConstraints without CA:TRUE); make one for this purpose, for example with: tlspool pki init`);
  const usages = certificate.getExtension(x509.KeyUsagesExtension)?.usages ?? 0;
  if ((usages & x509.KeyUsageFlags.keyCertSign) === 0) throw bad(`${who} may not sign certificates (keyUsage without keyCertSign); use one that may`);
  if (basic.pathLength !== undefined && basic.pathLength < below) throw bad(`${who} allows ${basic.pathLength} authorities below it, and ${below} are; use a chain that it allows (pathLenConstraint)`);
}

function constraintsOf(certificate: x509.X509Certificate, file: string): NameConstraints[] {
  const extension = certificate.getExtension(nameConstraintsOid);
  if (extension === null) return [];
  try {
    return [parseNameConstraints(new Uint8Array(extension.value))];
  } catch (error) {
    throw bad(`${file}: the name constraints of ${oneLine(certificate.subject)} cannot be read (${(error as Error).message}); use another CA`, error);
  }
}

async function readIssuerKey(file: string, certificate: { readonly node: X509Certificate; readonly x509: x509.X509Certificate; readonly file: string }): Promise<Issuer> {
  const octets = await readKeyFile(file);
  let der: Buffer | undefined;
  try {
    const { key } = parseKey(octets, file);
    if (!certificate.node.checkPrivateKey(key)) throw bad(`${file} is not the key of the first certificate in ${certificate.file} (${oneLine(certificate.node.subject)}); put the two that were made together, the signing CA first`);
    checkStrength(certificate.node.publicKey, certificate.file);
    const algorithm = algorithmOf(key, file);
    der = key.export({ format: 'der', type: 'pkcs8' });
    return { certificate: certificate.x509, algorithm, key: await webcrypto.subtle.importKey('pkcs8', der, algorithm, false, ['sign']) };
  } finally {
    octets.fill(0);
    der?.fill(0);
  }
}

/**
 * Reads and checks the CA. `running` is the one in use: the same one is not refused for having expired meanwhile, since it refuses to sign by
 * itself. Throws IDENTITY_BAD.
 */
export async function readAuthority(settings: OnTheFlyConfig, running: Authority | undefined, nowMs: number): Promise<Authority> {
  const { certificate: file, key, trust: trustFile, lifetimeS, policy, clientAuth } = settings;
  const { certificates, pem: chain } = parseCertificates(await readPublicFile(file), file);
  const parsed = certificates.map(({ raw }) => new x509.X509Certificate(raw));
  const [node, own] = [certificates[0], parsed[0]];
  if (node === undefined || own === undefined) throw bad(`${file} has no certificate`);
  for (const [index, one] of parsed.entries()) checkIsAuthority(one, index, file);
  checkOrder(certificates, file);
  const issuer = await readIssuerKey(key, { node, x509: own, file });
  const trust = trustFile === undefined ? undefined : parseTrust(await readPublicFile(trustFile), trustFile).pem;
  const digest = createHash('sha256').update(JSON.stringify([chain.toString('latin1'), trust?.toString('latin1'), lifetimeS, policy, clientAuth])).digest('hex');
  if (digest !== running?.digest) checkDates(certificates, file, nowMs);
  return {
    settings, issuer, chain, certificates, digest, constraints: parsed.flatMap((one) => constraintsOf(one, file)),
    notAfterMs: Math.min(...parsed.map(({ notAfter }) => notAfter.getTime())), notBeforeMs: Math.max(...parsed.map(({ notBefore }) => notBefore.getTime())),
    ...(trust === undefined ? {} : { trust }),
  };
}

/** Is the name outside of what the CA and its issuers allow to be signed? */
export function isExcluded({ constraints }: Authority, name: SignedName): boolean {
  return !constraints.every((one) => isWithin(one, name));
}

/** Do the extended key usages of the CA and its issuers, where they have any, leave this role to a leaf? */
export function maySignFor({ certificates }: Authority, role: 'server' | 'client'): boolean {
  return certificates.every(role === 'server' ? mayServe : mayBeClient);
}
