/** What clients of the V2 dialect offer (identity selection, PIN entry), and how they are asked. An offer ends with its connection, or with the right to make it. */
import { TlsPoolError } from 'libtlspool/protocol';
import { mayOffer } from '../api/client-services.js';
import type { FrontParts } from '../api/parts.js';
import type { AccessPolicy } from '../policy/access.js';
import type { V2Connection } from './connection.js';
import { V2Error, asV2Error } from './errors.js';
import type { TableError } from './errors.js';
import type { Command } from './frames.js';

type Service = 'chooser' | 'pin';
interface Registration { readonly connection: V2Connection; readonly service: Service; withdraw(): void }

const taken = { chooser: 'LIDENTRY_NOT_VACANT', pin: 'PINENTRY_NOT_VACANT' } as const satisfies Record<Service, TableError>;

export class Registrations {
  readonly #all = new Set<Registration>();

  /** `offer` makes it known and returns how to withdraw it. Throws V2Error EACCES, or that the place is not vacant. */
  add({ access, log }: Pick<FrontParts, 'access' | 'log'>, connection: V2Connection, service: Service, offer: () => () => void): void {
    const { client } = connection;
    if (!mayOffer(access, client, service)) throw new V2Error('EACCES', `user ${client.uid} may not do that; the operator can allow it by a rule under "access"`);
    try {
      this.#all.add({ connection, service, withdraw: offer() });
      log.info('a V2 client offers a service', { service, uid: client.uid, clientPid: client.pid });
    } catch (error) {
      if (error instanceof TlsPoolError && error.code === 'SERVICE_TAKEN') throw new V2Error(taken[service], error.message);
      throw asV2Error(error, 'CONNECTION_HANDLER_SETUP');
    }
  }

  gone(connection: V2Connection): void {
    this.#withdraw((one) => one.connection === connection);
  }

  /** The rules may have changed. */
  recheck(access: AccessPolicy): void {
    this.#withdraw(({ connection, service }) => !mayOffer(access, connection.client, service));
  }

  #withdraw(isMeant: (one: Registration) => boolean): void {
    for (const one of [...this.#all]) {
      if (!isMeant(one)) continue;
      this.#all.delete(one);
      one.withdraw();
    }
  }
}

/** A callback and its answer. Rejects with V2Error CLIENT_DISCONNECT, or EAGAIN. The frame is the answer's, to be wiped by whom it concerns. */
export function question(connection: V2Connection, frame: Buffer, cmd: Command): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    connection.ask(frame, cmd, {
      answered: (inbound) => { resolve(inbound.frame); },
      gone: () => { reject(new V2Error('CLIENT_DISCONNECT')); },
    });
  });
}

/** Milliseconds that an answer may take, as Services takes them: 1 to 600000; 0 of a client is the pool's default. */
export function answerMs(asked: number): number {
  return asked === 0 ? 60_000 : Math.min(Math.max(Math.round(asked), 1), 600_000);
}
