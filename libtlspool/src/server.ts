/** A server in the shape of tls.createServer(). */
import { EventEmitter } from 'node:events';
import { closeWhenAborted } from './abort.js';
import type net from 'node:net';
import type { Listener, ListenOptions } from './listener.js';
import { defaultPool } from './pool.js';
import type { Pool } from './pool.js';
import { TlsPoolError } from './protocol/index.js';
import { refuseTlsOptions } from './refuse.js';
import type { PoolSocket } from './socket.js';
import { closeGiven } from './source.js';

/** Options of createServer(): how to listen, and tls.createServer()'s names for the same things. */
export interface ServerOptions extends Omit<ListenOptions, keyof ServerAddress | 'highWaterMark'> {
  /** Default: the pool of this process. */
  readonly pool?: Pool;
  /** As in Node: the same as alpn. */
  readonly ALPNProtocols?: readonly string[];
  /** As in Node: the same as clientAuth `require`, or `request` with rejectUnauthorized false. */
  readonly requestCert?: boolean;
}

/** Where to listen, as in net.Server.listen(). */
export type ServerAddress = Pick<ListenOptions, 'port' | 'host' | 'path' | 'fd' | 'backlog' | 'reusePort' | 'ipv6Only' | 'signal'>;

/** Events of a Server. There is no tlsClientError: handshakes that fail, fail in the pool. */
export interface ServerEvents {
  /** A connection whose handshake is done. */
  secureConnection: [PoolSocket];
  /** listen() succeeded. */
  listening: [];
  /** Not listening any more, and all connections ended. */
  close: [];
  /** listen() failed, or the pool closed the listener. */
  error: [Error];
  /** A connection over maxConnections was closed. */
  drop: [];
}

/** Translates tls.createServer()'s names. */
export function listenOptions(options: ServerOptions): ListenOptions {
  refuseTlsOptions(options);
  const { pool: _pool, ALPNProtocols, requestCert, ...rest } = options;
  const alpn = rest.alpn ?? ALPNProtocols;
  const clientAuth = rest.clientAuth ?? (requestCert === true ? rest.rejectUnauthorized === false ? 'request' : 'require' : undefined);
  return { ...rest, ...(alpn === undefined ? {} : { alpn }), ...(clientAuth === undefined ? {} : { clientAuth }) };
}

/** A TLS server whose handshakes the pool does. */
export class Server extends EventEmitter<ServerEvents> {
  readonly #options: ServerOptions;
  readonly #listenOptions: ListenOptions;
  #listener: Listener | undefined;
  #state: 'idle' | 'starting' | 'listening' = 'idle';
  #generation = 0;
  #refed = true;
  #closing = false;
  #connections = 0;
  /** Connections over this number are closed and reported as `drop`. Absent: no limit but the pool's. */
  maxConnections: number | undefined;

  /** @internal Use createServer(). */
  constructor(options: ServerOptions) {
    super();
    this.#options = options;
    this.#listenOptions = listenOptions(options);
  }

  /** Are connections accepted? */
  get listening(): boolean { return this.#state === 'listening'; }
  /** Connections that have not ended. */
  get connections(): number { return this.#connections; }

  /** As net.Server.listen(): emits `listening` or `error`. Throws BAD_STATE when it listens already. */
  listen(port?: number, host?: string, backlog?: number, callback?: () => void): this;
  listen(port?: number, host?: string, callback?: () => void): this;
  listen(port?: number, callback?: () => void): this;
  listen(path: string, callback?: () => void): this;
  listen(address: ServerAddress, callback?: () => void): this;
  listen(callback?: () => void): this;
  listen(...args: readonly unknown[]): this {
    const { signal, ...address } = addressArguments(args);
    if (this.#state !== 'idle') {
      closeGiven(address);
      throw new TlsPoolError('BAD_STATE', { text: 'the server listens already: close() it first' });
    }
    const callback = args.at(-1);
    if (typeof callback === 'function') this.once('listening', callback as () => void);
    this.#state = 'starting';
    const generation = ++this.#generation;
    void this.#start(address, generation);
    // Not another listen() that came after this one failed.
    this.once('close', closeWhenAborted(signal, () => { if (generation === this.#generation) this.close(); }));
    return this;
  }

  async #start(address: ServerAddress, generation: number): Promise<void> {
    try {
      const pool = this.#options.pool ?? await defaultPool().catch((error: unknown) => { closeGiven(address); throw error; });
      const listener = await pool.listenTo({ ...this.#listenOptions, ...address }, (socket) => this.#onSocket(socket), () => this.#admit());
      if (generation !== this.#generation) {
        await listener.close();
        return;
      }
      this.#listener = listener;
      this.#state = 'listening';
      if (!this.#refed) listener.unref();
      listener.once('close', (reason) => this.#onListenerClose(listener, reason));
      this.emit('listening');
    } catch (error) {
      if (generation !== this.#generation) return;
      this.#state = 'idle';
      this.emit('error', error instanceof Error ? error : new Error(String(error)));
    }
  }

  #admit(): boolean {
    if (this.maxConnections === undefined || this.#connections < this.maxConnections) return true;
    this.emit('drop');
    return false;
  }

  #onSocket(socket: PoolSocket): void {
    this.#connections++;
    socket.once('close', this.#onSocketClose);
    this.emit('secureConnection', socket);
  }

  readonly #onSocketClose = (): void => {
    this.#connections--;
    this.#closeIfDone();
  };

  #onListenerClose(listener: Listener, reason: TlsPoolError | undefined): void {
    if (this.#listener !== listener) return;
    this.#listener = undefined;
    this.#state = 'idle';
    if (reason !== undefined) this.emit('error', reason);
    this.#closeIfDone();
  }

  #closeIfDone(): void {
    if (this.#state === 'idle' && !this.#closing && this.#connections === 0) process.nextTick(() => this.emit('close'));
  }

  /** As net.Server.address(). */
  address(): net.AddressInfo | string | null { return this.#listener?.address() ?? null; }

  /** Stops listening; `callback` is called once all connections ended, with BAD_STATE when it was not listening. */
  close(callback?: (error?: Error) => void): this {
    if (this.#state === 'idle') {
      if (callback !== undefined) process.nextTick(callback, new TlsPoolError('BAD_STATE', { text: 'the server is not listening' }));
      return this;
    }
    if (callback !== undefined) this.once('close', () => callback());
    const listener = this.#listener;
    if (listener === undefined) {
      this.#generation++;
      this.#state = 'idle';
      this.#closeIfDone();
    } else {
      // The port is closed when the pool says so; what else the farewell meets does not matter any more.
      this.#closing = true;
      const done = (): void => { this.#closing = false; this.#closeIfDone(); };
      listener.close().then(done, done);
    }
    return this;
  }

  /** As net.Server.getConnections(). */
  getConnections(callback: (error: Error | null, count: number) => void): void { process.nextTick(callback, null, this.#connections); }
  /** Listening keeps the process alive (the default). */
  ref(): this { this.#refed = true; this.#listener?.ref(); return this; }
  /** Listening alone does not keep the process alive. */
  unref(): this { this.#refed = false; this.#listener?.unref(); return this; }

  /** close(), until all connections ended. */
  [Symbol.asyncDispose](): Promise<void> {
    return new Promise((resolve) => { this.close(() => resolve()); });
  }
}

function addressArguments(args: readonly unknown[]): ServerAddress {
  const [first, ...rest] = args;
  if (typeof first === 'object' && first !== null) return first;
  if (typeof first === 'string' && !/^\d+$/.test(first)) return { path: first };
  const host = rest.find((one) => typeof one === 'string');
  const backlog = rest.find((one) => typeof one === 'number');
  return {
    ...(typeof first === 'number' || typeof first === 'string' ? { port: Number(first) } : {}),
    ...(host === undefined ? {} : { host }), ...(backlog === undefined ? {} : { backlog }),
  };
}

/** A server in the shape of tls.createServer(), without keys. Throws BAD_ARGUMENT for options of node:tls that would be ignored, such as those that carry keys or trust. */
export function createServer(options: ServerOptions = {}, onSecureConnection?: (socket: PoolSocket) => void): Server {
  const server = new Server(options);
  if (onSecureConnection !== undefined) server.on('secureConnection', onSecureConnection);
  return server;
}
