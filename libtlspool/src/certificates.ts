/** Certificates as Node's TLS sockets show them. Parsed only when somebody asks. */
import { X509Certificate } from 'node:crypto';
import type { DetailedPeerCertificate, EphemeralKeyInfo } from 'node:tls';

/** Node's legacy form; typed as `object` in some versions of the type definitions. */
const legacyOf = (certificate: X509Certificate): DetailedPeerCertificate =>
  certificate.toLegacyObject() as unknown as DetailedPeerCertificate;

/**
 * What getPeerCertificate() returns: `{}` without a certificate. With `detailed`, each certificate has its issuer's in
 * `issuerCertificate`, and a self-signed one has itself, as in Node.
 */
export function legacyChain(chain: readonly Uint8Array[], detailed: boolean): DetailedPeerCertificate {
  const leaf = chain[0];
  if (leaf === undefined) return {} as DetailedPeerCertificate;
  if (!detailed) return legacyOf(new X509Certificate(leaf));
  const parsed = chain.map((der) => new X509Certificate(der));
  const legacy = parsed.map(legacyOf);
  legacy.forEach((object, index) => {
    const next = legacy[index + 1];
    const certificate = parsed[index];
    if (next !== undefined) object.issuerCertificate = next;
    else if (certificate?.checkIssued(certificate) === true) object.issuerCertificate = object;
  });
  return legacy[0] ?? ({} as DetailedPeerCertificate);
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
