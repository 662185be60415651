/**
 * Reads headers, octet for octet as section 2 says. Whoever sends one decides what address we believe, so nothing is guessed, and nothing
 * is read twice in two ways: a TLV that may be there once is refused the second time.
 */
import { fitText, TlsPoolError } from 'libtlspool/protocol';
import type { Endpoint } from 'libtlspool/protocol';
import { octetsOf, textOf } from './addresses.js';
import { crc32c } from './crc32c.js';
import { clientBit, tlvType, uniqueIdMaxOctets, unixPathOctets, v1MaxOctets, v2FixedOctets, v2MaxOctets, v2Signature } from './types.js';
import type { Header, Parsed, ProxyAddresses, ReceivedTls } from './types.js';

const v1Start = Buffer.from('PROXY ');
const [lf, cr] = [10, 13];
/** The shortest header there is: `PROXY UNKNOWN` and CRLF. */
const shortestOctets = 15;
/** Octets of the shortest line of each kind, from `PROXY TCP4 0.0.0.0 0.0.0.0 0 0` and CRLF to the one above. */
const shortestLine: readonly (readonly [start: string, octets: number])[] = [['PROXY TCP4 ', 32], ['PROXY TCP6 ', 22]];

const bad = (text: string): TlsPoolError => new TlsPoolError('PREAMBLE', { text: `PROXY header: ${text}` });

/**
 * Looks for a header of either version at the start of what was received; all of it, each time, however it was cut into pieces.
 * Throws PREAMBLE as soon as it cannot become a valid one. It must be called for peers only that are known to send headers (section 2:
 * a receiver "MUST not try to guess").
 */
export function parse(octets: Buffer): Parsed {
  if (startsLike(octets, v2Signature)) return octets.length < shortestOctets ? more(shortestOctets - octets.length) : parseV2(octets);
  if (startsLike(octets, v1Start)) return parseV1(octets);
  throw bad('the connection begins with something else; is the sender set up to send one (send-proxy, send-proxy-v2)?');
}

const more = (need: number): Parsed => ({ kind: 'more', need });

/** One is the beginning of the other. */
function startsLike(octets: Buffer, start: Buffer): boolean {
  const length = Math.min(octets.length, start.length);
  return octets.subarray(0, length).equals(start.subarray(0, length));
}

function parseV1(octets: Buffer): Parsed {
  const window = octets.subarray(0, v1MaxOctets);
  const end = window.findIndex((octet) => octet === lf || octet === cr);
  if (end < 0 || end === window.length - 1) {
    if (window[end] === lf) throw bad('a line that ends with LF alone');
    if (window.length === v1MaxOctets) throw bad(`no CRLF within ${v1MaxOctets} octets`);
    return more(v1Need(window, end < 0 ? 2 : 1));
  }
  if (window[end] !== cr || window[end + 1] !== lf) throw bad('a CR or LF that is not part of the CRLF at its end');
  return { kind: 'header', length: end + 2, header: headerOfLine(window.toString('latin1', 0, end)) };
}

/** No valid line is shorter than that of its kind; from there on only its end is certain. */
function v1Need(line: Buffer, endOctets: number): number {
  const text = line.toString('latin1');
  const shortest = shortestLine.find(([start]) => text.startsWith(start))?.[1] ?? shortestOctets;
  return Math.max(shortest - line.length, endOctets);
}

function headerOfLine(line: string): Header {
  // "the receiver must ignore anything presented before the CRLF is found"
  if (line === 'PROXY UNKNOWN' || line.startsWith('PROXY UNKNOWN ')) return { version: 1, command: 'PROXY' };
  const [, word, source = '', destination = '', ...ports] = line.split(' ');
  const family = word === 'TCP4' ? 'IPv4' : word === 'TCP6' ? 'IPv6' : undefined;
  if (family === undefined) throw bad('neither TCP4, TCP6 nor UNKNOWN');
  if (ports.length !== 2) throw bad('not two addresses and two ports with one space between them');
  const [from, to] = ports.map(portOf) as [number, number];
  return { version: 1, command: 'PROXY', addresses: { source: endOf(family, source, from), destination: endOf(family, destination, to) } };
}

/** In the spelling of inet_ntop(3), as in version 2 and from the kernel: whoever counts or compares addresses sees one client as one. */
function endOf(family: 'IPv4' | 'IPv6', text: string, port: number): Endpoint {
  const octets = text.includes('%') ? undefined : octetsOf(text);
  if (octets?.length !== (family === 'IPv4' ? 4 : 16)) throw bad(`an address that is no ${family} address`);
  return { family, address: textOf(octets), port };
}

function portOf(text: string): number {
  if (!/^(?:0|[1-9]\d{0,4})$/u.test(text) || Number(text) > 65_535) throw bad('a port that is no number from 0 to 65535');
  return Number(text);
}

function parseV2(octets: Buffer): Parsed {
  if (octets.length > 12 && (octets[12] as number) >> 4 !== 2) throw bad(`version ${(octets[12] as number) >> 4} of the binary form; only 2 exists`);
  const command = (octets[12] as number) & 0x0f;
  if (command > 1) throw bad(`command ${command}; only LOCAL (0) and PROXY (1) exist`);
  const family = octets[13] as number;
  // "any address information" of LOCAL, the family included, is discarded.
  if (command === 1 && (family >> 4 > 3 || (family & 0x0f) > 2)) throw bad(`address family and protocol 0x${family.toString(16)}`);
  if (octets.length < v2FixedOctets) return more(v2FixedOctets - octets.length);
  const length = v2FixedOctets + octets.readUInt16BE(14);
  if (length > v2MaxOctets) throw bad(`${length} octets; ${v2MaxOctets} is the most that is read`);
  if (octets.length < length) return more(length - octets.length);
  return { kind: 'header', length, header: headerOfBlock(octets.subarray(0, length), command, family) };
}

function headerOfBlock(block: Buffer, command: number, family: number): Header {
  if (command === 0) return { version: 2, command: 'LOCAL' };
  const addressOctets = [0, 12, 36, 2 * unixPathOctets][family >> 4] as number;
  const body = block.subarray(v2FixedOctets);
  if (body.length < addressOctets) throw bad(`${body.length} octets for addresses of ${addressOctets}`);
  // Streams only: UNSPEC, and datagrams over this stream, count as unknown (section 2.2: "falls back to the UNSPEC mode").
  const addresses = (family & 0x0f) === 1 ? addressesOf(body, family >> 4) : undefined;
  return { version: 2, command: 'PROXY', ...(addresses !== undefined && { addresses }), ...factsOf(block, v2FixedOctets + addressOctets) };
}

function addressesOf(body: Buffer, family: number): ProxyAddresses | undefined {
  if (family === 0) return undefined;
  if (family === 3) return { source: unixEnd(body, 0), destination: unixEnd(body, unixPathOctets) };
  const size = family === 1 ? 4 : 16;
  const end = (index: number): Endpoint => ({
    family: family === 1 ? 'IPv4' : 'IPv6', address: textOf(body.subarray(index * size, (index + 1) * size)), port: body.readUInt16BE(2 * size + 2 * index),
  });
  return { source: end(0), destination: end(1) };
}

/** A path ends at its first NUL; a name of the abstract namespace begins with one and has no other end than the padding. */
function unixEnd(body: Buffer, at: number): Endpoint {
  const field = body.subarray(at, at + unixPathOctets);
  const nul = field.indexOf(0, 1);
  const abstract = field[0] === 0;
  let end = abstract || nul < 0 ? unixPathOctets : nul;
  if (abstract) while (end > 0 && field[end - 1] === 0) end--;
  return { family: 'unix', address: field.toString('utf8', 0, end), port: 0 };
}

/** TLVs from `at` to the end, by type; each may be there once. Types that we do not know are left alone. */
function tlvsOf(octets: Buffer, at: number, known: readonly number[]): Map<number, { readonly value: Buffer; readonly at: number }> {
  const found = new Map<number, { readonly value: Buffer; readonly at: number }>();
  for (let next = at; next < octets.length;) {
    const start = next + 3;
    if (start > octets.length) throw bad('a TLV without its length at the end');
    const type = octets[next] as number;
    next = start + octets.readUInt16BE(start - 2);
    if (next > octets.length) throw bad(`the TLV 0x${type.toString(16)} is longer than what is left for it`);
    if (!known.includes(type)) continue;
    if (found.has(type)) throw bad(`the TLV 0x${type.toString(16)} twice`);
    found.set(type, { value: octets.subarray(start, next), at: start });
  }
  return found;
}

const { alpn, authority, uniqueId, ssl } = tlvType;

function factsOf(block: Buffer, at: number): Partial<Header> {
  const tlvs = tlvsOf(block, at, [alpn, authority, tlvType.crc32c, uniqueId, ssl]);
  const checksum = tlvs.get(tlvType.crc32c);
  if (checksum !== undefined) check(block, checksum);
  const id = tlvs.get(uniqueId)?.value;
  if (id !== undefined && id.length > uniqueIdMaxOctets) throw bad(`a unique ID of ${id.length} octets; ${uniqueIdMaxOctets} is the most`);
  const tls = tlvs.get(ssl)?.value;
  return {
    ...textAs('alpn', tlvs.get(alpn)), ...textAs('authority', tlvs.get(authority)),
    ...(id !== undefined && { uniqueId: Buffer.from(id) }), ...(tls !== undefined && { ssl: sslOf(tls) }),
  };
}

/** Section 2.2.3: of the whole header with zeros in place of the checksum. */
function check(block: Buffer, { value, at }: { readonly value: Buffer; readonly at: number }): void {
  if (value.length !== 4) throw bad(`a CRC32C of ${value.length} octets instead of 4`);
  const zeroed = Buffer.from(block);
  zeroed.writeUInt32BE(0, at);
  if (crc32c(zeroed) !== value.readUInt32BE(0)) throw bad('the CRC32C does not fit the header; it was changed on its way');
}

function sslOf(value: Buffer): ReceivedTls {
  if (value.length < 5) throw bad(`an SSL TLV of ${value.length} octets; 5 is the least`);
  const client = value[0] as number;
  const has = (bit: number): boolean => (client & bit) !== 0;
  const tlvs = tlvsOf(value, 5, [tlvType.sslVersion, tlvType.sslCn, tlvType.sslCipher, tlvType.sslSigAlg, tlvType.sslKeyAlg]);
  return {
    tls: has(clientBit.ssl), certConn: has(clientBit.certConn), certSess: has(clientBit.certSess), verify: value.readUInt32BE(1),
    ...textAs('protocol', tlvs.get(tlvType.sslVersion)), ...textAs('cipher', tlvs.get(tlvType.sslCipher)), ...textAs('commonName', tlvs.get(tlvType.sslCn)),
    ...textAs('signatureAlgorithm', tlvs.get(tlvType.sslSigAlg)), ...textAs('keyAlgorithm', tlvs.get(tlvType.sslKeyAlg)),
  };
}

/** What is no UTF-8 may be the client's doing (a server name copied from its hello): it is made harmless, not refused. */
function textAs<Key extends string>(key: Key, tlv: { readonly value: Buffer } | undefined): { readonly [K in Key]?: string } {
  return tlv === undefined ? {} : { [key]: fitText(tlv.value.toString('utf8'), v2MaxOctets * 3) } as { readonly [K in Key]?: string };
}
