/** The pool as an application sees it. */
import { EventEmitter } from 'node:events';
import type net from 'node:net';
import { closeAll } from './inlet.js';
import type { Reply } from './channel.js';
import { connectThrough } from './connect.js';
import type { ConnectOptions } from './connect.js';
import { Link } from './link.js';
import type { LinkOptions } from './link.js';
import { Listener } from './listener.js';
import type { ListenOptions } from './listener.js';
import type { BorrowedFd, OwnedFd } from './native.js';
import type { ReplyBody, RequestBody, RequestOp, TlsPoolError } from './protocol/index.js';
import { reattachSocket } from './reattach.js';
import type { ReattachOptions } from './reattach.js';
import { PoolServices } from './services.js';
import type { ChooseIdentity, EnterPin, ServiceOffer, ServiceOptions } from './services.js';
import type { PoolSocket } from './socket.js';
import { protect } from './starttls.js';
import type { StartTlsOptions } from './starttls.js';

/** How to connect to the pool. */
export type PoolOptions = LinkOptions;

/** Events of a Pool. */
export interface PoolEvents {
  /** The connection is gone. Outstanding requests were rejected with POOL_LOST; sessions end with it. */
  lost: [TlsPoolError];
  /** The pool is back. */
  reconnected: [];
  /** The pool goes down: nothing new is accepted, sessions may finish within deadlineMs. */
  drain: [{
    /** Milliseconds from now. */
    readonly deadlineMs: number;
  }];
}

/** Requests that carry no descriptors in their replies and need no state in the library. */
export type PlainOp = Exclude<RequestOp, 'hello' | 'listen' | 'join' | 'unlisten' | 'starttls' | 'taken'>;

/**
 * A connection to the pool, made again when it is lost. It does not keep the process alive by itself; listeners, sockets
 * and outstanding requests do.
 */
export class Pool extends EventEmitter<PoolEvents> {
  readonly #options: PoolOptions;
  readonly #link: Link;
  readonly #listeners = new Set<Listener>();
  readonly #services = new PoolServices(() => this.#link);

  /** @internal Use connectPool(). */
  constructor(options: PoolOptions) {
    super();
    const { signal: _signal, ...lasting } = options;
    this.#options = lasting;
    this.#link = new Link(options, {
      // Only listeners get connections, and they have their own connection to the pool.
      connection: (_channel, _body, fd) => closeAll(fd === undefined ? [] : [fd]),
      listenerClosed: () => undefined,
      drain: (body) => this.emit('drain', body),
      setUp: () => Promise.resolve(),
      asked: this.#services.asked,
      lost: (error) => { this.#services.lost(); this.emit('lost', error); },
      restored: () => { void this.#services.restored(); this.emit('reconnected'); },
      refused: (error) => this.emit('lost', error),
    });
  }

  /** @internal */
  async start(): Promise<this> {
    await this.#link.start();
    return this;
  }

  /** @internal The link that sessions of starttls() and connect() belong to. */
  get link(): Link { return this.#link; }

  /** Is the pool alive? Rejects with POOL_LOST or TIMEOUT. */
  ping(payload?: Uint8Array): Promise<ReplyBody<'ping'>> { return this.request('ping', payload === undefined ? {} : { payload }); }

  /**
   * One request, as the message table has it. Waits for the pool when it is restarting.
   * Rejects with the pool's error, BAD_MESSAGE, POOL_LOST or TIMEOUT.
   */
  async request<Op extends PlainOp>(op: Op, body: RequestBody<Op>): Promise<ReplyBody<Op>> {
    const { body: reply, fds } = await this.#link.request<Op>(op, body, []);
    closeAll(fds);
    return reply;
  }

  /** Like request() for every operation, with descriptors: `fds` stay the caller's and must stay open until it settles; those of the reply are the caller's. */
  exchange<Op extends Exclude<RequestOp, 'hello' | 'taken'>>(op: Op, body: RequestBody<Op>, fds: readonly BorrowedFd[] = []): Promise<Reply<Op>> {
    return this.#link.request(op, body, fds);
  }

  /** Opens a listening socket and hands it to the pool. Rejects with BAD_ARGUMENT, SYSTEM, IDENTITY_UNKNOWN, NOT_PERMITTED, LIMIT_LISTENERS, POOL_UNREACHABLE, ... */
  listen(options: ListenOptions): Promise<Listener> { return this.listenTo(options); }

  /** @internal listen() with the sockets going straight to a server. */
  async listenTo(options: ListenOptions, sink?: (socket: PoolSocket) => void, admit?: () => boolean): Promise<Listener> {
    const listener = await Listener.open(this.#options, options, sink, admit);
    this.#listeners.add(listener);
    listener.once('close', () => this.#listeners.delete(listener));
    return listener;
  }

  /** Protects a connected socket; see StartTlsOptions. The socket, or descriptor, belongs to the library from the call on and is closed on each path. */
  starttls(socket: net.Socket | number, options: StartTlsOptions): Promise<PoolSocket> {
    return protect(this.#link, typeof socket === 'number' ? socket as OwnedFd : socket, options);
  }

  /** Connects to a TLS server. Rejects with the error of the connection (ECONNREFUSED, ...), or as starttls() does. */
  connect(options: ConnectOptions): Promise<PoolSocket> { return connectThrough(this.#link, options); }

  /**
   * Takes control of a session that another program has detached, and goes on with its plain text: what release() gave there, as it came over a UNIX socket or as a net.Socket of which nothing
   * was read yet. Descriptor or socket belong to the library from the call on and are closed on each path of failure. The two must belong together, which nobody but the caller can know.
   *
   * Rejects with CTLKEY_UNKNOWN (no such session; not detached; over; not for this user), LIMIT_SESSIONS, BAD_ARGUMENT, BAD_STATE (octets were read from the net.Socket), FD_KIND, POOL_LOST or TIMEOUT.
   */
  reattach(ctlkey: Uint8Array, socket: net.Socket | number, options: ReattachOptions = {}): Promise<PoolSocket> {
    return reattachSocket(this.#link, ctlkey, typeof socket === 'number' ? socket as OwnedFd : socket, options);
  }

  /**
   * From now on this program chooses the identity of outgoing sessions of its own user that name none, in whatever process, and is asked before each handshake that nothing is remembered for. A user has one
   * chooser. The session waits for the answer, at most as long as its own handshake may take. Rejects with SERVICE_TAKEN, NOT_PERMITTED, POOL_LOST, ...
   */
  offerChooser(choose: ChooseIdentity, options: ServiceOptions = {}): Promise<ServiceOffer> { return this.#services.offerChooser(choose, options); }

  /** From now on this program gives the PINs of locked keys: those that are locked now, and those that will be. For operators; a pool has one PIN entry. Rejects as offerChooser() does. */
  offerPinEntry(enter: EnterPin, options: ServiceOptions = {}): Promise<ServiceOffer> { return this.#services.offerPinEntry(enter, options); }

  /** Closes the listeners and the connection to the pool, which ends the sessions that starttls() and connect() made. May be called twice. */
  close(): void {
    for (const listener of this.#listeners) listener.close().catch(() => undefined);
    this.#services.lost();
    this.#link.close();
  }

  /** close(). */
  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }
}

/** Connects to the pool. Rejects with POOL_UNREACHABLE (naming the paths tried), VERSION, NOT_PERMITTED, LIMIT_CLIENTS, ABORTED or TIMEOUT. */
export function connectPool(options: PoolOptions = {}): Promise<Pool> { return new Pool(options).start(); }

let shared: Promise<Pool> | undefined;

/** The pool of this process, connected when it is first needed. A failed attempt is not kept. */
export function defaultPool(): Promise<Pool> {
  shared ??= connectPool().catch((error: unknown) => {
    shared = undefined;
    throw error;
  });
  return shared;
}
