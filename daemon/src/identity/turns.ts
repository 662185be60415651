/** Work that is done a few at a time, while a bounded number waits, and of which one user has so much a second: peers can ask for it at will. */

export interface TurnsOptions {
  readonly atOnce: number;
  /** Those that are being done and those that wait, in all; one user has at most half of the places. */
  readonly places: number;
  /** Of one user; after a pause, `burst` at a time. */
  readonly perSecond: number;
  readonly burst: number;
  /** Milliseconds, monotonic; tests set it. */
  readonly now?: () => number;
}

/** What one user has left: a bucket that fills up by `perSecond`. */
interface Share { places: number; tokens: number; atMs: number }

export class Turns {
  readonly #options: TurnsOptions;
  readonly #now: () => number;
  /** As many as there are users who may sign. */
  readonly #shares = new Map<number, Share>();
  readonly #line: (() => void)[] = [];
  #taken = 0;
  #running = 0;

  constructor(options: TurnsOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
  }

  /** Does the work when it is its turn; undefined, at once, when there is no place for this user now. */
  take<Value>(uid: number, work: () => Promise<Value>): Promise<Value> | undefined {
    const { places } = this.#options;
    const share = this.#shareOf(uid);
    if (this.#taken >= places || share.places * 2 >= places || share.tokens < 1) return undefined;
    this.#taken += 1;
    share.places += 1;
    share.tokens -= 1;
    return this.#run(share, work);
  }

  #shareOf(uid: number): Share {
    const { perSecond, burst } = this.#options;
    const atMs = this.#now();
    let share = this.#shares.get(uid);
    if (share === undefined) this.#shares.set(uid, share = { places: 0, tokens: burst, atMs });
    share.tokens = Math.min(burst, share.tokens + (atMs - share.atMs) * perSecond / 1000);
    share.atMs = atMs;
    return share;
  }

  async #run<Value>(share: Share, work: () => Promise<Value>): Promise<Value> {
    if (this.#running >= this.#options.atOnce) await new Promise<void>((resolve) => { this.#line.push(resolve); });
    else this.#running += 1;
    try {
      return await work();
    } finally {
      this.#taken -= 1;
      share.places -= 1;
      // The turn is handed on, so that nobody who comes meanwhile gets it first.
      const next = this.#line.shift();
      if (next === undefined) this.#running -= 1;
      else next();
    }
  }
}
