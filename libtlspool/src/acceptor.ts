/** What all listeners share: connections that wait for accept(), and those who wait in accept() for connections. */
import { AsyncResource } from 'node:async_hooks';
import { EventEmitter } from 'node:events';
import type { SessionSink } from './channel.js';
import type { SessionControl, SessionStart } from './control.js';
import { sockets } from './native.js';
import { TlsPoolError } from './protocol/index.js';
import type { EventBody, SessionInfo } from './protocol/index.js';
import { PoolSocket } from './socket.js';

/** Events of a listener. */
export interface ListenerEvents {
  /** The pool is gone; the listening socket stays open and connections wait in the kernel until it is back. */
  lost: [TlsPoolError];
  /** The pool is back and accepts again. */
  reconnected: [];
  /** The pool is back but refused the listener, and is asked again; or a connection was not taken: it was lost because the process has no descriptor left (SYSTEM), or, of a hand-off socket, for the reason given. */
  refused: [TlsPoolError];
  /** The pool goes down and accepts nothing new. */
  drain: [{
    /** Milliseconds from now. */
    readonly deadlineMs: number;
  }];
  /** Nothing will be accepted any more; with the reason when it was not close(). */
  close: [TlsPoolError | undefined];
}

/**
 * @internal A connection that waits for accept(). It is not a socket yet: nobody could hear the `error` event of one that
 * fails while it waits, and that would end the process.
 */
export interface Offer<S> {
  /** Makes the socket, which owns the descriptor from then on; it is closed when this throws. */
  take(): S;
  /** Closes the descriptor. */
  drop(): void;
}

/** @internal A session that waits for accept(), and hears how it ends meanwhile. */
export class WaitingSession implements Offer<PoolSocket>, SessionSink {
  #start: SessionStart;
  #closed: EventBody<'closed'> | undefined;

  /** The descriptor is ours. */
  constructor(start: SessionStart) {
    this.#start = start;
    start.channel.addSession(start.ctlkey, this);
  }

  /** Somebody else controls the session from now on. */
  follow(channel: SessionControl, info: SessionInfo = this.#start.info): void {
    this.#start = { ...this.#start, channel, info };
    channel.addSession(this.#start.ctlkey, this);
  }

  noteClosed(closed: EventBody<'closed'>): void { this.#closed = closed; }
  noteLost(): void { /* the socket finds that out when it reads the end */ }
  take(): PoolSocket { return new PoolSocket({ ...this.#start, closed: this.#closed }); }
  drop(): void { sockets.close(this.#start.fd); }
}

interface Waiter<S> { take(offer: Offer<S>): void; reject(error: Error): void }

/** Accepts connections that others have protected; Listener and HandoffListener say who. */
export abstract class Acceptor<S> extends EventEmitter<ListenerEvents> {
  #offers: Offer<S>[] = [];
  #waiters: Waiter<S>[] = [];
  #ended: TlsPoolError | undefined;

  /** Stops accepting; connections that nobody accepted are closed, the others go on. May be called twice. */
  abstract close(): Promise<void>;

  /**
   * The next connection, in the order in which they became ready. Rejects with LISTENER_CLOSED after close(), with the error that ended the
   * listener otherwise, with ABORTED by `signal`.
   */
  accept(options: { readonly signal?: AbortSignal } = {}): Promise<S> {
    const { signal } = options;
    if (signal?.aborted === true) return Promise.reject(new TlsPoolError('ABORTED', { cause: signal.reason }));
    const offer = this.#offers.shift();
    if (offer !== undefined) {
      this.onTaken();
      return new Promise((resolve) => { resolve(offer.take()); });
    }
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      const abort = (): void => {
        this.#waiters = this.#waiters.filter((one) => one !== waiter);
        reject(new TlsPoolError('ABORTED', { cause: signal?.reason }));
      };
      const settled = (): void => signal?.removeEventListener('abort', abort);
      const waiter: Waiter<S> = {
        // The socket's events belong to whoever accepts it, as if it had been there already.
        take: AsyncResource.bind((offer: Offer<S>) => { settled(); resolve(offer.take()); }),
        reject: (error) => { settled(); reject(error); },
      };
      signal?.addEventListener('abort', abort, { once: true });
      this.#waiters.push(waiter);
    });
  }

  /** Connections until the listener is closed. Leaving the loop closes it. */
  async *[Symbol.asyncIterator](): AsyncGenerator<S, void, undefined> {
    try {
      for (;;) yield await this.accept();
    } catch (error) {
      if (!(error instanceof TlsPoolError) || error !== this.#ended || error.code !== 'LISTENER_CLOSED') throw error;
    } finally {
      await this.close();
    }
  }

  /** close(). */
  async [Symbol.asyncDispose](): Promise<void> { await this.close(); }

  /** Connections that wait. */
  protected get waiting(): number { return this.#offers.length; }
  /** Set once nothing is accepted any more. */
  protected get ended(): TlsPoolError | undefined { return this.#ended; }

  /** One connection less waits. */
  protected abstract onTaken(): void;

  /** Gives a connection to whoever waits for one, or lets it wait. */
  protected offer(offer: Offer<S>): void {
    if (this.#ended !== undefined) { offer.drop(); return; }
    const waiter = this.#waiters.shift();
    if (waiter === undefined) { this.#offers.push(offer); return; }
    try {
      waiter.take(offer);
    } catch (error) {
      waiter.reject(error as Error);
    }
  }

  /** Closes what waits. */
  protected dropOffers(): void { for (const offer of this.#offers.splice(0)) offer.drop(); }

  /** The end, once: `release` gives up what the listener is made of; those who wait are rejected with `ended`, and `reason` is told. */
  protected finish(ended: TlsPoolError, reason: TlsPoolError | undefined, release: () => void): void {
    if (this.#ended !== undefined) return;
    this.#ended = ended;
    this.dropOffers();
    release();
    for (const waiter of this.#waiters.splice(0)) waiter.reject(ended);
    this.emit('close', reason);
  }
}
