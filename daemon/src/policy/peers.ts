/**
 * Access rules on the certificates of peers: which names and keys an identity accepts. The engine applies them inside the handshake;
 * here they are checked and brought into the form that it takes. Fails closed: what cannot be read is no rule, but an error.
 */
import net from 'node:net';
import { normalizeHostName } from 'tlspool-common/config';

/**
 * Entries by kind. dns, uri, email and ip are subjectAltNames (RFC 5280 section 4.2.1.6), cn and ou attributes of the subject,
 * spki is `sha256:` and the base64 of the SHA-256 of SubjectPublicKeyInfo (as in RFC 7469 section 2.4).
 */
export interface PeerNames {
  readonly dns?: readonly string[] | undefined;
  readonly uri?: readonly string[] | undefined;
  readonly email?: readonly string[] | undefined;
  readonly ip?: readonly string[] | undefined;
  readonly cn?: readonly string[] | undefined;
  readonly ou?: readonly string[] | undefined;
  readonly spki?: readonly string[] | undefined;
}

/** deny wins. With any entry under allow, one of these must match; without, every verified certificate that is not denied is accepted. */
export interface PeerRules { readonly allow?: PeerNames | undefined; readonly deny?: PeerNames | undefined }

export type PeerNameKind = keyof PeerNames;

const maxUriOctets = 2048;
const maxTextOctets = 1024;

/** Canonical form, or undefined for what is no rule of this kind. */
type Parse = (text: string) => string | undefined;

function parseUri(text: string): string | undefined {
  if (text.length > maxUriOctets || !/^[\x21-\x7e]+$/.test(text) || text.includes('%')) return undefined;
  const [, head, path] = /^([A-Za-z][A-Za-z0-9+.-]*:(?:\/\/[^/?#]*)?)([^]*)$/.exec(text) ?? [];
  if (head === undefined || path === undefined || head.includes('*')) return undefined;
  const segments = path.split('/');
  const isGood = segments.every((segment, index) => {
    const isLast = index === segments.length - 1;
    if (segment === '.' || segment === '..' || (segment === '' && index > 0 && !isLast)) return false;
    return !segment.includes('*') || (index > 0 && (segment === '*' || (segment === '**' && isLast)));
  });
  return isGood ? head.toLowerCase() + path : undefined;
}

function parseEmail(text: string): string | undefined {
  const at = text.lastIndexOf('@');
  const local = text.slice(0, Math.max(at, 0));
  const domain = normalizeHostName(text.slice(at + 1));
  if (!/^[\x21-\x7e]{1,64}$/.test(local) || domain === undefined || domain.startsWith('*')) return undefined;
  return `${local}@${domain}`;
}

/** The octets of an address that net.isIP has accepted. */
export function octetsOf(address: string, family: 4 | 6): number[] {
  if (family === 4) return address.split('.').map(Number);
  // The last 32 bits may be written as an IPv4 address (RFC 4291 section 2.2).
  const text = address.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_all, a: string, b: string, c: string, d: string) =>
    [[a, b], [c, d]].map(([high, low]) => (Number(high) * 256 + Number(low)).toString(16)).join(':'));
  const [left = '', right] = text.split('::');
  const groups = (part: string) => (part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16)));
  const [start, end] = [groups(left), groups(right ?? '')];
  const all = [...start, ...Array<number>(8 - start.length - end.length).fill(0), ...end];
  return all.flatMap((group) => [group >> 8, group & 0xff]);
}

function parseIp(text: string): string | undefined {
  const [address = '', bits, more] = text.split('/');
  const family = net.isIP(address);
  if ((family !== 4 && family !== 6) || address.includes('%') || more !== undefined) return undefined;
  if (bits === undefined) return address;
  const prefix = /^\d{1,3}$/.test(bits) ? Number(bits) : Infinity;
  if (prefix > (family === 4 ? 32 : 128)) return undefined;
  // 10.0.0.1/8 is either a slip of the prefix or of the address, and nobody can tell which.
  const isClean = octetsOf(address, family).every((octet, index) => (octet & (0xff >> Math.min(Math.max(prefix - index * 8, 0), 8))) === 0);
  return isClean ? `${address}/${prefix}` : undefined;
}

function parseText(text: string): string | undefined {
  return text !== '' && Buffer.byteLength(text) <= maxTextOctets && !/[\p{Cc}\p{Cs}]/u.test(text) ? text : undefined;
}

function parseSpki(text: string): string | undefined {
  const [, base64 = ''] = /^sha256:([A-Za-z0-9+/]{43}=)$/.exec(text) ?? [];
  return Buffer.from(base64, 'base64').toString('base64') === base64 && base64 !== '' ? text : undefined;
}

/** Kind -> how an entry is read, and the words for what is allowed. */
export const peerNameKinds: Readonly<Record<PeerNameKind, { readonly parse: Parse; readonly allowed: string }>> = {
  dns: { parse: normalizeHostName, allowed: 'a host name, optionally with a leading "*." for one label' },
  uri: { parse: parseUri, allowed: 'an absolute URI in ASCII without percent-encoding and dot segments, such as spiffe://example.org/ns/*/sa/web; below the authority a whole segment may be *, and the last one **' },
  email: { parse: parseEmail, allowed: 'an e-mail address in ASCII, such as user@example.org' },
  ip: { parse: parseIp, allowed: 'an IP address, or a network such as 10.0.0.0/8 whose address has no bits beyond the prefix' },
  cn: { parse: parseText, allowed: 'text of 1 to 1024 octets without control characters' },
  ou: { parse: parseText, allowed: 'text of 1 to 1024 octets without control characters' },
  spki: { parse: parseSpki, allowed: '"sha256:" and the base64 of the SHA-256 of SubjectPublicKeyInfo' },
};

/** Is any certificate refused that is not on a list? */
export function hasAllow(rules: PeerRules | undefined): boolean {
  const lists: readonly (readonly string[] | undefined)[] = Object.values(rules?.allow ?? {});
  return lists.some((list) => list !== undefined && list.length > 0);
}
