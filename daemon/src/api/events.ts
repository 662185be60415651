/**
 * What the engine reports, and who is told. This is the path that every connection takes twice (established, closed), so there are
 * no promises, closures or timers here. Each event is handled on its own: a mistake with one must not lose the others.
 */
import { TlsPoolError, fitText } from 'libtlspool/protocol';
import type { ErrorCode, SessionInfo } from 'libtlspool/protocol';
import type { ClosedHow, EngineEvent, EstablishedEvent } from '../engine.js';
import { ctlkeyToOctets, factsOf, sessionInfoOf } from '../session/index.js';
import type { Session } from '../session/index.js';
import type { AskSettings } from './asks.js';
import type { ClaimedEvent } from './claims.js';
import type { Connection } from './connection.js';
import { asErrorCode, asPoolError } from './faults.js';
import { closeEnded, closeFd } from './fdbag.js';
import type { Front } from './front.js';
import { decideOnTheFly } from './onthefly.js';

type Event<Kind extends EngineEvent['kind']> = Extract<EngineEvent, { kind: Kind }>;

const maxDetailOctets = 512;
const maxTextOctets = 1024;

export class EventRouter {
  /** Clients that this batch has something for. */
  readonly #corked: Connection[] = [];

  constructor(private readonly front: Front) {}

  handle(events: readonly EngineEvent[]): void {
    this.#handleAll(events);
    // One at a time too: a client that stays corked would never hear of anything again.
    for (const connection of this.#corked.splice(0)) {
      try {
        connection.uncork();
      } catch (thrown) {
        this.#logFault('uncork', thrown);
      }
    }
  }

  /** One wake-up of the client per batch, not one per event. */
  #cork(connection: Connection): void {
    if (connection.cork()) this.#corked.push(connection);
  }

  #handleAll(events: readonly EngineEvent[]): void {
    for (const event of events) {
      try {
        this.#one(event);
      } catch (thrown) {
        this.#logFault(event.kind, thrown);
      }
    }
  }

  #logFault(event: string, thrown: unknown): void {
    const error = asPoolError(thrown);
    this.front.parts.log.error('an event of the engine could not be handled', { event, text: error.message, cause: String(error.cause) });
  }

  #one(event: EngineEvent): void {
    if (this.front.claims.size > 0 && 'session' in event && event.kind !== 'reauthenticated' && this.#claimed(event)) return;
    switch (event.kind) {
      case 'established': this.#established(event); return;
      case 'supplied': this.#supplied(event); return;
      case 'closed': this.#closed(event); return;
      case 'failed': this.#failed(event); return;
      case 'hello': this.#hello(event); return;
      case 'answer': this.front.work.answered(event); return;
      case 'reauthenticated': this.#reauthenticated(event); return;
      case 'listener': this.#listener(event); return;
    }
  }

  /** A session that another dialect has started: true, and all but the log is its claim's business. */
  #claimed(event: ClaimedEvent): boolean {
    const claim = this.front.claims.get(event.session);
    if (claim === undefined) return false;
    if (event.kind === 'failed') this.#logFailed(event);
    else if (event.kind === 'established' && this.front.parts.log.isDebug) this.#logEstablished(event);
    else if (event.kind === 'closed' && this.front.parts.log.isDebug) this.#logClosed(event);
    claim.onEvent(event);
    return true;
  }

  #established(event: EstablishedEvent): void {
    if (this.front.parts.log.isDebug) this.#logEstablished(event);
    if (event.listener === 0) this.#started(event);
    else this.#accepted(event);
    this.front.endIfRevoked(event.session);
  }

  /** A connection of a listener: the next member in turn gets it, or the one that was asked about its name. */
  #accepted(event: EstablishedEvent): void {
    const { front } = this;
    const asked = front.asks.askedOf(event.session);
    if (asked !== undefined) front.asks.forget(event.session);
    const member = asked ?? front.listeners.get(event.listener)?.pick();
    if (member === undefined || member.state !== 'ready') {
      closeFd(event.plainfd);
      front.parts.engine.close(event.session, 'abort');
      return;
    }
    let session;
    try {
      session = front.sessions.accept(event, member);
    } catch (error) {
      closeFd(event.plainfd);
      front.parts.engine.close(event.session, 'abort');
      throw error;
    }
    front.sessionsChanged(session.uid, 1);
    session.listener = event.listener;
    session.isSilent = front.listeners.get(event.listener)?.settings.isSilent === true;
    if (event.waiting) front.asks.askPlainside(session.number, member, { listener: event.listener, ...reportOf(session) });
    else if (!session.isSilent) this.#hand(session, member, event.plainfd);
  }

  /** Gives a connection of a listener to its owner. */
  #hand(session: Session, member: Connection, plainfd: number): void {
    const { front } = this;
    this.#cork(member);
    try {
      member.event('connection', { listener: session.listener, ...reportOf(session) }, plainfd);
    } catch (error) {
      // Its descriptor is closed already. What cannot be described cannot be handed over.
      front.sessions.abandon(session);
      front.endSession(session, 'abort');
      throw error;
    }
  }

  /** A handshake that a client has asked for by starttls. */
  #started(event: EstablishedEvent): void {
    const { front } = this;
    front.asks.forget(event.session);
    const start = front.starts.get(event.session);
    const session = front.sessions.get(event.session);
    if (session === undefined) {
      closeFd(event.plainfd);
      front.parts.engine.close(event.session, 'abort');
      return;
    }
    front.sessions.establish(session, event);
    if (session.state === 'waiting' && start !== undefined) front.asks.askPlainside(session.number, start.connection, { request: start.id, ...reportOf(session) });
    else this.#answerStart(session, event.plainfd);
  }

  /** The reply to `starttls`. A session that is about to end has none: the engine will report the end, and that is the answer. */
  #answerStart(session: Session, plainfd: number): void {
    const { starts } = this.front;
    const start = starts.get(session.number);
    if (session.state !== 'open' || start === undefined) {
      closeFd(plainfd);
      return;
    }
    starts.delete(session.number);
    start.connection.reply('starttls', start.id, reportOf(session), plainfd);
  }

  /** The plain-text side of a session that waited for it is there. */
  #supplied(event: Event<'supplied'>): void {
    const { front } = this;
    front.asks.forget(event.session);
    const session = front.sessions.get(event.session);
    if (session === undefined) {
      closeFd(event.plainfd);
      front.parts.engine.close(event.session, 'abort');
      return;
    }
    front.sessions.supplied(session);
    const owner = session.owner as Connection | null;
    if (session.listener === 0) this.#answerStart(session, event.plainfd);
    else if (session.state === 'open' && owner !== null) this.#hand(session, owner, event.plainfd);
    else closeFd(event.plainfd);
  }

  #failed(event: Event<'failed'>): void {
    const { front } = this;
    front.asks.forget(event.session);
    const code = asErrorCode(event.code);
    this.#logFailed(event);
    const session = front.sessions.get(event.session);
    if (session === undefined) return;
    const start = front.starts.get(event.session);
    front.starts.delete(event.session);
    const owner = session.owner as Connection | null;
    const { ctlkey, uid } = session;
    front.sessions.end(session, 'failed');
    front.sessionsChanged(uid, -1);
    front.work.sessionEnded(event.session);
    if (start !== undefined) start.connection.refuse('starttls', start.id, start.refusal ?? new TlsPoolError(code, event.text === '' ? {} : { text: event.text }));
    // Its owner knows it from the callback, and would wait for its `connection`.
    else if (owner !== null && ctlkey !== '') {
      this.#cork(owner);
      tellClosed(owner, ctlkey, { ...nothing, how: howOf(code), detail: event.text });
    }
  }

  /** The owner is told first and the plain-text side is closed after that: the library then knows how the stream ended when it reads its end. */
  #closed(event: Event<'closed'>): void {
    const { front } = this;
    front.asks.forget(event.session);
    const session = front.sessions.get(event.session);
    if (session === undefined) {
      closeEnded(event.plainfd);
      return;
    }
    const owner = session.owner as Connection | null;
    const { ctlkey, uid } = session;
    const start = front.starts.get(event.session);
    front.starts.delete(event.session);
    front.sessions.end(session, 'ended');
    front.sessionsChanged(uid, -1);
    front.work.sessionEnded(event.session);
    if (front.parts.log.isDebug) this.#logClosed(event);
    if (start !== undefined) {
      closeEnded(event.plainfd);
      start.connection.refuse('starttls', start.id, new TlsPoolError('ABORTED', { text: event.detail ?? 'the session was ended before its handshake was done' }));
    } else if (owner !== null && ctlkey !== '' && !session.isSilent) {
      this.#cork(owner);
      tellClosed(owner, ctlkey, event);
    } else {
      closeEnded(event.plainfd);
    }
  }

  #hello(event: Event<'hello'>): void {
    const { front } = this;
    const start = event.listener === 0 ? front.starts.get(event.session) : undefined;
    const listener = event.listener === 0 ? undefined : front.listeners.get(event.listener);
    const { localid, onTheFly, asksServername } = start ?? listener?.settings ?? nobody;
    if (onTheFly && !asksServername) {
      const client = start?.connection.client ?? listener?.settings.client;
      if (client !== undefined) decideOnTheFly(front, { session: event.session, client, servername: event.servername, localid, isChosen: false }, -1);
      return;
    }
    const connection = start?.connection ?? listener?.pick();
    if (connection === undefined || connection.state !== 'ready') {
      front.parts.engine.decide(event.session, { refuse: true }, -1);
      return;
    }
    const hasPlainSide = start?.hasPlainSide ?? (listener?.settings.hasBackend === true || listener?.settings.asksPlainside === true);
    front.asks.askServername(event, connection, start === undefined ? { listener: event.listener } : { request: start.id }, {
      localid, hasPlainSide, ...(onTheFly && { decide: this.#afterAnswer(event, connection, localid) }),
    });
  }

  /** The program has the first word, also where a certificate may be made. */
  #afterAnswer({ session, servername }: Event<'hello'>, { client }: Connection, localid: string | undefined): NonNullable<AskSettings['decide']> {
    return (answer, plainfd) => {
      decideOnTheFly(this.front, {
        session, client, servername, localid: answer.localid ?? localid, isChosen: answer.localid !== undefined, ...(answer.alpn !== undefined && { alpn: answer.alpn }),
      }, plainfd);
    };
  }

  /**
   * What is known of the client changes also when nobody waits for it any more. A certificate that was verified by what does not hold any more is not accepted. The session
   * ends, required or not: the engine takes the client for authenticated, so that it would not end one whose listener or identity requires a certificate.
   */
  #reauthenticated(event: Event<'reauthenticated'>): void {
    const { front } = this;
    const { request, outcome, peerCertificates } = event;
    const session = front.sessions.get(event.session);
    const isVoid = front.work.judgement(event)?.holds() !== true && outcome === 'authenticated';
    if (session !== undefined) front.sessions.reauthenticated(session, isVoid ? { authorized: false, authorizationError: 'CERT_UNTRUSTED', peerCertificates } : event);
    if (front.parts.log.isDebug) this.#logReauthenticated(event, isVoid);
    front.work.answered(isVoid ? { kind: 'answer', request, code: 'REAUTH_REFUSED', text: 'the identity that decides has changed while the client was asked; the session ends' } : event);
    if (isVoid && session !== undefined) front.endSession(session, 'revoked');
  }

  #listener(event: Event<'listener'>): void {
    this.front.parts.log.error('a listener has failed', { listener: event.listener, code: event.code, text: event.text });
    this.front.listeners.lost(event.listener, asErrorCode(event.code), fitText(event.text, maxTextOctets));
  }

  #logFailed(event: Event<'failed'>): void {
    this.front.parts.log.failure('handshake failed', {
      code: asErrorCode(event.code), text: event.text, alert: event.alert, servername: event.servername, remote: event.remote?.address,
      remotePort: event.remote?.port, listener: event.listener === 0 ? undefined : event.listener,
    });
  }

  #logClosed({ session, how, detail, octetsReceived, octetsSent }: Event<'closed'>): void {
    this.front.parts.log.debug('session ended', { session, how, detail, octetsReceived, octetsSent });
  }

  #logReauthenticated({ session, outcome, authorized, authorizationError, peerCertificates, request }: Event<'reauthenticated'>, isVoid: boolean): void {
    this.front.parts.log.debug('session reauthenticated', {
      session, outcome, authorized, authorizationError, peerCertificates: peerCertificates.length, isLate: request === 0 ? true : undefined, isVoid: isVoid ? true : undefined,
    });
  }

  #logEstablished(event: EstablishedEvent): void {
    const { session, listener, role, protocol, cipher, group, alpn, servername, localid, resumed, authorized, remote } = event;
    this.front.parts.log.debug('session established', {
      session, listener: listener === 0 ? undefined : listener, role, protocol, cipher, group, alpn, servername, localid, resumed, authorized,
      remote: remote?.address, remotePort: remote?.port,
    });
  }
}

/** A session whose starter, or listener, has gone. */
const nobody = { localid: undefined, onTheFly: false, asksServername: true } as const;
const nothing = { plainfd: -1, octetsReceived: 0, octetsSent: 0 } as const;

/** How a session ended that never had its plain-text side. */
function howOf(code: ErrorCode): ClosedHow {
  if (code === 'TIMEOUT') return 'timeout';
  return code === 'PEER_CLOSED' ? 'reset' : 'error';
}

/** What a client is told of a session that it gets. */
function reportOf(session: Session): { readonly ctlkey: Buffer; readonly info: SessionInfo } {
  return { ctlkey: ctlkeyToOctets(session.ctlkey), info: sessionInfoOf(factsOf(session)) };
}

function tellClosed(owner: Connection, ctlkey: string, event: Omit<Event<'closed'>, 'kind' | 'session'>): void {
  owner.event('closed', {
    ctlkey: ctlkeyToOctets(ctlkey), how: event.how,
    ...(event.alert !== undefined && { alert: event.alert }),
    ...(event.detail !== undefined && { detail: fitText(event.detail, maxDetailOctets) }),
    octetsReceived: event.octetsReceived, octetsSent: event.octetsSent,
  }, -1, event.plainfd);
}
