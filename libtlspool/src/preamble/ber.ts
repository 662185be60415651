/** The little of BER (X.690) that LDAP needs before TLS: definite lengths, one-octet tags, small numbers. */
import { broken, readOctets } from './dialogue.js';
import type { Dialogue } from './types.js';

/** Universal and other tags that LDAP messages are made of. */
export const tags = { integer: 0x02, octets: 0x04, enumerated: 0x0a, sequence: 0x30, controls: 0xa0 } as const;

/** One element: its tag, and its contents. */
export interface Element { readonly tag: number; readonly body: Buffer }

/** Tag, length in its shortest form, contents. */
export function element(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  return Buffer.concat([Buffer.from([tag]), lengthOf(body.length), body]);
}

function lengthOf(count: number): Buffer {
  if (count < 0x80) return Buffer.from([count]);
  if (count < 0x100) return Buffer.from([0x81, count]);
  return Buffer.from([0x82, count >> 8, count & 0xff]);
}

/** INTEGER or ENUMERATED of 0 to 2^31 - 1. */
export function number(tag: number, value: number): Buffer {
  const octets = Buffer.alloc(5);
  octets.writeUInt32BE(value, 1);
  let start = 0;
  // The shortest form whose first bit says that it is not negative.
  while (start < 4 && octets[start] === 0 && (octets[start + 1] as number) < 0x80) start++;
  return element(tag, octets.subarray(start));
}

/**
 * The next element of the connection with all of its octets, at most `most` of contents. PREAMBLE: another tag, an indefinite length
 * (RFC 4511 section 5.1 forbids it), or too long. Takes not an octet more.
 */
export function* readElement(tag: number, most: number): Dialogue<Buffer> {
  const head = yield* readOctets(2);
  const first = head[1] as number;
  // Before waiting for more: what begins wrongly is not going to become right.
  if (head[0] !== tag) throw broken(`an element with tag ${String(head[0])} where ${tag} was expected`);
  // Lengths need not be as short as possible: some clients always use four octets.
  if (first === 0x80 || first > 0x84) throw broken('an element of indefinite or absurd length');
  const more = first < 0x80 ? Buffer.alloc(0) : yield* readOctets(first & 0x7f);
  const length = first < 0x80 ? first : more.readUIntBE(0, more.length);
  if (length > most) throw broken(`an element of ${length} octets; ${most} are the most before TLS`);
  return Buffer.concat([head, more, length === 0 ? Buffer.alloc(0) : yield* readOctets(length)]);
}

/** The elements that these octets consist of, to the last one. PREAMBLE when they are not so. */
export function elementsOf(octets: Buffer): Element[] {
  const found: Element[] = [];
  for (let at = 0; at < octets.length;) {
    const [tag, first = 0] = octets.subarray(at, at + 2);
    const size = first < 0x80 ? 0 : first & 0x7f;
    if (tag === undefined || at + 2 + size > octets.length || first === 0x80 || size > 4) throw broken('an element that does not fit its surroundings');
    const start = at + 2 + size;
    const length = size === 0 ? first : octets.readUIntBE(at + 2, size);
    if (start + length > octets.length) throw broken('an element that does not fit its surroundings');
    found.push({ tag, body: octets.subarray(start, start + length) });
    at = start + length;
  }
  return found;
}

/** Value of an INTEGER or ENUMERATED of 0 to 2^31 - 1. */
export function numberOf({ body }: Element): number {
  if (body.length === 0 || body.length > 4 || (body[0] as number) > 0x7f) throw broken('a number out of range');
  return body.readUIntBE(0, body.length);
}
