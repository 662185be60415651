/** Certificates as Node's TLS sockets show them. Parsed only when somebody asks. */
import { X509Certificate } from 'node:crypto';
import type { DetailedPeerCertificate, EphemeralKeyInfo } from 'node:tls';

/** Node's legacy form; typed as `object` in some versions of the type definitions. */
const legacyOf = (certificate: X509Certificate): DetailedPeerCertificate =>
  certificate.toLegacyObject() as unknown as DetailedPeerCertificate;

/** The leaf, its issuer, the issuer of that one, as far as they are known. Peers may send what is above the leaf in any order (RFC 8446 section 4.4.2). */
function inOrder([leaf, ...others]: readonly Uint8Array[]): X509Certificate[] {
  if (leaf === undefined) return [];
  const chain = [new X509Certificate(leaf)];
  const left = new Set(others.map((der) => new X509Certificate(der)));
  for (const certificate of chain) {
    const issuer = [...left].find((one) => certificate.checkIssued(one));
    if (issuer === undefined) break;
    left.delete(issuer);
    chain.push(issuer);
  }
  return chain;
}

/**
 * What getPeerCertificate() returns: `{}` without a certificate. With `detailed`, each certificate has its issuer's in
 * `issuerCertificate`, and a self-signed one has itself, as in Node.
 */
export function legacyChain(certificates: readonly Uint8Array[], detailed: boolean): DetailedPeerCertificate {
  const chain = inOrder(detailed ? certificates : certificates.slice(0, 1));
  const legacy = chain.map(legacyOf);
  legacy.forEach((object, index) => { if (detailed && index > 0) (legacy[index - 1] as DetailedPeerCertificate).issuerCertificate = object; });
  const [top, last] = [chain.at(-1), legacy.at(-1)];
  if (detailed && last !== undefined && top?.checkIssued(top) === true) last.issuerCertificate = last;
  return legacy[0] ?? ({} as DetailedPeerCertificate);
}

/** What getPeerX509Certificate() returns: the leaf, with its issuers in `issuerCertificate`, which are parsed only when somebody asks for them. */
export function x509Chain(certificates: readonly Uint8Array[]): X509Certificate | undefined {
  const [der] = certificates;
  if (der === undefined) return undefined;
  const leaf = new X509Certificate(der);
  let issuer: { readonly certificate: X509Certificate | undefined } | undefined;
  Object.defineProperty(leaf, 'issuerCertificate', { get: () => (issuer ??= { certificate: issuersOf(certificates) }).certificate });
  return leaf;
}

/** The first issuer, each with the next one. Node's class has a getter, which knows only what came from Node's own TLS. */
function issuersOf(certificates: readonly Uint8Array[]): X509Certificate | undefined {
  const [, ...issuers] = inOrder(certificates);
  issuers.forEach((issuer, index) => { if (index > 0) Object.defineProperty(issuers[index - 1], 'issuerCertificate', { value: issuer }); });
  return issuers[0];
}

/** Sizes as Node reports them, in bits of the group's order or prime. */
const ecdhBits: Readonly<Record<string, number>> = {
  X25519: 253, x25519: 253, X448: 448, x448: 448,
  'P-256': 256, prime256v1: 256, secp256r1: 256, 'P-384': 384, secp384r1: 384, 'P-521': 521, secp521r1: 521,
};

/** Names of groups as Node has them, where the pool's OpenSSL calls them otherwise. */
const curveNames: Readonly<Record<string, string>> = {
  x25519: 'X25519', x448: 'X448', 'P-256': 'prime256v1', secp256r1: 'prime256v1', 'P-384': 'secp384r1', 'P-521': 'secp521r1',
};

/** What getEphemeralKeyInfo() returns on a client for a key-exchange group; `{}` where the group is not known. */
export function ephemeralKey(group: string | undefined): EphemeralKeyInfo | Record<string, never> {
  if (group === undefined) return {};
  const finite = /^ffdhe(\d+)$/.exec(group);
  if (finite?.[1] !== undefined) return { type: 'DH', name: group, size: Number(finite[1]) };
  return { type: 'ECDH', name: curveNames[group] ?? group, size: ecdhBits[group] ?? 0 };
}
