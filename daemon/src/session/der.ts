/** A reader of DER (X.690), for what peers put into certificates: it never looks outside of what it was given, and refuses what is not DER. */
import { TlsPoolError } from 'libtlspool/protocol';

/** One element. */
export interface DerElement {
  /** Identifier octet: class, constructed bit and tag number. */
  readonly tag: number;
  /** All of it, header included: a view. */
  readonly whole: Uint8Array;
  /** What is inside: a view. */
  readonly content: Uint8Array;
}

/** Universal tags, as identifier octets. */
export const derTags = { integer: 0x02, octetString: 0x04, oid: 0x06, boolean: 0x01, sequence: 0x30, set: 0x31 } as const;

/** More octets in a length, or in one arc of an object identifier, are in no certificate that fits into memory or has a purpose. */
const maxLengthOctets = 4;
const maxArcOctets = 20;

/** Reads elements one after the other. Every method throws BAD_ARGUMENT for what is not DER. */
export class DerReader {
  readonly #octets: Uint8Array;
  #at = 0;

  constructor(octets: Uint8Array) { this.#octets = octets; }

  get isAtEnd(): boolean { return this.#at === this.#octets.length; }

  /** The next element, whose identifier octet must be `tag` where that is given. `what` names it in the error. */
  next(what: string, tag?: number): DerElement {
    const start = this.#at;
    const seen = this.#octet(what);
    if ((seen & 0x1f) === 0x1f) throw malformed(`${what} has a tag of more than one octet`);
    if (tag !== undefined && seen !== tag) throw malformed(`${what} has the tag ${hex(seen)} in place of ${hex(tag)}`);
    const length = this.#length(what);
    if (length > this.#octets.length - this.#at) throw malformed(`${what} is longer than what it is in`);
    const content = this.#octets.subarray(this.#at, this.#at + length);
    this.#at += length;
    return { tag: seen, whole: this.#octets.subarray(start, this.#at), content };
  }

  /** The next element if it has this tag; otherwise undefined, and nothing is read. */
  optional(what: string, tag: number): DerElement | undefined {
    return this.#octets[this.#at] === tag ? this.next(what, tag) : undefined;
  }

  /** Nothing may be left. */
  end(what: string): void {
    if (!this.isAtEnd) throw malformed(`there are octets behind ${what}`);
  }

  #octet(what: string): number {
    const octet = this.#octets[this.#at];
    if (octet === undefined) throw malformed(`${what} is missing or cut off`);
    this.#at += 1;
    return octet;
  }

  /** X.690 section 10.1: definite, and in as few octets as possible. */
  #length(what: string): number {
    const first = this.#octet(what);
    if (first < 0x80) return first;
    const count = first & 0x7f;
    if (count === 0 || count > maxLengthOctets) throw malformed(`${what} has an indefinite length, or one of more than ${maxLengthOctets} octets`);
    let length = 0;
    for (let n = 0; n < count; n += 1) length = length * 256 + this.#octet(what);
    if (length < 0x80 || length < 256 ** (count - 1)) throw malformed(`${what} has a length in more octets than needed`);
    return length;
  }
}

/** The elements of a SEQUENCE OF or SET OF. */
export function* derElements(content: Uint8Array, what: string, tag?: number): Generator<DerElement, void> {
  const reader = new DerReader(content);
  while (!reader.isAtEnd) yield reader.next(what, tag);
}

/** An object identifier in dotted decimals. Throws BAD_ARGUMENT. */
export function dottedOid(content: Uint8Array): string {
  const arcs: bigint[] = [];
  let arc = 0n;
  let octets = 0;
  for (const octet of content) {
    // X.690 section 8.19.2: no leading 0x80.
    if (octets === 0 && octet === 0x80) throw malformed('an object identifier has an arc in more octets than needed');
    if ((octets += 1) > maxArcOctets) throw malformed('an object identifier has an arc that is too large');
    arc = arc * 128n + BigInt(octet & 0x7f);
    if (octet >= 0x80) continue;
    arcs.push(arc);
    arc = 0n;
    octets = 0;
  }
  const [first] = arcs;
  if (octets !== 0 || first === undefined) throw malformed('an object identifier is empty or cut off');
  const root = first >= 80n ? 2n : first / 40n;
  return [root, first - root * 40n, ...arcs.slice(1)].join('.');
}

const hex = (octet: number): string => `0x${octet.toString(16).padStart(2, '0')}`;

export function malformed(text: string): TlsPoolError {
  return new TlsPoolError('BAD_ARGUMENT', { text: `the certificate is not in DER: ${text}` });
}
