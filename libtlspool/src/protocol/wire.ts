/**
 * The subset of MessagePack that the pool protocol speaks, enforced before anything is built from a packet.
 *
 * msgpackr is a good reader of MessagePack, and therefore too generous for hostile input: it takes duplicate keys (the
 * last wins), extension types, nil, floats and any depth, and an array header makes it allocate. This scan walks the
 * octets once, allocates next to nothing, and lets through only what the message table could mean.
 */
import { isUtf8 } from 'node:buffer';
import type { Packr as PackrClass } from 'msgpackr';
// Not 'msgpackr' itself: that loads an optional native string reader, and C++ has no business parsing packets beside the keys.
import { Packr as UntypedPackr } from 'msgpackr/pack';
import { TlsPoolError } from './errors.js';
import { escapeText } from './escape.js';

/** Containers within containers, the envelope included. The deepest message of the table has 6. */
export const maxDepth = 8;
/** Fields of one map. The largest of the table has half of that. */
export const maxMapFields = 64;
/** Octets of a field name. */
export const maxKeyOctets = 64;

/** Names that mean something to a JavaScript object; no message of this protocol will ever use them. */
const forbiddenKeys: ReadonlySet<string> = new Set(['__proto__', 'constructor', 'prototype']);

/** What was wrong, and where below the value that was scanned; containers on the way out put their part in front. */
class WireFault extends Error {
  constructor(readonly path: string, readonly text: string) { super(text); }
  below(step: string): WireFault { return new WireFault(step + this.path, this.text); }
}

const fault = (text: string): WireFault => new WireFault('', text);
const cut = (): WireFault => fault('the packet ends within this value');

/** Kind, offset of the first content octet, and length (octets, items or fields) of one value. */
type Kind = 'uint' | 'bool' | 'text' | 'bin' | 'list' | 'map';
interface Head { readonly kind: Kind; readonly start: number; readonly length: number }

/** Big-endian unsigned integer of `octets` octets; a missing octet is a fault. */
function readUint(packet: Uint8Array, at: number, octets: number): number {
  if (at + octets > packet.length) throw cut();
  let value = 0;
  for (let i = at; i < at + octets; i++) value = value * 256 + (packet[i] as number);
  if (value > Number.MAX_SAFE_INTEGER) throw fault('an integer over 2^53 - 1 is not accepted');
  return value;
}

function signedInteger(packet: Uint8Array, at: number, octets: number): Head {
  const first = packet[at];
  if (first === undefined) throw cut();
  // A signed format with a value from 0 up is what some encoders write for every integer.
  if (first >= 0x80) throw fault('a negative integer is not accepted');
  readUint(packet, at, octets);
  return { kind: 'uint', start: at + octets, length: 0 };
}

function sized(kind: Kind, packet: Uint8Array, at: number, octets: number): Head {
  return { kind, start: at + octets, length: readUint(packet, at, octets) };
}

/** The head of a value whose first octet is 0xc0 to 0xdf: the formats with their own type octet. */
function longHead(packet: Uint8Array, at: number, first: number): Head {
  const next = at + 1;
  switch (first) {
    case 0xc2: case 0xc3: return { kind: 'bool', start: next, length: 0 };
    case 0xc4: return sized('bin', packet, next, 1);
    case 0xc5: return sized('bin', packet, next, 2);
    case 0xc6: return sized('bin', packet, next, 4);
    case 0xcc: case 0xcd: case 0xce: case 0xcf: {
      const octets = 1 << (first - 0xcc);
      readUint(packet, next, octets);
      return { kind: 'uint', start: next + octets, length: 0 };
    }
    case 0xd0: case 0xd1: case 0xd2: case 0xd3: return signedInteger(packet, next, 1 << (first - 0xd0));
    case 0xd9: return sized('text', packet, next, 1);
    case 0xda: return sized('text', packet, next, 2);
    case 0xdb: return sized('text', packet, next, 4);
    case 0xdc: return sized('list', packet, next, 2);
    case 0xdd: return sized('list', packet, next, 4);
    case 0xde: return sized('map', packet, next, 2);
    case 0xdf: return sized('map', packet, next, 4);
    case 0xc0: throw fault('nil is not accepted: leave the field out');
    case 0xca: case 0xcb: throw fault('a float is not accepted: use an integer');
    case 0xc1: throw fault('0xc1 is not MessagePack');
    default: throw fault('an extension type is not accepted');
  }
}

/** Reads what every value starts with. Throws WireFault for a format outside the subset. */
function readHead(packet: Uint8Array, at: number): Head {
  const first = packet[at];
  if (first === undefined) throw cut();
  if (first < 0x80) return { kind: 'uint', start: at + 1, length: 0 };
  if (first < 0x90) return { kind: 'map', start: at + 1, length: first & 0x0f };
  if (first < 0xa0) return { kind: 'list', start: at + 1, length: first & 0x0f };
  if (first < 0xc0) return { kind: 'text', start: at + 1, length: first & 0x1f };
  if (first >= 0xe0) throw fault('a negative integer is not accepted');
  return longHead(packet, at, first);
}

function scanText(packet: Uint8Array, start: number, length: number): number {
  const end = start + length;
  if (end > packet.length) throw cut();
  let seen = 0;
  for (let i = start; i < end; i++) {
    const octet = packet[i] as number;
    if (octet === 0) throw fault('text with a NUL is not accepted');
    seen |= octet;
  }
  if (seen >= 0x80) checkUnicode(packet.subarray(start, end));
  return end;
}

/** A byte order mark is refused because decoders differ on whether it is part of the text (TextDecoder drops it). */
function checkUnicode(octets: Uint8Array): void {
  if (!isUtf8(octets)) throw fault('text is not valid UTF-8');
  if (octets[0] === 0xef && octets[1] === 0xbb && octets[2] === 0xbf) throw fault('text with a byte order mark is not accepted');
}

/** Offsets below this fit into a Key. */
const maxPacketOctets = 1 << 24;
/** Where a field name is, in one number so that a map costs one array: offset of its text x 128 + octets (at most maxKeyOctets). */
type Key = number;
const keyStart = (key: Key): number => key >>> 7;
const keyOctets = (key: Key): number => key & 0x7f;
const keyEnd = (key: Key): number => keyStart(key) + keyOctets(key);

function scanKey(packet: Uint8Array, at: number): Key {
  const first = packet[at];
  const head = first !== undefined && first >= 0xa0 && first < 0xc0 ? { kind: 'text', start: at + 1, length: first & 0x1f } : readHead(packet, at);
  if (head.kind !== 'text') throw fault('a field name is not text');
  if (head.length > maxKeyOctets) throw fault(`a field name has ${head.length} octets; at most ${maxKeyOctets} are accepted`);
  scanText(packet, head.start, head.length);
  const key = (head.start << 7) | head.length;
  if ((head.length === 9 || head.length === 11) && forbiddenKeys.has(keyText(packet, key))) throw fault('a field name is reserved');
  return key;
}

function keyText(packet: Uint8Array, key: Key): string {
  return Buffer.from(packet.buffer, packet.byteOffset + keyStart(key), keyOctets(key)).toString('utf8');
}

function isSameKey(packet: Uint8Array, one: Key, other: Key): boolean {
  const octets = keyOctets(one);
  if (octets !== keyOctets(other)) return false;
  const start = keyStart(one);
  const otherStart = keyStart(other);
  for (let i = 0; i < octets; i++) if (packet[start + i] !== packet[otherStart + i]) return false;
  return true;
}

/** A field that is named twice means different things to different readers; that is an attack, not a variant. */
function refuseDuplicate(packet: Uint8Array, seen: readonly Key[], key: Key): void {
  for (let i = 0; i < seen.length; i++) {
    if (isSameKey(packet, seen[i] as Key, key)) throw fault('the field is there twice').below('.' + escapeText(keyText(packet, key)));
  }
}

function scanMap(packet: Uint8Array, head: Head, depth: number): number {
  if (head.length > maxMapFields) throw fault(`a map of ${head.length} fields is not accepted; the most is ${maxMapFields}`);
  if (head.length * 2 > packet.length - head.start) throw fault(`the map declares ${head.length} fields, but the packet ends before that`);
  const seen: Key[] = [];
  let at = head.start;
  for (let i = 0; i < head.length; i++) {
    const key = scanKey(packet, at);
    refuseDuplicate(packet, seen, key);
    seen.push(key);
    try {
      at = scanValue(packet, keyEnd(key), depth);
    } catch (error) {
      throw error instanceof WireFault ? error.below('.' + escapeText(keyText(packet, key))) : error;
    }
  }
  return at;
}

function scanList(packet: Uint8Array, head: Head, depth: number): number {
  if (head.length > packet.length - head.start) throw fault(`the list declares ${head.length} items, but the packet ends before that`);
  let at = head.start;
  for (let i = 0; i < head.length; i++) {
    try {
      at = scanValue(packet, at, depth);
    } catch (error) {
      throw error instanceof WireFault ? error.below(`[${i}]`) : error;
    }
  }
  return at;
}

/** Walks one value; returns the offset behind it. Throws WireFault. */
function scanValue(packet: Uint8Array, at: number, depth: number): number {
  // The two most frequent formats first: this is on the way of every accepted connection.
  const first = packet[at];
  if (first !== undefined && first < 0x80) return at + 1;
  if (first !== undefined && first >= 0xa0 && first < 0xc0) return scanText(packet, at + 1, first & 0x1f);
  const head = readHead(packet, at);
  switch (head.kind) {
    case 'uint': case 'bool': return head.start;
    case 'text': return scanText(packet, head.start, head.length);
    case 'bin':
      if (head.length > packet.length - head.start) throw cut();
      return head.start + head.length;
    default:
      if (depth >= maxDepth) throw fault(`nesting deeper than ${maxDepth} is not accepted`);
      return head.kind === 'map' ? scanMap(packet, head, depth + 1) : scanList(packet, head, depth + 1);
  }
}

function badMessage({ path, text }: WireFault): TlsPoolError {
  const field = path.startsWith('.') ? path.slice(1) : path;
  return new TlsPoolError('BAD_MESSAGE', field === '' ? { text: `message: ${text}` } : { text: `${field}: ${text}`, field });
}

/** The entry point `msgpackr/pack` has the same class, but its type declarations do not resolve in ESM. */
const Packr = UntypedPackr as unknown as typeof PackrClass;
const packr = new Packr({ useRecords: false, mapsAsObjects: true, variableMapSize: true, int64AsType: 'number' });

/**
 * Decodes a packet that holds exactly one MessagePack map of the accepted subset. Binary values are views of `packet`, which
 * belongs to the result from now on: do not receive into it again.
 * Throws TlsPoolError BAD_MESSAGE with the field path. Fails closed.
 */
export function unpackMap(packet: Uint8Array): Record<string, unknown> {
  try {
    if (packet.length > maxPacketOctets) throw fault(`${packet.length} octets are more than any message has`);
    if (readHead(packet, 0).kind !== 'map') throw fault('it is not a map');
    const end = scanValue(packet, 0, 0);
    if (end !== packet.length) throw fault(`${packet.length - end} octets follow the message`);
  } catch (error) {
    throw error instanceof WireFault ? badMessage(error) : error;
  }
  return packr.unpack(packet) as Record<string, unknown>;
}

/**
 * Offsets behind each of the maps that a packet holds back to back; the last is its length. One map is the normal case.
 * Throws as unpackMap does, and when there are more than `most`.
 */
export function mapEnds(packet: Uint8Array, most: number): readonly number[] {
  const ends: number[] = [];
  try {
    for (let at = 0; at < packet.length || ends.length === 0;) {
      if (ends.length === most) throw fault(`more than ${most} messages in one packet`);
      if (readHead(packet, at).kind !== 'map') throw fault('it is not a map');
      at = scanValue(packet, at, 0);
      ends.push(at);
    }
  } catch (error) {
    throw error instanceof WireFault ? badMessage(error) : error;
  }
  return ends;
}

/** Builds the value of a map that mapEnds() has walked. */
export function unpackScanned(map: Uint8Array): Record<string, unknown> {
  return packr.unpack(map) as Record<string, unknown>;
}

/** Encodes a value that a validator has passed. Integers over 2^32 - 1 must come as bigint: msgpackr makes floats of them. */
export function packMap(value: Record<string, unknown>): Buffer {
  return packr.pack(value);
}

/**
 * Reads the leading plain fields of a map for as long as the octets make sense, and never throws. For the answer to a message that cannot be
 * decoded; what it returns is the sender's claim, of the right kind and nothing more.
 */
export function peekFields(packet: Uint8Array): ReadonlyMap<string, string | number> {
  const found = new Map<string, string | number>();
  try {
    const head = readHead(packet, 0);
    if (head.kind !== 'map' || packet.length > maxPacketOctets) return found;
    let at = head.start;
    for (let i = 0; i < Math.min(head.length, maxMapFields); i++) {
      const key = scanKey(packet, at);
      const start = keyEnd(key);
      at = scanValue(packet, start, 1);
      const { kind } = readHead(packet, start);
      if (kind === 'text' || kind === 'uint') found.set(keyText(packet, key), packr.unpack(packet.subarray(start, at)) as string | number);
    }
  } catch (error) {
    if (!(error instanceof WireFault)) throw error;
  }
  return found;
}
