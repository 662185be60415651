/** The PROXY protocol in octets: what is sent, what is understood, and what is refused. Vectors were computed from the specification by another program. */
import assert from 'node:assert/strict';
import type { Endpoint } from 'libtlspool/protocol';
import { TlsPoolError } from 'libtlspool/protocol';
import { crc32c, encodeV1, encodeV2, parse, readProxyHeader, v2MaxOctets } from 'tlspool-proxy/dist/proxyprotocol/index.js';
import type { Header, ProxyAddresses, TlsFacts } from 'tlspool-proxy/dist/proxyprotocol/index.js';
import { throwsCode } from '../support/native-fds.js';

const end = (address: string, port: number): Endpoint => ({ family: address.includes(':') ? 'IPv6' : 'IPv4', address, port });
const unix = (address: string): Endpoint => ({ family: 'unix', address, port: 0 });
const pair = (source: Endpoint, destination: Endpoint): ProxyAddresses => ({ source, destination });
const v4 = pair(end('192.0.2.1', 49_152), end('198.51.100.2', 993));
const v6 = pair(end('2001:db8::1', 1), end('2001:db8::2', 65_535));

const sig = '0d0a0d0a000d0a515549540a';
const golden = {
  ipv4: `${sig}21110013c0000201c6336402c00003e10300040794ecfe`,
  everything: `${sig}2121009320010db800000000000000000000000120010db80000000000000000000000020001ffff010004696d61700200106d61696c2e6578616d706c652e6f7267`
    + '05000469642d31200044070000000a210007544c5376312e33230016544c535f4145535f3132385f47434d5f53484132353624000a5253412d53484132353625000545433235362200045a6fc3ab030004dee86293',
};
const facts: TlsFacts = {
  protocol: 'TLSv1.3', cipher: 'TLS_AES_128_GCM_SHA256', alpn: 'imap', servername: 'mail.example.org', signatureAlgorithm: 'RSA-SHA256', keyAlgorithm: 'EC256',
  certificate: { shown: 'connection', verify: 10, commonName: 'Zoë' },
};

function headerOf(octets: Buffer | string): Header {
  const buffer = typeof octets === 'string' ? Buffer.from(octets, 'latin1') : octets;
  const parsed = parse(buffer);
  assert(parsed.kind === 'header', `incomplete: ${JSON.stringify(parsed)}`);
  assert.equal(parsed.length, buffer.length);
  return parsed.header;
}
const refuses = (octets: Buffer | string, why: RegExp): void => {
  assert.match(throwsCode(() => parse(typeof octets === 'string' ? Buffer.from(octets, 'latin1') : octets), 'PREAMBLE').message, why);
};
/** A header of version 2 around a body. */
function v2(command: number, family: number, body: Buffer): Buffer {
  const head = Buffer.concat([Buffer.from(sig, 'hex'), Buffer.from([command, family, 0, 0])]);
  head.writeUInt16BE(body.length, 14);
  return Buffer.concat([head, body]);
}
const tlv = (type: number, value: Buffer): Buffer => Buffer.concat([Buffer.from([type, value.length >> 8, value.length & 0xff]), value]);
const twelve = Buffer.from('c0000201c6336402c00003e1', 'hex');

describe('PROXY protocol: checksum', () => {
  it('is CRC32C: the check value, and 32 zeros of RFC 3720 appendix B.4', () => {
    assert.equal(crc32c(Buffer.from('123456789')), 0xe306_9283);
    assert.equal(crc32c(Buffer.alloc(32)), 0x8a91_36aa);
    assert.equal(crc32c(Buffer.alloc(0)), 0);
  });
});

describe('PROXY protocol version 1: what is sent', () => {
  it('TCP4 and TCP6 lines are as section 2.1 has them', () => {
    assert.equal(encodeV1(v4).toString(), 'PROXY TCP4 192.0.2.1 198.51.100.2 49152 993\r\n');
    assert.equal(encodeV1(v6).toString(), 'PROXY TCP6 2001:db8:0:0:0:0:0:1 2001:db8:0:0:0:0:0:2 1 65535\r\n');
  });

  it('the longest line has 104 octets', () => {
    const all = 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff';
    assert.equal(encodeV1(pair(end(all, 65_535), end(all, 65_535))).length, 104);
  });

  it('addresses of a dual-stack socket are IPv4 when both are, and TCP6 in hexadecimal groups when one is', () => {
    assert.equal(encodeV1(pair(end('::ffff:192.0.2.1', 5), end('::FFFF:c633:6402', 6))).toString(), 'PROXY TCP4 192.0.2.1 198.51.100.2 5 6\r\n');
    assert.equal(encodeV1(pair(end('192.0.2.1', 5), end('2001:db8::2', 6))).toString(), 'PROXY TCP6 0:0:0:0:0:ffff:c000:201 2001:db8:0:0:0:0:0:2 5 6\r\n');
  });

  it('a zone is left out: it means nothing on another host', () => {
    assert.equal(encodeV1(pair(end('fe80::1%eth0', 5), end('fe80::2', 6))).toString(), 'PROXY TCP6 fe80:0:0:0:0:0:0:1 fe80:0:0:0:0:0:0:2 5 6\r\n');
  });

  it('UNIX sockets and unknown ends are UNKNOWN', () => {
    assert.equal(encodeV1(pair(unix('/a'), unix(''))).toString(), 'PROXY UNKNOWN\r\n');
    assert.equal(encodeV1().toString(), 'PROXY UNKNOWN\r\n');
  });

  it('what is no connection is refused: a name, a port out of range, one end IP and the other not', () => {
    throwsCode(() => encodeV1(pair(end('localhost', 1), end('192.0.2.1', 1))), 'BAD_ARGUMENT');
    throwsCode(() => encodeV1(pair(end('192.0.2.1', 65_536), end('192.0.2.1', 1))), 'BAD_ARGUMENT');
    throwsCode(() => encodeV1(pair(end('192.0.2.1', 65_535), end('192.0.2.1', -1))), 'BAD_ARGUMENT');
    throwsCode(() => encodeV1(pair(unix('/a'), end('192.0.2.1', 1))), 'BAD_ARGUMENT');
  });
});

describe('PROXY protocol version 2: what is sent', () => {
  it('golden: IPv4 with nothing but the checksum', () => {
    assert.equal(encodeV2({ command: 'PROXY', addresses: v4 }).toString('hex'), golden.ipv4);
  });

  it('golden: IPv6 with every TLV', () => {
    assert.equal(encodeV2({ command: 'PROXY', addresses: v6, tls: facts, uniqueId: Buffer.from('id-1') }).toString('hex'), golden.everything);
  });

  it('golden: LOCAL is 16 octets, and speaks of nothing', () => {
    assert.equal(encodeV2({ command: 'LOCAL' }).toString('hex'), `${sig}20000000`);
  });

  it('golden: UNIX paths, the second one abstract', () => {
    const header = encodeV2({ command: 'PROXY', addresses: pair(unix('/run/a'), unix('\0abs')) });
    assert.equal(header.length, 239);
    assert.equal(header.subarray(-7).toString('hex'), '030004a20b4b92');
    assert.deepEqual(headerOf(header).addresses, pair(unix('/run/a'), unix('\0abs')));
  });

  it('a path of 108 octets fills its field; one of 109 is refused', () => {
    const full = pair(unix(`/${'a'.repeat(107)}`), unix(''));
    assert.deepEqual(headerOf(encodeV2({ command: 'PROXY', addresses: full })).addresses, full);
    throwsCode(() => encodeV2({ command: 'PROXY', addresses: pair(unix(`/${'a'.repeat(108)}`), unix('')) }), 'BAD_ARGUMENT');
  });

  it('without TLS no TLV speaks of it', () => {
    const header = headerOf(encodeV2({ command: 'PROXY', addresses: v4, uniqueId: Buffer.from('x') }));
    assert.deepEqual(header, { version: 2, command: 'PROXY', addresses: v4, uniqueId: Buffer.from('x') });
  });

  it('a client without a certificate is never "verified"', () => {
    const { certificate: _, ...bare } = facts;
    const { ssl } = headerOf(encodeV2({ command: 'PROXY', addresses: v4, tls: bare }));
    assert.deepEqual([ssl?.tls, ssl?.certConn, ssl?.certSess, ssl?.commonName], [true, false, false, undefined]);
    assert.notEqual(ssl?.verify, 0);
  });

  it('a certificate of a resumed session is shown in the session and not on the connection', () => {
    for (const [shown, conn] of [['session', false], ['connection', true]] as const) {
      const { ssl } = headerOf(encodeV2({ command: 'PROXY', addresses: v4, tls: { ...facts, certificate: { shown, verify: 0, commonName: 'a' } } }));
      assert.deepEqual([ssl?.tls, ssl?.certConn, ssl?.certSess, ssl?.verify, ssl?.commonName], [true, conn, true, 0, 'a']);
    }
  });

  it('a text at its cap is sent; one octet more and it is left out, never cut', () => {
    const sent = (tls: Partial<TlsFacts>): Header => headerOf(encodeV2({ command: 'PROXY', addresses: v4, tls: { ...facts, ...tls } }));
    const text = (octets: number): string => 'é'.repeat(octets / 2) + 'x'.repeat(octets % 2);
    assert.equal(sent({ servername: text(255) }).authority, text(255));
    assert.equal(sent({ servername: text(256) }).authority, undefined);
    assert.equal(sent({ alpn: text(255) }).alpn, text(255));
    assert.equal(sent({ alpn: text(256) }).alpn, undefined);
    assert.equal(sent({ cipher: text(64) }).ssl?.cipher, text(64));
    assert.equal(sent({ cipher: text(65) }).ssl?.cipher, undefined);
    const withName = (commonName: string): string | undefined => sent({ certificate: { shown: 'connection', verify: 0, commonName } }).ssl?.commonName;
    assert.equal(withName(text(256)), text(256));
    assert.equal(withName(text(257)), undefined);
  });

  it('a common name that a C program would read as another one is left out', () => {
    for (const commonName of ['admin\0.example.org', 'a\r\nb', 'a\u0085b', 'a\ufffdb', 'a\ud800', '']) {
      const { ssl } = headerOf(encodeV2({ command: 'PROXY', addresses: v4, tls: { ...facts, certificate: { shown: 'connection', verify: 0, commonName } } }));
      assert.equal(ssl?.commonName, undefined, JSON.stringify(commonName));
    }
  });

  it('a unique ID has 1 to 128 octets', () => {
    for (const octets of [1, 128]) assert.equal(headerOf(encodeV2({ command: 'PROXY', uniqueId: Buffer.alloc(octets, 7) })).uniqueId?.length, octets);
    for (const octets of [0, 129]) throwsCode(() => encodeV2({ command: 'PROXY', uniqueId: Buffer.alloc(octets) }), 'BAD_ARGUMENT');
  });

  it('a result of verification that is no uint32 is refused, so that it cannot wrap to 0', () => {
    const withVerify = (verify: number): Buffer => encodeV2({ command: 'PROXY', addresses: v4, tls: { ...facts, certificate: { shown: 'connection', verify } } });
    assert.equal(headerOf(withVerify(0xffff_ffff)).ssl?.verify, 0xffff_ffff);
    for (const verify of [2 ** 32, -1, 0.5, NaN]) throwsCode(() => withVerify(verify), 'BAD_ARGUMENT');
  });

  it('with everything at its cap a header has 1,421 octets', () => {
    const name = 'x'.repeat(255);
    const word = 'x'.repeat(64);
    const header = encodeV2({
      command: 'PROXY', addresses: pair(unix('/a'), unix('/b')), uniqueId: Buffer.alloc(128),
      tls: { protocol: word, cipher: word, signatureAlgorithm: word, keyAlgorithm: word, alpn: name, servername: name, certificate: { shown: 'connection', verify: 0, commonName: 'x'.repeat(256) } },
    });
    assert.equal(header.length, 1421);
    assert.equal(headerOf(header).ssl?.commonName?.length, 256);
  });
});

describe('PROXY protocol version 1: what is understood', () => {
  it('the example of section 2.1, and the request behind it is left alone', () => {
    const parsed = parse(Buffer.from('PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET / HTTP/1.1\r\n'));
    assert.deepEqual(parsed, {
      kind: 'header', length: 47, header: { version: 1, command: 'PROXY', addresses: pair(end('192.168.0.1', 56_324), end('192.168.0.11', 443)) },
    });
  });

  it('IPv6 in any spelling comes out in that of inet_ntop(3), so that one client is one', () => {
    for (const spelling of ['2001:DB8::1', '2001:0db8:0:0:0:0:0:0001', '2001:db8::0:1']) {
      assert.deepEqual(headerOf(`PROXY TCP6 ${spelling} ::FFFF:c000:201 1 0\r\n`).addresses, pair(end('2001:db8::1', 1), end('::ffff:192.0.2.1', 0)));
    }
  });

  it('UNKNOWN has no addresses, whatever follows it', () => {
    for (const line of ['PROXY UNKNOWN\r\n', 'PROXY UNKNOWN \r\n', 'PROXY UNKNOWN 1.2.3.4 what ever\r\n']) assert.deepEqual(headerOf(line), { version: 1, command: 'PROXY' });
  });

  it('a line of 107 octets is read; without CRLF in 107 octets it is refused', () => {
    const start = 'PROXY UNKNOWN ';
    assert.equal(headerOf(`${start}${'x'.repeat(105 - start.length)}\r\n`).version, 1);
    refuses(`${start}${'x'.repeat(106 - start.length)}\r\n`, /no CRLF within 107/u);
    refuses(`${start}${'x'.repeat(107 - start.length)}`, /no CRLF within 107/u);
    assert.equal(parse(Buffer.from(`${start}${'x'.repeat(106 - start.length)}`)).kind, 'more');
  });

  const right = 'PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n';
  const wrong: readonly (readonly [what: string, line: string, why: RegExp])[] = [
    ['two spaces', 'PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n', /one space/u],
    ['a space at the end', 'PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n', /one space/u],
    ['a missing port', 'PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n', /one space/u],
    ['a tab', 'PROXY TCP4\t192.0.2.1 192.0.2.2 1 2\r\n', /neither TCP4/u],
    ['UDP4', 'PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n', /neither TCP4/u],
    ['small letters', 'PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n', /neither TCP4/u],
    ['UNKNOWN with letters behind it', 'PROXY UNKNOWNS\r\n', /neither TCP4/u],
    ['heading zeros in an address', 'PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n', /IPv4 address/u],
    ['an IPv6 address in TCP4', 'PROXY TCP4 ::1 192.0.2.2 1 2\r\n', /IPv4 address/u],
    ['an IPv4 address in TCP6', 'PROXY TCP6 ::1 192.0.2.2 1 2\r\n', /IPv6 address/u],
    ['a zone', 'PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n', /IPv6 address/u],
    ['a name', 'PROXY TCP4 localhost 192.0.2.2 1 2\r\n', /IPv4 address/u],
    ['heading zeros in a port', 'PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n', /port/u],
    ['port 65536', 'PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n', /port/u],
    ['a signed port', 'PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n', /port/u],
    ['an empty port', 'PROXY TCP4 192.0.2.1 192.0.2.2  2\r\n', /port/u],
    ['LF alone', 'PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n', /LF alone/u],
    ['CR alone', 'PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rx', /not part of the CRLF/u],
    ['a second LF before the CRLF', 'PROXY TCP4 192.0.2.1\n 192.0.2.2 1 2\r\n', /not part of the CRLF/u],
    ['small letters in PROXY', 'proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n', /something else/u],
    ['a request without header', 'GET / HTTP/1.1\r\n', /something else/u],
    ['a ClientHello', '\x16\x03\x01\x02\x00\x01', /something else/u],
  ];
  it('the line that the refused ones were made of is read', () => { assert.equal(headerOf(right).addresses?.destination.port, 2); });
  for (const [what, line, why] of wrong) it(`refused: ${what}`, () => { refuses(line, why); });
});

describe('PROXY protocol version 2: what is understood', () => {
  it('the golden header with every TLV', () => {
    assert.deepEqual(headerOf(Buffer.from(golden.everything, 'hex')), {
      version: 2, command: 'PROXY', addresses: v6, alpn: 'imap', authority: 'mail.example.org', uniqueId: Buffer.from('id-1'),
      ssl: {
        tls: true, certConn: true, certSess: true, verify: 10, protocol: 'TLSv1.3', cipher: 'TLS_AES_128_GCM_SHA256', signatureAlgorithm: 'RSA-SHA256', keyAlgorithm: 'EC256', commonName: 'Zoë',
      },
    });
  });

  it('LOCAL: the block is skipped unread, the family with it', () => {
    assert.deepEqual(headerOf(v2(0x20, 0xff, Buffer.from('whatever is in here'))), { version: 2, command: 'LOCAL' });
  });

  it('UNSPEC and datagrams count as unknown, and their TLVs are read', () => {
    const authority = tlv(2, Buffer.from('a'));
    for (const [family, body] of [[0x00, Buffer.alloc(0)], [0x01, Buffer.alloc(0)], [0x10, twelve], [0x12, twelve], [0x22, Buffer.alloc(36)], [0x32, Buffer.alloc(216)]] as const) {
      assert.deepEqual(headerOf(v2(0x21, family, Buffer.concat([body, authority]))), { version: 2, command: 'PROXY', authority: 'a' });
    }
  });

  it('types that are not known, and padding, are skipped, also twice', () => {
    const body = Buffer.concat([twelve, tlv(0x04, Buffer.alloc(9)), tlv(0xea, Buffer.from('x')), tlv(0xea, Buffer.from('y')), tlv(0x04, Buffer.alloc(0)), tlv(1, Buffer.from('h2'))]);
    assert.deepEqual(headerOf(v2(0x21, 0x11, body)), { version: 2, command: 'PROXY', addresses: v4, alpn: 'h2' });
  });

  it('what a client made of its names cannot do harm: NUL and broken UTF-8 are replaced', () => {
    assert.equal(headerOf(v2(0x21, 0x11, Buffer.concat([twelve, tlv(2, Buffer.from('a\0\xffb', 'latin1'))]))).authority, 'a\ufffd\ufffdb');
  });

  it('a header of 4096 octets is read; one octet more is refused as soon as its length is there', () => {
    const padded = (octets: number): Buffer => v2(0x21, 0x11, Buffer.concat([twelve, tlv(0x04, Buffer.alloc(octets - 16 - 12 - 3))]));
    assert.equal(headerOf(padded(v2MaxOctets)).version, 2);
    refuses(padded(v2MaxOctets + 1).subarray(0, 16), /4097 octets; 4096 is the most/u);
  });

  it('a unique ID of 128 octets is read, one of 129 refused', () => {
    assert.equal(headerOf(v2(0x21, 0x11, Buffer.concat([twelve, tlv(5, Buffer.alloc(128))]))).uniqueId?.length, 128);
    refuses(v2(0x21, 0x11, Buffer.concat([twelve, tlv(5, Buffer.alloc(129))])), /129 octets/u);
  });

  it('a checksum that fits is accepted wherever it stands; any other is refused', () => {
    const build = (sum: number): Buffer => {
      const value = Buffer.alloc(4);
      value.writeUInt32BE(sum);
      return v2(0x21, 0x11, Buffer.concat([twelve, tlv(3, value), tlv(1, Buffer.from('h2'))]));
    };
    const sum = crc32c(build(0));
    assert.equal(headerOf(build(sum)).alpn, 'h2');
    refuses(build((sum ^ 1) >>> 0), /CRC32C does not fit/u);
    refuses(build(0), /CRC32C does not fit/u);
  });

  const tls = Buffer.from([1, 0, 0, 0, 1]);
  const wrong: readonly (readonly [what: string, octets: Buffer, why: RegExp])[] = [
    ['version 1 in binary', v2(0x11, 0x11, twelve), /version 1 of the binary form/u],
    ['version 3', v2(0x31, 0x11, twelve), /version 3/u],
    ['command 2', v2(0x22, 0x11, twelve), /command 2/u],
    ['address family 4', v2(0x21, 0x41, twelve), /0x41/u],
    ['protocol 3', v2(0x21, 0x13, twelve), /0x13/u],
    ['11 octets for IPv4', v2(0x21, 0x11, twelve.subarray(1)), /11 octets for addresses of 12/u],
    ['35 octets for IPv6', v2(0x21, 0x21, Buffer.alloc(35)), /35 octets/u],
    ['215 octets for UNIX', v2(0x21, 0x31, Buffer.alloc(215)), /215 octets/u],
    ['half the head of a TLV', v2(0x21, 0x11, Buffer.concat([twelve, Buffer.from([1, 0])])), /without its length/u],
    ['a TLV that is longer than the header', v2(0x21, 0x11, Buffer.concat([twelve, Buffer.from([1, 0, 3, 0x68, 0x32])])), /longer than what is left/u],
    ['two server names', v2(0x21, 0x11, Buffer.concat([twelve, tlv(2, Buffer.from('a')), tlv(2, Buffer.from('a'))])), /0x2 twice/u],
    ['a checksum of three octets', v2(0x21, 0x11, Buffer.concat([twelve, tlv(3, Buffer.alloc(3))])), /CRC32C of 3/u],
    ['an SSL TLV of four octets', v2(0x21, 0x11, Buffer.concat([twelve, tlv(0x20, Buffer.alloc(4))])), /SSL TLV of 4/u],
    ['a TLV in the SSL TLV that is longer than it', v2(0x21, 0x11, Buffer.concat([twelve, tlv(0x20, Buffer.concat([tls, Buffer.from([0x22, 0, 2, 0x61])]))])), /longer than what is left/u],
    ['two common names', v2(0x21, 0x11, Buffer.concat([twelve, tlv(0x20, Buffer.concat([tls, tlv(0x22, Buffer.from('a')), tlv(0x22, Buffer.from('b'))]))])), /0x22 twice/u],
    ['another signature', Buffer.from('0d0a0d0a000d0a515549540b', 'hex'), /something else/u],
  ];
  it('what the refused ones were made of is read', () => {
    assert.deepEqual(headerOf(v2(0x21, 0x11, twelve)).addresses, v4);
    assert.equal(headerOf(v2(0x21, 0x11, Buffer.concat([twelve, tlv(0x20, tls)]))).ssl?.verify, 1);
  });
  for (const [what, octets, why] of wrong) it(`refused: ${what}`, () => { refuses(octets, why); });
});

describe('PROXY protocol: reading from a connection', () => {
  /** Carries the dialogue out; how many octets it took. */
  function read(octets: Buffer): { header: Header; taken: number } {
    const dialogue = readProxyHeader();
    let taken = 0;
    let step = dialogue.next();
    while (step.done !== true) {
      assert(step.value.do === 'octets' && step.value.count > 0);
      assert(taken + step.value.count <= octets.length, `wants ${String(step.value.count)} octets at ${String(taken)} of ${String(octets.length)}`);
      step = dialogue.next(octets.subarray(taken, taken += step.value.count));
    }
    return { header: step.value, taken };
  }

  const headers: readonly Buffer[] = [
    'PROXY UNKNOWN\r\n', 'PROXY UNKNOWN \r\n', 'PROXY UNKNOWN x\r\n', 'PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n', 'PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n', 'PROXY TCP6 :: :: 0 0\r\n',
    encodeV2({ command: 'LOCAL' }), Buffer.from(golden.ipv4, 'hex'), Buffer.from(golden.everything, 'hex'), encodeV2({ command: 'PROXY' }),
  ].map((header) => (typeof header === 'string' ? Buffer.from(header) : header));

  it('takes exactly the header, never an octet of what follows', () => {
    for (const header of headers) {
      assert.deepEqual(read(header), { header: headerOf(header), taken: header.length });
      assert.equal(read(Buffer.concat([header, Buffer.from('EHLO x\r\n')])).taken, header.length);
    }
  });

  it('no beginning of a header is refused, or asks for more than is missing', () => {
    for (const header of headers) {
      for (let length = 0; length < header.length; length++) {
        const parsed = parse(header.subarray(0, length));
        assert(parsed.kind === 'more' && parsed.need > 0 && parsed.need <= header.length - length, `${String(length)} of ${header.toString('latin1')}: ${JSON.stringify(parsed)}`);
      }
    }
  });

  it('a connection without a header is refused at its first octets', () => {
    const dialogue = readProxyHeader();
    const first = dialogue.next();
    assert(first.done !== true && first.value.do === 'octets');
    assert.throws(() => dialogue.next(Buffer.from('EHLO client.example.org\r\n').subarray(0, 15)), (error) => error instanceof TlsPoolError && error.code === 'PREAMBLE');
  });
});
