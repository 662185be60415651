/**
 * The codec of the pool protocol: one packet <-> one message. Everything that comes out of `decodeMessage` is exactly what the message
 * table says; everything else is an error that names the field.
 *
 * Fields that are not in the table: the pool refuses them, because a request that asks for something which the pool does not
 * understand must not be half obeyed; a client drops them, so that a newer pool may tell more.
 */
import { TlsPoolError } from './errors.js';
import { escapeText } from './escape.js';
import { defaultMaxMessageOctets, maxPacketMessages } from './messages.js';
import type { Message, MessageType } from './messages.js';
import { text } from './schema.js';
import { maxOpOctets, messageSpec, messageSpecs, messageTypes, unknownOp } from './table.js';
import type { Direction, MessageSpec, ToClientMessage, ToPoolMessage } from './table.js';
import { wireTracer } from './trace.js';
import { compile, widener } from './validate.js';
import type { Check, UnknownFields } from './validate.js';
import { mapEnds, packMap, peekFields, unpackMap, unpackScanned } from './wire.js';

interface Encoding { readonly check: Check; readonly widen: ((value: unknown) => unknown) | undefined }
type Compiled<T> = ReadonlyMap<MessageType, ReadonlyMap<string, T>>;

const errorSpec = messageSpec('error', '');
const maxId = 0xffff_ffff;

function compileAll<T>(make: (spec: MessageSpec) => T): Compiled<T> {
  return new Map(Object.entries(messageSpecs).map(([type, specs]) =>
    [type as MessageType, new Map([...specs].map(([op, spec]) => [op, make(spec)] as const))] as const));
}

const bodyChecks: { readonly [D in Direction]: { readonly checks: Compiled<Check>; readonly error: Check; readonly unknownFields: UnknownFields } } = {
  toPool: { checks: compileAll(({ body }) => compile(body, 'refuse')), error: compile(errorSpec.body, 'refuse'), unknownFields: 'refuse' },
  toClient: { checks: compileAll(({ body }) => compile(body, 'drop')), error: compile(errorSpec.body, 'drop'), unknownFields: 'drop' },
};
const encodings = compileAll(({ body }): Encoding => ({ check: compile(body, 'refuse'), widen: widener(body) }));
const errorEncoding: Encoding = { check: compile(errorSpec.body, 'refuse'), widen: undefined };

/** The op of an `error` may be any, because it repeats what was asked. */
const checkOp = compile(text(maxOpOctets), 'refuse');

const trace = wireTracer(process.env['TLSPOOL_TRACE']);

function bad(field: string, text: string): TlsPoolError {
  return new TlsPoolError('BAD_MESSAGE', { text: `${field} ${text}`, field });
}

function tooLarge(octets: number, maxOctets: number): TlsPoolError {
  return new TlsPoolError('MESSAGE_TOO_LARGE', { text: `the message has ${octets} octets; at most ${maxOctets} are accepted` });
}

function isMessageType(type: unknown, direction: Direction): type is MessageType {
  return typeof type === 'string' && (messageTypes[direction] as readonly string[]).includes(type);
}

/** Checks type, op, id and the fields beside them; returns the check of the body. */
function checkEnvelope(envelope: Record<string, unknown>, direction: Direction): Check {
  const { type, op, id } = envelope;
  if (!isMessageType(type, direction)) throw bad('type', `must be one of ${messageTypes[direction].join(', ')}`);
  if (typeof op !== 'string' || op === '') throw bad('op', 'must be text');
  if (op.length > maxOpOctets || Buffer.byteLength(op) > maxOpOctets) throw bad('op', `is longer than ${maxOpOctets} octets`);
  if (type === 'event') {
    if (id !== undefined) throw bad('id', 'is there, but an event has none');
  } else if (typeof id !== 'number' || id > maxId) throw bad('id', `must be an integer from 0 to ${maxId}`);
  const { checks, error, unknownFields } = bodyChecks[direction];
  const check = type === 'error' ? error : checks.get(type)?.get(op);
  if (check === undefined) throw unknownOp(type, op);
  if (envelope['body'] === undefined) throw bad('body', 'is missing');
  for (const key of Object.keys(envelope)) {
    if (key === 'type' || key === 'op' || key === 'id' || key === 'body') continue;
    if (unknownFields === 'refuse') throw bad(escapeText(key), 'is not a field of a message');
    delete envelope[key];
  }
  return check;
}

/**
 * Decodes one packet. `packet` belongs to the message afterwards: binary values are views of it.
 * @param direction who is reading: the pool (`toPool`) or a client of it (`toClient`)
 * @param maxOctets cap on the packet, default 65,536
 * @throws TlsPoolError MESSAGE_TOO_LARGE; UNKNOWN_OP; BAD_MESSAGE with `field`. For the error reply, ask `peekEnvelope` for type, op and id.
 */
export function decodeMessage(packet: Uint8Array, direction: 'toPool', maxOctets?: number): ToPoolMessage;
export function decodeMessage(packet: Uint8Array, direction: 'toClient', maxOctets?: number): ToClientMessage;
export function decodeMessage(packet: Uint8Array, direction: Direction, maxOctets?: number): Message;
export function decodeMessage(packet: Uint8Array, direction: Direction, maxOctets = defaultMaxMessageOctets): Message {
  if (packet.length > maxOctets) throw tooLarge(packet.length, maxOctets);
  return checked(unpackMap(packet), direction);
}

/**
 * Decodes a packet of the pool: one message, or 2 to 32 `connection` and `closed` events. Throws as decodeMessage() does, and BAD_MESSAGE when
 * anything else shares a packet, an unknown event included: UNKNOWN_OP may be overlooked, and with it the connections beside it would be.
 */
export function decodePacket(packet: Uint8Array, maxOctets = defaultMaxMessageOctets): readonly ToClientMessage[] {
  if (packet.length > maxOctets) throw tooLarge(packet.length, maxOctets);
  const ends = mapEnds(packet, maxPacketMessages);
  if (ends.length === 1) return [checked(unpackScanned(packet), 'toClient') as ToClientMessage];
  return ends.map((end, index) => {
    const envelope = unpackScanned(packet.subarray(ends[index - 1] ?? 0, end));
    const { type, op } = envelope;
    if (type !== 'event' || (op !== 'connection' && op !== 'closed')) throw bad('op', 'is of a message that may not share a packet');
    return checked(envelope, 'toClient') as ToClientMessage;
  });
}

function checked(envelope: Record<string, unknown>, direction: Direction): Message {
  const fault = checkEnvelope(envelope, direction)(envelope['body']);
  if (fault !== undefined) throw bad(`body${fault.path}`, fault.text);
  const message = envelope as unknown as Message;
  trace?.('received', message);
  return message;
}

function encodingOf({ type, op }: Message): Encoding {
  const encoding = type === 'error' ? errorEncoding : encodings.get(type)?.get(op);
  if (encoding === undefined) throw unknownOp(type, op);
  return encoding;
}

function checkOwnEnvelope(message: Message): void {
  const wrong = (field: string, text: string): TlsPoolError => new TlsPoolError('BAD_ARGUMENT', { text: `${field} ${text}`, field });
  if (message.type === 'error') {
    const fault = message.op === '' ? { text: 'must not be empty' } : checkOp(message.op);
    if (fault !== undefined) throw wrong('op', fault.text);
  }
  if (message.type !== 'event' && !(Number.isInteger(message.id) && message.id >= 0 && message.id <= maxId)) {
    throw wrong('id', `must be an integer from 0 to ${maxId}`);
  }
}

/**
 * Encodes one message. It is checked in full, because that costs less than the packing and a mistake is best found by the one who made it.
 * @param maxOctets cap on the packet, default 65,536; a client uses the `maxMessageOctets` of the pool's hello
 * @throws TlsPoolError BAD_ARGUMENT with `field` when the message is not as the table says; UNKNOWN_OP; MESSAGE_TOO_LARGE
 */
export function encodeMessage(message: Message, maxOctets = defaultMaxMessageOctets): Buffer {
  const { check, widen } = encodingOf(message);
  checkOwnEnvelope(message);
  const fault = check(message.body);
  if (fault !== undefined) throw new TlsPoolError('BAD_ARGUMENT', { text: `body${fault.path} ${fault.text}`, field: `body${fault.path}` });
  const { type, op } = message;
  const body: unknown = widen === undefined ? message.body : widen(message.body);
  const packet = packMap(message.type === 'event' ? { type, op, body } : { type, op, id: message.id, body });
  if (packet.length > maxOctets) throw tooLarge(packet.length, maxOctets);
  trace?.('sent', message);
  return packet;
}

/** What could be read of the envelope of a packet. All of it is the sender's claim. */
export interface PeekedEnvelope {
  /** Absent when it is none of the six. */
  readonly type?: MessageType;
  /** At most 64 octets, so that it fits into an error reply. Not escaped. */
  readonly op?: string;
  /** Fit to be used as the id of an error reply. */
  readonly id?: number;
}

/**
 * Best effort on a packet that `decodeMessage` refused: enough to send an error reply where the id came before the
 * trouble (the usual order is type, op, id, body). Never throws.
 */
export function peekEnvelope(packet: Uint8Array): PeekedEnvelope {
  const fields = peekFields(packet);
  const type = fields.get('type');
  const op = fields.get('op');
  const id = fields.get('id');
  return {
    ...(isMessageType(type, 'toPool') || isMessageType(type, 'toClient') ? { type } : {}),
    ...(typeof op === 'string' && op !== '' && Buffer.byteLength(op) <= maxOpOctets ? { op } : {}),
    ...(typeof id === 'number' && id <= maxId ? { id } : {}),
  };
}
