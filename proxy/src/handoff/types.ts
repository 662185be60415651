/**
 * What every way of reaching a backend gets and gives. One way is one file.
 *
 * The plain-text socket stays the caller's throughout, and a rejected hand-over has not used it: the protocol's last words can be said on it. The
 * caller closes it as soon as the hand-over settles. After a failure it shuts it down first, since a backend that hangs may hold a copy; after
 * success it closes it at once, since the pool sees the end of the plain text only when every copy is closed.
 */
import type { Endpoint, EventBody, ReplyBody, RequestBody, RequestOp, SessionInfo } from 'libtlspool/protocol';
import type { BorrowedFd } from 'libtlspool/native';

/** Requests that a backend may send about a session of its own. One more is one more line here. */
export const sessionOps = ['prng', 'info', 'reauthenticate', 'detach', 'close'] as const satisfies readonly RequestOp[];
/** One of them. */
export type SessionOp = (typeof sessionOps)[number];

/** A protected connection, from the pool. */
export interface SecuredConnection {
  readonly ctlkey: Uint8Array;
  readonly info: SessionInfo;
  /** The plain-text side: a UNIX stream socket. The caller's; see above. */
  readonly plainfd: BorrowedFd;
  /** Of the preamble: protocol, and what the backend must know of the plain-text phase. */
  readonly protocol: string;
  readonly state: Uint8Array | undefined;
  /** The client as we know it (by a PROXY header, where there was one). */
  readonly remote: Endpoint | undefined;
  readonly local: Endpoint | undefined;
  /** Asks the pool about this session. */
  request<Op extends SessionOp>(op: Op, body: RequestBody<Op>): Promise<ReplyBody<Op>>;
  /** Gives up control of the session; it goes on. */
  detach(): Promise<void>;
  /** Resolves when the pool says that the session is over; undefined when that cannot be known any more: it was detached, or the pool is gone. Never rejects. */
  readonly closed: Promise<EventBody<'closed'> | undefined>;
}

/** A connection of a client that did not ask for TLS, where the service allows that. */
export interface PlainConnection {
  /** The client's own socket, in any state of reading. The caller's; see above. */
  readonly plainfd: BorrowedFd;
  readonly protocol: string;
  /** Of the preamble: what the backend must know to go on (mysql). */
  readonly state?: Uint8Array;
  /** Octets that were read from it already and come first. */
  readonly ahead: Uint8Array;
  readonly remote: Endpoint | undefined;
  readonly local: Endpoint | undefined;
}

/** The backend has the connection. */
export interface HandedOver {
  /** Who got it, for the log: a path, an address, a process. */
  readonly to: string;
  /** The proxy still controls the session, on behalf of the backend, and hears how it ends. Otherwise nothing more will be known of it here. */
  readonly followed: boolean;
  /** Resolves when the proxy has nothing more to do for this connection, soon when it goes down. Never rejects. */
  readonly done: Promise<void>;
}
