/** What a PoolSocket is made from, what stands behind it, and what it gives. */
import type { Reply, SessionSink } from './channel.js';
import type { BorrowedFd, OwnedFd } from './native.js';
import type { EventBody, PreambleInfo, ReplyBody, RequestBody, RequestOp, SessionInfo, TlsPoolError } from './protocol/index.js';

/** @internal Who controls a session and hears how it ended: the connection to the pool, or the one to a proxy that passes requests on; see Channel. */
export interface SessionControl {
  /** Set once nothing can be asked and nothing will be told any more. */
  readonly lost: TlsPoolError | undefined;
  /** It will never be told how the session ends. */
  readonly isDeaf?: boolean;
  addSession(ctlkey: Uint8Array, sink: SessionSink): void;
  /** The session is no longer ours to hear of. */
  removeSession(ctlkey: Uint8Array): void;
  catchUp(): void;
  request<Op extends RequestOp>(op: Op, body: RequestBody<Op>, fds: readonly BorrowedFd[], timeoutMs: number): Promise<Reply<Op>>;
  requestSync<Op extends RequestOp>(op: Op, body: RequestBody<Op>, timeoutMs: number): ReplyBody<Op>;
}

/** What a PoolSocket is made from. */
export interface SessionStart {
  readonly channel: SessionControl;
  /** Owned by the socket. */
  readonly fd: OwnedFd;
  readonly ctlkey: Uint8Array;
  readonly info: SessionInfo;
  readonly preamble?: PreambleInfo | undefined;
  /** How long the word of how it ended may take after the end itself, in milliseconds, when it comes by way of others. */
  readonly lossGraceMs?: number;
  readonly allowHalfOpen?: boolean;
  /** Do not read before resume() is called. */
  readonly pauseOnConnect?: boolean;
  /** This program, and not only the policy of the identity, asked the peer for a certificate. */
  readonly asksCertificate?: boolean;
  /** What is known already, for a session that waited to be accepted. */
  readonly closed?: EventBody<'closed'> | undefined;
}

/** Channel bindings of a session: RFC 5929 (tls-unique on TLS 1.2 only) and RFC 9266. */
export type ChannelBindings = Pick<ReplyBody<'info'>, 'tlsUnique' | 'tlsServerEndPoint' | 'tlsExporter'>;

/** Names in the certificates of a session, such as `CN=Alice,O=Example` and `DNS:www.example.org`; absent where there is no certificate, or no room for them. */
export type SessionNames = Pick<ReplyBody<'info'>, 'peerNames' | 'localNames'>;

/** A session that has left its socket: what another process needs to go on with it. */
export interface Released {
  /** The plain text: a connected UNIX stream socket. The caller's, who passes it on and closes it. */
  readonly fd: OwnedFd;
  /** For Pool.reattach(). A secret. */
  readonly ctlkey: Uint8Array;
}
