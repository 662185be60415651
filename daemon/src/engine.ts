/**
 * The engine addon, typed: what the daemon asks of the data plane and what it is told.
 *
 * Ownership of descriptors: a descriptor passed to `listen` or `startTls` belongs to the engine when the call returns, and
 * stays the caller's when it throws. A descriptor in an event belongs to whoever handles the event.
 * Bad input throws an Error with `code` (an ErrorCode of libtlspool/protocol), a text, and `field` where one is at fault.
 */
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Backend, ClientAuth, Endpoint } from 'libtlspool/protocol';
import { loadAddon } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import type { PeerRules } from './policy/peers.js';

/** A certificate chain with its key. The key buffer is read once and may be wiped after the call. */
export interface KeyPairSpec {
  /** PEM, leaf first. */
  readonly chain: Buffer;
  /** PEM (PKCS#8, PKCS#1 or SEC 1), not encrypted. */
  readonly key: Buffer;
}

/** Everything an SSL_CTX is made from. */
export interface ContextSpec {
  /** Identity name, reported back in events. */
  readonly localid: string;
  readonly revision: number;
  /** Key pairs of different key types; may be empty for the client role. */
  readonly keyPairs: readonly KeyPairSpec[];
  /** PEM roots, or absent for none. */
  readonly trust?: Buffer;
  readonly minVersion: 'TLSv1.2' | 'TLSv1.3';
  readonly maxVersion: 'TLSv1.2' | 'TLSv1.3';
  /** OpenSSL cipher list for TLS 1.2, colon separated. */
  readonly ciphers: string;
  /** TLS 1.3 suites, colon separated. */
  readonly ciphersuites: string;
  /** Preference order; names that the running OpenSSL does not know are left out, and it is an error if none is left. */
  readonly groups: readonly string[];
  readonly preferServerCiphers: boolean;
  readonly clientAuth: ClientAuth;
  /**
   * Which certificates are accepted beyond those whose chain verifies; checked inside the handshake and again when a session is resumed. A peer that
   * is refused gets the alert bad_certificate, and the event says CERT_REJECTED. With an `allow` no listener can let a bad chain through.
   */
  readonly peers?: PeerRules;
  readonly ticketLifetimeS: number;
  /** Contexts with the same tag share ticket keys across reloads; a change of trust, policy or certificate must change it. */
  readonly ticketTag: string;
}

/** An immutable, reference-counted SSL_CTX. */
export interface Context { readonly __context: never }
/** An immutable SNI table. */
export interface Selector { readonly __selector: never }

export interface SelectorSpec {
  /** Lower-case host name -> context. `*.example.org` is a one-label wildcard. */
  readonly names: readonly (readonly [string, Context])[];
  /** Served when the client sends no SNI. Absent: a missing SNI is refused with unrecognized_name. */
  readonly noName?: Context;
  /** Served when the SNI matches nothing. Absent: refused with unrecognized_name. */
  readonly unknownName?: Context;
}

export interface NegotiationSpec {
  readonly alpn?: readonly string[];
  /** Raises the context's mode. */
  readonly clientAuth?: ClientAuth;
  readonly rejectUnauthorized?: boolean;
  readonly backend?: Backend;
  /** When the handshake is done, wait for `supply` to bring the plain-text side. Throws BAD_ARGUMENT together with a backend or a plainfd. */
  readonly askPlain?: boolean;
}

export interface ListenSpec extends NegotiationSpec {
  readonly selector: Selector;
  /** Emit a `hello` event and wait for `decide` before choosing. */
  readonly ask: boolean;
}

export interface ServerSpec extends NegotiationSpec {
  readonly role: 'server';
  readonly selector: Selector;
  readonly ask: boolean;
  readonly handshakeMs?: number;
}

export interface ClientSpec extends NegotiationSpec {
  readonly role: 'client';
  readonly context: Context;
  /** Host name or IP address to verify; absent only with rejectUnauthorized false. */
  readonly remoteid?: string;
  /** SNI; absent or empty sends none. */
  readonly servername?: string;
  readonly handshakeMs?: number;
  /**
   * When the server asks for a certificate in the handshake (it has shown its own by then): emit a `hello` event and wait for `decide` with the context whose key pairs are
   * shown; `established` names its localid and revision. What the server asks later is answered by the same key pairs, without asking.
   */
  readonly ask?: boolean;
}

export interface ReauthSpec {
  /** Anything but a verified certificate ends the session. */
  readonly require: boolean;
  /** Whose trust, peer rules and CA list decide; absent: the session's own context. */
  readonly context?: Context;
  /** Milliseconds; absent: those of a handshake. */
  readonly timeoutMs?: number;
}

export interface EngineOptions {
  /** Threads, 1 to 256. */
  readonly workers: number;
  /** Processors that the threads are bound to, in turn, 0 to 1023; absent: the scheduler decides. One that the process may not use is refused with SYSTEM. */
  readonly workerCpus?: readonly number[];
  /** Sessions in all, handshakes included. Listeners pause at the limit. */
  readonly sessionsMax: number;
  /** Handshakes in flight in all. Listeners pause at the limit. */
  readonly handshakesMax: number;
  readonly handshakeMs: number;
  /** How long a closing session may wait for the peer, after everything was sent. */
  readonly lingerMs: number;
  /** Records sent under one key before a KeyUpdate (RFC 8446 section 5.5); 2^24 unless tests lower it. */
  readonly keyUpdateRecords?: number;
  /**
   * Called on Node's loop with everything that happened since the last call. What nobody waits for may come up to 10 ms late, unless something
   * else comes before: `established` of sessions with a backend, `closed` with how `closed`, `failed` of a listener's handshakes.
   */
  onEvents(events: readonly EngineEvent[]): void;
}

/** What is known of an established session; the fields of SessionInfo in the message table. */
export interface EstablishedEvent {
  readonly kind: 'established';
  readonly session: number;
  /** 0 for startTls. */
  readonly listener: number;
  /** The application's end of a new socket pair; -1 when a plain-text side was given, and while it is waited for. */
  readonly plainfd: number;
  /** The handshake is done, and the session waits for `supply`; `supplied`, `failed` or the end of the engine follows. */
  readonly waiting: boolean;
  readonly role: 'server' | 'client';
  readonly protocol: 'TLSv1.2' | 'TLSv1.3';
  readonly cipher: string;
  readonly cipherName: string;
  readonly group?: string;
  readonly alpn?: string;
  readonly servername?: string;
  readonly localid: string;
  readonly revision: number;
  readonly resumed: boolean;
  readonly authorized: boolean;
  readonly authorizationError?: string;
  readonly peerCertificates: readonly Buffer[];
  readonly localCertificate?: Buffer;
  readonly remote?: Endpoint;
  readonly local?: Endpoint;
}

export type ClosedHow = 'closed' | 'truncated' | 'reset' | 'alert' | 'error' | 'timeout' | 'revoked' | 'drained';

export type EngineEvent =
  | EstablishedEvent
  | {
    readonly kind: 'hello'; readonly session: number; readonly listener: number; readonly servername?: string;
    readonly alpn: readonly string[]; readonly remote?: Endpoint;
  }
  /** A session that waited has its plain-text side and is open. plainfd: the application's end of a new socket pair, or -1. */
  | { readonly kind: 'supplied'; readonly session: number; readonly plainfd: number }
  | {
    /** The handshake did not succeed, or its plain-text side was not to be had; the descriptors are closed already. `code` is an ErrorCode. */
    readonly kind: 'failed'; readonly session: number; readonly listener: number; readonly code: string; readonly text: string;
    readonly alert?: number; readonly remote?: Endpoint; readonly servername?: string;
  }
  | {
    /** The session is over. plainfd (or -1) is the engine's end, to be closed by the receiver of the event once the owner was told. */
    readonly kind: 'closed'; readonly session: number; readonly plainfd: number; readonly how: ClosedHow; readonly alert?: number;
    readonly detail?: string; readonly octetsReceived: number; readonly octetsSent: number;
  }
  | {
    /**
     * The client of a session has answered `reauthenticate`; what is known of the peer is replaced by this. request: as given to `reauthenticate`, or 0 when
     * the answer came after its time-out. Without a certificate (refused) the list is empty and authorized is false.
     */
    readonly kind: 'reauthenticated'; readonly session: number; readonly request: number; readonly outcome: 'authenticated' | 'refused' | 'rejected';
    readonly authorized: boolean; readonly authorizationError?: string; readonly peerCertificates: readonly Buffer[];
  }
  | { readonly kind: 'answer'; readonly request: number; readonly octets: Buffer }
  | { readonly kind: 'answer'; readonly request: number; readonly bindings: { readonly tlsUnique?: Buffer; readonly tlsServerEndPoint?: Buffer; readonly tlsExporter?: Buffer } }
  | { readonly kind: 'answer'; readonly request: number; readonly code: string; readonly text: string }
  | { readonly kind: 'listener'; readonly listener: number; readonly code: string; readonly text: string };

export interface EngineCounters {
  readonly sessions: number;
  readonly handshakes: number;
  readonly handshakesDone: number;
  readonly handshakesFailed: number;
  readonly handshakesResumed: number;
  readonly octetsReceived: number;
  readonly octetsSent: number;
}

export interface Engine {
  readonly openssl: string;
  /** Builds an SSL_CTX; throws IDENTITY_BAD with the reason (mismatched key, bad PEM, weak key, unknown suite). */
  context(spec: ContextSpec): Context;
  selector(spec: SelectorSpec): Selector;
  /** Takes a listening TCP or UNIX stream socket; throws FD_KIND for anything else. Returns the listener's number. */
  listen(fd: OwnedFd, spec: ListenSpec): number;
  /** New sessions of the listener use the new table; handshakes that have chosen keep theirs. */
  setSelector(listener: number, selector: Selector): void;
  /** Flow control: a paused listener leaves connections in the kernel's queue. */
  pauseListener(listener: number, paused: boolean): void;
  unlisten(listener: number): void;
  /** Throws FD_KIND when cryptfd is no connected stream socket or plainfd no connected socket. plainfd -1: make a socket pair. Returns the session's number. */
  startTls(cryptfd: OwnedFd, plainfd: OwnedFd | -1, spec: ServerSpec | ClientSpec): number;
  /**
   * Answer to a `hello` event: a selector in the server role, a context in the client role; the other kind fails the handshake (`failed`, BAD_ARGUMENT). `alpn` replaces the list of the negotiation; empty: none. plainfd -1 for none; it is owned by the engine afterwards. Unknown
   * sessions are ignored (it may have timed out) and plainfd is closed.
   */
  decide(session: number, decision: { readonly refuse: true } | { readonly selector: Selector; readonly alpn?: readonly string[] } | { readonly context: Context }, plainfd: OwnedFd | -1): void;
  /**
   * Brings the plain-text side of a session that waits for it: a descriptor, owned by the engine afterwards (FD_KIND, `failed`, when it is no connected socket);
   * -1 for a new socket pair; or `refuse`, which ends the session with close_notify and `failed`. Sessions that do not wait are ignored and the descriptor is closed.
   */
  supply(session: number, plainfd: OwnedFd | -1 | 'refuse'): void;
  /**
   * Orderly (flush, close_notify, linger) or at once; a `closed` event follows. A session in its handshake, or waiting for its plain-text side, is ended
   * at once, whatever `how`, and yields `failed` with ABORTED instead. Unknown sessions are ignored.
   */
  close(session: number, how: 'orderly' | 'abort' | 'revoked' | 'drained'): void;
  /** Answered by an `answer` event with this request number. */
  exporter(session: number, request: number, label: string, context: Buffer | null, length: number): void;
  bindings(session: number, request: number): void;
  /**
   * Asks the client of an established server session for a certificate: post-handshake authentication (RFC 8446 section 4.6.2) or, on TLS 1.2,
   * a renegotiation (RFC 5746). Answered once: by `reauthenticated` with this request number, or by an `answer` with a code: REAUTH_UNAVAILABLE (client role; no
   * post_handshake_auth extension; no secure renegotiation or no extended master secret), BAD_STATE (one is under way; not open), TIMEOUT (without require), REAUTH_REFUSED (with
   * require: nothing, a bad certificate or silence; the session ends and its `closed` follows; without it, too, where OpenSSL cannot go on: after no_renegotiation, or a proof
   * of possession that is wrong), SESSION_LOST (it ended first), CTLKEY_UNKNOWN (it is not there), INTERNAL. An identity whose clientAuth is `require` is not lowered by a
   * request without `require`. After a TIMEOUT a client that is late is not asked again: its answer is for the next request. On TLS 1.2 nothing of the application is sent between the
   * HelloRequest and the client's ClientHello, for a second at most: clients of OpenSSL that write meanwhile would fail; `exporter` and `bindings` are BAD_STATE while it is renegotiated, and are
   * those of the latest handshake afterwards.
   */
  reauthenticate(session: number, request: number, spec: ReauthSpec): void;
  counters(): EngineCounters;
  /** Closes everything and joins the threads; no event follows. May be called twice. */
  stop(): void;
}

export interface EngineAddon {
  Engine: new (options: EngineOptions) => Engine;
  /** Not dumpable, no core file (prctl PR_SET_DUMPABLE 0, RLIMIT_CORE 0), allocations of OpenSSL kept on the heap. Throws SYSTEM. */
  harden(): void;
  /** Fails like context() would, without keeping anything; for `--check`. */
  checkKeyPair(pair: KeyPairSpec): void;
}

export const engine: EngineAddon = loadAddon(path.join(path.dirname(fileURLToPath(import.meta.url)), '..'), 'engine') as EngineAddon;
