/** Listening sockets in the engine's hands, and who gets their connections. */
import { TlsPoolError } from 'libtlspool/protocol';
import type { Endpoint, ErrorCode } from 'libtlspool/protocol';
import type { Engine, Selector } from '../engine.js';
import type { Client } from '../policy/access.js';
import type { Connection } from './connection.js';

export interface ListenerSettings {
  /** The client that handed it over: its permissions decide what is served, also after it has left. */
  readonly client: Client;
  readonly localid: string | undefined;
  readonly asksServername: boolean;
  /** Certificates may be made for the names that its clients ask for. */
  readonly onTheFly: boolean;
  readonly share: string | undefined;
  readonly local: Endpoint;
  readonly hasBackend: boolean;
  /** Its clients are asked for the plain-text side of each connection. */
  readonly asksPlainside: boolean;
  /** Its connections go to the backend and nobody is told of them. */
  readonly isSilent: boolean;
}

export class Listener {
  readonly members: Connection[] = [];
  isPaused = false;
  /** False once the engine accepts no more; handshakes that are under way still find their members. */
  isOpen = true;
  #turn = 0;

  constructor(readonly number: number, readonly settings: ListenerSettings) {}

  /** The next member in turn that keeps up; when none does, the next in turn (handshakes that were under way must go somewhere). */
  pick(): Connection | undefined {
    const { members } = this;
    for (let tried = 0; tried < members.length; tried += 1) {
      const member = members[this.#step()];
      if (member !== undefined && !member.isClogged) return member;
    }
    return members[this.#step()];
  }

  #step(): number {
    this.#turn = (this.#turn + 1) % Math.max(1, this.members.length);
    return this.#turn;
  }
}

export class ListenerTable {
  readonly #byNumber = new Map<number, Listener>();
  readonly #byShare = new Map<string, Listener>();
  readonly #byMember = new Map<Connection, Set<Listener>>();

  /** `hasRoom`: may this user have another session? */
  constructor(private readonly engine: () => Engine, private readonly hasRoom: (uid: number) => boolean) {}

  get size(): number { return this.#byNumber.size; }

  get(number: number): Listener | undefined { return this.#byNumber.get(number); }

  all(): IterableIterator<Listener> { return this.#byNumber.values(); }

  countOf(connection: Connection): number { return this.#byMember.get(connection)?.size ?? 0; }

  /** The listener of this user that is shared under this name. */
  shared(uid: number, share: string): Listener | undefined {
    return this.#byShare.get(shareKey(uid, share));
  }

  add(listener: Listener, first: Connection): void {
    this.#byNumber.set(listener.number, listener);
    const { client, share } = listener.settings;
    if (share !== undefined) this.#byShare.set(shareKey(client.uid, share), listener);
    this.join(listener, first);
  }

  join(listener: Listener, connection: Connection): void {
    listener.members.push(connection);
    let set = this.#byMember.get(connection);
    if (set === undefined) this.#byMember.set(connection, set = new Set());
    set.add(listener);
    this.recheck(listener);
  }

  /** The listener with this number that this connection is a member of. Throws LISTENER_UNKNOWN. */
  memberOf(connection: Connection, number: number): Listener {
    const listener = this.#byNumber.get(number);
    if (listener === undefined || !listener.members.includes(connection)) {
      throw new TlsPoolError('LISTENER_UNKNOWN', { text: `this connection has no listener ${number}`, field: 'body.listener' });
    }
    return listener;
  }

  /** The last member to leave closes the listening socket. Its sessions go on. */
  leave(listener: Listener, connection: Connection): void {
    const place = listener.members.indexOf(connection);
    if (place >= 0) listener.members.splice(place, 1);
    const set = this.#byMember.get(connection);
    set?.delete(listener);
    if (set?.size === 0) this.#byMember.delete(connection);
    if (listener.members.length > 0) {
      this.recheck(listener);
      return;
    }
    if (this.#forget(listener)) this.#shut(listener);
  }

  leaveAll(connection: Connection): void {
    for (const listener of [...this.#byMember.get(connection) ?? []]) this.leave(listener, connection);
  }

  /** The engine can no longer accept on it: its members are told and it is forgotten. */
  lost(number: number, code: ErrorCode, text: string): void {
    const listener = this.#byNumber.get(number);
    if (listener === undefined) return;
    // The engine has the socket, and its port, until it is told.
    this.#shut(listener);
    this.#forget(listener);
    for (const member of [...listener.members]) this.expel(listener, member, { code, text });
  }

  /** The member gets no more connections of this listener, and is told why. What it has got stays its own. */
  expel(listener: Listener, member: Connection, why: { readonly code: ErrorCode; readonly text: string }): void {
    this.leave(listener, member);
    member.event('listenerClosed', { listener: listener.number, ...why });
  }

  /** Closes all listening sockets. The members stay: what has been accepted is still theirs. */
  shutAll(): void {
    for (const listener of this.#byNumber.values()) this.#shut(listener);
  }

  /** Pauses or resumes it, whichever its members and its user's sessions ask for. */
  recheck(listener: Listener): void {
    const shouldPause = !this.hasRoom(listener.settings.client.uid) || listener.members.every((member) => member.isClogged);
    if (shouldPause === listener.isPaused || !listener.isOpen) return;
    listener.isPaused = shouldPause;
    this.engine().pauseListener(listener.number, shouldPause);
  }

  recheckMember(connection: Connection): void {
    for (const listener of this.#byMember.get(connection) ?? []) this.recheck(listener);
  }

  recheckUser(uid: number): void {
    for (const listener of this.#byNumber.values()) if (listener.settings.client.uid === uid) this.recheck(listener);
  }

  /** After a publication: new handshakes use what is published now. */
  renew(selectorOf: (settings: ListenerSettings) => Selector): void {
    for (const listener of this.#byNumber.values()) {
      if (listener.isOpen) this.engine().setSelector(listener.number, selectorOf(listener.settings));
    }
  }

  #shut(listener: Listener): void {
    if (!listener.isOpen) return;
    listener.isOpen = false;
    this.engine().unlisten(listener.number);
  }

  #forget(listener: Listener): boolean {
    const { client, share } = listener.settings;
    if (share !== undefined) this.#byShare.delete(shareKey(client.uid, share));
    return this.#byNumber.delete(listener.number);
  }
}

function shareKey(uid: number, share: string): string {
  return `${uid}\0${share}`;
}
