/** The PROXY protocol against everything: what is made is read back, what is read makes sense, and nothing else happens. */
import assert from 'node:assert/strict';
import net from 'node:net';
import fc from 'fast-check';
import { TlsPoolError } from 'libtlspool/protocol';
import type { Endpoint } from 'libtlspool/protocol';
import { encodeV1, encodeV2, parse } from 'tlspool-proxy/dist/proxyprotocol/index.js';
import type { Header, Parsed, ProxyAddresses, ReceivedTls, TlsFacts, V2Content } from 'tlspool-proxy/dist/proxyprotocol/index.js';

const numRuns = Number(process.env['TLSPOOL_FUZZ_RUNS'] ?? '400');

const port = fc.nat(65_535);
const ipv4 = fc.record<Endpoint>({ family: fc.constant('IPv4'), address: fc.ipV4(), port }, { noNullPrototype: true });
/** Never mapped, which would be another family when it is read back. */
const ipv6 = fc.record<Endpoint>({ family: fc.constant('IPv6'), address: fc.uint8Array({ minLength: 16, maxLength: 16 }).map((octets) => {
  octets[0] = 0x20;
  const groups = Array.from({ length: 8 }, (_, index) => (((octets[2 * index] ?? 0) << 8) | (octets[2 * index + 1] ?? 0)).toString(16));
  return new net.SocketAddress({ family: 'ipv6', address: groups.join(':') }).address;
}), port }, { noNullPrototype: true });
const unix = fc.record<Endpoint>({ family: fc.constant('unix'), address: fc.string({ maxLength: 50 }).map((text) => text.replaceAll('\0', '')), port: fc.constant(0) }, { noNullPrototype: true });
const addresses = fc.oneof(...[ipv4, ipv6, unix].map((end) => fc.record<ProxyAddresses>({ source: end, destination: end }, { noNullPrototype: true })));

const text = fc.oneof(fc.string({ minLength: 1, maxLength: 20 }), fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 })).map((value) => value.replace(/[\p{Cc}\p{Surrogate}\ufffd\ufeff]/gu, '.')).filter((value) => Buffer.byteLength(value) <= 64);
const tls = fc.record<TlsFacts>({
  protocol: text, cipher: text, alpn: text, servername: text, signatureAlgorithm: text, keyAlgorithm: text,
  certificate: fc.record({ shown: fc.constantFrom('connection' as const, 'session' as const), verify: fc.nat(0xffff), commonName: text }, { requiredKeys: ['shown', 'verify'], noNullPrototype: true }),
}, { requiredKeys: ['protocol', 'cipher'], noNullPrototype: true });
const content = fc.record({ command: fc.constant('PROXY' as const), addresses, tls, uniqueId: fc.uint8Array({ minLength: 1, maxLength: 128 }) }, { requiredKeys: ['command'], noNullPrototype: true }) as fc.Arbitrary<Extract<V2Content, { command: 'PROXY' }>>;

/** What a receiver must understand of it. */
function understood({ addresses: ends, tls: told, uniqueId }: Extract<V2Content, { command: 'PROXY' }>): Header {
  return {
    version: 2, command: 'PROXY', ...(ends !== undefined && { addresses: ends }),
    ...(told?.alpn !== undefined && { alpn: told.alpn }), ...(told?.servername !== undefined && { authority: told.servername }),
    ...(uniqueId !== undefined && { uniqueId: Buffer.from(uniqueId) }), ...(told !== undefined && { ssl: receivedTls(told) }),
  };
}

function receivedTls({ protocol, cipher, certificate, signatureAlgorithm, keyAlgorithm }: TlsFacts): ReceivedTls {
  return {
    tls: true, certConn: certificate?.shown === 'connection', certSess: certificate !== undefined, verify: certificate?.verify ?? 1, protocol, cipher,
    ...(certificate?.commonName !== undefined && { commonName: certificate.commonName }),
    ...(signatureAlgorithm !== undefined && { signatureAlgorithm }), ...(keyAlgorithm !== undefined && { keyAlgorithm }),
  };
}

/** parse(), or undefined where it refuses as it should. */
function parseAny(octets: Buffer): Parsed | undefined {
  try {
    const parsed = parse(octets);
    if (parsed.kind === 'more') assert(parsed.need > 0 && parsed.need <= 4096);
    else assert(parsed.length >= 15 && parsed.length <= Math.min(octets.length, 4096));
    return parsed;
  } catch (error) {
    assert(error instanceof TlsPoolError && error.code === 'PREAMBLE', `threw ${String(error)}`);
    return undefined;
  }
}

describe('fuzz: PROXY protocol', () => {
  it('version 2: every header that is made is read back, whatever follows it', () => {
    fc.assert(fc.property(content, fc.uint8Array(), (made, after) => {
      const octets = encodeV2(made);
      assert.deepEqual(parse(Buffer.concat([octets, after])), { kind: 'header', length: octets.length, header: understood(made) });
    }), { numRuns });
  });

  it('version 1: every line that is made is read back', () => {
    fc.assert(fc.property(fc.oneof(fc.tuple(ipv4, ipv4), fc.tuple(ipv6, ipv6)), ([source, destination]) => {
      const octets = encodeV1({ source, destination });
      assert.deepEqual(parse(octets), { kind: 'header', length: octets.length, header: { version: 1, command: 'PROXY', addresses: { source, destination } } });
    }), { numRuns });
  });

  it('a beginning is never refused and never asks for an octet behind the header', () => {
    fc.assert(fc.property(fc.oneof(content.map(encodeV2), addresses.map(encodeV1)), fc.double({ min: 0, max: 1, noNaN: true }), (octets, part) => {
      const length = Math.floor(part * (octets.length - 1));
      const parsed = parse(octets.subarray(0, length));
      assert(parsed.kind === 'more' && parsed.need > 0 && parsed.need <= octets.length - length);
    }), { numRuns });
  });

  it('a changed octet in the addresses is always noticed', () => {
    const withAddresses = content.filter(({ addresses: ends }) => ends !== undefined);
    fc.assert(fc.property(withAddresses, fc.nat(), fc.integer({ min: 1, max: 255 }), (made, where, change) => {
      const octets = encodeV2(made);
      const size = { IPv4: 12, IPv6: 36, unix: 216 }[made.addresses?.source.family ?? 'IPv4'];
      const at = 16 + (where % size);
      octets[at] = (octets[at] as number) ^ change;
      assert.equal(parseAny(octets), undefined);
    }), { numRuns });
  });

  it('a valid header with octets changed anywhere is refused or understood, and nothing else', () => {
    fc.assert(fc.property(fc.oneof(content.map(encodeV2), addresses.map(encodeV1)), fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }), (octets, changes) => {
      for (const [at, octet] of changes) octets[at % octets.length] = octet;
      parseAny(octets);
    }), { numRuns: numRuns * 2 });
  });

  it('any TLVs behind addresses are refused or understood, and nothing else', () => {
    const piece = fc.tuple(fc.constantFrom(0x01, 0x02, 0x03, 0x04, 0x05, 0x20, 0x21, 0x22, 0x30, 0xe0), fc.uint8Array({ maxLength: 30 }), fc.integer({ min: -1, max: 1 }))
      .map(([type, value, lie]) => Buffer.from([type, 0, Math.max(0, value.length + lie), ...value]));
    fc.assert(fc.property(fc.array(piece, { maxLength: 6 }), fc.boolean(), (pieces, inSsl) => {
      const inner = Buffer.concat(pieces);
      const body = inSsl ? Buffer.concat([Buffer.from([0x20, (inner.length + 5) >> 8, (inner.length + 5) & 0xff, 7, 0, 0, 0, 0]), inner]) : inner;
      const header = encodeV2({ command: 'LOCAL' });
      header[12] = 0x21;
      header.writeUInt16BE(body.length, 14);
      const parsed = parseAny(Buffer.concat([header, body]));
      assert.notEqual(parsed?.kind, 'more');
    }), { numRuns: numRuns * 2 });
  });

  it('any octets at all are refused, understood, or incomplete', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (octets) => { parseAny(Buffer.from(octets)); }), { numRuns });
  });
});
