/**
 * PEM (RFC 7468) by octets. Keys never become JavaScript strings here: a string cannot be wiped. Errors name file and line.
 */
import { TlsPoolError } from 'libtlspool/protocol';

export interface PemBlock {
  /** Such as `CERTIFICATE`. */
  readonly label: string;
  /** 1-based line of the BEGIN. */
  readonly line: number;
  /** The block with its BEGIN and END lines: a view of the input, not a copy. */
  readonly octets: Buffer;
  /** RFC 1421 headers are there, as in an encrypted key of the old kind. */
  readonly hasHeaders: boolean;
}

function bad(file: string, line: number, text: string): TlsPoolError {
  return new TlsPoolError('IDENTITY_BAD', { text: `${file}:${line}: ${text}` });
}

const dashes = Buffer.from('-----');
const alphabet = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/');
const pad = 0x3d;
const base64 = new Set([...alphabet, pad]);
/** RFC 7468 section 2: 64 characters a line, which are 48 octets. */
const lineOctets = 48;
const colon = 0x3a;
const byteOrderMark = Buffer.from([0xef, 0xbb, 0xbf]);
/** CR, space, tab. */
const blanks: readonly number[] = [0x0d, 0x20, 0x09];

/** Lines with their offsets; LF or CRLF, blanks at the end do not count. */
function* linesOf(octets: Buffer): Generator<{ number: number; start: number; end: number; next: number }> {
  // Editors that save "UTF-8 with BOM" put a mark before the first line.
  for (let start = octets.subarray(0, byteOrderMark.length).equals(byteOrderMark) ? byteOrderMark.length : 0, number = 1; start < octets.length; number++) {
    const newline = octets.indexOf(0x0a, start);
    const next = newline === -1 ? octets.length : newline + 1;
    let end = newline === -1 ? octets.length : newline;
    while (end > start && blanks.includes(octets.readUInt8(end - 1))) end--;
    yield { number, start, end, next };
    start = next;
  }
}

/** The label of a BEGIN or END line; undefined for every other line. */
function boundary(line: Buffer): { word: 'BEGIN' | 'END'; label: string } | undefined {
  if (!line.subarray(0, 5).equals(dashes)) return undefined;
  const [, word, label = ''] = /^-----(BEGIN|END) ([A-Z0-9 ]{1,64})-----$/.exec(line.toString('latin1')) ?? [];
  return word === undefined ? undefined : { word: word as 'BEGIN' | 'END', label };
}

/**
 * All blocks of a file, in order. Text between blocks is skipped, as OpenSSL does. Throws IDENTITY_BAD with file and line
 * for a block that does not end, ends as something else, or holds what is no base64; for a file without any block too.
 */
export function pemBlocks(octets: Buffer, file: string): readonly PemBlock[] {
  const blocks: PemBlock[] = [];
  let open: { label: string; line: number; start: number; hasHeaders: boolean } | undefined;
  for (const { number, start, end, next } of linesOf(octets)) {
    const line = octets.subarray(start, end);
    const edge = boundary(line);
    if (open === undefined) {
      if (edge?.word === 'END') throw bad(file, number, `END ${edge.label} without its BEGIN; the file is damaged`);
      if (edge !== undefined) open = { label: edge.label, line: number, start, hasHeaders: false };
      continue;
    }
    if (edge?.word === 'BEGIN') throw bad(file, number, `BEGIN ${edge.label} inside the block that began on line ${open.line}; its END line is missing`);
    if (edge !== undefined) {
      if (edge.label !== open.label) throw bad(file, number, `END ${edge.label} closes the ${open.label} that began on line ${open.line}; the file is damaged`);
      blocks.push({ label: open.label, line: open.line, octets: octets.subarray(open.start, next), hasHeaders: open.hasHeaders });
      open = undefined;
    } else if (line.includes(colon)) {
      open.hasHeaders = true;
    } else if (!open.hasHeaders && !line.every((octet) => base64.has(octet))) {
      throw bad(file, number, `not base64, inside the ${open.label} that began on line ${open.line}; the file is damaged`);
    }
  }
  if (open !== undefined) throw bad(file, open.line, `BEGIN ${open.label} without its END; the file was cut short`);
  if (blocks.length === 0) throw bad(file, 1, emptyReason(octets));
  return blocks;
}

/** DER as PEM, in a buffer of its own (never the shared pool) and without a string: for keys, which are wiped. */
export function toPem(label: string, der: Buffer): Buffer {
  const begin = `-----BEGIN ${label}-----\n`;
  const end = `-----END ${label}-----\n`;
  const lines = Math.ceil(der.length / lineOctets);
  const pem = Buffer.alloc(begin.length + Math.ceil(der.length / 3) * 4 + lines + end.length);
  let at = pem.write(begin, 'latin1');
  for (let from = 0; from < der.length; from += 3) {
    const left = der.length - from;
    const bits = der.readUInt8(from) << 16 | (left > 1 ? der.readUInt8(from + 1) : 0) << 8 | (left > 2 ? der.readUInt8(from + 2) : 0);
    for (const [index, shift] of [18, 12, 6, 0].entries()) {
      at = pem.writeUInt8(index <= left ? alphabet.readUInt8(bits >> shift & 63) : pad, at);
    }
    if ((from + 3) % lineOctets === 0 || left <= 3) at = pem.writeUInt8(0x0a, at);
  }
  pem.write(end, at, 'latin1');
  return pem;
}

function emptyReason(octets: Buffer): string {
  if (octets.length === 0) return 'the file is empty';
  if (octets[0] === 0x30) return 'the file looks like DER; convert it to PEM, for example with: openssl x509 -inform der, or openssl pkey -inform der';
  return 'no PEM block (-----BEGIN ...-----) in the file';
}
