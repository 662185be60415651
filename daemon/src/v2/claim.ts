/**
 * One STARTTLS, from the engine's session number to the end of the session. The engine and the session table hold its state; here is who waits for what: the client
 * for its one answer, and we for at most one callback.
 *
 * Everything goes by the last message of the client: its buffer becomes our next message, reqid included. Only what was asked for at first counts for what is
 * done: editing flags or the control key in an answer changes nothing but the echo.
 */
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import type { ClaimedEvent, SessionClaim } from '../api/claims.js';
import { closeEnded, closeFd, discardFd } from '../api/fdbag.js';
import type { FdBag } from '../api/fdbag.js';
import type { Front } from '../api/front.js';
import type { Context, EstablishedEvent, Selector } from '../engine.js';
import type { Session } from '../session/index.js';
import type { V2Connection } from './connection.js';
import { V2Error, asV2Error } from './errors.js';
import { domainOf, hasFlag, startFlags } from './flags.js';
import { codec, commands } from './frames.js';
import type { V2Front } from './front.js';
import { isSameName, madeSelector, serverSelector } from './identities.js';
import type { ClientIdentity } from './identities.js';
import type { Inbound } from './reader.js';

type Event<Kind extends ClaimedEvent['kind']> = Extract<ClaimedEvent, { kind: Kind }>;

/** What a STARTTLS asks for. */
export interface Asked {
  readonly role: 'server' | 'client';
  readonly flags: number;
  readonly localid: string;
  readonly remoteid: string;
  readonly ctlkey: Buffer;
  /** Absent: as configured. */
  readonly handshakeMs: number | undefined;
}

export interface StartClaimParts {
  readonly v2: V2Front;
  readonly connection: V2Connection;
  /** The request. */
  readonly frame: Buffer;
  readonly asked: Asked;
}

export class StartClaim implements SessionClaim {
  readonly #v2: V2Front;
  readonly #front: Front;
  readonly #connection: V2Connection;
  readonly #asked: Asked;
  /** The last message of the client. */
  #frame: Buffer;
  #number = 0;
  /** Forgets the callback that is to be answered. */
  #forget: (() => void) | undefined;
  /** Why we have ended it, where the engine cannot know. */
  #failure: V2Error | undefined;
  #isAnswered = false;
  #hasPlainSide = false;
  #wasAskedForPlainSide = false;
  /** Client role: what is shown unless the client says otherwise. */
  #identity: ClientIdentity | undefined;

  constructor({ v2, connection, frame, asked }: StartClaimParts) {
    this.#v2 = v2;
    this.#front = v2.front;
    this.#connection = connection;
    this.#asked = asked;
    this.#frame = frame;
    this.#clearFork();
  }

  /** Client role: what is shown unless the client says otherwise. To be called before `begun`. */
  chose(identity: ClientIdentity): void {
    this.#identity = identity;
  }

  /** The engine has the session. */
  begun(number: number): void {
    this.#number = number;
    const session = this.#front.sessions.begin(number, this.#connection, hasFlag(this.#asked.flags, 'FORK'));
    this.#v2.starts.set(session, this);
    this.#front.claims.set(number, this);
    this.#front.sessionsChanged(session.uid, 1);
  }

  onEvent(event: ClaimedEvent): void {
    switch (event.kind) {
      case 'hello': this.#hello(event); return;
      case 'established': this.#established(event); return;
      case 'supplied': this.#supplied(event); return;
      case 'failed': this.#ended(event, 'failed'); return;
      case 'closed': this.#ended(event, 'ended'); return;
    }
  }

  /** Whoever controls the session has left. It goes on, unless nobody can bring its plain-text side any more. */
  ownerGone(session: Session): void {
    const { sessions } = this.#front;
    if (session.state === 'open') {
      if (!session.fork) this.#v2.keys.remove(session);
      sessions.detach(session);
      return;
    }
    sessions.abandon(session);
    if (session.state !== 'closing' && !this.#hasPlainSide) this.#front.endSession(session, 'abort');
  }

  /** Server role: the peer has named whom it wants. Client role: the peer wants a certificate. */
  #hello({ servername = '' }: Event<'hello'>): void {
    const { role, flags, localid, remoteid } = this.#asked;
    if (role === 'server') {
      if (servername === '') { this.#refuse(new V2Error('STIRRED_NOT_SHAKEN', 'the client sent no server name (SNI)')); return; }
      if (localid !== '' && !isSameName(domainOf(localid), servername)) {
        this.#refuse(new V2Error('STIRRED_NOT_SHAKEN', `the client asks for ${servername}, not for ${domainOf(localid)}`));
        return;
      }
    }
    if (!hasFlag(flags, 'LOCALID_CHECK')) { this.#decide(localid, servername); return; }
    const shown = role === 'client' ? this.#identity?.localid ?? '' : localid === '' ? servername : localid;
    codec.patch(this.#frame, 'starttls', { localid: shown, remoteid });
    this.#ask(commands.STARTTLS_LOCALID, (inbound) => {
      const { cmd } = codec.read(inbound.frame, 'head');
      if (cmd === commands.STARTTLS_LOCALID) this.#decide(codec.read(inbound.frame, 'starttls').localid, servername, inbound.fds);
      else this.#refuse(new V2Error('STIRRED_NOT_SHAKEN', 'the program refused the local identity'));
    }, () => { this.#refuse(); });
  }

  /** Takes the identity, and the plain-text side where it came with the answer. */
  #decide(localid: string, servername: string, fds?: FdBag): void {
    const { engine } = this.#front.parts;
    const plainfd = fds?.at(0) ?? -1;
    if (plainfd !== -1 && !isPlainSide(plainfd)) { this.#refuse(new V2Error('PLAIN_SOCKET_NEEDED')); return; }
    if (this.#asked.role === 'server' && hasFlag(this.#asked.flags, 'LOCALID_ONTHEFLY')) {
      fds?.release(0);
      this.#signed(localid, servername, plainfd);
      return;
    }
    try {
      const decision = this.#asked.role === 'server' ? { selector: this.#selector(localid, servername) } : { context: this.#context(localid) };
      engine.decide(this.#number, decision, plainfd);
    } catch (error) {
      this.#refuse(stirred(error));
      return;
    }
    fds?.release(0);
    this.#hasPlainSide = plainfd !== -1;
  }

  #selector(localid: string, servername: string): Selector {
    return serverSelector(this.#front, this.#connection.client, localid, servername);
  }

  /** An answer that says what it was asked changes nothing. */
  #context(localid: string): Context {
    if (this.#identity?.localid === localid) return this.#identity.context;
    return this.#front.parts.store.clientContext(this.#connection.client, localid === '' ? undefined : localid);
  }

  /** The session may be over when the certificate is made; the engine closes the descriptor then. */
  #signed(localid: string, servername: string, plainfd: OwnedFd | -1): void {
    const { engine } = this.#front.parts;
    this.#hasPlainSide = plainfd !== -1;
    madeSelector(this.#front, this.#connection.client, localid, servername).then((selector) => {
      engine.decide(this.#number, { selector }, plainfd);
    }).catch((error: unknown) => {
      discardFd(plainfd);
      this.#hasPlainSide = false;
      this.#refuse(stirred(error));
    });
  }

  #established(event: EstablishedEvent): void {
    const { sessions, parts: { engine } } = this.#front;
    const session = sessions.get(event.session);
    if (session === undefined) {
      engine.close(event.session, 'abort');
      return;
    }
    sessions.establish(session, event);
    if (session.state === 'waiting') this.#askPlainSide();
    else this.#open(session);
    this.#front.endIfRevoked(event.session);
  }

  /** Both identities are empty in here, as they are in the original; an answer may fill them in for the echo. */
  #askPlainSide(): void {
    const { engine } = this.#front.parts;
    codec.patch(this.#frame, 'starttls', { localid: '', remoteid: '' });
    this.#wasAskedForPlainSide = true;
    const fail = (failure?: V2Error): void => {
      this.#failure = failure;
      engine.supply(this.#number, 'refuse');
    };
    this.#ask(commands.PLAINTEXT_CONNECT, ({ frame, fds }) => {
      const plainfd = fds.at(0);
      if (codec.read(frame, 'head').cmd !== commands.PLAINTEXT_CONNECT) { fail(new V2Error('COMMAND_BAD_CALLBACK_RESPONSE')); return; }
      if (plainfd === -1 || !isPlainSide(plainfd)) { fail(new V2Error('PLAIN_SOCKET_NEEDED')); return; }
      this.#hasPlainSide = true;
      engine.supply(this.#number, plainfd);
      fds.release(0);
    }, fail);
  }

  #supplied(event: Event<'supplied'>): void {
    closeFd(event.plainfd);
    const session = this.#front.sessions.get(event.session);
    if (session === undefined) return;
    this.#front.sessions.supplied(session);
    this.#open(session);
  }

  /** Octets flow: the key is registered, and the client told. A session that is about to end is answered by its end. */
  #open(session: Session): void {
    if (session.state !== 'open') return;
    const { flags, ctlkey } = this.#asked;
    const { keys } = this.#v2;
    const hasLeft = this.#connection.state === 'closed';
    if ((!hasLeft || session.fork || hasFlag(flags, 'DETACH')) && !keys.register(ctlkey, session)) {
      this.#failure = new V2Error('CTLKEY_REGISTRATION_FAILED');
      this.#front.endSession(session, 'abort');
      return;
    }
    if (hasLeft || hasFlag(flags, 'DETACH')) this.#front.sessions.detach(session);
    if (!this.#wasAskedForPlainSide) codec.patch(this.#frame, 'starttls', { localid: '', remoteid: '' });
    this.#clearFork();
    codec.patch(this.#frame, 'head', { cmd: commands.STARTTLS });
    this.#isAnswered = true;
    if (!hasLeft) this.#connection.send(this.#frame);
  }

  #ended(event: Event<'failed' | 'closed'>, how: 'failed' | 'ended'): void {
    const { sessions, claims, work } = this.#front;
    if (event.kind === 'closed') closeEnded(event.plainfd);
    this.#settle();
    claims.delete(event.session);
    const session = sessions.get(event.session);
    if (session === undefined) return;
    const { uid } = session;
    this.#v2.starts.delete(session);
    this.#v2.keys.remove(session);
    sessions.end(session, how);
    this.#front.sessionsChanged(uid, -1);
    work.sessionEnded(event.session);
    if (this.#isAnswered || this.#connection.state === 'closed') return;
    this.#isAnswered = true;
    this.#connection.refuse(this.#frame, this.#failure ?? failureOf(event));
  }

  #ask(cmd: typeof commands.STARTTLS_LOCALID | typeof commands.PLAINTEXT_CONNECT, answered: (inbound: Inbound) => void, gone: (failure?: V2Error) => void): void {
    try {
      this.#forget = this.#connection.ask(this.#frame, cmd, {
        answered: (inbound) => {
          this.#forget = undefined;
          this.#frame = inbound.frame;
          this.#clearFork();
          answered(inbound);
        },
        gone: () => {
          this.#forget = undefined;
          gone();
        },
      });
    } catch (error) {
      gone(asV2Error(error, 'STIRRED_NOT_SHAKEN'));
    }
  }

  #settle(): void {
    this.#forget?.();
    this.#forget = undefined;
  }

  /** Ends the handshake. */
  #refuse(failure?: V2Error): void {
    this.#failure = failure;
    this.#front.parts.engine.decide(this.#number, { refuse: true }, -1);
  }

  /** The one flag that does not come back. */
  #clearFork(): void {
    const { flags } = codec.read(this.#frame, 'starttls');
    // Unsigned, because ~ is not.
    codec.patch(this.#frame, 'starttls', { flags: (flags & ~startFlags.FORK) >>> 0 });
  }
}

/** In the middle of a handshake all failures are one; the text says which. */
function stirred(thrown: unknown): V2Error {
  return new V2Error('STIRRED_NOT_SHAKEN', asV2Error(thrown, 'STIRRED_NOT_SHAKEN').message);
}

/** What the engine would say of it comes too late for an answer of its own. */
function isPlainSide(fd: OwnedFd): boolean {
  try {
    const { type, connected } = sockets.socketInfo(fd);
    return connected && (type === 'stream' || type === 'seqpacket');
  } catch {
    return false;
  }
}

function failureOf(event: Event<'failed' | 'closed'>): V2Error {
  if (event.kind === 'closed') return new V2Error('STIRRED_NOT_SHAKEN', event.detail);
  return event.code === 'FD_KIND' ? new V2Error('PLAIN_SOCKET_NEEDED') : new V2Error('STIRRED_NOT_SHAKEN', event.text === '' ? undefined : event.text);
}
