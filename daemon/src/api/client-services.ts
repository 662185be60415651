/**
 * Services that clients of the pool protocol offer: the pool asks them by the callbacks `identity` and `pin`. An offer ends with its connection. Fails closed: an
 * answer of another kind, an error instead of one, and the end of the connection refuse. Answers to nothing are ignored.
 */
import { TlsPoolError } from 'libtlspool/protocol';
import type { AnswerBody, CallbackBody, RequestBody, ToPoolMessage } from 'libtlspool/protocol';
import type { AccessPolicy, Client } from '../policy/access.js';
import type { Connection } from './connection.js';
import { asPoolError } from './faults.js';
import type { Candidate, Choice, Question, Services } from './services.js';

type Op = 'identity' | 'pin';
type Service = RequestBody<'register'>['service'];
type Answer = Extract<ToPoolMessage, { type: 'answer' }>;

interface Pending {
  readonly op: Op;
  resolve(body: AnswerBody<Op>): void;
  reject(error: TlsPoolError): void;
}

interface Offered { readonly connection: Connection; readonly service: Service; withdraw(): void }

/** Candidates in a callback, as the message table has it. */
const maxCandidates = 256;
/** Questions that may wait for a client that does not read. More would be kept for nothing: each is given up at its time-out, and others follow. */
const maxUnsent = 16;

/** Who may offer it? A chooser decides for its own user and needs no more than those it chooses for. */
export function mayOffer(access: AccessPolicy, client: Client, service: Service): boolean {
  return access.may(client, service === 'chooser' ? 'client' : 'operator');
}

export class ClientServices {
  readonly #services: Services;
  readonly #newId: () => number;
  readonly #offers: Offered[] = [];
  readonly #pending = new Map<Connection, Map<number, Pending>>();

  /** `newId`: of callbacks, which are numbered together with those of other kinds. */
  constructor(services: Services, newId: () => number) {
    this.#services = services;
    this.#newId = newId;
  }

  /** Throws SERVICE_TAKEN. */
  register(connection: Connection, service: Service, timeoutMs: number): void {
    const withdraw = service === 'chooser'
      ? this.#services.offerChooser(connection.client.uid, { choose: (question, signal) => this.#choose(connection, question, signal) }, timeoutMs)
      : this.#services.offerPinEntry({ enter: async (question, signal) => pinOf(await this.#ask(connection, 'pin', question, signal)) }, timeoutMs);
    this.#offers.push({ connection, service, withdraw });
  }

  /** Throws BAD_STATE when this connection does not offer it. */
  unregister(connection: Connection, service: Service): void {
    if (!this.#withdraw((one) => one.connection === connection && one.service === service)) {
      throw new TlsPoolError('BAD_STATE', { text: `this connection does not offer the service ${service}` });
    }
  }

  gone(connection: Connection): void {
    this.#withdraw((one) => one.connection === connection);
    this.#pending.delete(connection);
  }

  /** The rules may have changed: who may not offer it any more is not asked any more. */
  recheck(access: AccessPolicy): void {
    this.#withdraw(({ connection, service }) => !mayOffer(access, connection.client, service));
  }

  /** An answer to `identity` or `pin`. */
  answer(connection: Connection, { op, id, body }: Answer): void {
    const pending = this.#take(connection, id);
    if (pending?.op === op) {
      pending.resolve(body);
      return;
    }
    if (op === 'pin') body.pin?.fill(0);
    pending?.reject(new TlsPoolError('UNEXPECTED_MESSAGE', { text: `an answer to ${op} came for a callback ${pending.op}` }));
  }

  /** An answer of another kind, or an `error`. False: nothing of this number was asked here. */
  refused(connection: Connection, id: number): boolean {
    const pending = this.#take(connection, id);
    pending?.reject(new TlsPoolError('UNEXPECTED_MESSAGE', { text: 'the client answered with an error' }));
    return pending !== undefined;
  }

  #withdraw(which: (one: Offered) => boolean): boolean {
    const ending = this.#offers.filter(which);
    for (const one of ending) {
      this.#offers.splice(this.#offers.indexOf(one), 1);
      one.withdraw();
    }
    return ending.length > 0;
  }

  async #choose(connection: Connection, { remoteid, candidates, pid }: Question, signal: AbortSignal): Promise<Choice> {
    const rest = { pid, ...(remoteid !== undefined && { remoteid }) };
    for (const shown of shrinking(candidates.slice(0, maxCandidates))) {
      try {
        const { refuse, ...choice } = await this.#ask(connection, 'identity', { ...rest, candidates: shown }, signal);
        if (refuse === true) break;
        return choice;
      } catch (error) {
        if (!(error instanceof TlsPoolError) || error.code !== 'MESSAGE_TOO_LARGE') throw error;
      }
    }
    throw new TlsPoolError('CHOICE_REFUSED', { text: 'the chooser refused' });
  }

  #ask<O extends Op>(connection: Connection, op: O, body: CallbackBody<O>, signal: AbortSignal): Promise<AnswerBody<O>> {
    return new Promise((resolve, reject) => {
      // Where nobody waits any more, nothing would ever take the question back.
      signal.throwIfAborted();
      if (connection.unsentCallbacks >= maxUnsent) throw new TlsPoolError('TIMEOUT', { text: 'the client does not read what it is asked' });
      const id = this.#newId();
      let pending = this.#pending.get(connection);
      if (pending === undefined) this.#pending.set(connection, pending = new Map<number, Pending>());
      const aborted = () => { this.#take(connection, id)?.reject(new TlsPoolError('ABORTED')); };
      const over = () => { signal.removeEventListener('abort', aborted); };
      pending.set(id, {
        op,
        resolve: (answer) => { over(); resolve(answer as AnswerBody<O>); },
        reject: (error) => { over(); reject(error); },
      });
      signal.addEventListener('abort', aborted);
      try {
        connection.callback(op, id, body);
      } catch (error) {
        over();
        this.#take(connection, id);
        reject(asPoolError(error));
      }
    });
  }

  #take(connection: Connection, id: number): Pending | undefined {
    const pending = this.#pending.get(connection);
    const found = pending?.get(id);
    pending?.delete(id);
    if (pending?.size === 0) this.#pending.delete(connection);
    return found;
  }
}

/** Candidates as they are, then without what is only for people, then ever fewer: as many as one message takes can be chosen from. */
function* shrinking(candidates: readonly Candidate[]): Generator<readonly Candidate[]> {
  yield candidates;
  for (let count = candidates.length; count > 0; count >>= 1) yield candidates.slice(0, count).map(({ localid }) => ({ localid }));
}

/** A view of the packet that it came in: wiping it leaves nothing there. */
function pinOf({ refuse, pin }: AnswerBody<'pin'>): Buffer {
  if (refuse !== true && pin !== undefined) return Buffer.from(pin.buffer, pin.byteOffset, pin.byteLength);
  pin?.fill(0);
  throw new TlsPoolError('IDENTITY_LOCKED', { text: 'the PIN entry gave no PIN' });
}
