/** PostgreSQL: SSLRequest, and TLS at once as of version 17 (PostgreSQL documentation, "Message Flow", sections "SSL Session Encryption" and "Message Formats"). */
import { broken, octets, readOctets, refused, say } from './dialogue.js';
import { handshakeRecord } from './none.js';
import type { Dialogue, Farewell, Preamble, ServeOptions, ServerOutcome } from './types.js';

const nothing = new Uint8Array(0);
/** ALPN name, which a client that begins TLS at once must offer. */
const alpn = 'postgresql';
/** Codes in place of a protocol version. */
const request = { cancel: 80_877_102, tls: 80_877_103, gss: 80_877_104 } as const;
/** PostgreSQL's own limit of a start-up packet. */
const mostStartupOctets = 10_000;
/** A client asks for GSSAPI encryption once, and then for TLS. */
const mostRequests = 3;

/** Length and code: the beginning of every packet that a client may begin with. */
function* readHead(): Dialogue<{ head: Buffer; length: number; code: number }> {
  const head = yield* readOctets(8);
  const length = head.readUInt32BE(0);
  const code = head.readUInt32BE(4);
  if (length < 8 || length > mostStartupOctets) throw broken(`a first packet of ${length} octets`);
  if ((code === request.tls || code === request.gss) && length !== 8) throw broken('an encryption request with something behind it');
  return { head, length, code };
}

/** ErrorResponse, format version 3: severity (localized, and not), SQLSTATE, text. */
function errorResponse(sqlstate: string, text: string): Buffer {
  const fields = octets(`SFATAL\0VFATAL\0C${sqlstate}\0M${text}\0\0`);
  const head = Buffer.from('E\0\0\0\0', 'latin1');
  head.writeUInt32BE(fields.length + 4, 1);
  return Buffer.concat([head, fields]);
}

function* serve({ tls }: ServeOptions): Dialogue<ServerOutcome> {
  const [first] = yield { do: 'peek' };
  if (first === handshakeRecord) return { next: 'tls', goAhead: nothing, refusal: nothing, direct: true, alpn };
  for (let count = 0; count < mostRequests; count++) {
    // Not an octet behind it is read: CVE-2021-23214 was a buffer whose rest was taken for protected.
    const { head, length, code } = yield* readHead();
    if (code === request.tls) return { next: 'tls', goAhead: octets('S'), refusal: farewell('unavailable') };
    if (code === request.gss) {
      yield* say('N');
      continue;
    }
    const isStart = code >> 16 === 3;
    if (!isStart && code !== request.cancel) throw broken('neither a start-up packet nor an encryption request');
    if (tls === 'optional') return { next: 'plain', ahead: head };
    // To the end, or closing would reset the connection and take our answer with it.
    yield* readOctets(length - 8);
    // A CancelRequest is never answered.
    if (isStart) yield* say(errorResponse('28000', 'TLS is required: connect with sslmode=require or stronger'));
    return { next: 'end', refused: isStart ? 'the client did not ask for TLS' : 'a request to cancel in plain text' };
  }
  throw broken('the client goes on asking for GSSAPI encryption');
}

const farewells: Readonly<Record<Farewell, readonly [sqlstate: string, text: string]>> = {
  unavailable: ['57P03', 'the service is not available now, try again later'],
  timeout: ['08006', 'too slow'],
  limit: ['53300', 'too many connections, try again later'],
  syntax: ['08P01', 'that is not the PostgreSQL protocol'],
  early: ['08P01', 'octets behind the request for TLS'],
};

function farewell(why: Farewell): Buffer {
  return errorResponse(...farewells[why]);
}

function* client(): Dialogue<object> {
  const packet = Buffer.alloc(8);
  packet.writeUInt32BE(8, 0);
  packet.writeUInt32BE(request.tls, 4);
  yield* say(packet);
  // One octet and no more (CVE-2021-23222).
  const answer = (yield* readOctets(1)).toString('latin1');
  if (answer === 'S') return {};
  if (answer === 'N') throw refused('the server has no TLS');
  // What an ErrorResponse says here comes from anybody on the way, and is not repeated (CVE-2024-10977).
  if (answer === 'E') throw refused('the server answers the request for TLS with an error');
  throw broken('the server answers the request for TLS with neither S nor N');
}

export const postgres: Preamble = {
  name: 'postgres',
  title: 'PostgreSQL (SSLRequest, and direct TLS)',
  server: { serve, farewell, plainBackend: true },
  client,
};
