/** Distinguished names as text (RFC 4514). Who is named has written them, so that no octet of them gets out unescaped. */
import { TextDecoder } from 'node:util';
import { derElements, derTags, dottedOid, malformed, DerReader } from './der.js';
import type { DerElement } from './der.js';

/** Short names that are registered for LDAP (RFC 4514 section 3, RFC 4519, RFC 3280 for emailAddress). Any other attribute is shown by number. */
const shortNames: Readonly<Record<string, string>> = {
  '2.5.4.3': 'CN', '2.5.4.4': 'sn', '2.5.4.5': 'serialNumber', '2.5.4.6': 'C', '2.5.4.7': 'L', '2.5.4.8': 'ST', '2.5.4.9': 'STREET', '2.5.4.10': 'O',
  '2.5.4.11': 'OU', '2.5.4.12': 'title', '2.5.4.15': 'businessCategory', '2.5.4.17': 'postalCode', '2.5.4.42': 'givenName',
  '0.9.2342.19200300.100.1.1': 'UID', '0.9.2342.19200300.100.1.25': 'DC', '1.2.840.113549.1.9.1': 'emailAddress',
};

/** Ends a name that was cut. No complete name has it: after a backslash there are only special characters and hexadecimal digits (RFC 4514 section 3). */
export const cutMark = '\\...';

/**
 * The RFC 4514 form of a Name (the content of its SEQUENCE), most specific part first. One of more than `maxOctets` is cut between two characters, or
 * escapes, and ends in `cutMark`. Values that are no text are shown as `#` and their octets. Throws BAD_ARGUMENT.
 */
export function nameText(content: Uint8Array, maxOctets: number): string {
  const text = new CutText(maxOctets);
  let isFirst = true;
  for (const rdn of [...derElements(content, 'a relative distinguished name', derTags.set)].reverse()) {
    let separator = isFirst ? '' : ',';
    isFirst = false;
    if (rdn.content.length === 0) throw malformed('a relative distinguished name is empty');
    for (const attribute of derElements(rdn.content, 'an attribute of a name', derTags.sequence)) {
      text.add(separator);
      addAttribute(text, attribute.content);
      separator = '+';
    }
  }
  return text.value;
}

function addAttribute(text: CutText, content: Uint8Array): void {
  const reader = new DerReader(content);
  const oid = dottedOid(reader.next('the type of an attribute', derTags.oid).content);
  const value = reader.next('the value of an attribute');
  reader.end('the value of an attribute');
  const short = shortNames[oid];
  text.add(`${short ?? oid}=`);
  // RFC 4514 section 2.4: an attribute that is shown by number has its value in octets.
  const string = short === undefined ? undefined : stringOf(value);
  if (string === undefined) addOctets(text, value.whole);
  else addString(text, string);
}

function addOctets(text: CutText, octets: Uint8Array): void {
  text.add('#');
  for (const octet of octets) text.add(octet.toString(16).padStart(2, '0'));
}

/** What RFC 4514 section 2.4 has escaped by a backslash, wherever it is. */
const special = /["+,;<>\\]/u;
/** Controls, overrides of direction, invisible characters, odd spaces: what a terminal obeys and a reader does not see. */
const unseen = /[\p{C}\p{Z}]/u;

function addString(text: CutText, value: string): void {
  const characters = [...value];
  for (const [index, one] of characters.entries()) {
    if (special.test(one) || (index === 0 && (one === ' ' || one === '#')) || (index === characters.length - 1 && one === ' ')) text.add(`\\${one}`);
    else if (one !== ' ' && unseen.test(one)) text.add(Buffer.from(one).toString('hex').replace(/../gu, '\\$&'));
    else text.add(one);
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const utf16 = new TextDecoder('utf-16be', { fatal: true, ignoreBOM: true });

/** The text of a string type; undefined for other types, and where the octets are not what the type says (TeletexString beyond ASCII means too many things). */
function stringOf({ tag, content }: DerElement): string | undefined {
  switch (tag) {
    case 0x0c: return decoded(utf8, content); // UTF8String
    case 0x12: case 0x13: case 0x14: case 0x16: case 0x1a: // NumericString, PrintableString, TeletexString, IA5String, VisibleString
      return content.every((octet) => octet < 0x80) ? Buffer.from(content).toString('latin1') : undefined;
    case 0x1c: return utf32(content); // UniversalString
    case 0x1e: return decoded(utf16, content); // BMPString
    default: return undefined;
  }
}

function decoded(decoder: TextDecoder, content: Uint8Array): string | undefined {
  try {
    return decoder.decode(content);
  } catch {
    return undefined;
  }
}

function utf32(content: Uint8Array): string | undefined {
  if (content.length % 4 !== 0) return undefined;
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  let text = '';
  for (let at = 0; at < content.length; at += 4) {
    const point = view.getUint32(at);
    if (point > 0x10_ffff || (point >= 0xd800 && point <= 0xdfff)) return undefined;
    text += String.fromCodePoint(point);
  }
  return text;
}

/** A text that grows by whole units until it is full. */
class CutText {
  #text = '';
  #octets = 0;
  /** Characters that leave room for the mark. */
  #kept = 0;
  #isCut = false;

  constructor(private readonly maxOctets: number) {}

  get value(): string { return this.#text; }

  add(unit: string): void {
    if (this.#isCut) return;
    const octets = this.#octets + Buffer.byteLength(unit);
    if (octets > this.maxOctets) {
      this.#text = this.#text.slice(0, this.#kept) + cutMark;
      this.#isCut = true;
      return;
    }
    this.#text += unit;
    this.#octets = octets;
    if (octets <= this.maxOctets - cutMark.length) this.#kept = this.#text.length;
  }
}
