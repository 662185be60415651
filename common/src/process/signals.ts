/** Signals of a daemon: SIGHUP reloads, the first SIGTERM or SIGINT drains, the next one ends. */
export class Signals {
  /** Resolves with the first SIGTERM or SIGINT. */
  readonly firstEnd: Promise<void>;
  onReload: () => void = () => undefined;
  /** Each SIGTERM or SIGINT after the first. */
  onEnd: () => void = () => undefined;
  readonly #handlers: readonly (readonly [NodeJS.Signals, () => void])[];

  constructor() {
    let first: (() => void) | undefined;
    this.firstEnd = new Promise((resolve) => { first = resolve; });
    const end = (): void => {
      if (first === undefined) this.onEnd();
      first?.();
      first = undefined;
    };
    this.#handlers = [['SIGTERM', end], ['SIGINT', end], ['SIGHUP', () => { this.onReload(); }]];
    for (const [signal, handler] of this.#handlers) process.on(signal, handler);
  }

  close(): void {
    for (const [signal, handler] of this.#handlers) process.off(signal, handler);
  }
}
