/** What a header may say of a TLS session, from what the pool says of it. */
import { X509Certificate } from 'node:crypto';
import { TlsPoolError } from 'libtlspool/protocol';
import type { SessionInfo } from 'libtlspool/protocol';
import type { CertificateFacts, TlsFacts } from './types.js';

/** OpenSSL's numbers for the names in SessionInfo.authorizationError (x509_vfy.h), for receivers that tell them apart. */
const verifyNumbers: ReadonlyMap<string, number> = new Map(Object.entries({
  UNABLE_TO_GET_ISSUER_CERT: 2, UNABLE_TO_GET_CRL: 3, CERT_SIGNATURE_FAILURE: 7, CERT_NOT_YET_VALID: 9, CERT_HAS_EXPIRED: 10,
  ERROR_IN_CERT_NOT_BEFORE_FIELD: 13, ERROR_IN_CERT_NOT_AFTER_FIELD: 14, DEPTH_ZERO_SELF_SIGNED_CERT: 18, SELF_SIGNED_CERT_IN_CHAIN: 19,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 20, UNABLE_TO_VERIFY_LEAF_SIGNATURE: 21, CERT_CHAIN_TOO_LONG: 22, CERT_REVOKED: 23,
  PATH_LENGTH_EXCEEDED: 25, INVALID_PURPOSE: 26, CERT_UNTRUSTED: 27, CERT_REJECTED: 28, UNHANDLED_CRITICAL_EXTENSION: 34,
  PERMITTED_VIOLATION: 47, EXCLUDED_VIOLATION: 48, HOSTNAME_MISMATCH: 62, IP_ADDRESS_MISMATCH: 64, EE_KEY_TOO_SMALL: 66, CA_KEY_TOO_SMALL: 67, CA_MD_TOO_WEAK: 68,
  INVALID_CA: 79,
}));
/** X509_V_ERR_UNSPECIFIED, for all others. */
const unspecified = 1;

/** OpenSSL's short names of the algorithms that certificates are signed with, by the DER of their object identifiers. */
const signatureNames: ReadonlyMap<string, string> = new Map(Object.entries({
  '2a864886f70d010105': 'RSA-SHA1', '2a864886f70d01010b': 'RSA-SHA256', '2a864886f70d01010c': 'RSA-SHA384', '2a864886f70d01010d': 'RSA-SHA512',
  '2a864886f70d01010a': 'RSASSA-PSS', '2a8648ce3d040302': 'ecdsa-with-SHA256', '2a8648ce3d040303': 'ecdsa-with-SHA384', '2a8648ce3d040304': 'ecdsa-with-SHA512',
  '2b6570': 'ED25519', '2b6571': 'ED448',
}));
const keyNames: ReadonlyMap<string, string> = new Map(Object.entries({ rsa: 'RSA', 'rsa-pss': 'RSA', ec: 'EC' }));
const curveBits: ReadonlyMap<string, number> = new Map(Object.entries({ prime256v1: 256, secp384r1: 384, secp521r1: 521 }));

/**
 * The facts of a session in which we are the server. `verify` is 0 only when the client's certificate was verified. A certificate that comes from a
 * resumed session counts as shown in the session, not on the connection. Throws BAD_ARGUMENT for a client's session: its peer is no client.
 */
export function tlsFactsOf(info: SessionInfo): TlsFacts {
  if (info.role !== 'server') throw new TlsPoolError('BAD_ARGUMENT', { field: 'info.role', text: 'a PROXY header speaks of a client, and in this session the peer is the server' });
  const certificate = certificateFacts(info);
  return {
    protocol: info.protocol, cipher: info.cipherName,
    ...(info.alpn !== undefined && { alpn: info.alpn }), ...(info.servername !== undefined && { servername: info.servername }),
    ...(certificate !== undefined && { certificate }), ...(info.localCertificate !== undefined && ownFacts(info.localCertificate)),
  };
}

function certificateFacts(info: SessionInfo): CertificateFacts | undefined {
  const leaf = info.peerCertificates[0];
  if (leaf === undefined) return undefined;
  const commonName = commonNameOf(leaf);
  return {
    shown: info.resumed ? 'session' : 'connection',
    verify: info.authorized ? 0 : verifyNumbers.get(info.authorizationError ?? '') ?? unspecified,
    ...(commonName !== undefined && { commonName }),
  };
}

/** Only where there is exactly one: of several, every reader would take another one. */
function commonNameOf(der: Uint8Array): string | undefined {
  const subject = certificateOf(der)?.toLegacyObject().subject as { readonly CN?: string | readonly string[] } | undefined;
  return typeof subject?.CN === 'string' ? subject.CN : undefined;
}

function certificateOf(der: Uint8Array): X509Certificate | undefined {
  try {
    return new X509Certificate(der);
  } catch {
    // OpenSSL has read it in the handshake, so this is one that Node's reader does not take; nothing is said of it.
    return undefined;
  }
}

function ownFacts(der: Uint8Array): Pick<TlsFacts, 'signatureAlgorithm' | 'keyAlgorithm'> {
  const signatureAlgorithm = signatureNames.get(signatureOid(der) ?? '');
  const key = certificateOf(der)?.publicKey;
  const { namedCurve = '', modulusLength } = key?.asymmetricKeyDetails ?? {};
  const bits = key?.asymmetricKeyType === 'ec' ? curveBits.get(namedCurve) : modulusLength;
  const kind = keyNames.get(key?.asymmetricKeyType ?? '');
  return {
    ...(signatureAlgorithm !== undefined && { signatureAlgorithm }),
    ...(kind !== undefined && bits !== undefined && { keyAlgorithm: `${kind}${bits}` }),
  };
}

/** RFC 5280 section 4.1: Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm { algorithm OBJECT IDENTIFIER, ... }, ... }. As hex; Node has no name for it before 24. */
function signatureOid(der: Uint8Array): string | undefined {
  const certificate = elementAt(der, 0);
  const signed = elementAt(der, certificate?.from ?? der.length);
  const algorithm = elementAt(der, signed?.to ?? der.length);
  const oid = elementAt(der, algorithm?.from ?? der.length);
  return oid === undefined || oid.tag !== 0x06 ? undefined : Buffer.from(der.subarray(oid.from, oid.to)).toString('hex');
}

/** One element of DER: where its content is. */
function elementAt(der: Uint8Array, at: number): { readonly tag: number; readonly from: number; readonly to: number } | undefined {
  const [tag, first] = [der[at], der[at + 1]];
  if (tag === undefined || first === undefined) return undefined;
  const lengthOctets = first < 0x80 ? 0 : first & 0x7f;
  if (lengthOctets > 4) return undefined;
  const length = lengthOctets === 0 ? first : Array.from(der.subarray(at + 2, at + 2 + lengthOctets)).reduce((sum, octet) => sum * 256 + octet, 0);
  const from = at + 2 + lengthOctets;
  return from + length > der.length ? undefined : { tag, from, to: from + length };
}
