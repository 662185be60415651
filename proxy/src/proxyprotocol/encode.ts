/** Makes headers. They say what is known for certain, or nothing: a value that does not fit is left out, never cut. */
import { TlsPoolError } from 'libtlspool/protocol';
import type { Endpoint } from 'libtlspool/protocol';
import { hexGroups, mapped, octetsOf, unmapped } from './addresses.js';
import { crc32c } from './crc32c.js';
import { clientBit, tlvType, uniqueIdMaxOctets, unixPathOctets, v2FixedOctets, v2Signature } from './types.js';
import type { ProxyAddresses, TlsFacts, V2Content } from './types.js';

/** X509_V_ERR_UNSPECIFIED: "non-zero otherwise", for a client without a certificate. */
const notVerified = 1;
/** Caps on texts, in octets. With all of them at their caps a header has 1,421 octets. */
const most = { name: 255, commonName: 256, word: 64 } as const;

interface AddressBlock { readonly family: number; readonly octets: Buffer }

const wrong = (field: string, text: string): TlsPoolError => new TlsPoolError('BAD_ARGUMENT', { field, text: `PROXY header: ${text}` });

/**
 * A header of version 1. Without addresses, and for UNIX sockets, which version 1 cannot express, it is `PROXY UNKNOWN`.
 * Throws BAD_ARGUMENT: an address that is no number, a port out of range, one end IP and the other `unix`.
 */
export function encodeV1(addresses?: ProxyAddresses): Buffer {
  const ends = addresses === undefined ? undefined : ipEnds(addresses);
  if (ends === undefined || addresses === undefined) return Buffer.from('PROXY UNKNOWN\r\n');
  const [source, destination] = ends;
  const [family, text] = source.length === 4 ? ['TCP4', (octets: Buffer) => octets.join('.')] as const : ['TCP6', hexGroups] as const;
  return Buffer.from(`PROXY ${family} ${text(source)} ${text(destination)} ${addresses.source.port} ${addresses.destination.port}\r\n`, 'latin1');
}

/**
 * A header of version 2, below 4096 octets, always with its CRC32C. IPv4-mapped IPv6 addresses become IPv4; where only one end is IPv4, it becomes
 * mapped. Left out, never cut: names and application protocols above 255 octets, common names above 256, other texts above 64, and texts with a
 * control character or U+FFFD (what was there cannot be known).
 * A receiver is free to reject what has no IP addresses, and HAProxy 2.6 does: no addresses (AF_UNSPEC) and UNIX sockets.
 * Throws BAD_ARGUMENT: as encodeV1; a unique ID that is not of 1 to 128 octets; a path above 108 octets; a verification result that is no uint32.
 */
export function encodeV2(content: V2Content): Buffer {
  if (content.command === 'LOCAL') return assemble(0x20, { family: 0, octets: Buffer.alloc(0) }, []);
  const { addresses, tls, uniqueId } = content;
  return assemble(0x21, addressBlock(addresses), [
    ...(tls === undefined ? [] : [text(tlvType.alpn, tls.alpn, most.name), text(tlvType.authority, tls.servername, most.name)]),
    ...(uniqueId === undefined ? [] : [uniqueIdTlv(uniqueId)]),
    ...(tls === undefined ? [] : [sslTlv(tls)]),
    tlv(tlvType.crc32c, Buffer.alloc(4)),
  ]);
}

/** The checksum, if there is one, is the last TLV and still zero, as section 2.2.3 wants it for the calculation. */
function assemble(command: number, { family, octets }: AddressBlock, tlvs: readonly Buffer[]): Buffer {
  const header = Buffer.concat([v2Signature, Buffer.from([command, family, 0, 0]), octets, ...tlvs]);
  header.writeUInt16BE(header.length - v2FixedOctets, 14);
  if (tlvs.length > 0) header.writeUInt32BE(crc32c(header), header.length - 4);
  return header;
}

function addressBlock(addresses: ProxyAddresses | undefined): AddressBlock {
  if (addresses === undefined) return { family: 0x00, octets: Buffer.alloc(0) };
  const ends = ipEnds(addresses);
  if (ends === undefined) return { family: 0x31, octets: Buffer.concat([unixPath(addresses.source), unixPath(addresses.destination)]) };
  const ports = Buffer.alloc(4);
  ports.writeUInt16BE(addresses.source.port, 0);
  ports.writeUInt16BE(addresses.destination.port, 2);
  return { family: ends[0].length === 4 ? 0x11 : 0x21, octets: Buffer.concat([...ends, ports]) };
}

/** Both addresses in one family; undefined for UNIX sockets. */
function ipEnds({ source, destination }: ProxyAddresses): [Buffer, Buffer] | undefined {
  if (source.family === 'unix' && destination.family === 'unix') return undefined;
  if (source.family === 'unix' || destination.family === 'unix') throw wrong('source', 'one end is a UNIX socket and the other is not; give both ends of one connection');
  const both = [ipOf(source, 'source'), ipOf(destination, 'destination')] as const;
  return both.every(({ length }) => length === 4) ? [...both] : [mapped(both[0]), mapped(both[1])];
}

function ipOf({ address, port }: Endpoint, field: string): Buffer {
  const octets = octetsOf(address);
  if (octets === undefined) throw wrong(field, 'the address is no numeric IPv4 or IPv6 address');
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw wrong(field, `the port ${port} is not within 0 to 65535`);
  return unmapped(octets);
}

function unixPath({ address }: Endpoint): Buffer {
  const path = Buffer.from(address);
  if (path.length > unixPathOctets) throw wrong('source', `a path of ${path.length} octets; ${unixPathOctets} is the most`);
  return Buffer.concat([path, Buffer.alloc(unixPathOctets - path.length)]);
}

function tlv(type: number, value: Uint8Array): Buffer {
  const head = Buffer.from([type, 0, 0]);
  head.writeUInt16BE(value.length, 1);
  return Buffer.concat([head, value]);
}

/** Nothing for a text that is not there or cannot be sent as it is. */
function text(type: number, value: string | undefined, maxOctets: number): Buffer {
  if (value === undefined || value === '' || /[\p{Cc}\p{Surrogate}\ufffd]/u.test(value)) return Buffer.alloc(0);
  const octets = Buffer.from(value);
  return octets.length > maxOctets ? Buffer.alloc(0) : tlv(type, octets);
}

function uniqueIdTlv(id: Uint8Array): Buffer {
  if (id.length < 1 || id.length > uniqueIdMaxOctets) throw wrong('uniqueId', `a unique ID of ${id.length} octets; 1 to ${uniqueIdMaxOctets} are possible`);
  return tlv(tlvType.uniqueId, id);
}

/** Section 2.2.6: `verify` is "zero if the client presented a certificate and it was successfully verified, and non-zero otherwise". */
function sslTlv(tls: TlsFacts): Buffer {
  const { certificate } = tls;
  const verify = certificate?.verify ?? notVerified;
  if (!Number.isInteger(verify) || verify < 0 || verify > 0xffff_ffff) throw wrong('tls.certificate.verify', 'the result of the verification is not within 0 to 2^32 - 1');
  const head = Buffer.from([clientBits(certificate?.shown), 0, 0, 0, 0]);
  head.writeUInt32BE(verify, 1);
  return tlv(tlvType.ssl, Buffer.concat([
    head,
    text(tlvType.sslVersion, tls.protocol, most.word), text(tlvType.sslCipher, tls.cipher, most.word),
    text(tlvType.sslSigAlg, tls.signatureAlgorithm, most.word), text(tlvType.sslKeyAlg, tls.keyAlgorithm, most.word),
    text(tlvType.sslCn, certificate?.commonName, most.commonName),
  ]));
}

/** A certificate of this connection is one of this session, too; not the other way round. */
function clientBits(shown: 'connection' | 'session' | undefined): number {
  switch (shown) {
    case undefined: return clientBit.ssl;
    case 'session': return clientBit.ssl | clientBit.certSess;
    case 'connection': return clientBit.ssl | clientBit.certSess | clientBit.certConn;
  }
}
