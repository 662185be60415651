/** A listening socket in the pool's care, and the connections that come from it. */
import { EventEmitter } from 'node:events';
import type net from 'node:net';
import { closeAll } from './inlet.js';
import type { Channel, Reply } from './channel.js';
import { Link } from './link.js';
import type { LinkOptions } from './link.js';
import type { OwnedFd } from './native.js';
import { TlsPoolError, isErrorCode } from './protocol/index.js';
import type { AnswerBody, Backend, CallbackBody, ClientAuth, EventBody, RequestBody } from './protocol/index.js';
import { PoolSocket } from './socket.js';
import { addressOf, checkSource, openSource } from './source.js';
import type { Source, SourceOptions } from './source.js';

/** What an application is told of a ClientHello before an identity is chosen. */
export interface Hello {
  /** Server name asked for (RFC 6066 section 3); absent when the client sent none. */
  readonly servername?: string;
  /** Application protocols that the client offers. */
  readonly alpn: readonly string[];
  /** Address of the client. */
  readonly remote?: CallbackBody<'servername'>['remote'];
}

/** true: choose by server name. false: refuse. {localid}: use this identity. */
export type Verdict = boolean | {
  /** Identity to serve; absent: chosen by server name. */
  readonly localid?: string;
};

/** How to listen. */
export interface ListenOptions extends SourceOptions {
  /** Name under which other processes of the same user take a share of the connections; the first of them opens the socket. */
  readonly share?: string;
  /** Identity to serve; absent: chosen by server name among those that this client may use. */
  readonly localid?: string;
  /** Application protocols (RFC 7301), the most preferred first. A client that offers only others is refused. */
  readonly alpn?: readonly string[];
  /** Raises what the policy of the identity says, never lowers it. */
  readonly clientAuth?: ClientAuth;
  /** false: a client certificate that does not verify is reported in authorizationError instead of refused. Never lowers `require` of the policy. */
  readonly rejectUnauthorized?: boolean;
  /** Asked once per handshake, before the identity is chosen. Throwing refuses the connection and is reported as a process warning. */
  readonly onServername?: (hello: Hello) => Verdict | Promise<Verdict>;
  /** The pool connects the plain-text side to this service itself; nothing comes to accept(). Needs the `backend` permission. */
  readonly backend?: Backend;
  /** Hear of each connection that the pool gives to the backend; default false, because nobody waits for it. */
  readonly report?: boolean;
  /** Connections that wait for accept() before the pool is told to wait. 1 or more, default 128. */
  readonly highWaterMark?: number;
  /** As in net.createServer. Default false. */
  readonly allowHalfOpen?: boolean;
  /** Accepted sockets do not read before resume(): for those who hand the socket on. */
  readonly pauseOnConnect?: boolean;
}

/** Events of a Listener. */
export interface ListenerEvents {
  /** The pool is gone; the listening socket stays open and connections wait in the kernel until it is back. */
  lost: [TlsPoolError];
  /** The pool is back and accepts again. */
  reconnected: [];
  /** The pool is back but refused the listener; it is tried again. */
  refused: [TlsPoolError];
  /** The pool goes down and accepts nothing new. */
  drain: [{
    /** Milliseconds from now. */
    readonly deadlineMs: number;
  }];
  /** Nothing will be accepted any more; with the reason when it was not close(). */
  close: [TlsPoolError | undefined];
}

interface Waiter { resolve(socket: PoolSocket): void; reject(error: Error): void }

/**
 * A connection that waits for accept(). It is not a socket yet: nobody could hear the `error` event of one that
 * fails while it waits, and that would end the process.
 */
class Waiting {
  closed: EventBody<'closed'> | undefined;
  constructor(readonly body: EventBody<'connection'>, readonly fd: OwnedFd, readonly channel: Channel) {
    channel.addSession(body.ctlkey, this);
  }
  noteClosed(closed: EventBody<'closed'>): void { this.closed = closed; }
  noteLost(): void { /* the listener drops what waits */ }
}

/**
 * Accepts TLS connections whose handshake the pool has done.
 *
 * Each listener has its own connection to the pool: one that does not accept stops reading it, the pool's queue fills,
 * and the pool stops accepting for this listener alone. Nothing else that the program does with the pool waits.
 */
export class Listener extends EventEmitter<ListenerEvents> {
  readonly #options: ListenOptions;
  readonly #link: Link;
  readonly #highWaterMark: number;
  #sink: ((socket: PoolSocket) => void) | undefined;
  #admit: (() => boolean) | undefined;
  #source: Source | undefined;
  #listener = 0;
  #local: net.AddressInfo | string | undefined;
  #queue: Waiting[] = [];
  #waiters: Waiter[] = [];
  #ended: TlsPoolError | undefined;

  private constructor(pool: LinkOptions, options: ListenOptions) {
    super();
    this.#options = options;
    this.#highWaterMark = options.highWaterMark ?? 128;
    this.#link = new Link(pool, {
      connection: (channel, body, fd) => this.#onConnection(channel, body, fd),
      listenerClosed: (body) => this.#onListenerClosed(body),
      drain: (body) => this.emit('drain', body),
      servername: (body, answer) => void this.#decide(body).then(answer),
      setUp: (channel) => this.#setUp(channel),
      lost: (error) => { this.#dropQueue(); this.emit('lost', error); },
      restored: () => this.emit('reconnected'),
      refused: (error) => this.emit('refused', error),
    });
  }

  /** @internal Opens the socket and hands it over. `sink` takes each socket straight from the event; `admit` may refuse before one is made. */
  static async open(pool: LinkOptions, options: ListenOptions, sink?: (socket: PoolSocket) => void, admit?: () => boolean): Promise<Listener> {
    checkSource(options);
    if (options.highWaterMark !== undefined && !(Number.isInteger(options.highWaterMark) && options.highWaterMark >= 1)) {
      throw new TlsPoolError('BAD_ARGUMENT', { text: `highWaterMark is ${String(options.highWaterMark)}; it must be 1 or more`, field: 'highWaterMark' });
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
    return listener;
  }

  /** Where it listens, as net.Server.address() says it; null once closed. */
  address(): net.AddressInfo | string | null { return this.#ended === undefined ? this.#local ?? null : null; }

  /** An accept() that waits, and the listener itself, keep the process alive (the default). */
  ref(): this { this.#link.ref(); return this; }
  /** The listener alone does not keep the process alive. */
  unref(): this { this.#link.unref(); return this; }

  /**
   * The next connection, in the order of their handshakes' ends. Goes on waiting while the pool restarts.
   * Rejects with LISTENER_CLOSED after close(), with the pool's error when it closed the listener, with ABORTED by `signal`.
   */
  accept(options: { readonly signal?: AbortSignal } = {}): Promise<PoolSocket> {
    const { signal } = options;
    if (signal?.aborted === true) return Promise.reject(new TlsPoolError('ABORTED', { cause: signal.reason }));
    if (this.#sink !== undefined) return Promise.reject(new TlsPoolError('BAD_STATE', { text: 'a server takes the connections of this listener' }));
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      if (this.#queue.length < this.#highWaterMark) this.#link.channel?.resume();
      const socket = this.#socket(next);
      if (socket !== undefined) return Promise.resolve(socket);
    }
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      const abort = (): void => {
        this.#waiters = this.#waiters.filter((one) => one !== waiter);
        reject(new TlsPoolError('ABORTED', { cause: signal?.reason }));
      };
      const waiter: Waiter = {
        resolve: (socket) => { signal?.removeEventListener('abort', abort); resolve(socket); },
        reject: (error) => { signal?.removeEventListener('abort', abort); reject(error); },
      };
      signal?.addEventListener('abort', abort, { once: true });
      this.#waiters.push(waiter);
    });
  }

  /** Connections until the listener is closed. Leaving the loop closes it. */
  async *[Symbol.asyncIterator](): AsyncGenerator<PoolSocket, void, undefined> {
    try {
      for (;;) yield await this.accept();
    } catch (error) {
      if (!(error instanceof TlsPoolError) || error !== this.#ended || error.code !== 'LISTENER_CLOSED') throw error;
    } finally {
      await this.close();
    }
  }

  /** Stops accepting and closes the listening socket; connections that nobody accepted are closed, the others go on. May be called twice. */
  async close(): Promise<void> {
    if (this.#ended !== undefined) return;
    const channel = this.#link.channel;
    this.#finish(new TlsPoolError('LISTENER_CLOSED'), undefined, false);
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

  /** close(). */
  async [Symbol.asyncDispose](): Promise<void> { await this.close(); }

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
      if (joined !== undefined) return joined;
      // Another process may be between opening the socket and handing it over, or be quicker: join it then.
      const listened = await rejected(this.#listen(channel), 'SHARE_TAKEN', 'EADDRINUSE');
      if (listened !== undefined) return listened;
      if (performance.now() > deadline) throw new TlsPoolError('SYSTEM', { text: `the address of share ${JSON.stringify(share)} is in use, but not by a listener of this share (EADDRINUSE)` });
      await new Promise((resolve) => { setTimeout(resolve, 20); });
    }
  }

  async #listen(channel: Channel): Promise<Reply<'listen' | 'join'>> {
    this.#source ??= await openSource(this.#options);
    return channel.request('listen', listenBody(this.#options), [this.#source.fd], this.#link.timeoutMs);
  }

  #onConnection(channel: Channel, body: EventBody<'connection'>, fd: OwnedFd | undefined): void {
    // No descriptor: the pool connected it to its backend.
    if (fd === undefined) return;
    if (this.#ended !== undefined || this.#admit?.() === false) {
      closeAll([fd]);
      return;
    }
    if (this.#sink !== undefined) {
      this.#sink(new PoolSocket({ channel, fd, ctlkey: body.ctlkey, info: body.info, ...this.#socketOptions() }));
      return;
    }
    const waiting = new Waiting(body, fd, channel);
    const waiter = this.#waiters.shift();
    const socket = waiter === undefined ? undefined : this.#socket(waiting);
    if (waiter !== undefined && socket !== undefined) waiter.resolve(socket);
    else if (waiter !== undefined) this.#waiters.unshift(waiter);
    else if (this.#queue.push(waiting) >= this.#highWaterMark) channel.pause();
  }

  #socketOptions(): { allowHalfOpen: boolean; pauseOnConnect: boolean } {
    return { allowHalfOpen: this.#options.allowHalfOpen ?? false, pauseOnConnect: this.#options.pauseOnConnect ?? false };
  }

  #socket({ body, fd, channel, closed }: Waiting): PoolSocket {
    return new PoolSocket({ channel, fd, ctlkey: body.ctlkey, info: body.info, closed, ...this.#socketOptions() });
  }

  async #decide({ servername, alpn, remote }: CallbackBody<'servername'>): Promise<AnswerBody<'servername'>> {
    try {
      const hello = { alpn, ...(servername === undefined ? {} : { servername }), ...(remote === undefined ? {} : { remote }) };
      // Fails closed: anything but a clear yes is a no.
      const verdict = await this.#options.onServername?.(hello) ?? false;
      if (verdict === true) return {};
      if (verdict === false) return { refuse: true };
      return verdict.localid === undefined ? {} : { localid: verdict.localid };
    } catch (error) {
      process.emitWarning(error instanceof Error ? error : String(error), { detail: 'onServername failed; the connection was refused' });
      return { refuse: true };
    }
  }

  #onListenerClosed({ code, text }: EventBody<'listenerClosed'>): void {
    const error = new TlsPoolError(isErrorCode(code) ? code : 'LISTENER_CLOSED', { text: `the pool closed the listener: ${text}` });
    this.#finish(error, error, true);
  }

  #finish(ended: TlsPoolError, reason: TlsPoolError | undefined, closeLink: boolean): void {
    if (this.#ended !== undefined) return;
    this.#ended = ended;
    this.#source?.close();
    this.#dropQueue();
    if (closeLink) this.#link.close(true);
    for (const waiter of this.#waiters.splice(0)) waiter.reject(ended);
    this.emit('close', reason);
  }

  #dropQueue(): void { closeAll(this.#queue.splice(0).map(({ fd }) => fd)); }
}

/** The result, or undefined when it was rejected with one of these codes (or errnos in the text). */
async function rejected<T>(promise: Promise<T>, ...words: string[]): Promise<T | undefined> {
  try {
    return await promise;
  } catch (error) {
    if (error instanceof TlsPoolError && words.some((word) => error.code === word || (error.code === 'SYSTEM' && error.message.includes(word)))) return undefined;
    throw error;
  }
}

function listenBody(options: ListenOptions): RequestBody<'listen'> {
  const { localid, alpn, clientAuth, rejectUnauthorized, backend, report, share } = options;
  return {
    ...(localid === undefined ? {} : { localid }), ...(alpn === undefined ? {} : { alpn }), ...(clientAuth === undefined ? {} : { clientAuth }),
    ...(rejectUnauthorized === undefined ? {} : { rejectUnauthorized }), ...(backend === undefined ? {} : { backend }), ...(report === undefined ? {} : { report }),
    ...(share === undefined ? {} : { share }), ...(options.onServername === undefined ? {} : { askServername: true }),
  };
}
