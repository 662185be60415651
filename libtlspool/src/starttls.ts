/** Protecting a socket that is connected already. */
import type net from 'node:net';
import type { AskedOptions } from './asked.js';
import { borrowedFd, stopReading } from './handle.js';
import type { Link } from './link.js';
import { sockets } from './native.js';
import type { BorrowedFd, OwnedFd } from './native.js';
import { TlsPoolError } from './protocol/index.js';
import { refuseTlsOptions } from './refuse.js';
import { PoolSocket } from './socket.js';
import { speakPreamble, speaks } from './speak.js';
import type { PreambleOptions, Spoken } from './speak.js';
import { asksCertificate, startSession } from './start.js';
import type { StartOptions } from './start.js';

/** How to protect a connected socket. */
export interface StartTlsOptions extends StartOptions, PreambleOptions, Pick<AskedOptions, 'onServername'> {
  /**
   * Server: the protocol's go-ahead ("220 Ready to start TLS"), sent after reading has stopped. Sending it oneself and
   * calling starttls() later loses a fast client's first TLS octets to the plain-text stream, which is EARLY_OCTETS. Not with `preamble`.
   */
  readonly goAhead?: string | Uint8Array;
  /** As in net.createServer. Default false. */
  readonly allowHalfOpen?: boolean;
  /** The plain-text socket does not read before resume(). Default false. */
  readonly pauseOnConnect?: boolean;
}

const renamed = { isServer: 'give role', requestCert: 'give clientAuth', ALPNProtocols: 'give alpn' };

/**
 * Hands a connected socket to the pool and resolves with the plain-text side once the handshake is done. Settles once.
 *
 * Call it in the same turn in which the last plain-text octet was handled (in the `data` handler, or in `connection` for a
 * protocol without preamble; a socket that has to wait longer needs `pauseOnConnect` of net.createServer and no resume()).
 * From the call on this library reads nothing: what arrives is left in the kernel for the pool, as TLS.
 *
 * With `preamble` it speaks the plain-text part of the protocol itself: call it in `connection`, or `connect`, before anything was read. Octets are taken
 * from the kernel only as far as the dialogue goes, and what the other end sent behind it, before the go-ahead, is EARLY_OCTETS. It requires TLS: all
 * that needs it is refused. Should it fail before the go-ahead, the client is told in the protocol's own words. What a protocol needs of that phase is in `preamble.state` of the socket.
 *
 * The socket is the library's from the call on, whatever the outcome: its object is destroyed without shutting down the
 * connection; when the promise is rejected the connection is closed.
 * Rejects with EARLY_OCTETS (plain text was left in the stream, or, as a client, the server spoke before our ClientHello),
 * BAD_STATE (not connected, or TLS already), BAD_ARGUMENT, HANDSHAKE_FAILED, HANDSHAKE_TIMEOUT, CERT_REJECTED, PEER_CLOSED, NAME_REFUSED,
 * IDENTITY_UNKNOWN, SIGNING_UNAVAILABLE, NOT_PERMITTED, LIMIT_SESSIONS, LIMIT_HANDSHAKES, POOL_LOST, TIMEOUT, ABORTED; with `preamble` or `via` also with PREAMBLE (the other end broke the rules of
 * the protocol) and PREAMBLE_REFUSED (the server has no TLS, the client said goodbye, the proxy has no way).
 */
export async function protect(link: Link | Promise<Link>, socket: net.Socket | OwnedFd, options: StartTlsOptions): Promise<PoolSocket> {
  // Refused sockets never get as far as waiting for the link.
  Promise.resolve(link).catch(() => undefined);
  if (typeof socket === 'number') {
    if (options.goAhead === undefined) return open(link, socket, options);
    sockets.close(socket);
    throw new TlsPoolError('BAD_ARGUMENT', { text: 'goAhead needs a net.Socket; send it yourself before passing a descriptor', field: 'goAhead' });
  }
  // Everything up to stopReading() happens in the caller's turn: no octet may be read while the pool is being connected.
  // The owner of the original has no more say in it, and must not be brought down by its errors.
  socket.on('error', () => undefined);
  try {
    const fd = quiesce(socket);
    // Before anything is said.
    refuseTlsOptions(options, renamed);
    speaks(options);
    await flush(socket, options.goAhead);
    return await open(link, sockets.dup(fd), options);
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

/** Says what is to be said in plain text, and begins TLS. Owns the descriptor. */
async function open(link: Link | Promise<Link>, cryptfd: OwnedFd, options: StartTlsOptions): Promise<PoolSocket> {
  let spoken: Spoken = {};
  try {
    refuseTlsOptions(options, renamed);
    if (speaks(options)) spoken = await speakPreamble(cryptfd, link, options);
  } catch (error) {
    sockets.close(cryptfd);
    throw error;
  }
  return handOver(link, cryptfd, options, spoken);
}

function handOver(link: Link | Promise<Link>, cryptfd: OwnedFd, options: StartTlsOptions, { alpn, state }: Spoken): Promise<PoolSocket> {
  const { preamble: protocol, allowHalfOpen = false, pauseOnConnect = false } = options;
  const request = { ...options, cryptfd, ...(alpn === undefined ? {} : { alpn: [alpn] }) };
  return startSession(link, request, (channel, { body: { ctlkey, info }, fds }) => {
    const [fd] = fds;
    if (fd === undefined) throw new TlsPoolError('FD_COUNT', { text: 'the pool answered starttls without a plain-text socket' });
    if (alpn !== undefined && info.alpn !== alpn) {
      sockets.close(fd);
      throw new TlsPoolError('HANDSHAKE_FAILED', { text: `${protocol ?? 'the protocol'} without a request for TLS needs the application protocol ${alpn}, which was not negotiated` });
    }
    const preamble = protocol === undefined ? undefined : { protocol, tls: true, ...(state === undefined ? {} : { state }) };
    return new PoolSocket({ channel, fd, ctlkey, info, preamble, asksCertificate: asksCertificate(options), allowHalfOpen, pauseOnConnect });
  });
}
