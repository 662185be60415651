/**
 * The pool protocol's message table: the one definition that both ends, docs/protocol.md and the fuzz tests use.
 *
 * One SOCK_SEQPACKET packet is one message: a MessagePack map {type, op, id?, body}. Only `connection` and `closed` events may share a
 * packet, back to back: a busy pool reports many connections with one system call and one wake-up. In such a packet each
 * `connection` has exactly one descriptor, in order. Events of a later version travel alone, so that a client which does not
 * know them can leave them out without losing a connection.
 *   request   client -> pool    exactly one `reply` or `error` with the same op and id comes back
 *   callback  pool -> client    the pool asks; the client sends exactly one `answer` or `error` with the same op and id
 *   event     either way it is sent by the pool, has no id, and is not answered
 * `fds` names the descriptors that ride along, in order; a name that ends in `?` may be absent.
 */
import { counters, ctlkey, endpoint, name, preamble, sessionInfo } from './bodies.js';
import type { backend, clientAuth } from './bodies.js';
import type { requests } from './requests.js';
import { bin, bool, list, map, optional, secret, text, uint, word } from './schema.js';
import type { MapShape, ValueOf } from './schema.js';

export { backend, ctlkeyOctets, endpoint, preamble, sessionInfo } from './bodies.js';
export { requests } from './requests.js';

/** The version of the protocol that this package speaks. */
export const protocolVersion = 1;
/** Default cap on one message, in octets, without descriptors. */
export const defaultMaxMessageOctets = 65_536;
/** No pool has a higher cap: a packet must fit into the buffer of a socket as a whole (net.core.wmem_default, 212,992 octets on most hosts). */
export const highestMaxMessageOctets = 131_072;
/** No message carries more descriptors than this. */
export const maxMessageFds = 4;
/** Most events, and so most descriptors, in one packet from the pool. */
export const maxPacketMessages = 32;

/** Callbacks: the pool asks, the client answers. */
export const callbacks = {
  servername: {
    callback: {
      body: map({
        /** One of these: the `starttls` request, by its id, or the listener that the handshake belongs to. */
        request: optional(uint()), listener: optional(uint()),
        servername: optional(name), alpn: list(text(255), 64), remote: optional(endpoint),
      }),
      fds: [],
    },
    answer: {
      body: map({
        refuse: optional(bool()), localid: optional(name),
        /** Replaces the application protocols of this one handshake; empty: none is negotiated. */
        alpn: optional(list(text(255), 32)),
      }),
      fds: ['plainfd?'],
    },
    doc: 'May this SNI name be served, under which localid, and on which plain-text socket? An empty answer: yes, choose by SNI.',
  },
  plainside: {
    callback: {
      body: map({
        /** One of these: the `starttls` request, by its id, or the listener that the session belongs to. */
        request: optional(uint()), listener: optional(uint()), ctlkey, info: sessionInfo,
      }),
      fds: [],
    },
    answer: { body: map({ refuse: optional(bool()) }), fds: ['plainfd?'] },
    doc: 'The handshake is done: which plain-text socket belongs to the session? An empty answer without descriptor: the pool makes a socket pair. The deadline is that of the handshake, counted anew.',
  },
  identity: {
    callback: {
      body: map({
        /** Whom the session will be with; absent where the program does not verify it. */
        remoteid: optional(name),
        /** Identities that the program may use as a TLS client, in the order of their names. */
        candidates: list(map({ localid: name, subject: optional(text(512)), notAfterMs: optional(uint(Number.MAX_SAFE_INTEGER)) }), 256),
        /** The program that asked for the session. */
        pid: uint(),
      }),
      fds: [],
    },
    answer: {
      body: map({
        refuse: optional(bool()),
        /** One of the candidates; absent: no identity of our own. */
        localid: optional(name),
        /** Seconds for which the same answer holds for this user and remote, at most a year. Default: this once. */
        rememberS: optional(uint(31_536_000)),
      }),
      fds: [],
    },
    doc: 'To the chooser of the user: which identity shall an outgoing session without a localid use? Asked before the handshake, which waits; `refuse`, silence and the end of the chooser refuse it.',
  },
  pin: {
    callback: {
      body: map({
        localid: name,
        /** Where the locked key is. */
        source: text(4096),
        /** From 1; a wrong PIN is asked for again up to three times. */
        attempt: uint(),
      }),
      fds: [],
    },
    answer: { body: map({ refuse: optional(bool()), pin: optional(secret(256)) }), fds: [] },
    doc: 'To the PIN entry: what unlocks the key of this identity?',
  },
} as const;

/** Events: from the pool, never answered. */
export const events = {
  connection: {
    body: map({ listener: uint(), ctlkey, info: sessionInfo, preamble: optional(preamble) }), fds: ['plainfd?'],
    doc: 'A connection was accepted and its handshake is done. No descriptor when the pool connected it to a backend itself, or was given its plain-text side by the answer to `plainside`.',
  },
  plainConnection: {
    body: map({
      preamble, remote: optional(endpoint), local: optional(endpoint),
      /** Octets of the client that the proxy has read and that come before what is in the socket. */
      ahead: optional(bin(32_768)),
    }),
    fds: ['plainfd'],
    doc: 'Hand-off sockets only: a connection of an opportunistic service whose client did not ask for TLS. It has no session and no control key; a pool never sends it.',
  },
  closed: {
    body: map({
      ctlkey,
      /** closed: close_notify both ways or ended from our side; truncated: end of stream without close_notify (RFC 8446 section 6.1). */
      how: word('closed', 'truncated', 'reset', 'alert', 'error', 'timeout', 'revoked', 'drained'),
      /** RFC 8446 section 6 description of an alert received. */
      alert: optional(uint(255)),
      detail: optional(text(512)),
      ...counters,
    }),
    fds: [],
    doc: 'A session that this client owns has ended. Sent before the plain-text side is closed.',
  },
  listenerClosed: {
    body: map({ listener: uint(), code: text(64), text: text(1024) }), fds: [],
    doc: 'The pool can no longer accept on this listener.',
  },
  drain: {
    body: map({ deadlineMs: uint() }), fds: [],
    doc: 'The pool is going down: nothing new is accepted, sessions may finish until the deadline. On a hand-off socket: the proxy ends, and has detached the session, which goes on.',
  },
} as const;

/** The body of `error`, in either direction. */
export const errorBody = map({ code: text(64), text: text(2048), field: optional(text(256)) });

/** Operations that a client asks for. */
export type RequestOp = keyof typeof requests;
/** Operations that the pool asks for. */
export type CallbackOp = keyof typeof callbacks;
/** Events that the pool sends. */
export type EventOp = keyof typeof events;

/** Body of a request. */
export type RequestBody<Op extends RequestOp> = ValueOf<(typeof requests)[Op]['request']['body']>;
/** Body of the reply to a request. */
export type ReplyBody<Op extends RequestOp> = ValueOf<(typeof requests)[Op]['reply']['body']>;
/** Body of a callback. */
export type CallbackBody<Op extends CallbackOp> = ValueOf<(typeof callbacks)[Op]['callback']['body']>;
/** Body of the answer to a callback. */
export type AnswerBody<Op extends CallbackOp> = ValueOf<(typeof callbacks)[Op]['answer']['body']>;
/** Body of an event. */
export type EventBody<Op extends EventOp> = ValueOf<(typeof events)[Op]['body']>;
/** Body of an error, in either direction. */
export type ErrorBody = ValueOf<typeof errorBody>;
/** What is known of an established session. Certificates are DER. */
export type SessionInfo = ValueOf<typeof sessionInfo>;
/** Where a socket is bound or connected. For `unix`, address is the path (empty: unnamed) and port 0. */
export type Endpoint = ValueOf<typeof endpoint>;
/** What a proxy tells the backend of the plain-text phase that came before. */
export type PreambleInfo = ValueOf<typeof preamble>;
/** A plain-text service that the pool connects to: `path`, or `host` and `port`. */
export type Backend = ValueOf<typeof backend>;
/** Client certificates: not asked for, asked for, required. */
export type ClientAuth = ValueOf<typeof clientAuth>;

/** One decoded message, of any type. */
export type Message =
  | { [Op in RequestOp]: { readonly type: 'request'; readonly op: Op; readonly id: number; readonly body: RequestBody<Op> } }[RequestOp]
  | { [Op in RequestOp]: { readonly type: 'reply'; readonly op: Op; readonly id: number; readonly body: ReplyBody<Op> } }[RequestOp]
  | { [Op in CallbackOp]: { readonly type: 'callback'; readonly op: Op; readonly id: number; readonly body: CallbackBody<Op> } }[CallbackOp]
  | { [Op in CallbackOp]: { readonly type: 'answer'; readonly op: Op; readonly id: number; readonly body: AnswerBody<Op> } }[CallbackOp]
  | { [Op in EventOp]: { readonly type: 'event'; readonly op: Op; readonly body: EventBody<Op> } }[EventOp]
  | { readonly type: 'error'; readonly op: string; readonly id: number; readonly body: ErrorBody };

/** The six types of messages. */
export type MessageType = Message['type'];
/** A map of whatever fields. */
export type AnyMap = MapShape;
