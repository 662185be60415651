/**
 * The little of XML that an XMPP stream may contain (RFC 6120 section 11), read as it comes. Anything that a parser could be tricked with is
 * PREAMBLE: comments, DTD, CDATA, processing instructions, entities (the five harmless ones too: no name or mechanism has them), prefixes bound to
 * anything, control characters, octets that are no UTF-8. Texts are latin1 here, so that octets pass through unchanged.
 */
import { isUtf8 } from 'node:buffer';
import { broken } from './dialogue.js';
import type { Dialogue } from './types.js';

/** Most octets of a tag with the text before it. */
export const mostTagOctets = 8192;
/** Most octets of an element with all that is in it. */
export const mostElementOctets = 16_384;
const mostDepth = 8;

const name = '[A-Za-z_][A-Za-z0-9._-]*(?::[A-Za-z_][A-Za-z0-9._-]*)?';
const attribute = `\\s+(${name})\\s*=\\s*('[^'<&]*'|"[^"<&]*")`;
const tagForm = new RegExp(`^<(/?)(${name})((?:${attribute})*)\\s*(/?)>$`, 'u');
const attributeForm = new RegExp(attribute, 'gu');
const declaration = /^<\?xml\s+version\s*=\s*(?:'1\.[0-9]'|"1\.[0-9]")(?:\s+encoding\s*=\s*(?:'utf-8'|"utf-8"))?(?:\s+standalone\s*=\s*(?:'yes'|'no'|"yes"|"no"))?\s*\?>$/iu;

/** One tag as it was written. */
export interface Tag {
  readonly kind: 'open' | 'close' | 'empty';
  /** With its prefix. */
  readonly name: string;
  readonly attributes: ReadonlyMap<string, string>;
  readonly raw: string;
}

/** An element that is complete. */
export interface Element {
  readonly tag: Tag;
  readonly children: readonly Element[];
  /** All of its octets. */
  readonly raw: string;
}

/** Reads tags and elements of one stream. */
export class XmlReader {
  #text = '';
  #isFirst = true;

  /** Octets that were taken from the connection and not yet looked at. */
  get rest(): string {
    return this.#text;
  }

  /** The next tag, and the text before it. An XML declaration at the very beginning is passed over. */
  *#tag(mayHaveText: boolean): Dialogue<{ readonly before: string; readonly tag: Tag }> {
    const { before, raw } = yield* this.#token(mayHaveText);
    const isFirst = this.#isFirst;
    this.#isFirst = false;
    if (isFirst && before === '' && declaration.test(raw)) return yield* this.#tag(mayHaveText);
    return { before, tag: parseTag(raw) };
  }

  /** The next tag, with nothing but white space before it. */
  *next(): Dialogue<Tag> {
    return (yield* this.#tag(false)).tag;
  }

  /** The element that this tag begins, to its end. */
  *element(tag: Tag, depth = 0): Dialogue<Element> {
    if (tag.kind === 'close') throw broken(`the end of ${tag.name}, which did not begin`);
    if (tag.kind === 'empty') return { tag, children: [], raw: tag.raw };
    if (depth > mostDepth) throw broken(`elements in each other more than ${mostDepth} deep`);
    const children: Element[] = [];
    for (let raw = tag.raw; ;) {
      const { before, tag: inner } = yield* this.#tag(true);
      raw += before;
      if (inner.kind === 'close') {
        if (inner.name !== tag.name) throw broken(`${tag.name} ends as ${inner.name}`);
        return { tag, children, raw: raw + inner.raw };
      }
      const child = yield* this.element(inner, depth + 1);
      children.push(child);
      raw += child.raw;
      if (raw.length > mostElementOctets) throw broken(`an element of more than ${mostElementOctets} octets`);
    }
  }

  /** From the next `<` to the `>` that belongs to it, and the text before. */
  *#token(mayHaveText: boolean): Dialogue<{ before: string; raw: string }> {
    let start = -1;
    let quote = '';
    for (let at = 0; ;) {
      for (; at < this.#text.length; at++) {
        const char = this.#text[at] as string;
        if (start < 0) {
          if (char === '<') start = at;
          // Before it is complete: what does not begin as XML would otherwise be waited for.
          else if (!mayHaveText && !/[ \t\r\n]/u.test(char)) throw broken('text between the elements of the stream, or no XML at all');
        } else if (quote !== '') {
          if (char === quote) quote = '';
        } else if (char === '>') {
          const token = { before: this.#text.slice(0, start), raw: this.#text.slice(start, at + 1) };
          this.#text = this.#text.slice(at + 1);
          checkCharacters(token.before + token.raw);
          return token;
        } else if (char === '<' || (char === '!' && at === start + 1)) {
          throw broken('a comment, a declaration or a tag without end');
        } else if (char === '"' || char === '\'') {
          quote = char;
        }
      }
      if (this.#text.length >= mostTagOctets) throw broken(`more than ${mostTagOctets} octets without a complete tag`);
      this.#text += (yield { do: 'some', most: mostTagOctets - this.#text.length }).toString('latin1');
    }
  }
}

function parseTag(raw: string): Tag {
  const [whole, slash = '', tagName = '', attributes = '', , , empty = ''] = tagForm.exec(raw) ?? [];
  if (whole === undefined || (slash !== '' && (empty !== '' || attributes !== ''))) throw broken('a tag that is not well-formed, or a processing instruction');
  const found = new Map<string, string>();
  for (const [, key = '', value = ''] of attributes.matchAll(attributeForm)) {
    if (found.has(key)) throw broken(`the attribute ${key} twice in a tag`);
    found.set(key, value.slice(1, -1));
  }
  return { kind: slash !== '' ? 'close' : empty !== '' ? 'empty' : 'open', name: tagName, attributes: found, raw };
}

function checkCharacters(text: string): void {
  if (/[\0-\x08\x0b\x0c\x0e-\x1f&]/u.test(text)) throw broken('control characters or entities');
  if (!isUtf8(Buffer.from(text, 'latin1'))) throw broken('octets that are not UTF-8');
}

/** As an attribute's value. */
export function escapeXml(text: string): string {
  return text.replace(/[&<>'"]/gu, (char) => `&#${char.charCodeAt(0)};`);
}
