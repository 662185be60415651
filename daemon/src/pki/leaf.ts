/** One certificate for a TLS server or client, signed: what the development PKI issues and what is made on the fly look alike. */
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import { randomBytes, webcrypto } from 'node:crypto';
import type { CheckedName } from './names.js';

/** What an authority signs with. */
export interface Issuer {
  readonly certificate: x509.X509Certificate;
  readonly key: webcrypto.CryptoKey;
  /** As WebCrypto takes it, with `hash`. */
  readonly algorithm: SigningAlgorithm;
}

export type SigningAlgorithm =
  | { readonly name: 'ECDSA'; readonly namedCurve: string; readonly hash: string }
  | { readonly name: 'RSASSA-PKCS1-v1_5'; readonly hash: string };

export interface LeafSpec {
  /** Common name of the subject, checked; absent: an empty subject. */
  readonly commonName?: string;
  /** subjectAltName, at least one. */
  readonly names: readonly CheckedName[];
  /** For TLS servers, TLS clients, or both. */
  readonly server: boolean;
  readonly client: boolean;
  readonly publicKey: x509.PublicKey | webcrypto.CryptoKey;
  /** To the second. */
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/** RFC 5280 section 4.1.2.2: a positive integer of at most 20 octets; 16 random ones, top bit clear. */
export function serialNumber(): string {
  const octets = randomBytes(16);
  octets.writeUInt8((octets.readUInt8(0) & 0x7f) | 0x40, 0);
  return octets.toString('hex');
}

/** Whoever verifies looks for the issuer by the identifier that its own certificate has (RFC 5280 section 4.2.1.1), however it was made. */
async function authorityKeyIdentifier({ certificate }: Issuer): Promise<x509.Extension> {
  const own = certificate.getExtension(x509.SubjectKeyIdentifierExtension);
  return own === null ? x509.AuthorityKeyIdentifierExtension.create(certificate.publicKey, false, webcrypto) : new x509.AuthorityKeyIdentifierExtension(own.keyId);
}

async function extensions(issuer: Issuer, spec: LeafSpec): Promise<x509.Extension[]> {
  const usages = [...(spec.server ? [x509.ExtendedKeyUsage.serverAuth] : []), ...(spec.client ? [x509.ExtendedKeyUsage.clientAuth] : [])];
  return [
    new x509.BasicConstraintsExtension(false, undefined, true),
    // Signatures only: every key exchange of the presets is ephemeral, so no key is ever used to decrypt.
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
    new x509.ExtendedKeyUsageExtension(usages),
    // RFC 5280 section 4.2.1.6: critical where the subject is empty.
    new x509.SubjectAlternativeNameExtension([...spec.names], spec.commonName === undefined),
    await x509.SubjectKeyIdentifierExtension.create(spec.publicKey, false, webcrypto),
    await authorityKeyIdentifier(issuer),
  ];
}

/** Signs a certificate of an end entity. That the issuer may, and that the names are checked, is the caller's to know. */
export async function signLeaf(issuer: Issuer, spec: LeafSpec): Promise<x509.X509Certificate> {
  const { commonName, notBefore, notAfter, publicKey } = spec;
  return x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(), subject: commonName === undefined ? [] : [{ CN: [commonName] }], issuer: issuer.certificate.subjectName,
    notBefore, notAfter, publicKey, signingKey: issuer.key, signingAlgorithm: issuer.algorithm, extensions: await extensions(issuer, spec),
  }, webcrypto);
}
