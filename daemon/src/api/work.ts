/** Requests that the engine answers later: each gets its one reply, also when its session ends first. */
import { TlsPoolError } from 'libtlspool/protocol';
import type { Connection } from './connection.js';

export interface Work {
  readonly connection: Connection;
  readonly id: number;
  readonly op: 'prng' | 'info';
  /** The engine's session number. */
  readonly session: number;
}

const maxNumber = 0x7fff_ffff;

export class WorkTable {
  readonly #works = new Map<number, Work>();
  #last = 0;

  /** Enters it and returns the number by which the engine answers. */
  add(work: Work): number {
    do this.#last = this.#last % maxNumber + 1; while (this.#works.has(this.#last));
    this.#works.set(this.#last, work);
    return this.#last;
  }

  /** Takes it out; undefined when nobody waits for it any more. */
  take(number: number): Work | undefined {
    const work = this.#works.get(number);
    this.#works.delete(number);
    return work;
  }

  /** Answers everything that was asked of a session that is over. */
  sessionEnded(session: number): void {
    if (this.#works.size === 0) return;
    for (const [number, work] of this.#works) {
      if (work.session !== session) continue;
      this.#works.delete(number);
      work.connection.refuse(work.op, work.id, new TlsPoolError('CTLKEY_UNKNOWN'));
    }
  }

  gone(connection: Connection): void {
    for (const [number, work] of this.#works) if (work.connection === connection) this.#works.delete(number);
  }
}
