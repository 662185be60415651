/** The clients of the V2 dialect, their control keys, and what becomes of both when a client leaves. Sessions, limits and access rules are those of the pool. */
import type { TlsPoolError } from 'libtlspool/protocol';
import type { OwnedFd } from 'libtlspool/native';
import type { Front } from '../api/front.js';
import type { AccessPolicy, Client } from '../policy/access.js';
import type { Session } from '../session/index.js';
import { V2Connection } from './connection.js';
import type { V2Hooks } from './connection.js';
import { dispatch } from './dispatch.js';
import { V2Error } from './errors.js';
import { V2Keys } from './keys.js';
import { Registrations } from './registrations.js';
import type { StartClaim } from './claim.js';

/** Connections that are told why they may not talk to us. They take no client's place, and this many are the most. */
const refusedMax = 32;

export class V2Front {
  readonly clients = new Set<V2Connection>();
  readonly keys = new V2Keys();
  readonly registrations = new Registrations();
  /** By session: sessions of this dialect that have not ended. */
  readonly starts = new Map<Session, StartClaim>();
  readonly #refused = new Set<V2Connection>();
  readonly #hooks: V2Hooks;

  constructor(readonly front: Front) {
    front.parts.store.onPublished(() => { this.registrations.recheck(this.access); });
    this.#hooks = {
      request: (connection, inbound) => { dispatch({ v2: this, connection, ...inbound }); },
      gone: (connection, reason) => { this.#gone(connection, reason); },
    };
  }

  get access(): AccessPolicy { return this.front.parts.access; }

  /** A new connection on the V2 socket. The descriptor is ours from now on, also when this throws. */
  accept(fd: OwnedFd, client: Client): V2Connection {
    const { limits, log } = this.front.parts;
    const refusal = this.#refusalOf(client);
    const connection = new V2Connection(fd, client, limits, this.#hooks, refusal);
    (refusal === undefined ? this.clients : this.#refused).add(connection);
    if (refusal !== undefined) {
      log.failure('V2 client refused', { uid: client.uid, clientPid: client.pid, code: refusal.reason });
      const [oldest] = this.#refused;
      if (this.#refused.size > refusedMax) oldest?.close();
    } else if (log.isDebug) {
      log.debug('V2 client connected', { uid: client.uid, clientPid: client.pid });
    }
    return connection;
  }

  /** Closes all connections at once. */
  close(): void {
    for (const connection of [...this.clients, ...this.#refused]) connection.close();
  }

  #refusalOf({ uid, ...rest }: Client): V2Error | undefined {
    const { access, limits } = this.front.parts;
    if (!access.mayConnect({ uid, ...rest })) return new V2Error('EACCES', `user ${uid} may not use this pool; the operator can allow it by a rule under "access"`);
    if (this.clients.size < limits.clients) return undefined;
    return new V2Error('EAGAIN', `there are ${limits.clients} clients, which is the limit (limits.clients)`);
  }

  #gone(connection: V2Connection, reason: TlsPoolError | undefined): void {
    this.#refused.delete(connection);
    if (!this.clients.delete(connection)) return;
    const { client } = connection;
    const { log } = this.front.parts;
    if (reason !== undefined) log.failure('V2 client disconnected', { uid: client.uid, clientPid: client.pid, code: reason.code, text: reason.message });
    else if (log.isDebug) log.debug('V2 client left', { uid: client.uid, clientPid: client.pid, sessions: connection.sessions.size });
    this.registrations.gone(connection);
    this.front.waits.gone(connection);
    for (const session of [...connection.sessions]) this.starts.get(session)?.ownerGone(session);
  }
}
