/** Outgoing TLS connections. */
import net from 'node:net';
import { stopReading } from './handle.js';
import type { Link } from './link.js';
import { TlsPoolError } from './protocol/index.js';
import { refuseTlsOptions } from './refuse.js';
import type { PoolSocket } from './socket.js';
import { protect } from './starttls.js';
import type { StartTlsOptions } from './starttls.js';

/** Where to connect to, and how; the options of net.connect() for TCP and of starttls() for TLS. */
export interface ConnectOptions extends Omit<StartTlsOptions, 'role' | 'goAhead' | 'greeting' | 'capabilities' | 'via' | 'clientAuth' | 'onServername'> {
  /** Name or address of the server; also what its certificate must carry, unless `remoteid` or `servername` is given. */
  readonly host: string;
  /** TCP port, 1 to 65535. */
  readonly port: number;
  /** IP version to use; absent: both, as net.connect() does. */
  readonly family?: 4 | 6;
  /** Address to connect from. */
  readonly localAddress?: string;
  /** Replaces dns.lookup(). */
  readonly lookup?: net.LookupFunction;
  /** Deadline of the TCP connection in milliseconds. Default 30,000. */
  readonly connectMs?: number;
  /** Ends the attempt, the handshake included, with ABORTED. */
  readonly signal?: AbortSignal;
}

const defaultConnectMs = 30_000;
const renamed = {
  socket: 'use starttls(socket, {role: \'client\'})', path: 'connect with net.connect(), and use starttls(socket, {role: \'client\'})',
  ALPNProtocols: 'give alpn', timeout: 'give connectMs and handshakeMs; setTimeout() of the socket is for later',
};

/** @internal */
export async function connectThrough(link: Link | Promise<Link>, options: ConnectOptions): Promise<PoolSocket> {
  refuseTlsOptions(options, renamed);
  const { host, port, family, localAddress, lookup, connectMs, signal, ...tls } = options;
  const socket = net.connect({
    host, port,
    ...(family === undefined ? {} : { family }), ...(localAddress === undefined ? {} : { localAddress }), ...(lookup === undefined ? {} : { lookup }),
  });
  const abort = (): void => { socket.destroy(new TlsPoolError('ABORTED', { cause: signal?.reason })); };
  signal?.addEventListener('abort', abort, { once: true });
  try {
    if (signal?.aborted === true) abort();
    await connected(socket, `${host}:${port}`, connectMs ?? defaultConnectMs);
    const remoteid = tls.remoteid ?? (tls.servername === undefined || tls.servername === '' ? host : tls.servername);
    return await protect(link, socket, { ...tls, role: 'client', remoteid, ...(signal === undefined ? {} : { signal }) });
  } catch (error) {
    // An abort during the handshake shows as whatever the pool made of the closed connection.
    if (signal?.aborted === true) throw new TlsPoolError('ABORTED', { cause: signal.reason ?? error });
    throw error;
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}

function connected(socket: net.Socket, where: string, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      socket.destroy(new TlsPoolError('TIMEOUT', { text: `no connection to ${where} within ${timeoutMs} ms` }));
    }, timeoutMs);
    socket.once('connect', () => {
      clearTimeout(timer);
      // Before the promise's turn, or Node would begin to read.
      stopReading(socket);
      resolve();
    });
    socket.once('error', (error) => { clearTimeout(timer); reject(error); });
  });
}
