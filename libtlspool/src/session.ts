/**
 * Sessions without a PoolSocket: for programs that pass the plain text on and never read it, such as a proxy.
 *
 * @packageDocumentation
 */
import type { AskedOptions } from './asked.js';
import type { Channel, Reply, SessionSink } from './channel.js';
import type { OwnedFd } from './native.js';
import type { Pool } from './pool.js';
import { TlsPoolError } from './protocol/index.js';
import type { Backend, EventBody, ReplyBody, RequestBody, SessionInfo } from './protocol/index.js';
import { reauthenticateBody, reauthenticateMs, reauthenticationOf } from './reauthenticate.js';
import type { Reauthentication, ReauthenticateOptions } from './reauthenticate.js';
import { startSession } from './start.js';
import type { StartOptions } from './start.js';

export { isAbandoned, removerOf } from './abandoned.js';
export { Channel } from './channel.js';
export type { ChannelOwner, Reply, RequestHooks, SessionSink } from './channel.js';
export type { Answer, Asked, AskedOptions, Handshaken, Hello, PlainSide, Verdict } from './asked.js';
export type { Reauthentication, ReauthenticateOptions } from './reauthenticate.js';
export type { StartOptions } from './start.js';

/** How long the pool may take for one request about a session that waits for nobody else. */
const requestMs = 5_000;

/** How a session ended: what the pool said of it, or POOL_LOST. */
export type SessionEnd = EventBody<'closed'> | TlsPoolError;

/** How to protect a bare descriptor. */
export interface ProtectOptions extends StartOptions, AskedOptions {
  /** Connected stream or seqpacket socket for the plain text. The library's from the call on, closed on each path. Not with `backend` or `onPlainside`. */
  readonly plainfd?: OwnedFd;
  /** The pool connects the plain-text side itself. Needs the `backend` permission. Not with `onPlainside`. */
  readonly backend?: Backend;
  /** Called once, on a later turn, when the session ends. Not called after detach(). */
  readonly onClosed?: (end: SessionEnd) => void;
}

/** Requests about one session. */
export type SessionOp = 'prng' | 'info' | 'reauthenticate' | 'detach' | 'close';

/** A session that this program controls, without its plain text. */
export class ProtectedSession implements SessionSink {
  /** Names the session: a secret. */
  readonly ctlkey: Uint8Array;
  /** One end of the socket pair that the pool made, which the caller must close; undefined when the plain-text side is somewhere else. */
  readonly plainfd: OwnedFd | undefined;
  readonly #channel: Channel;
  readonly #onClosed: ProtectOptions['onClosed'];
  #info: SessionInfo;
  #end: SessionEnd | undefined;
  #isDetached = false;

  /** @internal Owns the descriptor of the reply. */
  constructor(channel: Channel, { body: { ctlkey, info }, fds }: Reply<'starttls'>, onClosed: ProtectOptions['onClosed']) {
    this.#channel = channel;
    this.#onClosed = onClosed;
    this.ctlkey = ctlkey;
    this.#info = info;
    this.plainfd = fds[0];
    channel.addSession(ctlkey, this);
  }

  /** What is known of it; of its peer, since the last reauthenticate(). */
  get info(): SessionInfo { return this.#info; }

  /** How it ended; undefined while it goes on, and for ever once it is detached. */
  get end(): SessionEnd | undefined { return this.#end; }

  /** Gives up control; the session goes on, and whoever has the ctlkey may reattach. Rejects with CTLKEY_UNKNOWN when it is over, POOL_LOST or TIMEOUT. */
  async detach(): Promise<void> { await this.request('detach', {}); }

  /** As reauthenticate() of PoolSocket; `info` is what is known from then on. */
  async reauthenticate(options: ReauthenticateOptions = {}): Promise<Reauthentication> {
    const { ctlkey: _key, ...body } = reauthenticateBody(this.ctlkey, options);
    return reauthenticationOf(await this.request('reauthenticate', body));
  }

  /** Ends the session in order, or at once with `abort`; onClosed tells when it is over. Does nothing when that is so already, or not ours to do any more. */
  async close(options: {
    /** Without waiting for what is under way, and as a reset where the connection is TCP. Default false. */
    readonly abort?: boolean;
  } = {}): Promise<void> {
    if (this.#end !== undefined || this.#isDetached) return;
    try {
      await this.request('close', options.abort === true ? { abort: true } : {});
    } catch (error) {
      // It ended, or was told to, while the request was on its way.
      if (!(error instanceof TlsPoolError) || error.code !== 'CTLKEY_UNKNOWN') throw error;
    }
  }

  /** One request about this session. Rejects with the pool's error (CTLKEY_UNKNOWN when it is over), BAD_MESSAGE, POOL_LOST or TIMEOUT. */
  async request<Op extends SessionOp>(op: Op, body: Omit<RequestBody<Op>, 'ctlkey'>): Promise<ReplyBody<Op>> {
    const timeoutMs = op === 'reauthenticate' ? reauthenticateMs(body) : requestMs;
    const reply = await this.#channel.request(op, { ...body, ctlkey: this.ctlkey } as unknown as RequestBody<Op>, [], timeoutMs);
    if (op === 'reauthenticate') this.#info = (reply.body as ReplyBody<'reauthenticate'>).info;
    if (op === 'detach') {
      this.#isDetached = true;
      this.#channel.removeSession(this.ctlkey);
    }
    return reply.body;
  }

  /** @internal */
  noteClosed(closed: EventBody<'closed'>): void { this.#ended(closed); }

  /** @internal */
  noteLost(error: TlsPoolError): void { this.#ended(error); }

  #ended(end: SessionEnd): void {
    this.#end = end;
    // Not from within whatever read the message: a handler that throws must not take that with it.
    if (this.#onClosed !== undefined && !this.#isDetached) setImmediate(this.#onClosed, end);
  }
}

/**
 * Hands a connected socket to the pool and resolves once the handshake is done and the plain-text side is there. Settles once.
 *
 * `cryptfd` is the library's from the call on, as are `plainfd` and what onPlainside() gives: each is closed when the pool has it, and on each path of failure. Nothing
 * is read from any of them. Any number may be under way at a time over one Pool.
 * Rejects as starttls() does, and with PLAINSIDE_REFUSED, FD_KIND, BACKEND_FAILED, and TIMEOUT when onPlainside() took too long. Fails closed.
 */
export function protectFd(pool: Pool, cryptfd: OwnedFd, options: ProtectOptions): Promise<ProtectedSession> {
  const { onClosed, plainfd, ...request } = options;
  return startSession(pool.link, { ...request, cryptfd, plainfd }, (channel, reply) => new ProtectedSession(channel, reply, onClosed));
}

/**
 * Takes control of a detached session without its plain text, which stays where it is; `plainfd` is undefined. Rejects with CTLKEY_UNKNOWN (no such session; not detached; over; not for this
 * user), LIMIT_SESSIONS, BAD_MESSAGE, POOL_LOST or TIMEOUT.
 */
export async function reattachSession(pool: Pool, ctlkey: Uint8Array, options: Pick<ProtectOptions, 'onClosed'> = {}): Promise<ProtectedSession> {
  const channel = await pool.link.whenUp();
  let session: ProtectedSession | undefined;
  try {
    await channel.request('reattach', { ctlkey }, [], requestMs, {
      // In the turn of the reply: `closed` may be right behind it.
      reply: ({ body: { info } }) => { session = new ProtectedSession(channel, { body: { ctlkey, info }, fds: [] }, options.onClosed); },
    });
  } catch (error) {
    // Should the pool do it after all, it would be ours and nobody would know.
    if (error instanceof TlsPoolError && error.code === 'TIMEOUT') channel.request('detach', { ctlkey }, [], requestMs).catch(() => undefined);
    throw error;
  }
  if (session === undefined) throw new TlsPoolError('INTERNAL');
  return session;
}
