/** The plain-text side of a TLS session, in the shape of a tls.TLSSocket. */
import { AsyncResource } from 'node:async_hooks';
import { X509Certificate } from 'node:crypto';
import net from 'node:net';
import type { CipherNameAndProtocol, DetailedPeerCertificate, EphemeralKeyInfo, PeerCertificate } from 'node:tls';
import { legacyChain, x509Chain, ephemeralKey } from './certificates.js';
import type { SessionSink } from './channel.js';
import type { ChannelBindings, Released, SessionControl, SessionNames, SessionStart } from './control.js';
import { tellEndpoints } from './endpoints.js';
import { openHandle, stopReading } from './handle.js';
import { sockets } from './native.js';
import type { OwnedFd } from './native.js';
import { NoControl } from './nocontrol.js';
import { TlsPoolError } from './protocol/index.js';
import type { EventBody, PreambleInfo, ReplyBody, SessionInfo } from './protocol/index.js';
import { reauthenticateBody, reauthenticateMs, reauthenticationOf } from './reauthenticate.js';
import type { Reauthentication, ReauthenticateOptions } from './reauthenticate.js';
import { takeOut } from './takeout.js';

const pollHangUp = 16;
/** How long the pool may take for one answer to a session's own request. */
const sessionRequestMs = 5_000;
/** A dying process closes its descriptors one after the other; ours to the pool follows the session's within this time. */
const lossGraceMs = 250;

/** Words of `how` that mean that all of the stream arrived. */
const complete: ReadonlySet<string> = new Set(['closed']);

/**
 * A TLS session of the pool as a stream of plain text. It answers what code written for tls.TLSSocket asks, and is a
 * net.Socket: http, http2 and everything else that takes a connection takes it.
 *
 * Fails closed: `end` is emitted only for a stream that its sender completed with close_notify. Any other end of the
 * session destroys the socket with TRUNCATED (the peer just stopped), SESSION_LOST (reset, alert, time-out, revoked) or
 * POOL_LOST, after the octets that did arrive.
 * destroy(error) before all was written aborts the session, so that the peer does not take it for complete either.
 */
export class PoolSocket extends net.Socket implements SessionSink {
  #control: SessionControl;
  readonly #fd: OwnedFd;
  readonly #ctlkey: Uint8Array;
  #info: SessionInfo;
  #isAsking = false;
  readonly #preamble: PreambleInfo | undefined;
  readonly #lossGraceMs: number;
  #closed: EventBody<'closed'> | undefined;
  /** End of stream was read, and it is not known yet whether it is the true end. */
  #undecided = false;
  #reset = false;
  #aborted: (() => void) | undefined;
  readonly #asksCertificate: boolean;
  /** What the pool says of the session comes in the context of whoever connected to the pool; our events belong to whoever got this socket. */
  readonly #context = new AsyncResource('tlspool.PoolSocket', { requireManualDestroy: true });

  /** @internal Sockets come from a Listener, starttls() or connect(). Closes the descriptor when it throws. */
  constructor(start: SessionStart) {
    super({
      handle: openHandle(start.fd), allowHalfOpen: start.allowHalfOpen ?? false, pauseOnCreate: start.pauseOnConnect ?? false,
      readable: true, writable: true,
    } as net.SocketConstructorOpts);
    this.#control = start.channel;
    this.#fd = start.fd;
    this.#ctlkey = start.ctlkey;
    this.#info = start.info;
    this.#preamble = start.preamble;
    this.#lossGraceMs = start.lossGraceMs ?? lossGraceMs;
    this.#closed = start.closed;
    this.#asksCertificate = start.asksCertificate ?? false;
    if (start.closed === undefined) start.channel.addSession(start.ctlkey, this);
  }

  // ---- end of stream -------------------------------------------------------------------------------------------------

  /** @internal */
  noteClosed(closed: EventBody<'closed'>): void {
    this.#closed = closed;
    this.#context.runInAsyncScope(this.#noteEnd, this);
  }

  /** @internal */
  noteLost(): void { this.#context.runInAsyncScope(this.#noteEnd, this); }

  #noteEnd(): void {
    if (this.#undecided) this.#decide();
    this.#aborted?.();
  }

  /** @internal Every octet and the end of the stream come through here. */
  override push(chunk: unknown, encoding?: BufferEncoding): boolean {
    if (chunk !== null || this.destroyed) return super.push(chunk, encoding);
    this.#undecided = true;
    this.#decide();
    return false;
  }

  #decide(): void {
    if (this.destroyed) return;
    if (this.#closed === undefined) this.#control.catchUp();
    const ending = this.#ending();
    if (ending === 'unknown' || !this.#undecided) return;
    this.#undecided = false;
    if (ending === 'clean') super.push(null);
    else if (this.readableLength === 0) this.destroy(ending);
    else this.#failAtEnd(ending);
  }

  /** destroy() would throw away what has been read and not yet been taken: let that be taken, and fail where `end` would be. */
  #failAtEnd(error: TlsPoolError): void {
    this.emit = (name: string | symbol, ...args: unknown[]): boolean => {
      if (name !== 'end') return super.emit(name, ...args);
      // Node has marked the stream as ended by now; readableEnded must not say so.
      (this as unknown as { _readableState: { endEmitted: boolean } })._readableState.endEmitted = false;
      this.destroy(error);
      return false;
    };
    super.push(null);
  }

  /** What the end of stream that was just read means. */
  #ending(): 'clean' | 'unknown' | TlsPoolError {
    if (this.#closed !== undefined) return complete.has(this.#closed.how) ? 'clean' : this.#closedError(this.#closed);
    if (this.#control.lost !== undefined) return this.#control.lost;
    const isDeaf = this.#control.isDeaf === true;
    // Both directions are shut down when we ended ours, whether the pool closed or only half-closed: wait for its word.
    if (this.writableEnded && !isDeaf) return 'unknown';
    if ((sockets.pollWait(this.#fd, 0, 0) & pollHangUp) === 0) return 'clean';
    if (isDeaf) return unknownEnd();
    this.#loseSoon();
    return 'unknown';
  }

  /** The pool closed without a word, so it is dying: let the loss of its connection give the reason, but do not wait long. */
  #loseSoon(): void {
    const timer = setTimeout(() => {
      if (this.#undecided) this.destroy(new TlsPoolError('SESSION_LOST', { text: 'the pool dropped the session without saying how it ended; what was received may be incomplete' }));
    }, this.#lossGraceMs);
    this.once('close', () => clearTimeout(timer));
  }

  #closedError(closed: EventBody<'closed'>): TlsPoolError {
    if (closed.how === 'truncated') return new TlsPoolError('TRUNCATED', closed.detail === undefined ? {} : { text: closed.detail });
    const alert = closed.alert === undefined ? '' : `, alert ${closed.alert}`;
    return new TlsPoolError('SESSION_LOST', { text: `the TLS session ended with ${closed.how}${alert}${closed.detail === undefined ? '' : `: ${closed.detail}`}` });
  }

  /** @internal */
  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#undecided = false;
    const cause = error === null ? null : this.#explain(error);
    const incomplete = this.#reset || (cause !== null && !this.writableFinished);
    if (incomplete && this.#closed === undefined && this.#control.lost === undefined) this.#abort(() => super._destroy(cause, callback));
    else super._destroy(cause, callback);
  }

  /** ECONNRESET and EPIPE of the plain-text socket hide what happened to the session. */
  #explain(error: Error): Error {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'ECONNRESET' && code !== 'EPIPE') return error;
    if (this.#closed === undefined) this.#control.catchUp();
    if (this.#closed !== undefined) return complete.has(this.#closed.how) ? error : this.#closedError(this.#closed);
    return this.#control.lost ?? error;
  }

  /**
   * Has the pool abort the session; `done` is called when it did. The plain-text side must stay open until then: its
   * end, should the pool see that first, asks for an orderly close.
   */
  #abort(done: () => void): void {
    // Node throws, outside of every handler, when octets come to a socket that is destroyed; the peer decides whether some do.
    stopReading(this);
    const timer = setTimeout(() => this.#aborted?.(), sessionRequestMs);
    this.#aborted = () => {
      this.#aborted = undefined;
      clearTimeout(timer);
      done();
    };
    // The `closed` event ends the wait; an error says that there is none to come.
    this.#control.request('close', { ctlkey: this.#ctlkey, abort: true }, [], sessionRequestMs).catch(() => this.#aborted?.());
  }

  /** Ends the session at once, without close_notify: the peer sees a truncated stream, as with a reset of TCP. */
  override resetAndDestroy(): this {
    this.#reset = true;
    return this.destroy();
  }

  // ---- what a tls.TLSSocket answers ----------------------------------------------------------------------------------

  /** Always true: distinguishes TLS sockets from others, as in Node. */
  get encrypted(): true { return true; }
  /** True only when a certificate of the peer was verified against the trust of the identity; reauthenticate() changes it. */
  get authorized(): boolean { return this.#info.authorized; }
  /** Why the peer's certificate was not accepted, in OpenSSL's spelling; as in Node UNABLE_TO_GET_ISSUER_CERT where this program asked for one and none came; null otherwise. */
  get authorizationError(): string | null { return this.#info.authorizationError ?? (this.#lacksCertificate ? 'UNABLE_TO_GET_ISSUER_CERT' : null); }
  get #lacksCertificate(): boolean { return this.#asksCertificate && !this.#info.authorized && this.#info.peerCertificates.length === 0; }
  /** Always false: the handshake was done before there was a socket. */
  get secureConnecting(): false { return false; }
  /** Server name of the ClientHello (RFC 6066 section 3), or false. */
  get servername(): string | false { return this.#info.servername ?? false; }
  /** Application protocol (RFC 7301), or false. */
  get alpnProtocol(): string | false { return this.#info.alpn ?? false; }
  /** Identity that was used on our side; undefined for a client without one. */
  get localid(): string | undefined { return this.#info.localid; }
  /** Everything that is known of the session. */
  get sessionInfo(): SessionInfo { return this.#info; }
  /** What is known of the plain-text phase before TLS, from a proxy or from starttls() with a preamble; undefined for other connections. Nothing in it was protected. */
  get preamble(): PreambleInfo | undefined { return this.#preamble; }
  /** 16 octets with which the pool lets this client control the session. As secret as the session: not for logs. */
  get ctlkey(): Uint8Array { return this.#ctlkey; }

  /** `TLSv1.2` or `TLSv1.3`; null once destroyed, as in Node. */
  getProtocol(): string | null { return this.destroyed ? null : this.#info.protocol; }
  /** The cipher suite under OpenSSL's and IANA's names. */
  getCipher(): CipherNameAndProtocol {
    return { name: this.#info.cipherName, standardName: this.#info.cipher, version: this.#info.protocol };
  }
  /** `{}` without a peer certificate; with `detailed`, the chain hangs on `issuerCertificate`: of an authorized peer up to the root, also where the peer left that out. */
  getPeerCertificate(detailed: true): DetailedPeerCertificate;
  getPeerCertificate(detailed?: false): PeerCertificate;
  getPeerCertificate(detailed?: boolean): PeerCertificate | DetailedPeerCertificate;
  getPeerCertificate(detailed = false): PeerCertificate | DetailedPeerCertificate { return legacyChain(this.#info.peerCertificates, detailed); }
  /** The peer's certificate, with those above it in `issuerCertificate` as far as they are known; undefined without one. */
  getPeerX509Certificate(): X509Certificate | undefined { return x509Chain(this.#info.peerCertificates); }
  /** Our own certificate, `{}` when we have none. */
  getCertificate(): PeerCertificate { return legacyChain(this.#info.localCertificate === undefined ? [] : [this.#info.localCertificate], false); }
  /** Our own certificate; undefined without one. */
  getX509Certificate(): X509Certificate | undefined { return x509(this.#info.localCertificate); }
  /** null on a server, as in Node. */
  getEphemeralKeyInfo(): EphemeralKeyInfo | Record<string, never> | null { return this.#info.role === 'server' ? null : ephemeralKey(this.#info.group); }
  /** Was the session resumed? */
  isSessionReused(): boolean { return this.#info.resumed; }

  /**
   * Keying material exporter (RFC 5705, RFC 8446 section 7.5), 1 to 4096 octets. Blocks the thread for one exchange with the pool, since Node's
   * method is synchronous; exportKeyingMaterialAsync() does not. Throws EXPORTER, BAD_STATE, CTLKEY_UNKNOWN (the session is over), POOL_LOST or TIMEOUT.
   */
  exportKeyingMaterial(length: number, label: string, context?: Uint8Array): Buffer {
    const { octets } = this.#control.requestSync('prng', this.#exporter(length, label, context), sessionRequestMs);
    return Buffer.from(octets);
  }
  /** exportKeyingMaterial() without blocking. */
  async exportKeyingMaterialAsync(length: number, label: string, context?: Uint8Array): Promise<Buffer> {
    const { body } = await this.#control.request('prng', this.#exporter(length, label, context), [], sessionRequestMs);
    return Buffer.from(body.octets);
  }
  #exporter(length: number, label: string, context?: Uint8Array): { ctlkey: Uint8Array; length: number; label: string; context?: Uint8Array } {
    if (this.destroyed) throw new TlsPoolError('BAD_STATE', { text: 'the socket is destroyed: export keying material before that' });
    if (!Number.isInteger(length) || length < 1 || length > 4096) {
      throw new TlsPoolError('BAD_ARGUMENT', { text: `length is ${String(length)}; an exporter gives 1 to 4096 octets`, field: 'length' });
    }
    return { ctlkey: this.#ctlkey, length, label, ...(context === undefined ? {} : { context }) };
  }

  /** Channel bindings for SCRAM-PLUS and the like. Rejects with CTLKEY_UNKNOWN (the session is over), POOL_LOST or TIMEOUT. */
  async channelBindings(): Promise<ChannelBindings> {
    const { info: _info, peerNames: _peer, localNames: _local, ...bindings } = await this.#askInfo();
    return bindings;
  }
  /** Names in both certificates, read by the pool. Rejects as channelBindings() does. */
  async names(): Promise<SessionNames> {
    const { peerNames, localNames } = await this.#askInfo();
    return { ...(peerNames === undefined ? {} : { peerNames }), ...(localNames === undefined ? {} : { localNames }) };
  }
  async #askInfo(): Promise<ReplyBody<'info'>> {
    return (await this.#control.request('info', { ctlkey: this.#ctlkey }, [], sessionRequestMs)).body;
  }

  // ---- control -------------------------------------------------------------------------------------------------------

  /**
   * Gives up control of the session and resolves with its control key. Octets flow on through this socket, and the session no longer ends with this program's connection to the pool; whoever has
   * the key may reattach. What the pool would say is no longer heard here: a half close by the peer is still `end`, but the end of the session, such as the one that follows our own end(), is
   * SESSION_LOST, because a stream that was cut looks the same; destroy(error) cannot abort it; exporters and channel bindings are BAD_STATE.
   *
   * Rejects with CTLKEY_UNKNOWN (the session is over), POOL_LOST or TIMEOUT; control is unchanged then. May be called twice.
   */
  async detach(): Promise<Uint8Array> {
    if (this.#control.isDeaf !== true) {
      await this.#control.request('detach', { ctlkey: this.#ctlkey }, [], sessionRequestMs);
      this.#control.removeSession(this.#ctlkey);
      this.#control = new NoControl('it was detached; reattach with the control key');
    }
    return this.#ctlkey;
  }

  /**
   * Gives up socket and control, for passing both to another process (Pool.reattach() there): no octet is lost, none is read twice. Reading stops in the turn of the call; it resolves when the kernel has
   * everything that was written. The socket is destroyed without a word to the peer; write nothing to it after the call. Until somebody reattaches the session, closing the descriptor ends it in order.
   *
   * Rejects with BAD_STATE (octets were read and not taken by the program; ended, or destroyed), CTLKEY_UNKNOWN (the session is over), POOL_LOST, TIMEOUT or SYSTEM; the
   * socket goes on as before then.
   */
  async release(): Promise<Released> {
    const { fd, undo } = await takeOut(this);
    try {
      await this.detach();
    } catch (error) {
      sockets.close(fd);
      undo();
      throw error;
    }
    this.destroy();
    return { fd, ctlkey: this.#ctlkey };
  }

  /**
   * Server: asks the client for a certificate while the session runs, by post-handshake authentication (RFC 8446 section 4.6.2) or, in TLS 1.2, a renegotiation (RFC 5746).
   * Resolves with what it has answered, also when that is nothing; authorized, authorizationError and the peer's certificates are those of the answer from then on, and the event
   * `reauthenticated` is emitted with the same. Octets keep flowing both ways meanwhile, and what the client sent before its answer may be read after it: withhold what needs
   * the certificate until this resolves, and read no further request before.
   *
   * Fails closed. Rejects with REAUTH_UNAVAILABLE (this client cannot be asked: its TLS lacks the means, HTTP/2, no roots), IDENTITY_UNKNOWN, BAD_STATE (one is under
   * way, or the socket is destroyed), BAD_ARGUMENT, TIMEOUT (the client is silent; the session goes on), REAUTH_REFUSED (with `require`: the session ends), CTLKEY_UNKNOWN (it is over), POOL_LOST.
   */
  async reauthenticate(options: ReauthenticateOptions = {}): Promise<Reauthentication> {
    if (this.destroyed) throw new TlsPoolError('BAD_STATE', { text: 'the socket is destroyed: there is no client to ask' });
    if (this.#isAsking) throw new TlsPoolError('BAD_STATE', { text: 'the client has been asked and has not answered yet: wait for that' });
    const request = reauthenticateBody(this.#ctlkey, options);
    this.#isAsking = true;
    try {
      const { body } = await this.#control.request('reauthenticate', request, [], reauthenticateMs(request));
      // The addresses may be what a proxy said of the client, which the pool does not know.
      const { remote, local } = this.#info;
      this.#info = { ...body.info, ...(remote !== undefined && { remote }), ...(local !== undefined && { local }) };
      const outcome = { ...reauthenticationOf(body), authorizationError: this.authorizationError };
      // Not from within the promise: a handler that throws must not become its rejection.
      process.nextTick(() => this.emit('reauthenticated', outcome));
      return outcome;
    } finally {
      this.#isAsking = false;
    }
  }

  /** The session and its tickets are the pool's: always undefined. */
  getSession(): undefined { return undefined; }
  /** As getSession(). */
  getTLSTicket(): undefined { return undefined; }
  /** As getSession(); use exportKeyingMaterial() or channelBindings(). */
  getFinished(): undefined { return undefined; }
  /** As getFinished(). */
  getPeerFinished(): undefined { return undefined; }
  /** Not known outside the pool. */
  getSharedSigalgs(): string[] { return []; }
  /** Harmless: the pool refuses a renegotiation that the peer begins. */
  disableRenegotiation(): void { /* nothing to do */ }
  /** Harmless: TLS is not in this process. The pool has the log. */
  enableTrace(): void { /* nothing to do */ }
  /** The pool chooses the sizes of records: always false, as in Node for "not set". */
  setMaxSendFragment(): boolean { return false; }
  /** Always refused with BAD_STATE through the callback; returns false, as in Node for "not started". */
  renegotiate(_options: unknown, callback?: (error: Error | null) => void): boolean {
    if (callback !== undefined) process.nextTick(callback, new TlsPoolError('BAD_STATE', { text: 'the pool alone decides on handshakes; ask the client for a certificate with reauthenticate()' }));
    return false;
  }
  /** Always throws BAD_STATE: the handshake is done; pass servername to connect() or starttls(). */
  setServername(): never { throw new TlsPoolError('BAD_STATE', { text: 'the handshake is done: pass servername to connect() or starttls()' }); }
  /** Always throws BAD_STATE: sessions are resumed by the pool. */
  setSession(): never { throw new TlsPoolError('BAD_STATE', { text: 'sessions are kept and resumed by the pool' }); }
  /** Always throws BAD_STATE: keys are the pool's; choose an identity with localid. */
  setKeyCert(): never { throw new TlsPoolError('BAD_STATE', { text: 'keys and certificates are the pool\'s: choose an identity with localid' }); }

  /** Our end of the protected connection; `{}` where it is not known. */
  override address(): net.AddressInfo | Record<string, never> {
    const local = this.#info.local;
    return local === undefined || local.family === 'unix' ? {} : { address: local.address, family: local.family, port: local.port };
  }

  /** @internal */
  endpoint(side: 'local' | 'remote', field: 'address' | 'port' | 'family'): string | number | undefined {
    const end = this.#info[side];
    return end === undefined || end.family === 'unix' ? undefined : end[field];
  }
}

const unknownEnd = (): TlsPoolError => new TlsPoolError('SESSION_LOST', {
  text: 'the session is over and nobody told this program how it ended, so what was received may be incomplete; where that matters, control the session: let the proxy relay, give this program access to the pool, or do not detach',
});

const x509 = (der: Uint8Array | undefined): X509Certificate | undefined => der === undefined ? undefined : new X509Certificate(der);

// net.Socket's own getters tell of the socket to the pool; these tell of the protected connection.
tellEndpoints(PoolSocket.prototype);
