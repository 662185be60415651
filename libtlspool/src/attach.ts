/** Puts an existing server behind the pool: http, https, http2, and whatever sits on one of them (ws, Express, Fastify). */
import http from 'node:http';
import net from 'node:net';
import tls from 'node:tls';
import { closeIfAborted, closeWhenAborted, throwIfAborted } from './abort.js';
import type { Listener, ListenOptions } from './listener.js';
import { defaultPool } from './pool.js';
import type { Pool } from './pool.js';
import { TlsPoolError } from './protocol/index.js';
import { refuseTlsServer } from './refuse.js';
import { listenOptions } from './server.js';
import type { ServerAddress, ServerOptions } from './server.js';
import { inside } from './handle.js';
import type { PoolSocket } from './socket.js';
import { closeGiven } from './source.js';

/** How to attach: where to listen, and how. */
export interface AttachOptions extends ServerOptions, ServerAddress {
  /** For a plain http2 server: who serves clients that choose http/1.1. Default: an internal server that passes requests to this one. */
  readonly http1?: http.Server;
}

/** A server behind the pool. */
export interface Attached {
  /** As net.Server.address(). */
  address(): net.AddressInfo | string | null;
  /** Closes the server; resolves when all connections ended. May be called twice. */
  close(): Promise<void>;
  /** For its events: lost, reconnected, refused, drain. */
  readonly listener: Listener;
}

/** A function that handles requests, such as an Express application. */
export type RequestHandler = (request: http.IncomingMessage, response: http.ServerResponse) => void;
/** A Fastify instance. */
export interface FastifyLike {
  /** The http server below it. */
  readonly server: net.Server;
  /** Waits for the plug-ins. */
  ready(): PromiseLike<unknown>;
}

/** The insides of net.Server that its own `onconnection` and close() work with. */
interface ServerInside {
  _handle: object | null;
  _connections: number;
  _pipeName?: string;
  _emitCloseIfDrained(): void;
  readonly allowHalfOpen?: boolean;
  readonly ALPNProtocols?: Uint8Array;
}

/** What a tls.Server keeps of its options. */
interface TlsServerInside { readonly requestCert?: boolean; readonly rejectUnauthorized?: boolean }

/** http2 has no public class for its servers. */
const isHttp2 = (server: net.Server): boolean => 'updateSettings' in server;

/** Application protocols that the server speaks, from its own settings. */
function defaultAlpn(server: net.Server): readonly string[] | undefined {
  const wire = (server as unknown as ServerInside).ALPNProtocols;
  if (wire !== undefined) return parseAlpn(wire);
  if (isHttp2(server)) return ['h2', 'http/1.1'];
  return server instanceof http.Server ? ['http/1.1'] : undefined;
}

/** RFC 7301 section 3.1: names, each after its length. */
function parseAlpn(wire: Uint8Array): string[] {
  const names: string[] = [];
  for (let at = 0; at < wire.length; at += (wire[at] ?? 0) + 1) {
    names.push(Buffer.from(wire.subarray(at + 1, at + 1 + (wire[at] ?? 0))).toString('latin1'));
  }
  return names;
}

/** The events with which an http.Server asks its application. */
const httpEvents = ['request', 'upgrade', 'checkContinue', 'checkExpectation', 'connect', 'clientError'] as const;

/** An http.Server that lets a plain http2 server answer. */
function http1Behind(server: net.Server): http.Server {
  const http1 = http.createServer();
  // Who listens decides how Node's http treats a request, so each event is passed on only if somebody listens there.
  for (const event of httpEvents) {
    if (event === 'request' || server.listenerCount(event) > 0) http1.on(event, (...args: unknown[]) => { server.emit(event, ...args); });
  }
  return http1;
}

async function serverOf(target: net.Server | RequestHandler | FastifyLike): Promise<net.Server> {
  if (typeof target === 'function') return http.createServer(target);
  if (target instanceof net.Server) return target;
  await target.ready();
  return target.server;
}

/** What a server that was made for node:tls has been told about clients; the rest of what it was told would be ignored. Throws BAD_ARGUMENT. */
function ownAuthentication(server: tls.Server): ServerOptions {
  refuseTlsServer(server);
  const { requestCert, rejectUnauthorized } = server as unknown as TlsServerInside;
  return requestCert === true ? { requestCert, rejectUnauthorized: rejectUnauthorized !== false } : {};
}

/** How sockets reach the server. */
function deliverer(server: net.Server, http1: http.Server | undefined): (socket: PoolSocket) => void {
  if (server instanceof tls.Server) return (socket) => { server.emit('secureConnection', socket); };
  if (http1 === undefined) return (socket) => { server.emit('connection', socket); };
  return (socket) => { (socket.alpnProtocol === 'h2' ? server : http1).emit('connection', socket); };
}

/** Makes the server look like one that listens, so that listening, address(), close() and time-outs work. */
function pretend(server: net.Server, listener: Listener): void {
  const within = server as unknown as ServerInside;
  const address = listener.address();
  if (typeof address === 'string') within._pipeName = address;
  within._handle = {
    close: () => {
      // The port is closed when the pool says so; until then the server counts one connection, so that `close` waits.
      within._connections++;
      const done = (): void => { within._connections--; within._emitCloseIfDrained(); };
      listener.close().then(done, done);
    },
    ref: () => listener.ref(),
    unref: () => listener.unref(),
    ...(typeof address === 'string' ? {} : { getsockname: (out: object) => { Object.assign(out, address); return 0; } }),
  };
}

/** What attach() needs before anything listens. Throws as attach() rejects. */
async function prepared(target: net.Server | RequestHandler | FastifyLike, options: AttachOptions): Promise<{ server: net.Server; http1: http.Server | undefined; pool: Pool; listen: ListenOptions }> {
  const { http1: explicit, signal, ...serverOptions } = options;
  throwIfAborted(signal);
  const server = await serverOf(target);
  if (server.listening) throw new TlsPoolError('BAD_STATE', { text: 'the server listens already; attach() a server on which listen() was not called' });
  const http1 = isHttp2(server) && !(server instanceof tls.Server) ? explicit ?? http1Behind(server) : undefined;
  const listen = listenOptions(server instanceof tls.Server ? { ...ownAuthentication(server), ...serverOptions } : serverOptions);
  const alpn = listen.alpn ?? defaultAlpn(server);
  const allowHalfOpen = listen.allowHalfOpen ?? (server as unknown as ServerInside).allowHalfOpen ?? false;
  const pool = options.pool ?? await defaultPool();
  return { server, http1, pool, listen: { ...listen, ...(alpn === undefined ? {} : { alpn }), allowHalfOpen } };
}

/**
 * Puts a server that does not listen behind the pool: an http, https or http2 server, the server below ws, a Fastify
 * instance, or a request handler such as an Express application.
 *
 * The server gets PoolSockets as `connection` events (`secureConnection` for https and secure http2 servers, whose own key is
 * not used; requestCert and rejectUnauthorized with which they were made are in force, and other settings of node:tls, such as ca or minVersion, are BAD_ARGUMENT), and then works as if it listened itself: address(), close(), maxConnections and its time-outs.
 * ALPN is what the server speaks: http/1.1; h2 and http/1.1 for http2. Rejects with BAD_STATE (it listens already) and as listen() does.
 */
export async function attach(target: net.Server | RequestHandler | FastifyLike, options: AttachOptions = {}): Promise<Attached> {
  const { server, http1, pool, listen } = await prepared(target, options).catch((error: unknown) => { closeGiven(options); throw error; });
  const { signal } = options;
  const within = server as unknown as ServerInside;
  const deliver = deliverer(server, http1);
  const listener = await pool.listenTo(
    listen,
    (socket) => {
      // As net's own onconnection does it: the socket counts itself out when it is destroyed.
      within._connections++;
      const parts = inside(socket);
      parts.server = server;
      parts._server = server;
      deliver(socket);
    },
    () => {
      if (typeof server.maxConnections !== 'number' || within._connections < server.maxConnections) return true;
      server.emit('drop');
      return false;
    },
  );
  await closeIfAborted(signal, listener);
  pretend(server, listener);
  listener.once('close', (reason) => {
    if (reason === undefined) return;
    // Not our close(): the pool will not accept for us any more.
    server.close();
    server.emit('error', reason);
  });
  const closed = new Promise<void>((resolve) => { server.once('close', resolve); });
  if (http1 !== undefined) {
    http1.emit('listening');
    server.once('close', () => http1.close());
  }
  server.emit('listening');
  const close = (): Promise<void> => {
    if (server.listening) server.close();
    http1?.closeIdleConnections();
    return closed;
  };
  server.once('close', closeWhenAborted(signal, () => { void close(); }));
  return { listener, address: () => listener.address(), close };
}

