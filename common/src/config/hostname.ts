/** Host names as certificates and SNI have them. */
import net from 'node:net';
import { domainToASCII } from 'node:url';

const label = /^(?!-)[a-z0-9_-]{1,63}(?<!-)$/;

/** Is this a host name in A-label form, lower case, without a trailing dot (RFC 1123 section 2.1)? */
export function isHostName(name: string): boolean {
  return name.length <= 253 && name.split('.').every((part) => label.test(part)) && net.isIP(name) === 0;
}

/**
 * Brings a host name into the form that certificates and SNI use: lower case, A-labels (RFC 5890), no trailing dot.
 * A leading `*.` (RFC 6125 section 6.4.3, one label) is kept. Returns undefined for what is no host name; fails closed.
 */
export function normalizeHostName(name: string): string | undefined {
  const wildcard = name.startsWith('*.');
  const bare = (wildcard ? name.slice(2) : name).replace(/\.$/, '');
  // domainToASCII answers '' for what cannot be converted, and folds case. It would also rewrite addresses ("0x7f.1").
  const ascii = /^[\x20-\x7e]*$/.test(bare) ? bare.toLowerCase() : domainToASCII(bare);
  if (!isHostName(ascii)) return undefined;
  return wildcard ? `*.${ascii}` : ascii;
}
