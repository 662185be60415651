/** What is no reason to refuse a certificate here, and one for its peers. */
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import type { X509Certificate } from 'node:crypto';
import { mayBeClient, mayServe, minRsaBits, oneLine, parseTrust } from './inspect.js';

/** One sentence per doubt, with file and cure. */
export function leafDoubts(leaf: X509Certificate, file: string): string[] {
  const doubts: string[] = [];
  if (!mayServe(leaf) && !mayBeClient(leaf)) {
    doubts.push(`${file}: its extendedKeyUsage has neither serverAuth nor clientAuth, so that peers will refuse it (RFC 5280 section 4.2.1.12); have it issued again with the one that you need`);
  }
  const usages = new x509.X509Certificate(leaf.raw).getExtension(x509.KeyUsagesExtension)?.usages;
  // RFC 8446 section 4.4.2.2; the suites of TLS 1.2 that are offered here sign, too.
  if (usages !== undefined && (usages & x509.KeyUsageFlags.digitalSignature) === 0) {
    doubts.push(`${file}: its keyUsage has no digitalSignature, without which peers refuse it in TLS 1.3 (RFC 8446 section 4.4.2.2); have it issued again with it`);
  }
  return doubts;
}

/** Roots under which nobody is accepted: the security level of the engine. */
export function rootDoubts(trust: Buffer, file: string): string[] {
  return parseTrust(trust, file).certificates.flatMap(({ publicKey, subject }) => {
    const { modulusLength } = publicKey.asymmetricKeyDetails ?? {};
    if (modulusLength === undefined || modulusLength >= minRsaBits) return [];
    return [`${file}: the root ${oneLine(subject)} has an RSA key of ${modulusLength} bits, and what it has issued is refused; leave it out, or have a root of at least ${minRsaBits} bits`];
  });
}
