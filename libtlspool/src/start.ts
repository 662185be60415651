/** The request that protects a connected socket, for PoolSockets and for bare descriptors. */
import { AsyncResource } from 'node:async_hooks';
import { askFields, askedBy } from './asked.js';
import type { AskedOptions } from './asked.js';
import type { Channel, Reply } from './channel.js';
import { closeAll } from './inlet.js';
import type { Link } from './link.js';
import { sockets } from './native.js';
import type { BorrowedFd, OwnedFd } from './native.js';
import { TlsPoolError } from './protocol/index.js';
import type { Backend, ClientAuth, RequestBody } from './protocol/index.js';

const pollIn = 1;
const pollReadHangUp = 8192;
/** The pool has its own handshake deadline, of a minute at most unless it is asked for another; ours is for a pool that hangs. */
const defaultHandshakeMs = 60_000;

/** What the handshake of one connection is to be like. */
export interface StartOptions {
  /** Which side of the handshake is ours. */
  readonly role: 'server' | 'client';
  /** Identity to use. A server without it chooses by server name. */
  readonly localid?: string;
  /**
   * The pool's signing CA makes a certificate where no identity that this program may use has the name. Server: for the server name that the client asks for, or for `localid` where it
   * sends none; names that may not be signed are refused with NAME_REFUSED or SIGNING_UNAVAILABLE. Client: for `localid`, which is then a host name, an address or an e-mail
   * address. Needs the `sign` permission. Default false.
   */
  readonly onTheFly?: boolean;
  /** Client: the name or address that the server's certificate must carry; sent as server name when it is a name. */
  readonly remoteid?: string;
  /** Client: server name to send instead of remoteid; the empty string sends none. */
  readonly servername?: string;
  /** Application protocols (RFC 7301), the most preferred first. */
  readonly alpn?: readonly string[];
  /** Server: raises what the policy of the identity says, never lowers it. */
  readonly clientAuth?: ClientAuth;
  /** false: a certificate that does not verify is reported in authorizationError instead of refused. */
  readonly rejectUnauthorized?: boolean;
  /** Deadline of the handshake in milliseconds, up to 3,600,000. Absent: the pool's. */
  readonly handshakeMs?: number;
  /** The session outlives this program's connection to the pool: it is detached when that ends, and whoever has the ctlkey may reattach. */
  readonly fork?: boolean;
  /** Ends the attempt with ABORTED, and with it the connection; without effect once it has succeeded. */
  readonly signal?: AbortSignal;
}

/** @internal */
export interface StartRequest extends StartOptions, AskedOptions {
  /** Owned: closed when it is sent, or on failure. */
  readonly cryptfd: OwnedFd;
  /** Owned, as cryptfd is. */
  readonly plainfd?: OwnedFd | undefined;
  readonly backend?: Backend | undefined;
}

/** @internal For PoolSockets. */
export const asksCertificate = ({ clientAuth = 'none' }: Pick<StartOptions, 'clientAuth'>): boolean => clientAuth !== 'none';

/** A TLS server says nothing before the ClientHello; what is there already was sent in plain text. */
function refuseEarlyKernel(fd: BorrowedFd, role: StartOptions['role']): void {
  if (role !== 'client') return;
  const events = sockets.pollWait(fd, pollIn | pollReadHangUp, 0);
  if ((events & pollIn) === 0 || (events & pollReadHangUp) !== 0) return;
  throw new TlsPoolError('EARLY_OCTETS', { text: 'the server sent octets after its go-ahead and before our ClientHello; they were not protected' });
}

/**
 * @internal Starts TLS. `make` runs in the very turn of the reply, so that what the pool says next about the session finds it; the reply's descriptors are
 * its own, also when it throws. Settles once; closes the descriptors of the request on each path.
 */
export async function startSession<T>(promised: Link | Promise<Link>, request: StartRequest, make: (channel: Channel, reply: Reply<'starttls'>) => T): Promise<T> {
  const { cryptfd, plainfd, signal } = request;
  // Events of what is made belong to whoever asked for it, and not to whoever happened to connect to the pool first.
  const makeHere = AsyncResource.bind(make);
  const held = plainfd === undefined ? [cryptfd] : [cryptfd, plainfd];
  // The pool has the same socket: shutting it down ends the handshake there.
  const abort = (): void => shutDown(cryptfd);
  try {
    refuseEarlyKernel(cryptfd, request.role);
    const link = await promised;
    const channel = await link.whenUp();
    signal?.throwIfAborted();
    let made: (() => T) | undefined;
    const reply = (got: Reply<'starttls'>): void => {
      try {
        const value = makeHere(channel, got);
        made = () => value;
      } catch (error) {
        // Thrown in the promise's turn: whoever reads the messages has nothing to do with it.
        made = () => { throw error; };
      }
    };
    const answered = channel.request('starttls', startBody(request), held, timeoutOf(request, link), { asked: askedBy(request), reply });
    // The pool's copy alone shall keep the plain-text side open.
    closeAll(held.splice(1));
    signal?.addEventListener('abort', abort, { once: true });
    await answered;
    if (made === undefined) throw new TlsPoolError('INTERNAL');
    return made();
  } catch (error) {
    if (signal?.aborted === true) throw new TlsPoolError('ABORTED', { cause: signal.reason ?? error });
    throw error;
  } finally {
    signal?.removeEventListener('abort', abort);
    closeAll(held);
  }
}

/** The pool's deadline counts anew when it waits for the plain-text side. */
function timeoutOf({ handshakeMs, onPlainside }: StartRequest, link: Link): number {
  return (handshakeMs ?? defaultHandshakeMs) * (onPlainside === undefined ? 1 : 2) + link.timeoutMs;
}

function shutDown(fd: BorrowedFd): void {
  try {
    sockets.shutdown(fd, 2);
  } catch { /* its peer was quicker */ }
}

function startBody(request: StartRequest): RequestBody<'starttls'> {
  const { role, localid, onTheFly, remoteid, servername, alpn, clientAuth, rejectUnauthorized, handshakeMs, fork, backend } = request;
  return {
    role,
    ...(localid === undefined ? {} : { localid }), ...(onTheFly === undefined ? {} : { onTheFly }), ...(remoteid === undefined ? {} : { remoteid }),
    ...(servername === undefined ? {} : { servername }), ...(alpn === undefined ? {} : { alpn }),
    ...(clientAuth === undefined ? {} : { clientAuth }), ...(rejectUnauthorized === undefined ? {} : { rejectUnauthorized }),
    ...(handshakeMs === undefined ? {} : { handshakeMs }), ...(fork === undefined ? {} : { fork }),
    ...(backend === undefined ? {} : { backend }), ...askFields(request),
  };
}
