/**
 * The frame of the V2 dialect: 388 octets, whatever they mean. One table says where each field is; reading and writing come from it.
 *
 * Integers are in the order of the host, because both ends are processes of one machine and the original put a C struct on the wire. A frame is only ever
 * changed by `patch`, field by field: what no field covers stays what the client itself has sent. There is no buffer that two clients share.
 */
import { endianness } from 'node:os';

/** Octets of every message, both ways. */
export const frameOctets = 388;

interface IntegerField { readonly kind: 'u16' | 'u32' | 'i16' | 'i32'; readonly at: number; readonly size: number }
interface OctetsField { readonly kind: 'octets'; readonly at: number; readonly size: number }
/** Text that ends at its first NUL, which always has room; UTF-8. */
interface TextField { readonly kind: 'cstring'; readonly at: number; readonly size: number }
type Field = IntegerField | OctetsField | TextField;

const u16 = (at: number): IntegerField => ({ kind: 'u16', at, size: 2 });
const i16 = (at: number): IntegerField => ({ kind: 'i16', at, size: 2 });
const u32 = (at: number): IntegerField => ({ kind: 'u32', at, size: 4 });
const i32 = (at: number): IntegerField => ({ kind: 'i32', at, size: 4 });
const octets = (at: number, size: number): OctetsField => ({ kind: 'octets', at, size });
const cstring = (at: number, size: number): TextField => ({ kind: 'cstring', at, size });

/** `head` is in every frame; which of the other arms there is follows from `cmd`. */
export const arms = {
  head: { reqid: u16(0), cbid: u16(2), cmd: u32(4) },
  error: { tlserrno: i32(8), message: cstring(12, 128) },
  ping: { producer: cstring(8, 136), facilities: u32(144) },
  starttls: {
    flags: u32(8), local: u32(12), ipproto: octets(16, 1), streamid: u16(18), localid: cstring(20, 128), remoteid: cstring(148, 128),
    ctlkey: octets(276, 16), service: octets(292, 16), timeout: u32(308),
  },
  pinentry: {
    flags: u32(8), attempt: u32(12), timeoutUs: u32(16),
    // Octets, because text could not be wiped.
    pin: octets(20, 128), prompt: cstring(148, 128),
    tokenManuf: cstring(276, 36), tokenModel: cstring(312, 20), tokenSerial: cstring(332, 20), tokenLabel: cstring(352, 36),
  },
  lidentry: { flags: u32(8), maxlevels: u16(12), timeout: u32(14), localid: cstring(18, 128), remoteid: cstring(146, 128) },
  control: { flags: u32(8), ctlkey: octets(12, 16), name: cstring(28, 128) },
  prng: { in1Len: i16(8), in2Len: i16(10), prngLen: i16(12), buffer: octets(14, 350) },
  info: { ctlkey: octets(8, 16), kind: u32(24), len: u16(28), buffer: octets(30, 334) },
} as const satisfies Record<string, Record<string, Field>>;

export type Arm = keyof typeof arms;
type ValueOf<F> = F extends IntegerField ? number : F extends TextField ? string : Buffer;
/** The fields of one arm. Octets are a view of the frame. */
export type Fields<A extends Arm> = { -readonly [F in keyof (typeof arms)[A]]: ValueOf<(typeof arms)[A][F]> };

/** What each command is called; the numbers are those of the C header. */
export const commands = {
  SUCCESS: 0x00, ERROR: 0x01, PING: 0x10, STARTTLS: 0x24, STARTTLS_LOCALID: 0x28, PINENTRY: 0x29, PLAINTEXT_CONNECT: 0x2a, PRNG: 0x2b, INFO: 0x2c,
  CONTROL_DETACH: 0x100, CONTROL_REATTACH: 0x101, LIDENTRY_REGISTER: 0x200, LIDENTRY_CALLBACK: 0x201,
} as const;
export type Command = (typeof commands)[keyof typeof commands];

export interface Codec {
  /** Reads one arm. Never throws: every octet string of this length has a meaning, or is nobody's business. */
  read<A extends Arm>(frame: Buffer, arm: A): Fields<A>;
  /**
   * Writes these fields of an arm and nothing else. Text is cut at a character and gets its NUL; what follows stays. Octets may be shorter than their
   * field, not longer (RangeError); integers must be in range (RangeError).
   */
  patch<A extends Arm>(frame: Buffer, arm: A, fields: Partial<Fields<A>>): void;
}

/** Reading and writing in one order of octets. */
export function makeCodec(order: 'LE' | 'BE'): Codec {
  const integers = integerAccess[order];
  return {
    read: <A extends Arm>(frame: Buffer, arm: A) => Object.fromEntries(Object.entries<Field>(arms[arm]).map(([name, field]) => [name, readField(frame, field, integers)])) as Fields<A>,
    patch: (frame, arm, values) => {
      const table: Readonly<Record<string, Field>> = arms[arm];
      for (const [name, value] of Object.entries<unknown>(values)) {
        const field = table[name];
        if (field !== undefined) writeField(frame, field, value, integers);
      }
    },
  };
}

interface IntegerAccess {
  readonly read: Readonly<Record<IntegerField['kind'], (frame: Buffer, at: number) => number>>;
  readonly write: Readonly<Record<IntegerField['kind'], (frame: Buffer, at: number, value: number) => void>>;
}

const integerAccess: Readonly<Record<'LE' | 'BE', IntegerAccess>> = {
  LE: {
    read: { u16: (f, at) => f.readUInt16LE(at), i16: (f, at) => f.readInt16LE(at), u32: (f, at) => f.readUInt32LE(at), i32: (f, at) => f.readInt32LE(at) },
    write: { u16: (f, at, v) => { f.writeUInt16LE(v, at); }, i16: (f, at, v) => { f.writeInt16LE(v, at); }, u32: (f, at, v) => { f.writeUInt32LE(v, at); }, i32: (f, at, v) => { f.writeInt32LE(v, at); } },
  },
  BE: {
    read: { u16: (f, at) => f.readUInt16BE(at), i16: (f, at) => f.readInt16BE(at), u32: (f, at) => f.readUInt32BE(at), i32: (f, at) => f.readInt32BE(at) },
    write: { u16: (f, at, v) => { f.writeUInt16BE(v, at); }, i16: (f, at, v) => { f.writeInt16BE(v, at); }, u32: (f, at, v) => { f.writeUInt32BE(v, at); }, i32: (f, at, v) => { f.writeInt32BE(v, at); } },
  },
};

function readField(frame: Buffer, field: Field, integers: IntegerAccess): number | string | Buffer {
  const { kind, at, size } = field;
  if (kind === 'octets') return frame.subarray(at, at + size);
  if (kind !== 'cstring') return integers.read[kind](frame, at);
  const nul = frame.subarray(at, at + size).indexOf(0);
  // Without a NUL the field is text up to its end: the original would read on into the next one.
  return frame.toString('utf8', at, at + (nul < 0 ? size : nul));
}

function writeField(frame: Buffer, field: Field, value: unknown, integers: IntegerAccess): void {
  const { kind, at, size } = field;
  if (kind === 'octets') {
    const given = value as Uint8Array;
    if (given.length > size) throw new RangeError(`${given.length} octets do not fit into a field of ${size}`);
    frame.set(given, at);
  } else if (kind === 'cstring') {
    const octetsOf = cutText(value as string, size - 1);
    frame.set(octetsOf, at);
    frame[at + octetsOf.length] = 0;
  } else {
    integers.write[kind](frame, at, value as number);
  }
}

/** At most so many octets of UTF-8, whole characters only, up to a NUL. */
function cutText(text: string, most: number): Buffer {
  const [upToNul = ''] = text.split('\0', 1);
  const whole = Buffer.from(upToNul, 'utf8');
  if (whole.length <= most) return whole;
  let end = most;
  // A continuation octet (10xxxxxx) belongs to the character before it.
  while (end > 0 && ((whole[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return whole.subarray(0, end);
}

/** The codec of this host. */
export const codec: Codec = makeCodec(endianness());
