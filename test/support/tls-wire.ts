/** TLS records and the ClientHello as data, to be built right or wrong (RFC 8446 sections 4.1.2 and 5.1). */

export const contentType = { changeCipherSpec: 20, alert: 21, handshake: 22, applicationData: 23 } as const;
export const handshakeType = { clientHello: 1, serverHello: 2, finished: 20, keyUpdate: 24 } as const;

/** Names of the alerts that tests speak of (RFC 8446 section 6). */
export const alertDescription = {
  closeNotify: 0, unexpectedMessage: 10, badRecordMac: 20, recordOverflow: 22, handshakeFailure: 40, decodeError: 50,
  protocolVersion: 70, noRenegotiation: 100, unrecognizedName: 112,
} as const;

export function u16(value: number): Buffer {
  return Buffer.from([(value >> 8) & 0xff, value & 0xff]);
}

/** A vector with a length prefix of 1, 2 or 3 octets. */
export function vector(prefixOctets: 1 | 2 | 3, content: Uint8Array): Buffer {
  const prefix = Buffer.alloc(prefixOctets);
  prefix.writeUIntBE(content.length & (2 ** (8 * prefixOctets) - 1), 0, prefixOctets);
  return Buffer.concat([prefix, content]);
}

export function record(type: number, content: Uint8Array, version = 0x0303): Buffer {
  return Buffer.concat([Buffer.from([type]), u16(version), vector(2, content)]);
}

export function handshake(type: number, body: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([type]), vector(3, body)]);
}

export interface Extension { readonly type: number; readonly data: Buffer }

export const extension = (type: number, data: Buffer): Extension => ({ type, data });

/** The data of a server_name extension (RFC 6066 section 3). */
export function hostName(name: string): Buffer {
  return vector(2, Buffer.concat([Buffer.from([0]), vector(2, Buffer.from(name, 'latin1'))]));
}

export interface ClientHello {
  readonly version?: number;
  readonly random: Buffer;
  readonly sessionId: Buffer;
  readonly suites: readonly number[];
  readonly compression: Buffer;
  /** Undefined: the hello ends before the extensions. */
  readonly extensions: readonly Extension[] | undefined;
}

export function encodeExtensions(extensions: readonly Extension[]): Buffer {
  return vector(2, Buffer.concat(extensions.map(({ type, data }) => Buffer.concat([u16(type), vector(2, data)]))));
}

/** A ClientHello handshake message. */
export function clientHello(hello: ClientHello): Buffer {
  return handshake(handshakeType.clientHello, Buffer.concat([
    u16(hello.version ?? 0x0303), hello.random, vector(1, hello.sessionId), vector(2, Buffer.concat(hello.suites.map(u16))), vector(1, hello.compression),
    hello.extensions === undefined ? Buffer.alloc(0) : encodeExtensions(hello.extensions),
  ]));
}

/** Reads a well-formed ClientHello handshake message, as a client just sent it. */
export function parseClientHello(message: Buffer): ClientHello {
  let at = 4;
  const take = (octets: number): Buffer => message.subarray(at, at += octets);
  const takeVector = (prefix: number): Buffer => take(take(prefix).readUIntBE(0, prefix));
  const version = take(2).readUInt16BE();
  const random = take(32);
  const sessionId = takeVector(1);
  const suiteOctets = takeVector(2);
  const suites = Array.from({ length: suiteOctets.length / 2 }, (_unused, index) => suiteOctets.readUInt16BE(index * 2));
  const compression = takeVector(1);
  const end = at + 2 + take(2).readUInt16BE();
  const extensions: Extension[] = [];
  while (at < end) extensions.push({ type: take(2).readUInt16BE(), data: takeVector(2) });
  return { version, random, sessionId, suites, compression, extensions };
}

export interface PlainRecord { readonly type: number; readonly version: number; readonly body: Buffer }

/** Splits octets into whole records; a part of a record at the end is left out. */
export function parseRecords(octets: Buffer): PlainRecord[] {
  const records: PlainRecord[] = [];
  let at = 0;
  while (at + 5 <= octets.length) {
    const length = octets.readUInt16BE(at + 3);
    if (at + 5 + length > octets.length) break;
    records.push({ type: octets[at] ?? 0, version: octets.readUInt16BE(at + 1), body: octets.subarray(at + 5, at + 5 + length) });
    at += 5 + length;
  }
  return records;
}
