/**
 * MySQL and MariaDB: SSLRequest (MySQL Internals, "Connection Phase"; MariaDB documentation, "Connection").
 *
 * The server greets first, with a salt that the client's password is scrambled with behind the handshake. So a plain-text backend cannot go on:
 * it would greet with a salt of its own, in the middle of a login. A backend that takes descriptors gets both packets as `state`, one after the other, each with
 * its header (three octets of length, least significant first, and the sequence id): the server's greeting (Protocol::HandshakeV10, sequence id 0), and
 * the client's SSLRequest (sequence id 1, 36 octets). The client's next packet (Protocol::HandshakeResponse41) has sequence id 2, repeats the capabilities
 * of the SSLRequest, and answers the salt of the greeting. The client role gives its application the same.
 */
import { randomBytes } from 'node:crypto';
import { TlsPoolError } from '../protocol/errors.js';
import { broken, octets, readOctets, refused, say } from './dialogue.js';
import type { Dialogue, Face, Farewell, Preamble, ServeOptions, ServerOutcome } from './types.js';

/** Bits of the capabilities, by the names of the documentation. */
const flags = {
  CLIENT_LONG_PASSWORD: 0x1, CLIENT_FOUND_ROWS: 0x2, CLIENT_LONG_FLAG: 0x4, CLIENT_CONNECT_WITH_DB: 0x8, CLIENT_COMPRESS: 0x20, CLIENT_LOCAL_FILES: 0x80,
  CLIENT_IGNORE_SPACE: 0x100, CLIENT_PROTOCOL_41: 0x200, CLIENT_INTERACTIVE: 0x400, CLIENT_SSL: 0x800, CLIENT_TRANSACTIONS: 0x2000, CLIENT_SECURE_CONNECTION: 0x8000,
  CLIENT_MULTI_STATEMENTS: 0x1_0000, CLIENT_MULTI_RESULTS: 0x2_0000, CLIENT_PS_MULTI_RESULTS: 0x4_0000, CLIENT_PLUGIN_AUTH: 0x8_0000, CLIENT_CONNECT_ATTRS: 0x10_0000,
  CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA: 0x20_0000, CLIENT_CAN_HANDLE_EXPIRED_PASSWORDS: 0x40_0000, CLIENT_SESSION_TRACK: 0x80_0000, CLIENT_DEPRECATE_EOF: 0x100_0000,
  CLIENT_OPTIONAL_RESULTSET_METADATA: 0x200_0000, CLIENT_ZSTD_COMPRESSION_ALGORITHM: 0x400_0000, CLIENT_QUERY_ATTRIBUTES: 0x800_0000,
} as const;
/** What every backend can do. More is promised only if the face names it, since clients use what is promised. */
const always = flags.CLIENT_LONG_PASSWORD | flags.CLIENT_LONG_FLAG | flags.CLIENT_CONNECT_WITH_DB | flags.CLIENT_PROTOCOL_41 | flags.CLIENT_SSL | flags.CLIENT_TRANSACTIONS
  | flags.CLIENT_SECURE_CONNECTION | flags.CLIENT_PLUGIN_AUTH;
/** What we say for ourselves as a client; also only what the server promised. */
const clientFlags = always;

const saltOctets = 20;
const sslRequestOctets = 32;
/** Greetings, and login packets of clients without TLS, are some hundred octets. */
const mostPacketOctets = 4000;
/** utf8mb4_general_ci: both families know it. */
const charset = 45;
const autocommit = 2;
const errorMark = 0xff;

function packet(sequence: number, ...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  const head = Buffer.alloc(4);
  head.writeUIntLE(body.length, 0, 3);
  head[3] = sequence;
  return Buffer.concat([head, body]);
}

/** A whole packet with its header. */
function* readPacket(sequence: number): Dialogue<Buffer> {
  const head = yield* readOctets(4);
  const length = head.readUIntLE(0, 3);
  if (head[3] !== sequence) throw broken(`a packet with sequence id ${String(head[3])} where ${sequence} was expected`);
  if (length === 0 || length > mostPacketOctets) throw broken(`a packet of ${length} octets`);
  return Buffer.concat([head, yield* readOctets(length)]);
}

const uint = (value: number, size: number): Buffer => {
  const written = Buffer.alloc(size);
  written.writeUIntLE(value, 0, size);
  return written;
};

/** Octets 1 to 127 without `$`, as MySQL makes them: the salt is a C string, and `$` separates it from a digest in stored passwords. 139 bits. */
function makeSalt(): Buffer {
  const salt: number[] = [];
  while (salt.length < saltOctets) {
    salt.push(...[...randomBytes(saltOctets)].map((octet) => octet & 0x7f).filter((octet) => octet !== 0 && octet !== 0x24));
  }
  return Buffer.from(salt.slice(0, saltOctets));
}

/** Protocol::HandshakeV10. `greeting` of the face is the server's version; its capabilities are names of flags. */
function greetingPacket({ greeting, capabilities = [] }: Face): Buffer {
  const names: ReadonlyMap<string, number> = new Map(Object.entries(flags));
  const able = capabilities.reduce((sum, name) => sum | (names.get(name) ?? 0), always);
  const version = (greeting ?? '5.7.0-tlspool').replace(/[^\x20-\x7e]/gu, '').slice(0, 60);
  const salt = makeSalt();
  return packet(
    0, uint(10, 1), octets(`${version}\0`), randomBytes(4), salt.subarray(0, 8), uint(0, 1), uint(able & 0xffff, 2), uint(charset, 1), uint(autocommit, 2),
    uint(able >>> 16, 2), uint(saltOctets + 1, 1), Buffer.alloc(10), salt.subarray(8), octets('\0mysql_native_password\0'),
  );
}

function* serve({ face, tls }: ServeOptions): Dialogue<ServerOutcome> {
  const greeting = greetingPacket(face);
  yield* say(greeting);
  const answer = yield* readPacket(1);
  // Two octets of capabilities were enough before version 4.1.
  const able = answer.length < 4 + 4 ? 0 : answer.readUInt32LE(4);
  if ((able & flags.CLIENT_PROTOCOL_41) === 0) throw broken('a client of before MySQL 4.1');
  if ((able & flags.CLIENT_SSL) !== 0) {
    // A login behind the request in the same packet would be plain text that passes for protected.
    if (answer.length !== 4 + sslRequestOctets) throw broken(`a request for TLS of ${answer.length - 4} octets instead of ${sslRequestOctets}`);
    // Clients send the ClientHello right behind it, often in the same segment.
    return {
      next: 'tls', goAhead: new Uint8Array(0), direct: true, refusal: errorPacket(2, 1043, 'TLS is not available now', '08S01'), state: Buffer.concat([greeting, answer]),
    };
  }
  if (tls === 'optional') return { next: 'plain', ahead: answer, state: greeting };
  // ER_SECURE_TRANSPORT_REQUIRED, as servers with require_secure_transport say it.
  yield* say(errorPacket(2, 3159, 'Connections using insecure transport are prohibited: ask for TLS (--ssl-mode=REQUIRED, --ssl)', 'HY000'));
  return { next: 'end', refused: 'the client did not ask for TLS' };
}

/** ERR_Packet; with SQLSTATE once capabilities are known. */
function errorPacket(sequence: number, code: number, text: string, sqlstate?: string): Buffer {
  return packet(sequence, uint(errorMark, 1), uint(code, 2), octets(`${sqlstate === undefined ? '' : `#${sqlstate}`}${text}`));
}

const farewells: Readonly<Record<Farewell, readonly [code: number, text: string]>> = {
  unavailable: [1053, 'The service is not available now, try again later'], // ER_SERVER_SHUTDOWN
  timeout: [1159, 'Too slow'], // ER_NET_READ_INTERRUPTED
  limit: [1040, 'Too many connections'], // ER_CON_COUNT_ERROR
  syntax: [1043, 'Bad handshake'], // ER_HANDSHAKE_ERROR
  early: [1043, 'Bad handshake: octets behind the request for TLS'],
};

function* client(): Dialogue<{ state: Uint8Array }> {
  const greeting = yield* readPacket(0);
  const body = greeting.subarray(4);
  if (body[0] === errorMark) throw refused('the server turns us away', body.subarray(3).toString('latin1'));
  if (body[0] !== 10) throw broken(`a greeting of protocol version ${String(body[0])} instead of 10`);
  // Behind the version: connection id 4, salt 8, filler 1, capabilities 2, charset 1, status 2, capabilities 2.
  const at = body.indexOf(0) + 1 + 4 + 8 + 1;
  if (body.indexOf(0) < 0 || body.length < at + 2) throw broken('a greeting that ends too early');
  const promised = body.readUInt16LE(at) + (body.length < at + 7 ? 0 : body.readUInt16LE(at + 5) * 0x1_0000);
  if ((promised & flags.CLIENT_SSL) === 0) throw refused('the server has no TLS');
  if ((promised & flags.CLIENT_PROTOCOL_41) === 0) throw refused('the server is one of before MySQL 4.1');
  const asking = packet(1, uint(clientFlags & promised, 4), uint(0x100_0000, 4), uint(charset, 1), Buffer.alloc(23));
  yield* say(asking);
  return { state: Buffer.concat([greeting, asking]) };
}

/** The packets that `state` of this preamble consists of, without their headers: the server's greeting, and the client's SSLRequest if TLS was asked for. */
export function mysqlPackets(state: Uint8Array): Buffer[] {
  const whole = Buffer.from(state);
  const packets: Buffer[] = [];
  for (let at = 0; at < whole.length;) {
    const end = at + 4 + (at + 4 > whole.length ? whole.length : whole.readUIntLE(at, 3));
    if (end > whole.length) throw new TlsPoolError('BAD_ARGUMENT', { text: 'this is not the state of a mysql preamble' });
    packets.push(whole.subarray(at + 4, end));
    at = end;
  }
  return packets;
}

export const mysql: Preamble = {
  name: 'mysql',
  title: 'MySQL and MariaDB (SSLRequest)',
  // Sequence id 0 is right before the greeting only; behind it clients report packets out of order, and close.
  server: { serve, farewell: (why) => errorPacket(0, ...farewells[why]), plainBackend: false },
  client,
};
