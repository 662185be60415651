/** A listening socket in the pool's care, and the connections that come from it. */
import { isErrno } from './errno.js';
import type net from 'node:net';
import { closeIfAborted, closeWhenAborted, throwIfAborted } from './abort.js';
import { Acceptor, WaitingSession } from './acceptor.js';
import { askFields, askedBy } from './asked.js';
import type { AskedOptions } from './asked.js';
import { closeAll } from './inlet.js';
import type { Channel, Reply, SessionSink } from './channel.js';
import type { SessionStart } from './control.js';
import { Link } from './link.js';
import type { LinkOptions } from './link.js';
import { sockets } from './native.js';
import type { OwnedFd } from './native.js';
import { TlsPoolError, isErrorCode } from './protocol/index.js';
import { asksCertificate } from './start.js';
import type { Backend, ClientAuth, Endpoint, EventBody, RequestBody } from './protocol/index.js';
import { PoolSocket } from './socket.js';
import { refuseTlsOptions } from './refuse.js';
import { addressOf, checkSource, closeGiven, openSource } from './source.js';
import type { Source, SourceOptions } from './source.js';

/** How to listen. */
export interface ListenOptions extends SourceOptions, AskedOptions {
  /** Name under which other processes of the same user take a share of the connections; the first of them opens the socket. */
  readonly share?: string;
  /** Identity to serve; absent: chosen by server name among those that this client may use. */
  readonly localid?: string;
  /**
   * The pool's signing CA makes a certificate for the server name of each client, where no identity that this program may use has it; `localid` is for clients that send none. Names that may
   * not be signed are refused. Needs the `sign` permission: NOT_PERMITTED without it, SIGNING_UNAVAILABLE where the pool has no such CA. Default false.
   */
  readonly onTheFly?: boolean;
  /** Application protocols (RFC 7301), the most preferred first. A client that offers only others is refused. */
  readonly alpn?: readonly string[];
  /** Raises what the policy of the identity says, never lowers it. */
  readonly clientAuth?: ClientAuth;
  /** false: a client certificate that does not verify is reported in authorizationError instead of refused. Never lowers `require` of the policy. */
  readonly rejectUnauthorized?: boolean;
  /** The pool connects the plain-text side to this service itself; nothing comes to accept(). Needs the `backend` permission. */
  readonly backend?: Backend;
  /** Hear of each connection that the pool gives to the backend; default false, because nobody waits for it. */
  readonly report?: boolean;
  /** Connections that wait for accept() before the pool is told to wait. 1 or more, default 128. */
  readonly highWaterMark?: number;
  /** Closes the listener when it is aborted, as close() does. listen() rejects with ABORTED when that is before it listens. */
  readonly signal?: AbortSignal;
  /** As in net.createServer. Default false. */
  readonly allowHalfOpen?: boolean;
  /** Accepted sockets do not read before resume(): for those who hand the socket on. */
  readonly pauseOnConnect?: boolean;
}

const renamed = { requestCert: 'give clientAuth', ALPNProtocols: 'give alpn' };

/** For sessions that this program started and does not read from. */
const unheard: SessionSink = { noteClosed: () => undefined, noteLost: () => undefined };

/**
 * Accepts TLS connections whose handshake the pool has done.
 *
 * Each listener has its own connection to the pool: one that does not accept stops reading it, the pool's queue fills,
 * and the pool stops accepting for this listener alone. Nothing else that the program does with the pool waits.
 */
export class Listener extends Acceptor<PoolSocket> {
  readonly #options: ListenOptions;
  readonly #link: Link;
  readonly #highWaterMark: number;
  #sink: ((socket: PoolSocket) => void) | undefined;
  #admit: (() => boolean) | undefined;
  #source: Source | undefined;
  #listener = 0;
  #local: net.AddressInfo | string | undefined;

  private constructor(pool: LinkOptions, options: ListenOptions) {
    super();
    this.#options = options;
    this.#highWaterMark = options.highWaterMark ?? 128;
    this.#link = new Link(pool, {
      connection: (channel, body, fd) => this.#onConnection(channel, body, fd),
      missed: (error) => this.emit('refused', error),
      listenerClosed: (body) => this.#onListenerClosed(body),
      drain: (body) => this.emit('drain', body),
      asked: askedBy(options),
      setUp: (channel) => this.#setUp(channel),
      lost: (error) => { this.dropOffers(); this.emit('lost', error); },
      restored: () => this.emit('reconnected'),
      refused: (error) => this.emit('refused', error),
    });
  }

  /** @internal Opens the socket and hands it over. `sink` takes each socket straight from the event; `admit` may refuse before one is made. */
  static async open(pool: LinkOptions, options: ListenOptions, sink?: (socket: PoolSocket) => void, admit?: () => boolean): Promise<Listener> {
    const { signal } = options;
    try {
      checkOptions(options);
      throwIfAborted(signal);
    } catch (error) {
      closeGiven(options);
      throw error;
    }
    const listener = new Listener(pool, options);
    listener.#sink = sink;
    listener.#admit = admit;
    try {
      // With a share, the socket is opened only when nobody else has.
      if (options.share === undefined || options.fd !== undefined) listener.#source = await openSource(options);
      await listener.#link.start();
    } catch (error) {
      listener.#source?.close();
      throw error;
    }
    listener.#link.ref();
    if (signal === undefined) return listener;
    await closeIfAborted(signal, listener);
    // What the farewell meets does not matter: the port is closed in any case.
    listener.once('close', closeWhenAborted(signal, () => { listener.close().catch(() => undefined); }));
    return listener;
  }

  /** Where it listens, as net.Server.address() says it; null once closed. */
  address(): net.AddressInfo | string | null { return this.ended === undefined ? this.#local ?? null : null; }

  /** An accept() that waits, and the listener itself, keep the process alive (the default). */
  ref(): this { this.#link.ref(); return this; }
  /** The listener alone does not keep the process alive. */
  unref(): this { this.#link.unref(); return this; }

  /**
   * The next connection, in the order of their handshakes' ends. Goes on waiting while the pool restarts.
   * Rejects with LISTENER_CLOSED after close(), with the pool's error when it closed the listener, with ABORTED by `signal`.
   */
  override accept(options: { readonly signal?: AbortSignal } = {}): Promise<PoolSocket> {
    if (this.#sink !== undefined) return Promise.reject(new TlsPoolError('BAD_STATE', { text: 'a server takes the connections of this listener' }));
    return super.accept(options);
  }

  /** Stops accepting and closes the listening socket; connections that nobody accepted are closed, the others go on. May be called twice. */
  async close(): Promise<void> {
    if (this.ended !== undefined) return;
    const channel = this.#link.channel;
    this.finish(new TlsPoolError('LISTENER_CLOSED'), undefined, () => this.#source?.close());
    // Sessions belong to the connection that they came over: it stays until the last of them ended.
    try {
      await channel?.request('unlisten', { listener: this.#listener }, [], this.#link.timeoutMs);
    } catch (error) {
      // A pool that is gone, or has closed the listener itself, has nothing left to stop.
      if (!(error instanceof TlsPoolError) || (error.kind !== 'closed' && error.code !== 'LISTENER_UNKNOWN')) throw error;
    } finally {
      this.#link.close(true);
    }
  }

  async #setUp(channel: Channel): Promise<void> {
    const { body } = await this.#handOver(channel);
    this.#listener = body.listener;
    this.#local = addressOf(body.local);
  }

  async #handOver(channel: Channel): Promise<Reply<'listen' | 'join'>> {
    const { share } = this.#options;
    if (share === undefined) return this.#listen(channel);
    const deadline = performance.now() + this.#link.timeoutMs;
    for (;;) {
      const joined = await rejected(channel.request('join', { share }, [], this.#link.timeoutMs), 'LISTENER_UNKNOWN');
      if (joined !== undefined) {
        this.#leaveTo(joined.body.local);
        return joined;
      }
      // Another process may be between opening the socket and handing it over, or be quicker: join it then.
      const listened = await rejected(this.#listen(channel), 'SHARE_TAKEN', 'EADDRINUSE');
      if (listened !== undefined) return listened;
      if (performance.now() > deadline) throw new TlsPoolError('SYSTEM', { text: `the address of share ${JSON.stringify(share)} is in use, but not by a listener of this share (EADDRINUSE)` });
      await new Promise((resolve) => { setTimeout(resolve, 20); });
    }
  }

  /** Another process was quicker, at the first start or after one of the pool. A socket of ours beside its own would get connections that nobody accepts. */
  #leaveTo(local: Endpoint): void {
    const { fd, reusePort } = this.#options;
    if (this.#source === undefined || fd !== undefined) return;
    // One address can have two sockets with SO_REUSEPORT only; otherwise it is ours that the pool still has.
    if (local.family === 'unix' || (reusePort !== true && local.port === sockets.socketInfo(this.#source.fd).local?.port)) return;
    this.#source.close();
    this.#source = undefined;
  }

  async #listen(channel: Channel): Promise<Reply<'listen' | 'join'>> {
    this.#source ??= await openSource({ ...this.#options, ...this.#portBefore() });
    return channel.request('listen', listenBody(this.#options), [this.#source.fd], this.#link.timeoutMs);
  }

  /** Who joined a share has no socket: after a restart of the pool it opens the port that the kernel chose before, or finds that another process has kept it. */
  #portBefore(): { readonly port?: number } {
    const { port = 0, path } = this.#options;
    return port === 0 && path === undefined && typeof this.#local === 'object' ? { port: this.#local.port } : {};
  }

  #onConnection(channel: Channel, body: EventBody<'connection'>, fd: OwnedFd | undefined): void {
    // No descriptor: the pool connected it to its backend, or onPlainside gave one; such a session lives as long as our connection to the pool.
    if (fd === undefined) {
      if (this.#options.onPlainside !== undefined) channel.addSession(body.ctlkey, unheard);
      return;
    }
    if (this.ended !== undefined || this.#admit?.() === false) {
      closeAll([fd]);
      return;
    }
    const start = {
      channel, fd, ctlkey: body.ctlkey, info: body.info,
      asksCertificate: asksCertificate(this.#options), allowHalfOpen: this.#options.allowHalfOpen ?? false, pauseOnConnect: this.#options.pauseOnConnect ?? false,
    };
    if (this.#sink !== undefined) {
      this.#deliver(this.#sink, start);
      return;
    }
    this.offer(new WaitingSession(start));
    if (this.waiting >= this.#highWaterMark) channel.pause();
  }

  #deliver(sink: (socket: PoolSocket) => void, start: SessionStart): void {
    let socket: PoolSocket;
    try {
      socket = new PoolSocket(start);
    } catch (error) {
      this.emit('refused', TlsPoolError.from(error));
      return;
    }
    sink(socket);
  }

  protected override onTaken(): void {
    if (this.waiting < this.#highWaterMark) this.#link.channel?.resume();
  }

  #onListenerClosed({ code, text }: EventBody<'listenerClosed'>): void {
    const error = new TlsPoolError(isErrorCode(code) ? code : 'LISTENER_CLOSED', { text: `the pool closed the listener: ${text}` });
    this.finish(error, error, () => { this.#source?.close(); this.#link.close(true); });
  }
}

function checkOptions(options: ListenOptions): void {
  refuseTlsOptions(options, renamed);
  checkSource(options);
  const { highWaterMark } = options;
  if (highWaterMark === undefined || (Number.isInteger(highWaterMark) && highWaterMark >= 1)) return;
  throw new TlsPoolError('BAD_ARGUMENT', { text: `highWaterMark is ${String(highWaterMark)}; it must be 1 or more`, field: 'highWaterMark' });
}

/** The result, or undefined when it was rejected with one of these codes, or for one of these errnos. */
async function rejected<T>(promise: Promise<T>, ...words: string[]): Promise<T | undefined> {
  try {
    return await promise;
  } catch (error) {
    if (error instanceof TlsPoolError && (words.includes(error.code) || isErrno(error, ...words))) return undefined;
    throw error;
  }
}

function listenBody(options: ListenOptions): RequestBody<'listen'> {
  const { localid, onTheFly, alpn, clientAuth, rejectUnauthorized, backend, report, share } = options;
  return {
    ...(localid === undefined ? {} : { localid }), ...(onTheFly === undefined ? {} : { onTheFly }), ...(alpn === undefined ? {} : { alpn }), ...(clientAuth === undefined ? {} : { clientAuth }),
    ...(rejectUnauthorized === undefined ? {} : { rejectUnauthorized }), ...(backend === undefined ? {} : { backend }), ...(report === undefined ? {} : { report }),
    ...(share === undefined ? {} : { share }), ...askFields(options),
  };
}
