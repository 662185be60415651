/** A connection without TLS that a proxy handed over, because its service lets clients choose. */
import net from 'node:net';
import { tellEndpoints } from './endpoints.js';
import type { OwnedFd } from './native.js';
import type { EventBody, PreambleInfo } from './protocol/index.js';

/** What a PlainSocket is made from. */
export interface PlainStart {
  readonly body: EventBody<'plainConnection'>;
  /** Owned by the socket. */
  readonly fd: OwnedFd;
  readonly allowHalfOpen?: boolean;
  /** Do not read before resume() is called. */
  readonly pauseOnConnect?: boolean;
}

/**
 * The client's own connection, which nothing protects: what is read from it may be anybody's, and what is written can be read on the way. The
 * octets with which the client showed that it does not want TLS are read first.
 */
export class PlainSocket extends net.Socket {
  readonly #body: EventBody<'plainConnection'>;

  /** @internal Sockets come from a HandoffListener. When it throws, the descriptor is still the caller's. */
  constructor({ body, fd, allowHalfOpen, pauseOnConnect }: PlainStart) {
    super({ fd, readable: true, writable: true, allowHalfOpen: allowHalfOpen ?? false, pauseOnCreate: pauseOnConnect ?? false } as net.SocketConstructorOpts);
    this.#body = body;
    // Nothing was read yet: libuv reads on a later turn.
    if (body.ahead !== undefined && body.ahead.length > 0) this.unshift(body.ahead);
  }

  /** Always false: code that looks at this property of TLS sockets sees that this is none. */
  get encrypted(): false { return false; }
  /** What the proxy says of the connection; `tls` is false. */
  get preamble(): PreambleInfo { return this.#body.preamble; }

  /** Our end of the client's connection; `{}` where it is not known. */
  override address(): net.AddressInfo | Record<string, never> {
    const { local } = this.#body;
    return local === undefined || local.family === 'unix' ? {} : { address: local.address, family: local.family, port: local.port };
  }

  /** @internal */
  endpoint(side: 'local' | 'remote', field: 'address' | 'port' | 'family'): string | number | undefined {
    const end = this.#body[side];
    return end === undefined || end.family === 'unix' ? undefined : end[field];
  }
}

tellEndpoints(PlainSocket.prototype);
