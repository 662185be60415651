/** Certificates made on the fly, kept for use again: the least recently used goes first. */

/** Something that was made, and is good until then. */
export interface Made<Value> { readonly value: Value; readonly notAfterMs: number }

interface Entry<Value> extends Made<Value> {
  /** From now on a new one is made; the old one serves until that is there. */
  readonly renewAtMs: number;
  /** From now on it serves no more, where a new one would end later: the clocks of those who get it differ from ours. */
  readonly lateAtMs: number;
}

export class SigningCache<Value> {
  readonly #entries = new Map<string, Entry<Value>>();
  readonly #making = new Map<string, Promise<Value>>();
  readonly #now: () => number;
  #most = 0;
  /** What was begun before the last `clear` is given to those who wait for it, and not kept. */
  #era = 0;

  constructor(now: () => number) {
    this.#now = now;
  }

  get size(): number { return this.#entries.size; }

  /**
   * What is kept under this name; else what is being made, for however many ask; else what `make` makes, which may also throw. When half of the time of one
   * that is kept has passed, and `isBetter` says that a new one would end later, a new one is made while the old one is given out; with a quarter left it is waited for.
   */
  obtain(name: string, make: () => Promise<Made<Value>>, isBetter: (notAfterMs: number) => boolean): Value | Promise<Value> {
    const entry = this.#find(name);
    const making = this.#making.get(name);
    const isWanted = entry === undefined || (this.#now() >= entry.renewAtMs && isBetter(entry.notAfterMs));
    if (entry === undefined || (isWanted && this.#now() >= entry.lateAtMs)) return making ?? this.#make(name, make);
    if (isWanted && making === undefined) this.#renew(name, make);
    return entry.value;
  }

  /** Forgets everything. */
  clear(): void {
    this.#era += 1;
    this.#entries.clear();
    this.#making.clear();
  }

  /** Keeps at most so many. */
  resize(most: number): void {
    this.#most = most;
    this.#trim();
  }

  /** One that is still good; it is the most recently used now. */
  #find(name: string): Entry<Value> | undefined {
    const entry = this.#entries.get(name);
    if (entry === undefined) return undefined;
    this.#entries.delete(name);
    if (this.#now() >= entry.notAfterMs) return undefined;
    this.#entries.set(name, entry);
    return entry;
  }

  async #make(name: string, make: () => Promise<Made<Value>>): Promise<Value> {
    const era = this.#era;
    const beganMs = this.#now();
    const begun = make().then(({ value, notAfterMs }) => {
      const lifetimeMs = notAfterMs - beganMs;
      if (era === this.#era) this.#keep(name, { value, notAfterMs, renewAtMs: beganMs + lifetimeMs / 2, lateAtMs: notAfterMs - lifetimeMs / 4 });
      return value;
    });
    this.#making.set(name, begun);
    try {
      return await begun;
    } finally {
      if (this.#making.get(name) === begun) this.#making.delete(name);
    }
  }

  /** In the background; where it fails, it is tried again by the next who asks, and whoever needs one after the old one has ended hears why. */
  #renew(name: string, make: () => Promise<Made<Value>>): void {
    this.#make(name, make).catch(() => undefined);
  }

  #keep(name: string, entry: Entry<Value>): void {
    this.#entries.delete(name);
    this.#entries.set(name, entry);
    this.#trim();
  }

  #trim(): void {
    for (const name of this.#entries.keys()) {
      if (this.#entries.size <= this.#most) return;
      this.#entries.delete(name);
    }
  }
}
