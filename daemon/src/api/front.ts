/**
 * The front: clients, their listeners and their sessions, between the pool socket and the engine. It holds the tables and what
 * happens to all of them at once; requests are in ops-*.ts, events of the engine in events.ts.
 */
import type { ToPoolMessage } from 'libtlspool/protocol';
import { TlsPoolError } from 'libtlspool/protocol';
import type { OwnedFd } from 'libtlspool/native';
import type { EngineEvent, Selector } from '../engine.js';
import { Choices } from '../identity/choices.js';
import type { Client } from '../policy/access.js';
import { RevisionFloors, SessionTable } from '../session/index.js';
import type { Session } from '../session/index.js';
import { AskTable } from './asks.js';
import type { SessionClaim } from './claims.js';
import { ClientServices } from './client-services.js';
import { Connection } from './connection.js';
import type { ConnectionHooks } from './connection.js';
import { dispatch } from './dispatch.js';
import { EventRouter } from './events.js';
import type { FdBag } from './fdbag.js';
import { ListenerTable } from './listeners.js';
import type { ListenerSettings } from './listeners.js';
import type { FrontParts } from './parts.js';
import { mayServe } from './permission.js';
import { Services } from './services.js';
import { WaitTable } from './waits.js';
import { WorkTable } from './work.js';

/** A handshake that a `starttls` waits for. */
export interface Start {
  readonly connection: Connection;
  readonly id: number;
  readonly localid: string | undefined;
  readonly hasPlainSide: boolean;
  readonly asksServername: boolean;
  /** A certificate may be made for the server name. */
  readonly onTheFly: boolean;
  /** Why we have refused the peer, where the engine does not know. */
  refusal?: TlsPoolError;
}

/** Connections that are told why they may not talk to us. They take no client's place, and this many are the most. */
const refusedMax = 32;
/** Places beyond limits.clients for operators, so that a full pool can still be looked at. */
const operatorPlaces = 8;

export class Front {
  state: 'running' | 'draining' = 'running';
  readonly clients = new Set<Connection>();
  readonly sessions: SessionTable;
  readonly listeners: ListenerTable;
  readonly asks: AskTable;
  readonly work = new WorkTable();
  /** By the engine's session number. */
  readonly starts = new Map<number, Start>();
  /** By the engine's session number: sessions that another dialect has started. */
  readonly claims = new Map<number, SessionClaim>();
  /** What clients do for the pool, in whatever dialect. */
  readonly services: Services;
  readonly clientServices: ClientServices;
  /** Requests that wait for somebody's decision. */
  readonly waits = new WaitTable();
  readonly #floors = new RevisionFloors();
  readonly #refused = new Set<Connection>();
  readonly #events: EventRouter;
  readonly #hooks: ConnectionHooks;
  #empty: (() => void) | undefined;

  constructor(readonly parts: FrontParts) {
    const engine = () => parts.engine;
    this.sessions = new SessionTable(parts.limits.messageOctets);
    this.listeners = new ListenerTable(engine, (uid) => this.sessions.countOf(uid) < parts.access.sessionsPerClient);
    this.asks = new AskTable(engine, (connection, localid) => parts.store.serverSelector(connection.client, localid), (session, error) => {
      const start = this.starts.get(session);
      if (start !== undefined) start.refusal = error;
    });
    const { store, log, choices = Choices.inMemory({ log }), unlock = () => Promise.resolve('gone') } = parts;
    this.services = new Services({ store, log, choices, unlock });
    this.clientServices = new ClientServices(this.services, () => this.asks.newId());
    this.#events = new EventRouter(this);
    this.#hooks = {
      message: (connection, message, fds) => { this.#message(connection, message, fds); },
      clogged: (connection) => { this.listeners.recheckMember(connection); },
      gone: (connection, reason) => { this.#gone(connection, reason); },
    };
    parts.store.onPublished((changed) => {
      // First, so that whoever may no longer serve an identity is never given a connection of it.
      this.#expelMembers();
      this.listeners.renew((settings) => this.#selectorOf(settings));
      this.#floors.update(parts.store.list());
      for (const session of this.#floors.below(this.sessions.all())) this.endSession(session, 'revoked');
      this.clientServices.recheck(parts.access);
      this.services.unlocking.published(changed);
    });
  }

  /** A new connection on the pool socket. The descriptor is the front's from now on, also when this throws. */
  accept(fd: OwnedFd, client: Client): Connection {
    const { access, limits } = this.parts;
    const refusal = this.#refusalOf(client);
    const connection = new Connection(fd, client, limits, this.#hooks, refusal);
    const places = refusal === undefined ? this.clients : this.#refused;
    places.add(connection);
    if (refusal !== undefined) {
      this.parts.log.failure('client refused', { uid: client.uid, clientPid: client.pid, code: refusal.code });
      const [oldest] = this.#refused;
      if (this.#refused.size > refusedMax) oldest?.close();
    } else if (this.parts.log.isDebug) {
      this.parts.log.debug('client connected', { uid: client.uid, clientPid: client.pid, operator: access.may(client, 'operator') });
    }
    // Who connects and says nothing gives the place back.
    connection.expectHello(limits.handshakeMs);
    return connection;
  }

  /** Everything the engine has to say. Never throws. */
  onEvents(events: readonly EngineEvent[]): void {
    this.#events.handle(events);
  }

  /** A session has been entered or has ended: its user's listeners may have to pause or may go on. */
  sessionsChanged(uid: number, step: 1 | -1): void {
    const { sessionsPerClient } = this.parts.access;
    const count = this.sessions.countOf(uid);
    if (step === 1 ? count === sessionsPerClient : count === sessionsPerClient - 1) this.listeners.recheckUser(uid);
  }

  /** The engine is to end this session; nobody controls it any more unless its owner stays to be told. */
  endSession(session: Session, how: 'orderly' | 'abort' | 'drained' | 'revoked'): void {
    this.sessions.closing(session);
    this.parts.engine.close(session.number, how);
  }

  /** A session whose handshake began before its identity was published anew may be below the floor when it is established. */
  endIfRevoked(number: number): void {
    const session = this.sessions.get(number);
    if (session !== undefined && this.#floors.below([session]).length > 0) this.endSession(session, 'revoked');
  }

  /** Nothing new from now on: listeners are closed, clients are told the deadline, sessions go on. */
  drain(deadlineMs: number): void {
    this.state = 'draining';
    for (const connection of this.clients) if (connection.state === 'ready') connection.event('drain', { deadlineMs });
    this.listeners.shutAll();
    this.waits.endAll(new TlsPoolError('POOL_DRAINING'));
  }

  /**
   * Is nothing going on any more? The engine counts what the table cannot know: handshakes of listeners, sessions whose event is
   * on its way, and ended ones that still wait for their peer.
   */
  isIdle(): boolean {
    return this.sessions.size === 0 && this.waits.size === 0 && this.parts.engine.counters().sessions === 0;
  }

  /** Calls back, once, when no client is left. */
  whenEmpty(callback: () => void): void {
    this.#empty = () => {
      this.#empty = undefined;
      callback();
    };
    if (this.clients.size === 0) this.#empty();
  }

  /** Ends what is left after the deadline of a drain. */
  endAll(): void {
    for (const session of [...this.sessions.all()]) this.endSession(session, 'drained');
  }

  /** Closes all connections: at once, or each when it has been sent everything. */
  close(how: 'now' | 'flushed'): void {
    for (const connection of [...this.clients, ...this.#refused]) {
      if (how === 'now') connection.close();
      else connection.end();
    }
  }

  #refusalOf(client: Client): TlsPoolError | undefined {
    const { access, limits } = this.parts;
    if (!access.mayConnect(client)) {
      return new TlsPoolError('NOT_PERMITTED', {
        text: `user ${client.uid} may not use this pool; the operator can allow it by a rule under "access" in the configuration, or by the group of the socket`,
      });
    }
    const places = limits.clients + (access.may(client, 'operator') ? operatorPlaces : 0);
    if (this.clients.size < places) return undefined;
    return new TlsPoolError('LIMIT_CLIENTS', { text: `the pool has ${this.clients.size} clients, which is the limit; try again later, or raise limits.clients` });
  }

  #message(connection: Connection, message: ToPoolMessage, fds: FdBag): void {
    if (message.type === 'request') {
      dispatch(this, connection, message, fds);
    } else if (message.type === 'answer') {
      if (message.op === 'identity' || message.op === 'pin') {
        this.clientServices.answer(connection, message);
        // Should it be the answer to a callback of another kind, that one is refused.
        this.asks.refused(connection, message.id);
        return;
      }
      if (this.clientServices.refused(connection, message.id)) return;
      const error = this.asks.answer(connection, message, fds);
      if (error !== undefined) this.parts.log.failure('refused by the answer of a client', { callback: message.op, code: error.code, text: error.message, clientPid: connection.client.pid });
    } else if (!this.clientServices.refused(connection, message.id)) {
      this.asks.refused(connection, message.id);
    }
  }

  #gone(connection: Connection, reason: TlsPoolError | undefined): void {
    this.#refused.delete(connection);
    if (!this.clients.delete(connection)) return;
    const { client } = connection;
    if (reason !== undefined) this.parts.log.failure('client disconnected', { uid: client.uid, clientPid: client.pid, code: reason.code, text: reason.message });
    else if (this.parts.log.isDebug) this.parts.log.debug('client left', { uid: client.uid, clientPid: client.pid, sessions: connection.sessions.size });
    this.listeners.leaveAll(connection);
    this.asks.gone(connection);
    this.clientServices.gone(connection);
    this.waits.gone(connection);
    this.work.gone(connection);
    for (const session of [...connection.sessions]) this.#orphan(session);
    if (this.#empty !== undefined && this.clients.size === 0) this.#empty();
  }

  /** The owner of this session has gone: so does the session, unless it was started to stay. */
  #orphan(session: Session): void {
    if (session.state === 'open' && session.fork) {
      this.sessions.detach(session);
      return;
    }
    const isHandshake = session.state === 'handshake' || session.state === 'waiting';
    this.starts.delete(session.number);
    this.sessions.abandon(session);
    if (session.state !== 'closing') this.endSession(session, isHandshake ? 'abort' : 'orderly');
  }

  /** Rules may have changed: a listener ends for those who might not make it today. Without its maker's permission it ends for all. */
  #expelMembers(): void {
    const why = { code: 'NOT_PERMITTED', text: 'the access rules have changed, and this client may no longer have what this listener serves' } as const;
    for (const listener of [...this.listeners.all()]) {
      const { settings } = listener;
      const isRightful = mayServe(this.parts, settings.client, settings);
      for (const member of [...listener.members]) {
        if (isRightful && mayServe(this.parts, member.client, settings)) continue;
        this.parts.log.warn('a listener is closed for a client that may no longer have it', { listener: listener.number, localid: settings.localid, uid: member.client.uid, clientPid: member.client.pid });
        this.listeners.expel(listener, member, why);
      }
    }
  }

  /** Fails closed: when the identity is no longer there, or no longer for this client, no name is served; the listening socket stays. */
  #selectorOf(settings: ListenerSettings): Selector {
    const { signer } = this.parts;
    // Each handshake is decided upon when it comes.
    if (settings.onTheFly && signer !== undefined) return signer.undecided;
    try {
      return this.parts.store.serverSelector(settings.client, settings.localid);
    } catch (error) {
      this.parts.log.warn('a listener serves no identity any more', {
        localid: settings.localid, clientPid: settings.client.pid, text: error instanceof Error ? error.message : undefined,
      });
      return this.parts.engine.selector({ names: [] });
    }
  }
}
