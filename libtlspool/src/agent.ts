/** Outgoing HTTPS through the pool. */
import http from 'node:http';
import type { Duplex } from 'node:stream';
import { connectThrough } from './connect.js';
import type { ConnectOptions } from './connect.js';
import { defaultPool } from './pool.js';
import type { Pool } from './pool.js';
import { TlsPoolError } from './protocol/index.js';
import { refuseTlsOptions } from './refuse.js';

/** Options of an Agent. */
export interface AgentOptions extends http.AgentOptions {
  /** Default: the pool of this process. */
  readonly pool?: Pool;
  /** Identity whose client certificate and trust are used. */
  readonly localid?: string;
  /** false: a server certificate that does not verify is accepted, if the policy of the identity allows that. */
  readonly rejectUnauthorized?: boolean;
  /** Application protocols. Default http/1.1. */
  readonly alpn?: readonly string[];
}

/** What http gives createConnection(): the options of the request over those of the agent. */
interface RequestOptions {
  readonly host?: string | null;
  readonly port?: number | string | null;
  readonly servername?: string;
  readonly localid?: string;
  readonly rejectUnauthorized?: boolean;
  readonly family?: number;
  readonly localAddress?: string;
  readonly lookup?: ConnectOptions['lookup'];
  readonly signal?: AbortSignal;
  readonly socketPath?: string | null;
  readonly timeout?: number;
}

const renamed = { ALPNProtocols: 'give alpn to the Agent' };

/** The request that http is busy with on a connection, and its answer. Not in the types of Node, but as old as its Agent. */
interface HttpSocket { readonly _httpMessage?: { readonly res?: http.IncomingMessage | null } | null }

/**
 * An answer without a length ends with its connection (RFC 9112 section 6.3). When the connection fails, http tells the *request* so, and then
 * takes what it has of the answer for all of it: `end`, and complete is true. Code that looks at the answer alone would take a
 * truncated stream for a whole one. So the answer fails first, and stays incomplete.
 */
function failAnswerFirst(socket: Duplex): void {
  socket.prependListener('error', (error: Error) => {
    const answer = (socket as HttpSocket)._httpMessage?.res;
    if (answer === undefined || answer === null || answer.complete) return;
    Object.defineProperty(answer, 'complete', { configurable: true, enumerable: true, get: () => false, set: () => undefined });
    answer.destroy(error);
  });
}

/** node:https counts the time of the handshake too, with the socket that http has by then. Here it has none, and would wait for as long as the pool does. */
async function inTime({ timeout, signal }: RequestOptions, connect: (signal: AbortSignal | undefined) => Promise<Duplex>): Promise<Duplex> {
  if (typeof timeout !== 'number' || timeout <= 0) return connect(signal);
  const deadline = AbortSignal.timeout(timeout);
  try {
    return await connect(signal === undefined ? deadline : AbortSignal.any([signal, deadline]));
  } catch (error) {
    if (!deadline.aborted || signal?.aborted === true) throw error;
    throw new TlsPoolError('TIMEOUT', { text: `no protected connection within ${timeout} ms, the timeout of the request or its agent`, cause: error });
  }
}

/**
 * An http.Agent for `https:` whose connections the pool protects: `https.request(url, {agent})`, or http.request() with an https: URL.
 * `localid` and `rejectUnauthorized` may be given per request; connections are kept alive per identity. A request
 * with options of node:tls that would be ignored, such as keys, trust or its own check of the server, fails with BAD_ARGUMENT; errors of the connection reach the request, and
 * the answer when it is under way: one that was cut off emits `aborted` and `error`, never `end`. A `timeout` of the request or
 * the agent is also the deadline of connection and handshake: TIMEOUT.
 */
export class Agent extends http.Agent {
  readonly #options: AgentOptions;
  /** What http checks the URL against. */
  readonly protocol: string = 'https:';
  /** Port of URLs without one. */
  readonly defaultPort: number = 443;

  /** Throws BAD_ARGUMENT for options of node:tls that would be ignored, such as those that carry keys or trust. */
  constructor(options: AgentOptions = {}) {
    const { pool: _pool, localid: _localid, rejectUnauthorized: _reject, alpn: _alpn, ...httpOptions } = options;
    refuseTlsOptions(httpOptions, renamed);
    super(httpOptions);
    this.#options = options;
  }

  /** Connections are shared only between requests that name the same server and the same identity. */
  override getName(options: Parameters<http.Agent['getName']>[0] & RequestOptions = {}): string {
    const { localid, rejectUnauthorized } = this.#merged(options);
    return JSON.stringify([super.getName(options), options.servername ?? '', localid ?? '', rejectUnauthorized ?? true]);
  }

  override createConnection(options: http.ClientRequestArgs, callback?: (error: Error | null, stream: Duplex) => void): Duplex | null | undefined {
    const settle = callback as ((error: Error | null, stream?: Duplex) => void) | undefined;
    this.#connect(options as RequestOptions).then(
      (socket) => { failAnswerFirst(socket); settle?.(null, socket); },
      (error: unknown) => settle?.(error instanceof Error ? error : new Error(String(error))),
    );
    return undefined;
  }

  #merged(options: RequestOptions): { localid: string | undefined; rejectUnauthorized: boolean | undefined } {
    return {
      localid: options.localid ?? this.#options.localid,
      rejectUnauthorized: options.rejectUnauthorized ?? this.#options.rejectUnauthorized,
    };
  }

  async #connect(options: RequestOptions): Promise<Duplex> {
    refuseTlsOptions(options, renamed);
    if (options.socketPath !== undefined && options.socketPath !== null && options.socketPath !== '') {
      throw new TlsPoolError('BAD_ARGUMENT', { text: 'socketPath is not supported: TLS over a UNIX socket needs starttls()', field: 'socketPath' });
    }
    const pool = this.#options.pool ?? await defaultPool();
    const { localid, rejectUnauthorized } = this.#merged(options);
    const host = options.host ?? 'localhost';
    return inTime(options, (signal) => connectThrough(pool.link, {
      host, port: Number(options.port ?? this.defaultPort), alpn: this.#options.alpn ?? ['http/1.1'],
      // http sets servername from the Host header; empty for an address, which is then what the certificate must carry.
      remoteid: options.servername === undefined || options.servername === '' ? host : options.servername,
      ...(localid === undefined ? {} : { localid }), ...(rejectUnauthorized === undefined ? {} : { rejectUnauthorized }),
      ...(options.family === 4 || options.family === 6 ? { family: options.family } : {}),
      ...(options.localAddress === undefined ? {} : { localAddress: options.localAddress }),
      ...(options.lookup === undefined ? {} : { lookup: options.lookup }), ...(signal === undefined ? {} : { signal }),
    }));
  }
}
