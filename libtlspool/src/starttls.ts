/** Protecting a socket that is connected already. */
import type net from 'node:net';
import { closeAll } from './inlet.js';
import type { Channel } from './channel.js';
import { borrowedFd, stopReading } from './handle.js';
import type { Link } from './link.js';
import { sockets } from './native.js';
import type { BorrowedFd, OwnedFd } from './native.js';
import { TlsPoolError } from './protocol/index.js';
import type { ClientAuth, RequestBody } from './protocol/index.js';
import { PoolSocket } from './socket.js';

const pollIn = 1;
const pollReadHangUp = 8192;
/** The pool has its own handshake deadline, of a minute at most unless it is asked for another; ours is for a pool that hangs. */
const defaultHandshakeMs = 60_000;

/** How to protect a connected socket. */
export interface StartTlsOptions {
  /** Which side of the handshake is ours. */
  readonly role: 'server' | 'client';
  /** Identity to use. A server without it chooses by server name. */
  readonly localid?: string;
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
  /** The session outlives this program's connection to the pool. */
  readonly fork?: boolean;
  /**
   * Server: the protocol's go-ahead ("220 Ready to start TLS"), sent after reading has stopped. Sending it oneself and
   * calling starttls() later loses a fast client's first TLS octets to the plain-text stream, which is EARLY_OCTETS.
   */
  readonly goAhead?: string | Uint8Array;
  /** As in net.createServer. Default false. */
  readonly allowHalfOpen?: boolean;
  /** The plain-text socket does not read before resume(). Default false. */
  readonly pauseOnConnect?: boolean;
}

/**
 * Hands a connected socket to the pool and resolves with the plain-text side once the handshake is done. Settles once.
 *
 * Call it in the same turn in which the last plain-text octet was handled (in the `data` handler, or in `connection` for a
 * protocol without preamble; a socket that has to wait longer needs `pauseOnConnect` of net.createServer and no resume()).
 * From the call on this library reads nothing: what arrives is left in the kernel for the pool, as TLS.
 *
 * The socket is the library's from the call on, whatever the outcome: its object is destroyed without shutting down the
 * connection; when the promise is rejected the connection is closed.
 * Rejects with EARLY_OCTETS (plain text was left in the stream, or, as a client, the server spoke before our ClientHello),
 * BAD_STATE (not connected, or TLS already), BAD_ARGUMENT, HANDSHAKE_FAILED, HANDSHAKE_TIMEOUT, CERT_REJECTED, PEER_CLOSED, NAME_REFUSED,
 * IDENTITY_UNKNOWN, NOT_PERMITTED, LIMIT_SESSIONS, LIMIT_HANDSHAKES, POOL_LOST, TIMEOUT.
 */
export async function protect(link: Link | Promise<Link>, socket: net.Socket | OwnedFd, options: StartTlsOptions): Promise<PoolSocket> {
  // Refused sockets never get as far as waiting for the link.
  Promise.resolve(link).catch(() => undefined);
  if (typeof socket === 'number') {
    try {
      if (options.goAhead !== undefined) throw new TlsPoolError('BAD_ARGUMENT', { text: 'goAhead needs a net.Socket; send it yourself before passing a descriptor', field: 'goAhead' });
      refuseEarlyKernel(socket, options);
      return await handOver(link, socket, options);
    } finally {
      sockets.close(socket);
    }
  }
  // Everything up to stopReading() happens in the caller's turn: no octet may be read while the pool is being connected.
  // The owner of the original has no more say in it, and must not be brought down by its errors.
  socket.on('error', () => undefined);
  try {
    const fd = quiesce(socket);
    await flush(socket, options.goAhead);
    refuseEarlyKernel(fd, options);
    const copy = sockets.dup(fd);
    try {
      return await handOver(link, copy, options);
    } finally {
      sockets.close(copy);
    }
  } finally {
    // Closes our copy of the descriptor and nothing else: shutdown() would end the connection under the pool.
    socket.destroy();
  }
}

/** Stops reading and refuses what cannot be handed over. */
function quiesce(socket: net.Socket): BorrowedFd {
  stopReading(socket);
  const fd = borrowedFd(socket);
  if (socket.connecting || socket.destroyed || fd === undefined) {
    throw new TlsPoolError('BAD_STATE', { text: 'starttls() needs a connected socket: wait for its `connect` event, and do not end or destroy it' });
  }
  if ((socket as { encrypted?: boolean }).encrypted === true) throw new TlsPoolError('BAD_STATE', { text: 'the socket is protected by TLS already' });
  if (socket.writableEnded) throw new TlsPoolError('BAD_STATE', { text: 'the socket was ended: TLS needs both directions' });
  refuseEarly(socket);
  return fd;
}

/** RFC 3207 section 4 and its kin: what came in plain text must not be taken for protected (STARTTLS injection). */
function refuseEarly(socket: net.Socket): void {
  if (socket.readableLength === 0) return;
  throw new TlsPoolError('EARLY_OCTETS', { text: `${socket.readableLength} octets arrived before TLS began and were read as plain text; the peer pipelined, or the go-ahead was sent before starttls(): use its goAhead option` });
}

/** A TLS server says nothing before the ClientHello; what is there already was sent in plain text. */
function refuseEarlyKernel(fd: BorrowedFd, { role }: StartTlsOptions): void {
  if (role !== 'client') return;
  const events = sockets.pollWait(fd, pollIn | pollReadHangUp, 0);
  if ((events & pollIn) === 0 || (events & pollReadHangUp) !== 0) return;
  throw new TlsPoolError('EARLY_OCTETS', { text: 'the server sent octets after its go-ahead and before our ClientHello; they were not protected' });
}

function flush(socket: net.Socket, goAhead: string | Uint8Array | undefined): Promise<void> {
  if (goAhead === undefined && socket.writableLength === 0) return Promise.resolve();
  while (socket.writableCorked > 0) socket.uncork();
  return new Promise((resolve, reject) => {
    const onClose = (): void => reject(new TlsPoolError('PEER_CLOSED', { text: 'the connection ended before everything in plain text was sent' }));
    socket.once('close', onClose);
    socket.write(goAhead ?? '', (error) => {
      socket.off('close', onClose);
      if (error === undefined || error === null) resolve();
      else reject(new TlsPoolError('PEER_CLOSED', { text: `the plain text before TLS could not be sent: ${error.message}`, cause: error }));
    });
  });
}

async function handOver(promised: Link | Promise<Link>, fd: BorrowedFd, options: StartTlsOptions): Promise<PoolSocket> {
  const link = await promised;
  const channel: Channel = await link.whenUp();
  const timeoutMs = (options.handshakeMs ?? defaultHandshakeMs) + link.timeoutMs;
  const { body: { ctlkey, info }, fds } = await channel.request('starttls', startBody(options), [fd], timeoutMs);
  const [plainfd] = fds;
  if (plainfd === undefined || channel.lost !== undefined) {
    closeAll(fds);
    throw channel.lost ?? new TlsPoolError('FD_COUNT', { text: 'the pool answered starttls without a plain-text socket' });
  }
  return new PoolSocket({ channel, fd: plainfd, ctlkey, info, allowHalfOpen: options.allowHalfOpen ?? false, pauseOnConnect: options.pauseOnConnect ?? false });
}

function startBody(options: StartTlsOptions): RequestBody<'starttls'> {
  const { role, localid, remoteid, servername, alpn, clientAuth, rejectUnauthorized, handshakeMs, fork } = options;
  return {
    role,
    ...(localid === undefined ? {} : { localid }), ...(remoteid === undefined ? {} : { remoteid }),
    ...(servername === undefined ? {} : { servername }), ...(alpn === undefined ? {} : { alpn }),
    ...(clientAuth === undefined ? {} : { clientAuth }), ...(rejectUnauthorized === undefined ? {} : { rejectUnauthorized }),
    ...(handshakeMs === undefined ? {} : { handshakeMs }), ...(fork === undefined ? {} : { fork }),
  };
}
