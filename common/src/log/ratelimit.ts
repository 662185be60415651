/** So many a second, and a count of the rest. */
export class RateLimit {
  readonly #perSecond: number;
  readonly #report: (suppressed: number) => void;
  readonly #nowMs: () => number;
  #windowMs = Number.NEGATIVE_INFINITY;
  #taken = 0;
  #suppressed = 0;
  #timer: NodeJS.Timeout | undefined;

  /** `report` is called with how many were refused, a second after the first of them and on `close`. */
  constructor(perSecond: number, report: (suppressed: number) => void, nowMs: () => number = () => performance.now()) {
    this.#perSecond = perSecond;
    this.#report = report;
    this.#nowMs = nowMs;
  }

  /** True when there is room in this second. */
  take(): boolean {
    const now = this.#nowMs();
    if (now - this.#windowMs >= 1000) {
      this.#windowMs = now;
      this.#taken = 0;
    }
    if (this.#taken < this.#perSecond) {
      this.#taken += 1;
      return true;
    }
    this.#suppressed += 1;
    this.#timer ??= setTimeout(() => { this.#flush(); }, 1000).unref();
    return false;
  }

  close(): void { this.#flush(); }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#suppressed > 0) this.#report(this.#suppressed);
    this.#suppressed = 0;
  }
}
