/** Numbers that look random and come out the same for the same seed, so that a failing case can be run again. */
export class Random {
  #state: number;

  constructor(readonly seed: number) { this.#state = seed >>> 0; }

  /** mulberry32: an integer from 0 up to and excluding 2^32. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }

  /** From 0 up to and excluding `limit`. */
  below(limit: number): number { return this.next() % Math.max(limit, 1); }
  chance(oneIn: number): boolean { return this.below(oneIn) === 0; }

  octets(length: number): Buffer {
    const made = Buffer.alloc(length);
    for (let at = 0; at < length; at++) made[at] = this.next() & 0xff;
    return made;
  }

  pick<T>(from: readonly T[]): T {
    const chosen = from[this.below(from.length)];
    if (chosen === undefined) throw new Error('nothing to pick from');
    return chosen;
  }
}
