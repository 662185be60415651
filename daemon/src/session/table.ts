/**
 * All sessions of the pool: by the engine's number, and by control key. Who may control one is decided here and fails closed:
 * a key that is unknown, belongs to another client, or whose session is over gets the one error CTLKEY_UNKNOWN, in the same words and after
 * the same work.
 */
import { TlsPoolError, defaultMaxMessageOctets } from 'libtlspool/protocol';
import type { EngineEvent, EstablishedEvent } from '../engine.js';
import type { Client } from '../policy/access.js';
import { carriedEndpoint, withFittingCertificates } from './carried.js';
import { CtlkeyMaker, ctlkeyFromOctets, isSameCtlkey } from './ctlkey.js';
import { Profiles } from './profile.js';
import { Session } from './session.js';
import type { Owner, SessionFacts } from './session.js';
import { mayHappen, nextState } from './states.js';

type ReauthenticatedEvent = Extract<EngineEvent, { kind: 'reauthenticated' }>;

export class SessionTable {
  readonly #byNumber = new Map<number, Session>();
  readonly #byKey = new Map<string, Session>();
  readonly #perUid = new Map<number, number>();
  readonly #keys = new CtlkeyMaker();
  readonly #profiles = new Profiles();
  /** Stands in for the session that a key does not have. */
  readonly #decoy = decoyWith(this.#keys.make());

  /** `messageOctets`: cap on a message, which bounds what is kept of a peer's chain too. */
  constructor(private readonly messageOctets = defaultMaxMessageOctets) {}

  /** Sessions in all, handshakes of `starttls` included. */
  get size(): number { return this.#byNumber.size; }

  get(number: number): Session | undefined { return this.#byNumber.get(number); }

  /** Sessions that count against the limit of this user. */
  countOf(uid: number): number { return this.#perUid.get(uid) ?? 0; }

  /** All sessions, oldest first. */
  all(): IterableIterator<Session> { return this.#byNumber.values(); }

  /** Enters a session whose handshake has been started by a request of this client. */
  begin(number: number, owner: Owner, fork: boolean): Session {
    const session = this.#enter(number, owner);
    session.fork = fork;
    return session;
  }

  /** Enters a session that a listener has accepted: its handshake is done, and it belongs to `owner`. */
  accept(event: EstablishedEvent, owner: Owner): Session {
    const session = this.#enter(event.session, owner);
    this.establish(session, event);
    return session;
  }

  /** The handshake is done, whether the plain-text side is there or not: keeps what is known of the session, and gives it a control key unless it is about to end. */
  establish(session: Session, reported: EstablishedEvent): void {
    const event = withFittingCertificates(reported, this.messageOctets);
    session.state = nextState(session.state, event.waiting ? 'waits' : 'established');
    session.profile = this.#profiles.of(event);
    session.peerCertificates = this.#profiles.chain(event.peerCertificates, event.authorized);
    session.remote = carriedEndpoint(event.remote);
    const local = carriedEndpoint(event.local);
    session.local = event.role === 'server' ? this.#profiles.endpoint(local) : local;
    session.startedAtMs = Date.now();
    if (session.state === 'closing') return;
    session.ctlkey = this.#keys.make();
    this.#byKey.set(session.ctlkey, session);
  }

  /** The plain-text side of a session that waited for it is there. */
  supplied(session: Session): void {
    session.state = nextState(session.state, 'supplied');
  }

  /** The client of the session has authenticated anew, or has not: what is known of it is replaced, and nothing else. Without effect before it is established. */
  reauthenticated(session: Session, event: Pick<ReauthenticatedEvent, 'authorized' | 'authorizationError' | 'peerCertificates'>): void {
    if (session.profile === undefined) return;
    const { authorized, authorizationError, peerCertificates } = event;
    const fitting = withFittingCertificates({ peerCertificates, localCertificate: session.profile.localCertificate }, this.messageOctets);
    session.profile = this.#profiles.of({ ...session.profile, authorized, authorizationError, localCertificate: fitting.localCertificate });
    session.peerCertificates = this.#profiles.chain(fitting.peerCertificates, authorized);
  }

  /** The session of this owner with this control key, if what is asked of it fits its state. Throws CTLKEY_UNKNOWN. */
  controlled(octets: Uint8Array, owner: Owner, event: 'control' | 'detach' | 'close' = 'control'): Session {
    const session = this.#find(octets);
    if (session === undefined || session.owner !== owner || !mayHappen(session.state, event)) throw new TlsPoolError('CTLKEY_UNKNOWN');
    return session;
  }

  /** Gives up control; the session goes on and nobody's disconnection ends it. */
  detach(session: Session): void {
    session.state = nextState(session.state, 'detach');
    session.owner?.sessions.delete(session);
    session.owner = null;
  }

  /**
   * Takes control of a detached session, which then counts against the new owner's limit. Throws CTLKEY_UNKNOWN unless
   * `mayControl` agrees, LIMIT_SESSIONS when the new owner has no room. `previousUid`: whose session it was.
   */
  reattach(
    octets: Uint8Array, owner: Owner, sessionsMax: number, mayControl: (client: Client, session: Session) => boolean,
  ): { session: Session; previousUid: number } {
    const session = this.#find(octets);
    // Asked in any case: who would be allowed to have the session is no reason to be answered sooner or later.
    const isAllowed = mayControl(owner.client, session ?? this.#decoy);
    if (session === undefined || !mayHappen(session.state, 'reattach') || !isAllowed) throw new TlsPoolError('CTLKEY_UNKNOWN');
    const { uid } = owner.client;
    if (uid !== session.uid && this.countOf(uid) >= sessionsMax) throw limitReached(sessionsMax);
    session.state = nextState(session.state, 'reattach');
    const previousUid = session.uid;
    this.#count(previousUid, -1);
    this.#count(uid, 1);
    session.uid = uid;
    session.owner = owner;
    owner.sessions.add(session);
    return { session, previousUid };
  }

  /** The engine is being told to end it. Its control key is worthless from now on. */
  closing(session: Session): void {
    session.state = nextState(session.state, 'close');
  }

  /** Nobody is left to be told how it ends. */
  abandon(session: Session): void {
    session.owner?.sessions.delete(session);
    session.owner = null;
  }

  /** It is over, after a `closed` or a `failed` of the engine: forgets it. The caller has read `owner` and `ctlkey` before. */
  end(session: Session, event: 'ended' | 'failed'): void {
    session.state = nextState(session.state, event);
    session.owner?.sessions.delete(session);
    session.owner = null;
    this.#byNumber.delete(session.number);
    if (session.ctlkey !== '') this.#byKey.delete(session.ctlkey);
    this.#count(session.uid, -1);
  }

  #enter(number: number, owner: Owner): Session {
    if (this.#byNumber.has(number)) throw new TlsPoolError('INTERNAL', { text: `the engine has used session number ${number} twice` });
    const session = new Session(number, owner);
    this.#byNumber.set(number, session);
    owner.sessions.add(session);
    this.#count(session.uid, 1);
    return session;
  }

  /** The Map finds the candidate; the comparison that counts is in constant time, and made with the decoy where there is none. */
  #find(octets: Uint8Array): Session | undefined {
    const key = ctlkeyFromOctets(octets);
    const session = this.#byKey.get(key);
    return isSameCtlkey((session ?? this.#decoy).ctlkey, key) ? session : undefined;
  }

  #count(uid: number, step: 1 | -1): void {
    const count = this.countOf(uid) + step;
    if (count === 0) this.#perUid.delete(uid);
    else this.#perUid.set(uid, count);
  }
}

/** A session that never was, of an identity that has no name an identity can have. */
function decoyWith(ctlkey: string): Session {
  const decoy = new Session(0, { client: { uid: -1, gid: -1, pid: 0, groups: [] }, sessions: new Set() });
  decoy.ctlkey = ctlkey;
  decoy.profile = {
    role: 'server', protocol: 'TLSv1.3', cipher: '', cipherName: '', group: undefined, alpn: undefined, servername: undefined, localid: '\0', revision: 0,
    resumed: false, authorized: false, authorizationError: undefined, localCertificate: undefined,
  };
  return decoy;
}

/** The refusal for a user whose sessions are used up. */
export function limitReached(sessionsMax: number): TlsPoolError {
  return new TlsPoolError('LIMIT_SESSIONS', { text: `this user has ${sessionsMax} sessions, which is the limit; end some, or raise limits.sessionsPerClient` });
}

/** What is known of an established session. Throws INTERNAL before that. */
export function factsOf(session: Session): SessionFacts {
  const { profile, peerCertificates, remote, local } = session;
  if (profile === undefined) throw new TlsPoolError('INTERNAL', { text: 'the session is not established' });
  return { profile, peerCertificates, remote, local };
}
