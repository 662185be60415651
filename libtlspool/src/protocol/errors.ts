
/** usage: fix the call. protocol: the other end broke the rules. policy: not permitted. closed: start again.
 *  timeout: it took too long. system: the host refused (errno). bug: report it. */
export type ErrorKind = 'usage' | 'protocol' | 'policy' | 'closed' | 'timeout' | 'system' | 'bug';

/** Every error the project raises on purpose: code -> {kind, text}. The kind says what the caller can do about it. */
export const errorTable = {
  BAD_MESSAGE: { kind: 'protocol', text: 'the message is not as the message table says' },
  MESSAGE_TOO_LARGE: { kind: 'protocol', text: 'the message is larger than the limit' },
  UNKNOWN_OP: { kind: 'protocol', text: 'there is no such operation' },
  UNEXPECTED_MESSAGE: { kind: 'protocol', text: 'the message does not fit the state of the connection' },
  FD_COUNT: { kind: 'protocol', text: 'the number of descriptors is not what the operation takes' },
  FD_KIND: { kind: 'usage', text: 'the descriptor is not the kind of socket that the operation takes' },
  VERSION: { kind: 'protocol', text: 'no common protocol version' },
  DUPLICATE_ID: { kind: 'protocol', text: 'a request with this id is still outstanding' },
  BAD_ARGUMENT: { kind: 'usage', text: 'an argument is out of range' },
  BAD_STATE: { kind: 'usage', text: 'the call does not fit the state of the object' },
  EARLY_OCTETS: { kind: 'protocol', text: 'octets arrived before the hand-over and cannot be treated as protected' },
  PREAMBLE: { kind: 'protocol', text: 'the plain-text dialogue before TLS broke the rules of its protocol' },
  PREAMBLE_REFUSED: { kind: 'closed', text: 'the other end does not begin TLS' },
  NOT_PERMITTED: { kind: 'policy', text: 'this client may not do that' },
  IDENTITY_UNKNOWN: { kind: 'usage', text: 'there is no such identity, or this client may not use it' },
  IDENTITY_BAD: { kind: 'usage', text: 'the credentials of an identity cannot be used' },
  CONFIG_BAD: { kind: 'usage', text: 'the configuration cannot be used' },
  LISTENER_UNKNOWN: { kind: 'usage', text: 'there is no such listener' },
  LISTENER_CLOSED: { kind: 'closed', text: 'the listener is closed' },
  SHARE_TAKEN: { kind: 'usage', text: 'a listener with this share name exists already; join it' },
  CTLKEY_UNKNOWN: { kind: 'usage', text: 'no session that this client may control has this control key' },
  LIMIT_SESSIONS: { kind: 'policy', text: 'the limit on sessions is reached' },
  LIMIT_CLIENTS: { kind: 'policy', text: 'the limit on clients is reached' },
  LIMIT_HANDSHAKES: { kind: 'policy', text: 'the limit on handshakes in flight is reached' },
  LIMIT_REQUESTS: { kind: 'policy', text: 'the limit on outstanding requests is reached' },
  LIMIT_LISTENERS: { kind: 'policy', text: 'the limit on listeners is reached' },
  HANDSHAKE_FAILED: { kind: 'protocol', text: 'the TLS handshake failed' },
  HANDSHAKE_TIMEOUT: { kind: 'timeout', text: 'the TLS handshake did not finish in time' },
  PEER_CLOSED: { kind: 'closed', text: 'the peer closed the connection before the handshake was done' },
  CERT_REJECTED: { kind: 'policy', text: 'the certificate of the peer was not accepted' },
  NAME_REFUSED: { kind: 'policy', text: 'the server name is not served here' },
  PLAINSIDE_REFUSED: { kind: 'policy', text: 'the client gave the session no plain-text side' },
  BACKEND_FAILED: { kind: 'system', text: 'the backend could not be connected' },
  REAUTH_UNAVAILABLE: { kind: 'usage', text: 'the client of this session cannot be asked for a certificate' },
  REAUTH_REFUSED: { kind: 'policy', text: 'the client did not authenticate, which ended the session' },
  SERVICE_TAKEN: { kind: 'usage', text: 'another client offers this service already' },
  CHOICE_REFUSED: { kind: 'policy', text: 'the chooser of this user gave the session no identity' },
  IDENTITY_LOCKED: { kind: 'policy', text: 'the key of the identity is locked, and nobody has unlocked it' },
  SIGNING_UNAVAILABLE: { kind: 'policy', text: 'no certificate can be made on the fly' },
  EXPORTER: { kind: 'usage', text: 'the exporter label or length is not allowed' },
  TRUNCATED: { kind: 'closed', text: 'the peer ended the stream without close_notify: what was received may be incomplete' },
  SESSION_LOST: { kind: 'closed', text: 'the TLS session ended abnormally' },
  POOL_UNREACHABLE: { kind: 'system', text: 'the pool socket cannot be connected' },
  POOL_LOST: { kind: 'closed', text: 'the connection to the pool is gone' },
  POOL_DRAINING: { kind: 'closed', text: 'the pool is going down and accepts nothing new' },
  TIMEOUT: { kind: 'timeout', text: 'the pool did not answer in time' },
  ABORTED: { kind: 'closed', text: 'the operation was aborted by its caller' },
  SYSTEM: { kind: 'system', text: 'a system call failed' },
  INTERNAL: { kind: 'bug', text: 'an internal error; please report it' },
} as const satisfies Record<string, { kind: ErrorKind; text: string }>;

/** The codes of the table. */
export type ErrorCode = keyof typeof errorTable;

/** What an error says beyond its code. */
export interface TlsPoolErrorDetails {
  /** What was seen and what to do about it; the table's text where absent. Never a secret. */
  readonly text?: string;
  /** Path of the offending field, such as `body.alpn[2]`. */
  readonly field?: string;
  /** The error behind this one. */
  readonly cause?: unknown;
  /** Of a system call that failed: negative, as in libuv. */
  readonly errno?: number;
  /** Name of that system call. */
  readonly syscall?: string;
}

/** The only error class that this project throws across a public interface. */
export class TlsPoolError extends Error {
  /** The same for all: look at `code`. */
  override readonly name = 'TlsPoolError';
  /** Which error it is. */
  readonly code: ErrorCode;
  /** What can be done about it. */
  readonly kind: ErrorKind;
  /** Path of the offending field, such as `body.alpn[2]`. */
  readonly field?: string;
  /** Of a system call that failed: negative, as in libuv. */
  readonly errno?: number;
  /** Name of that system call. */
  readonly syscall?: string;

  /** The text is that of the table, unless `details` has a better one. */
  constructor(code: ErrorCode, details: TlsPoolErrorDetails = {}) {
    super(details.text ?? errorTable[code].text, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.kind = errorTable[code].kind;
    if (details.field !== undefined) this.field = details.field;
    if (details.errno !== undefined) this.errno = details.errno;
    if (details.syscall !== undefined) this.syscall = details.syscall;
  }

  /** The error itself where it is one of ours; INTERNAL, with it as the cause, for anything else that was thrown. */
  static from(thrown: unknown): TlsPoolError {
    return thrown instanceof TlsPoolError ? thrown : new TlsPoolError('INTERNAL', { cause: thrown });
  }
}

/** Is this word a code of the table? For codes that arrive over the wire from a newer peer. */
export function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorTable, code);
}
