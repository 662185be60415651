/** Requests that the engine answers later: each gets its one reply, also when its session ends first. */
import { TlsPoolError } from 'libtlspool/protocol';
import type { EngineEvent } from '../engine.js';
import type { Connection } from './connection.js';
import { asErrorCode } from './faults.js';
import type { Judgement } from './judgement.js';

/** What the engine answers a request with. */
export type EngineAnswer = Extract<EngineEvent, { kind: 'answer' | 'reauthenticated' }>;

/** Somebody who waits for an answer. One of the two functions is called, once, or neither when `connection` has gone or it was taken out. */
export interface Work {
  /** The engine's session number. */
  readonly session: number;
  /** Nobody waits any more once this has gone. */
  readonly connection?: Connection;
  /** The client of the session is asked for a certificate, and this decides on it: also when it comes after its time, or when nobody waits any more. */
  readonly judgement?: Judgement;
  answered(answer: EngineAnswer): void;
  /** The session was over before the engine answered. */
  ended(): void;
}

/** The engine could not do what was asked; or its answer is none to the question, which is our mistake. */
export function refusalOf(answer: EngineAnswer): TlsPoolError {
  return 'code' in answer ? new TlsPoolError(asErrorCode(answer.code), { text: answer.text }) : new TlsPoolError('INTERNAL');
}

const nobody = (): void => undefined;
const maxNumber = 0x7fff_ffff;

export class WorkTable {
  readonly #works = new Map<number, Work>();
  /** By session: questions that have outlived their time, so that the client may still answer. */
  readonly #open = new Map<number, Judgement>();
  #last = 0;

  /** Enters it and returns the number by which the engine answers, 1 or more. */
  add(work: Work): number {
    do this.#last = this.#last % maxNumber + 1; while (this.#works.has(this.#last));
    this.#works.set(this.#last, work);
    return this.#last;
  }

  /** Enters it and has the engine asked; when that throws, nobody waits and the error is passed on. */
  start(work: Work, ask: (request: number) => void): void {
    const request = this.add(work);
    try {
      ask(request);
    } catch (error) {
      this.#works.delete(request);
      throw error;
    }
  }

  /** The engine has answered: whoever waits is told. */
  answered(answer: EngineAnswer): void {
    const work = this.#works.get(answer.request);
    this.#works.delete(answer.request);
    if (work?.judgement !== undefined && 'code' in answer && answer.code === 'TIMEOUT') this.#open.set(work.session, work.judgement);
    work?.answered(answer);
  }

  /** What decides on this certificate; `request` is 0 for an answer that comes after its time. Undefined: nobody has asked for it. */
  judgement({ request, session }: { readonly request: number; readonly session: number }): Judgement | undefined {
    const late = this.#open.get(session);
    this.#open.delete(session);
    return request === 0 ? late : this.#works.get(request)?.judgement;
  }

  /** Tells everybody who waits for something about a session that is over. */
  sessionEnded(session: number): void {
    this.#open.delete(session);
    if (this.#works.size === 0) return;
    for (const [number, work] of this.#works) {
      if (work.session !== session) continue;
      this.#works.delete(number);
      work.ended();
    }
  }

  gone(connection: Connection): void {
    for (const [number, work] of this.#works) {
      if (work.connection !== connection) continue;
      if (work.judgement === undefined) this.#works.delete(number);
      else this.#works.set(number, { session: work.session, judgement: work.judgement, answered: nobody, ended: nobody });
    }
  }
}
