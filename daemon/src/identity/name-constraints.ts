/**
 * Name constraints of a certificate authority (RFC 5280 section 4.2.1.10), as far as they are about what is signed on the fly: host names, addresses, e-mail
 * addresses. Fails closed: an authority whose constraints cannot be read is not used.
 */
import { DerReader, derElements, derTags } from '../session/der.js';
import { octetsOf } from '../policy/peers.js';
import type { SignedName } from './signed-names.js';

interface Subtrees {
  readonly dns: readonly string[];
  readonly email: readonly string[];
  /** Address and mask, 8 or 32 octets. */
  readonly ip: readonly Uint8Array[];
}

export interface NameConstraints {
  readonly permitted: Subtrees;
  readonly excluded: Subtrees;
  /** There are some about distinguished names, which an empty subject keeps. */
  readonly limitsSubjects: boolean;
}

/** Context tags of NameConstraints, GeneralSubtree and GeneralName. */
const tags = { permitted: 0xa0, excluded: 0xa1, email: 0x81, dns: 0x82, directory: 0xa4, ip: 0x87 } as const;

/** IA5String: what is not ASCII matches nothing that can be compared with it. */
function asciiOf(content: Uint8Array): string {
  if (!content.every((octet) => octet >= 0x21 && octet <= 0x7e)) throw new Error('a name in it is not ASCII');
  return Buffer.from(content).toString('latin1').toLowerCase();
}

function addressOf(content: Uint8Array): Uint8Array {
  if (content.length !== 8 && content.length !== 32) throw new Error('an address in it has no mask of its own length');
  return content;
}

function subtreesOf(content: Uint8Array | undefined): { subtrees: Subtrees; limitsSubjects: boolean } {
  const dns: string[] = [];
  const email: string[] = [];
  const ip: Uint8Array[] = [];
  let limitsSubjects = false;
  for (const subtree of derElements(content ?? new Uint8Array(), 'a subtree', derTags.sequence)) {
    const reader = new DerReader(subtree.content);
    const base = reader.next('the base of a subtree');
    // "the minimum field MUST be zero, and maximum MUST be absent": a DEFAULT of zero is not encoded.
    reader.end('the base of a subtree');
    if (base.tag === tags.dns) dns.push(asciiOf(base.content));
    else if (base.tag === tags.email) email.push(asciiOf(base.content));
    else if (base.tag === tags.ip) ip.push(addressOf(base.content));
    else if (base.tag === tags.directory) limitsSubjects = true;
  }
  return { subtrees: { dns, email, ip }, limitsSubjects };
}

/** The value of the extension. Throws an Error whose text says what is wrong with it. */
export function parseNameConstraints(der: Uint8Array): NameConstraints {
  const outer = new DerReader(der);
  const reader = new DerReader(outer.next('nameConstraints', derTags.sequence).content);
  outer.end('nameConstraints');
  const permitted = subtreesOf(reader.optional('permittedSubtrees', tags.permitted)?.content);
  const excluded = subtreesOf(reader.optional('excludedSubtrees', tags.excluded)?.content);
  reader.end('nameConstraints');
  return { permitted: permitted.subtrees, excluded: excluded.subtrees, limitsSubjects: permitted.limitsSubjects || excluded.limitsSubjects };
}

/** "Any DNS name that can be constructed by simply adding zero or more labels to the left-hand side"; with a leading dot, one or more. */
function isUnder(name: string, base: string): boolean {
  if (base === '') return true;
  return name === base || (name.endsWith(base) && (base.startsWith('.') || name.at(-base.length - 1) === '.'));
}

/** A mailbox, all mailboxes of a host, or with a leading dot those of all hosts below. Compared in any case, local part too: what is excluded is rather more than less. */
function isMailboxOf(address: string, base: string): boolean {
  const lower = address.toLowerCase();
  if (base.includes('@')) return lower === base;
  const host = lower.slice(lower.lastIndexOf('@') + 1);
  return base.startsWith('.') ? host.endsWith(base) : host === base;
}

function isInNetwork(address: string, base: Uint8Array): boolean {
  const octets = octetsOf(address, address.includes(':') ? 6 : 4);
  return octets.length * 2 === base.length && octets.every((octet, index) => ((octet ^ (base[index] ?? 0)) & (base[index + octets.length] ?? 0xff)) === 0);
}

function isIn(subtrees: Subtrees, { type, value }: SignedName): boolean {
  if (type === 'dns') return subtrees.dns.some((base) => isUnder(value, base));
  if (type === 'email') return subtrees.email.some((base) => isMailboxOf(value, base));
  return subtrees.ip.some((base) => isInNetwork(value, base));
}

/** May an authority with these constraints sign this name? A kind that permittedSubtrees does not mention is not limited by it. */
export function isWithin({ permitted, excluded }: NameConstraints, name: SignedName): boolean {
  return !isIn(excluded, name) && (permitted[name.type].length === 0 || isIn(permitted, name));
}
