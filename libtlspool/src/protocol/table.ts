/** The message table, looked up by type and op: what body and which descriptors a message has. */
import { TlsPoolError } from './errors.js';
import { escapeText } from './escape.js';
import { callbacks, errorBody, events, requests } from './messages.js';
import type { AnyMap, Message, MessageType } from './messages.js';

/** Who reads a message: the pool or its client. */
export type Direction = 'toPool' | 'toClient';

/** One kind of message. */
export interface MessageSpec {
  /** Shape of its body. */
  readonly body: AnyMap;
  /** Names of the descriptors, in order; one that ends in `?` may be absent. */
  readonly fds: readonly string[];
}

/** Messages that the pool reads. */
export type ToPoolMessage = Extract<Message, { type: 'request' | 'answer' | 'error' }>;
/** Messages that a client of the pool reads. */
export type ToClientMessage = Extract<Message, { type: 'reply' | 'callback' | 'event' | 'error' }>;

/** The types that travel in each direction. */
export const messageTypes: { readonly [D in Direction]: readonly MessageType[] } = {
  toPool: ['request', 'answer', 'error'],
  toClient: ['reply', 'callback', 'event', 'error'],
};

/** Octets of an `op`; also of one that is unknown and echoed in an error. */
export const maxOpOctets = 64;

type Row = readonly [op: string, spec: MessageSpec];
const rows = <T>(table: Readonly<Record<string, T>>, spec: (entry: T) => MessageSpec): Map<string, MessageSpec> =>
  new Map(Object.entries(table).map(([op, entry]): Row => [op, spec(entry)]));

/** Every message of the protocol but `error`, which may name any op. Maps, so that no op is found on a prototype. */
export const messageSpecs: { readonly [T in Exclude<MessageType, 'error'>]: ReadonlyMap<string, MessageSpec> } = {
  request: rows<{ request: MessageSpec }>(requests, ({ request }) => request),
  reply: rows<{ reply: MessageSpec }>(requests, ({ reply }) => reply),
  callback: rows<{ callback: MessageSpec }>(callbacks, ({ callback }) => callback),
  answer: rows<{ answer: MessageSpec }>(callbacks, ({ answer }) => answer),
  event: rows<MessageSpec>(events, (event) => event),
};

const errorSpec: MessageSpec = { body: errorBody, fds: [] };

/** Throws TlsPoolError UNKNOWN_OP. */
export function messageSpec(type: MessageType, op: string): MessageSpec {
  const spec = type === 'error' ? errorSpec : messageSpecs[type].get(op);
  if (spec === undefined) throw unknownOp(type, op);
  return spec;
}

/** The error for an op that is not in the table; the op is escaped. */
export function unknownOp(type: MessageType, op: string): TlsPoolError {
  return new TlsPoolError('UNKNOWN_OP', { text: `there is no ${type} "${escapeText(op)}" in this version of the protocol`, field: 'op' });
}

/** How many descriptors ride along with a message: at least `min`, at most `max`, in the order of `names` (without the `?`). */
export interface FdRange {
  /** Fewest. */
  readonly min: number;
  /** Most. */
  readonly max: number;
  /** Without the `?`. */
  readonly names: readonly string[];
}

/** Throws TlsPoolError UNKNOWN_OP. */
export function fdRange(type: MessageType, op: string): FdRange {
  const { fds } = messageSpec(type, op);
  return { min: fds.filter((name) => !name.endsWith('?')).length, max: fds.length, names: fds.map((name) => name.replace('?', '')) };
}

/**
 * Throws TlsPoolError FD_COUNT when `count` descriptors are not what the message takes (UNKNOWN_OP when there is no such message). It does
 * not close them: they are still the caller's.
 */
export function checkFds(type: MessageType, op: string, count: number): void {
  const { fds } = messageSpec(type, op);
  let min = fds.length;
  while (min > 0 && fds[min - 1]?.endsWith('?') === true) min--;
  if (count >= min && count <= fds.length) return;
  const wanted = min === fds.length ? `${min}` : `${min} to ${fds.length}`;
  const named = fds.length === 0 ? '' : ` (${fds.join(', ')})`;
  throw new TlsPoolError('FD_COUNT', { text: `${type} ${escapeText(op)} came with ${count} descriptors; it takes ${wanted}${named}`, field: 'fds' });
}
