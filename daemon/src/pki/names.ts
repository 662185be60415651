/** What may stand in a certificate of the development PKI: names are checked before they are signed. */
import net from 'node:net';
import { TlsPoolError } from 'libtlspool/protocol';
import { isHostName, normalizeHostName } from 'tlspool-common/config';

/** ub-common-name of RFC 5280 appendix A.1. */
const maxCommonNameOctets = 64;
/** Names of one certificate, each kind a subjectAltName type of RFC 5280 section 4.2.1.6. */
export interface SubjectNames {
  readonly dns?: readonly string[];
  readonly ip?: readonly string[];
  /** Absolute URIs, such as spiffe://example.org/web. */
  readonly uri?: readonly string[];
  readonly email?: readonly string[];
}

export interface CheckedName { readonly type: 'dns' | 'ip' | 'url' | 'email'; readonly value: string }

function bad(field: string, seen: string, allowed: string): TlsPoolError {
  return new TlsPoolError('BAD_ARGUMENT', { field, text: `${field}: ${JSON.stringify(seen.slice(0, 255))} is not ${allowed}` });
}

function checkDns(name: string): CheckedName {
  const value = normalizeHostName(name);
  if (value === undefined) throw bad('dns', name, 'a host name; use letters, digits, hyphens and dots, optionally with a leading "*."');
  return { type: 'dns', value };
}

function checkIp(address: string): CheckedName {
  if (net.isIP(address) === 0 || address.includes('%')) throw bad('ip', address, 'an IPv4 or IPv6 address');
  return { type: 'ip', value: address };
}

function checkUri(uri: string): CheckedName {
  // RFC 5280 section 4.2.1.6: not a relative URI, and only IA5 characters.
  if (!/^[\x21-\x7e]{1,2048}$/.test(uri) || !URL.canParse(uri)) throw bad('uri', uri, 'an absolute URI in ASCII, such as spiffe://example.org/web');
  return { type: 'url', value: uri };
}

function checkEmail(address: string): CheckedName {
  const [local, domain, more] = address.split('@');
  if (!local || !domain || more !== undefined || !/^[\x21-\x7e]{1,64}$/.test(local) || !isHostName(domain.toLowerCase())) {
    throw bad('email', address, 'an e-mail address in ASCII, such as user@example.org');
  }
  return { type: 'email', value: address };
}

/** The common name of a certificate: 1 to 64 octets without control characters. Throws BAD_ARGUMENT. */
export function checkCommonName(name: string): string {
  if (name === '' || Buffer.byteLength(name) > maxCommonNameOctets || /^#|\p{Cc}/u.test(name)) {
    // A leading # would be taken for hexadecimal DER (RFC 4514 section 2.4).
    throw bad('name', name, `a name of 1 to ${maxCommonNameOctets} octets without control characters and without a leading "#"`);
  }
  return name;
}

/** Every name checked and in canonical form. Without any, `name` itself becomes the DNS name. Throws BAD_ARGUMENT. */
export function checkSubjectNames(name: string, names: SubjectNames): readonly CheckedName[] {
  const checked = [
    ...(names.dns ?? []).map(checkDns), ...(names.ip ?? []).map(checkIp),
    ...(names.uri ?? []).map(checkUri), ...(names.email ?? []).map(checkEmail),
  ];
  return checked.length > 0 ? checked : [net.isIP(name) === 0 ? checkDns(name) : checkIp(name)];
}
