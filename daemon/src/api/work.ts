/** Requests that the engine answers later: each gets its one reply, also when its session ends first. */
import { TlsPoolError } from 'libtlspool/protocol';
import type { EngineEvent } from '../engine.js';
import type { Connection } from './connection.js';
import { asErrorCode } from './faults.js';

/** What the engine answers a request with. */
export type EngineAnswer = Extract<EngineEvent, { kind: 'answer' | 'reauthenticated' }>;

/** Somebody who waits for an answer. One of the two functions is called, once, or neither when `connection` has gone or it was taken out. */
export interface Work {
  /** The engine's session number. */
  readonly session: number;
  /** Nobody waits any more once this has gone. */
  readonly connection?: Connection;
  answered(answer: EngineAnswer): void;
  /** The session was over before the engine answered. */
  ended(): void;
}

/** The engine could not do what was asked; or its answer is none to the question, which is our mistake. */
export function refusalOf(answer: EngineAnswer): TlsPoolError {
  return 'code' in answer ? new TlsPoolError(asErrorCode(answer.code), { text: answer.text }) : new TlsPoolError('INTERNAL');
}

const maxNumber = 0x7fff_ffff;

export class WorkTable {
  readonly #works = new Map<number, Work>();
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

  /** Takes it out; undefined when nobody waits for it any more. */
  take(number: number): Work | undefined {
    const work = this.#works.get(number);
    this.#works.delete(number);
    return work;
  }

  /** Tells everybody who waits for something about a session that is over. */
  sessionEnded(session: number): void {
    if (this.#works.size === 0) return;
    for (const [number, work] of this.#works) {
      if (work.session !== session) continue;
      this.#works.delete(number);
      work.ended();
    }
  }

  gone(connection: Connection): void {
    for (const [number, work] of this.#works) if (work.connection === connection) this.#works.delete(number);
  }
}
