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
import { bin, bool, list, map, optional, secret, text, uint, word } from './schema.js';
import type { MapShape, ValueOf } from './schema.js';

/** The version of the protocol that this package speaks. */
export const protocolVersion = 1;
/** Octets in a control key. */
export const ctlkeyOctets = 16;
/** Default cap on one message, in octets, without descriptors. */
export const defaultMaxMessageOctets = 65_536;
/** No pool has a higher cap: a packet must fit into the buffer of a socket as a whole (net.core.wmem_default, 212,992 octets on most hosts). */
export const highestMaxMessageOctets = 131_072;
/** No message carries more descriptors than this. */
export const maxMessageFds = 4;
/** Most events, and so most descriptors, in one packet from the pool. */
export const maxPacketMessages = 32;

const name = text(255);
const ctlkey = secret(ctlkeyOctets, ctlkeyOctets);
const none = map({});

/** Where a socket is bound or connected. For `unix`, address is the path (empty: unnamed) and port 0. */
export const endpoint = map({ family: word('IPv4', 'IPv6', 'unix'), address: text(255), port: uint(65_535) });

/** A plain-text service that the pool itself connects to. Needs the `backend` permission. */
export const backend = map({ host: optional(name), port: optional(uint(65_535)), path: optional(text(107)) });

/** What is known of an established session. Certificates are DER. */
export const sessionInfo = map({
  role: word('server', 'client'),
  protocol: word('TLSv1.2', 'TLSv1.3'),
  /** IANA name, such as TLS_AES_128_GCM_SHA256. */
  cipher: text(64),
  /** The name that OpenSSL and Node's getCipher() use. */
  cipherName: text(64),
  /** Key-exchange group, such as X25519MLKEM768; absent where it is not known. */
  group: optional(text(64)),
  alpn: optional(text(255)),
  servername: optional(name),
  /** The identity that was used on our side; absent for a client without one. */
  localid: optional(name),
  /** The identity's revision at the time of the handshake. */
  revision: optional(uint()),
  resumed: bool(),
  /** True only when a certificate of the peer was verified against the identity's trust. */
  authorized: bool(),
  /** X.509 verification code in OpenSSL's spelling, such as CERT_HAS_EXPIRED. */
  authorizationError: optional(text(64)),
  /** Leaf first. On resumption only the leaf is known. Issuers at the end of the chain are left out where they do not fit into the message. */
  peerCertificates: list(bin(32_768), 16),
  /** Left out where it does not fit beside the leaf of the peer. */
  localCertificate: optional(bin(32_768)),
  remote: optional(endpoint),
  local: optional(endpoint),
});

/** What a proxy tells the backend of the plain-text phase that came before. Only in a hand-off; a pool never sends it. */
export const preamble = map({
  /** The protocol's name in the registry of preambles, such as `imap`; `none` where TLS came at once. */
  protocol: text(32),
  /** What a backend must know of that phase, in a form that the protocol defines. It was not protected: nothing to be trusted. */
  state: optional(bin(4096)),
  /** Is the connection protected now? */
  tls: bool(),
});

const clientAuth = word('none', 'request', 'require');

/** What a TLS server or client may ask for beside its identity; the policy of the identity is a floor that it cannot lower. */
const negotiation = {
  /** Identity to use. A server without it chooses by SNI among the identities that it may use. */
  localid: optional(name),
  /** Application protocols (RFC 7301), the server's most preferred first. */
  alpn: optional(list(text(255), 32)),
  /** Server role only. May raise what the identity's policy says, not lower it. */
  clientAuth: optional(clientAuth),
  /** False: a peer certificate that fails verification is reported, not refused. Never lowers `require` of the policy. */
  rejectUnauthorized: optional(bool()),
  /** Server role: ask by a `servername` callback before the identity is chosen. */
  askServername: optional(bool()),
  /** Ask by a `plainside` callback, once the handshake is done, for the plain-text socket. Not with `backend` or a plainfd. */
  askPlainside: optional(bool()),
  backend: optional(backend),
} as const;

const listenerInfo = map({ listener: uint(), local: endpoint });
const counters = { octetsReceived: uint(Number.MAX_SAFE_INTEGER), octetsSent: uint(Number.MAX_SAFE_INTEGER) } as const;

/** Requests: client to pool. `operator` ones need root or the daemon's own uid. */
export const requests = {
  hello: {
    request: { body: map({ versions: list(uint(65_535), 16), client: text(128) }), fds: [] },
    reply: { body: map({ version: uint(65_535), pool: text(128), maxMessageOctets: uint() }), fds: [] },
    operator: false,
    doc: 'First message on a connection: agree on the protocol version.',
  },
  ping: {
    request: { body: map({ payload: optional(bin(1024)) }), fds: [] },
    reply: { body: map({ payload: optional(bin(1024)), pool: text(128), pid: uint(), uptimeMs: uint(Number.MAX_SAFE_INTEGER) }), fds: [] },
    operator: false,
    doc: 'Is the pool alive? Echoes the payload.',
  },
  listen: {
    request: {
      body: map({
        ...negotiation, share: optional(text(64)),
        /** Send `connection` and `closed` events. Default: true without a backend; with one, nobody waits for them. */
        report: optional(bool()),
      }),
      fds: ['listenfd'],
    },
    reply: { body: listenerInfo, fds: [] },
    operator: false,
    doc: 'Hand over a listening TCP or UNIX stream socket. Each connection comes as a `connection` event. `share` names the listener so that other connections of the same uid may `join` it.',
  },
  join: {
    request: { body: map({ share: text(64) }), fds: [] },
    reply: { body: listenerInfo, fds: [] },
    operator: false,
    doc: 'Take a share of the connections of a listener that another process of the same uid handed over.',
  },
  unlisten: {
    request: { body: map({ listener: uint() }), fds: [] },
    reply: { body: none, fds: [] },
    operator: false,
    doc: 'Stop accepting for this client; the last one to leave closes the listening socket. Sessions go on.',
  },
  starttls: {
    request: {
      body: map({
        ...negotiation,
        role: word('server', 'client'),
        /** Client role: the name or address that the server\'s certificate must carry; sent as SNI when it is a name. */
        remoteid: optional(name),
        /** Client role: SNI to send instead of remoteid; the empty string sends none. */
        servername: optional(name),
        handshakeMs: optional(uint(3_600_000)),
        /** The session outlives the connection that started it. */
        fork: optional(bool()),
      }),
      fds: ['cryptfd', 'plainfd?'],
    },
    reply: { body: map({ ctlkey, info: sessionInfo }), fds: ['plainfd?'] },
    operator: false,
    doc: 'Protect a connected stream socket. Without plainfd and backend the reply carries one end of a new socket pair.',
  },
  prng: {
    request: { body: map({ ctlkey, label: text(255), context: optional(bin(16_384)), length: uint(4096) }), fds: [] },
    reply: { body: map({ octets: secret(4096) }), fds: [] },
    operator: false,
    doc: 'Keying material exporter (RFC 5705, RFC 8446 section 7.5).',
  },
  info: {
    request: { body: map({ ctlkey }), fds: [] },
    reply: {
      body: map({
        info: sessionInfo,
        /** Channel bindings: RFC 5929 (tls-unique on TLS 1.2 only) and RFC 9266. */
        tlsUnique: optional(bin(64)), tlsServerEndPoint: optional(bin(64)), tlsExporter: optional(bin(32)),
      }),
      fds: [],
    },
    operator: false,
    doc: 'Session information and channel bindings.',
  },
  detach: {
    request: { body: map({ ctlkey }), fds: [] },
    reply: { body: none, fds: [] },
    operator: false,
    doc: 'Give up control of a session without ending it.',
  },
  reattach: {
    request: { body: map({ ctlkey }), fds: [] },
    reply: { body: map({ info: sessionInfo }), fds: [] },
    operator: false,
    doc: 'Take control of a detached session.',
  },
  close: {
    request: { body: map({ ctlkey, abort: optional(bool()) }), fds: [] },
    reply: { body: none, fds: [] },
    operator: false,
    doc: 'End a session: close_notify both ways, or at once with `abort`.',
  },
  taken: {
    request: {
      body: map({
        /** Of the connection that was handed over; absent for a `plainConnection`, which has none. */
        ctlkey: optional(ctlkey),
      }),
      fds: [],
    },
    reply: {
      body: map({
        /** The proxy stays and passes requests about this session on to the pool. Otherwise it has detached the session and leaves. */
        relay: optional(bool()),
      }),
      fds: [],
    },
    operator: false,
    doc: 'Hand-off sockets only: the backend owns the connection from now on. A pool answers BAD_STATE.',
  },
  status: {
    request: { body: none, fds: [] },
    reply: {
      body: map({
        pool: text(128), pid: uint(), uptimeMs: uint(Number.MAX_SAFE_INTEGER), node: text(64), openssl: text(64), workers: uint(),
        state: word('running', 'draining'), socket: text(107), config: optional(text(4096)),
        clients: uint(), listeners: uint(), sessions: uint(), handshakes: uint(), identities: uint(),
        handshakesDone: uint(Number.MAX_SAFE_INTEGER), handshakesFailed: uint(Number.MAX_SAFE_INTEGER),
        handshakesResumed: uint(Number.MAX_SAFE_INTEGER), ...counters,
        /** Wall-clock milliseconds of the last reload that succeeded, and the text of one that failed since. */
        reloadedAtMs: optional(uint(Number.MAX_SAFE_INTEGER)), reloadError: optional(text(4096)),
      }),
      fds: [],
    },
    operator: true,
    doc: 'Counters and state of the pool.',
  },
  sessions: {
    request: { body: map({ after: optional(uint(Number.MAX_SAFE_INTEGER)), limit: optional(uint(500)) }), fds: [] },
    reply: {
      body: map({
        sessions: list(map({
          session: uint(Number.MAX_SAFE_INTEGER), role: word('server', 'client'), protocol: word('TLSv1.2', 'TLSv1.3'), cipher: text(64), group: optional(text(64)),
          alpn: optional(text(255)), servername: optional(name), localid: optional(name), revision: optional(uint()),
          resumed: bool(), authorized: bool(), subject: optional(text(512)), remote: optional(endpoint),
          /** Process and user of the client that owns the session; absent when it is detached. */
          ownerPid: optional(uint()), ownerUid: optional(uint()), startedAtMs: uint(Number.MAX_SAFE_INTEGER),
        }), 500),
        /** Pass as `after` to get the next page; absent on the last. */
        next: optional(uint(Number.MAX_SAFE_INTEGER)),
      }),
      fds: [],
    },
    operator: true,
    doc: 'Established sessions, a page at a time.',
  },
  identities: {
    request: { body: map({ after: optional(name) }), fds: [] },
    reply: {
      body: map({
        identities: list(map({
          localid: name, names: list(name, 256), revision: uint(), source: text(4096), policy: word('modern', 'intermediate'),
          clientAuth, isDefault: bool(),
          certificates: list(map({
            subject: text(512), issuer: text(512), serial: text(80), keyType: text(32), fingerprint: text(64),
            notBeforeMs: uint(Number.MAX_SAFE_INTEGER), notAfterMs: uint(Number.MAX_SAFE_INTEGER),
          }), 8),
          trustRoots: uint(),
        }), 1000),
        /** Pass as `after` to get the next page; absent on the last. */
        next: optional(name),
      }),
      fds: [],
    },
    operator: true,
    doc: 'Identities as they are published now, in the order of their names, a page at a time.',
  },
  reload: {
    request: { body: none, fds: [] },
    reply: { body: map({ changed: list(name, 1000), unchanged: uint() }), fds: [] },
    operator: true,
    doc: 'Read configuration and credentials again, all or nothing.',
  },
} as const;

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
    doc: 'The pool is going down: nothing new is accepted, sessions may finish until the deadline.',
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
