/** A channel that is made again when it is lost. */
import { setTimeout as delay } from 'node:timers/promises';
import { Channel } from './channel.js';
import type { ChannelOwner, Reply } from './channel.js';
import type { BorrowedFd } from './native.js';
import { PoolBusy, connectPath, socketPaths } from './path.js';
import { TlsPoolError, protocolVersion } from './protocol/index.js';
import type { RequestBody, RequestOp } from './protocol/index.js';

/** Back-off between attempts: doubles from the first to the last, each with jitter, so that the programs of a host do not come all at once. */
const backoffFirstMs = 50;
const backoffLastMs = 2_000;
const busyRetryMs = 20;

/** How to reach the pool. */
export interface LinkOptions {
  /** Path of the pool's socket; absent: $TLSPOOL_SOCKET, else the system's pool, else the user's. */
  readonly path?: string;
  /** Connect again when the connection is lost. Default true. */
  readonly reconnect?: boolean;
  /** How long the pool may take to answer, in milliseconds. Default 10,000. */
  readonly timeoutMs?: number;
  /** Ends the first connection attempt with ABORTED; without effect afterwards. */
  readonly signal?: AbortSignal;
}

/** @internal What the owner of a link adds to what a channel tells it. */
export interface LinkOwner extends Omit<ChannelOwner, 'lost'> {
  /** Runs on each new channel after `hello`, before the link counts as up. */
  setUp(channel: Channel): Promise<void>;
  lost(error: TlsPoolError): void;
  restored(): void;
  /** A reconnection was refused by the pool; it is tried again. */
  refused(error: TlsPoolError): void;
}

/** @internal */
export class Link {
  readonly #owner: LinkOwner;
  readonly #options: LinkOptions;
  readonly timeoutMs: number;
  #channel: Channel | undefined;
  #closed = false;
  #held = false;
  #timer: NodeJS.Timeout | undefined;
  #waiting: { resolve(channel: Channel): void; reject(error: Error): void }[] = [];

  constructor(options: LinkOptions, owner: LinkOwner) {
    this.#options = options;
    this.#owner = owner;
    this.timeoutMs = options.timeoutMs ?? 10_000;
  }

  get channel(): Channel | undefined { return this.#channel; }
  get closed(): boolean { return this.#closed; }

  /** The first connection; rejects with POOL_UNREACHABLE, ABORTED, TIMEOUT or what setUp() threw, and is closed then. */
  async start(): Promise<void> {
    try {
      await this.#connect();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  ref(): void { this.#held = true; this.#channel?.ref(); this.#timer?.ref(); }
  unref(): void { this.#held = false; this.#channel?.unref(); this.#timer?.unref(); }

  /** A request over the present channel, or the next one when the pool is being waited for. */
  async request<Op extends RequestOp>(op: Op, body: RequestBody<Op>, fds: readonly BorrowedFd[], timeoutMs = this.timeoutMs): Promise<Reply<Op>> {
    return (this.#channel ?? await this.whenUp()).request(op, body, fds, timeoutMs);
  }

  /** Resolves when the pool is connected; rejects with POOL_LOST when that is not to be, or takes longer than timeoutMs. */
  whenUp(): Promise<Channel> {
    if (this.#channel !== undefined) return Promise.resolve(this.#channel);
    if (this.#closed || this.#options.reconnect === false) {
      return Promise.reject(new TlsPoolError('POOL_LOST', { text: 'the connection to the pool is closed: call connectPool() again' }));
    }
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting = this.#waiting.filter((one) => one !== entry);
        reject(new TlsPoolError('POOL_LOST', { text: `the pool went away and did not come back within ${this.timeoutMs} ms; is tlspoold running?` }));
      }, this.timeoutMs);
      const entry = {
        resolve: (channel: Channel) => { clearTimeout(timer); resolve(channel); },
        reject: (error: Error) => { clearTimeout(timer); reject(error); },
      };
      this.#waiting.push(entry);
    });
  }

  /** No further channel is made. The present one stays until its sessions ended if `graceful`, else it is closed. May be called twice. */
  close(graceful = false): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    const channel = this.#channel;
    this.#channel = undefined;
    for (const one of this.#waiting.splice(0)) one.reject(new TlsPoolError('POOL_LOST', { text: 'the connection to the pool was closed by this program' }));
    if (channel === undefined) return;
    channel.resume();
    channel.unref();
    if (graceful && channel.sessions > 0) channel.onIdle = () => channel.close();
    else channel.close();
  }

  async #connect(): Promise<Channel> {
    const { signal } = this.#options;
    const deadline = performance.now() + this.timeoutMs;
    const fd = await this.#connectPath(deadline);
    let lost: TlsPoolError | undefined;
    const owner = this.#owner;
    const channel = new Channel(fd, {
      asked: owner.asked,
      connection: (from, body, plainfd) => owner.connection(from, body, plainfd),
      missed: (error) => owner.missed?.(error),
      listenerClosed: (body) => owner.listenerClosed(body),
      drain: (body) => owner.drain(body),
      lost: (which, error) => { lost = error; this.#onLost(which, error); },
    });
    const abort = (): void => channel.close();
    signal?.addEventListener('abort', abort, { once: true });
    try {
      const { body } = await channel.request('hello', { versions: [protocolVersion], client: `libtlspool (node ${process.versions.node})` }, [], this.timeoutMs);
      if (body.version !== protocolVersion) {
        throw new TlsPoolError('VERSION', { text: `the pool speaks version ${body.version} of the protocol, this library ${protocolVersion}: upgrade the older one` });
      }
      channel.maxMessageOctets = body.maxMessageOctets;
      await owner.setUp(channel);
      this.#checkAborted();
      if (lost !== undefined) throw lost;
    } catch (error) {
      channel.close();
      this.#checkAborted(error);
      throw error;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
    return this.#up(channel);
  }

  #up(channel: Channel): Channel {
    if (this.#closed) {
      channel.close();
      throw new TlsPoolError('POOL_LOST', { text: 'the connection to the pool was closed by this program' });
    }
    this.#channel = channel;
    if (this.#held) channel.ref();
    for (const one of this.#waiting.splice(0)) one.resolve(channel);
    return channel;
  }

  async #connectPath(deadline: number): Promise<ReturnType<typeof connectPath>> {
    for (;;) {
      this.#checkAborted();
      try {
        return connectPath(socketPaths(this.#options.path));
      } catch (error) {
        if (!(error instanceof PoolBusy)) throw error;
        if (performance.now() > deadline) throw new TlsPoolError('POOL_UNREACHABLE', { text: `the pool at ${error.message} does not take new clients; it is overloaded or stopped` });
        await delay(busyRetryMs);
      }
    }
  }

  #checkAborted(cause?: unknown): void {
    if (this.#options.signal?.aborted !== true) return;
    throw new TlsPoolError('ABORTED', { cause: this.#options.signal.reason ?? cause });
  }

  #onLost(channel: Channel, error: TlsPoolError): void {
    // A channel that was lost before it was up is reported by the promise of #connect().
    if (this.#channel !== channel) return;
    this.#channel = undefined;
    this.#owner.lost(error);
    if (!this.#closed && this.#options.reconnect !== false) this.#retry(backoffFirstMs);
  }

  #retry(waitMs: number): void {
    if (this.#closed) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#connect().then(
        () => this.#owner.restored(),
        (error: unknown) => {
          if (this.#closed) return;
          if (error instanceof TlsPoolError && error.kind !== 'system' && error.kind !== 'closed') this.#owner.refused(error);
          this.#retry(Math.min(waitMs * 2, backoffLastMs));
        },
      );
    }, waitMs * (0.5 + Math.random() / 2));
    if (!this.#held) this.#timer.unref();
  }
}
