/** Names that certificates are asked for on the fly: what they may look like, and which the operator allows. Peers choose them: fails closed. */
import net from 'node:net';
import { isHostName } from 'tlspool-common/config';
import { matchesGlob } from '../policy/glob.js';

/** A subjectAltName, in canonical form. */
export interface SignedName { readonly type: 'dns' | 'ip' | 'email'; readonly value: string }

/**
 * Letters, digits and hyphens (RFC 1123 section 2.1), lower case. Not an underscore, which no host name has; and no number as the last label, because browsers
 * and curl take such names for addresses.
 */
function parseHost(text: string): SignedName | undefined {
  if (!/^[\x21-\x7e]+$/.test(text)) return undefined;
  const value = text.toLowerCase().replace(/\.$/, '');
  if (!isHostName(value) || value.includes('_') || /(?:^|\.)(?:\d+|0x[0-9a-f]*)$/.test(value)) return undefined;
  return { type: 'dns', value };
}

function parseAddress(text: string): SignedName | undefined {
  const family = net.isIP(text);
  if (family === 0 || text.includes('%')) return undefined;
  // One spelling for each address.
  return { type: 'ip', value: new net.SocketAddress({ address: text, family: family === 4 ? 'ipv4' : 'ipv6' }).address };
}

/** The dot-atom of RFC 5322 section 3.2.3, and the domain as a host name. */
function parseEmail(text: string): SignedName | undefined {
  const at = text.lastIndexOf('@');
  const local = text.slice(0, Math.max(at, 0));
  const domain = parseHost(text.slice(at + 1));
  if (domain === undefined || local.length > 64 || !/^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*$/.test(local)) return undefined;
  return { type: 'email', value: `${local}@${domain.value}` };
}

/** The name that a server's certificate may have, or a client's, which may be an e-mail address, too; undefined for everything else, wildcards among it. */
export function parseSignedName(text: string, role: 'server' | 'client'): SignedName | undefined {
  if (text.includes('@')) return role === 'client' ? parseEmail(text) : undefined;
  return parseAddress(text) ?? parseHost(text);
}

/** Is the name on the operator's list? Globs in lower case; one without `@` covers no e-mail address, so that `*.example.org` is about hosts alone. */
export function isListed(globs: readonly string[], { type, value }: SignedName): boolean {
  const text = value.toLowerCase();
  return globs.some((glob) => (type !== 'email' || glob.includes('@')) && matchesGlob(glob, text));
}

/** Do these two spell the same host or address? */
export function isSameName(one: string, other: string): boolean {
  const [a, b] = [parseSignedName(one, 'server'), parseSignedName(other, 'server')];
  return a !== undefined && a.value === b?.value;
}
