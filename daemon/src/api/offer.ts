/**
 * Something that a client does for the pool, for as long as it is offered. A question ends by an answer, by its deadline, when nobody waits for it any
 * more, or when the offer is withdrawn: always, whatever the one who offers it does.
 */
import { TlsPoolError } from 'libtlspool/protocol';
import type { ErrorCode } from 'libtlspool/protocol';

/** One question, and what becomes of it. */
export interface Asking<Service, T> {
  /** An answer that has come up while the question stood in line; undefined: ask. Default: ask. */
  readonly known?: () => T | undefined;
  readonly ask: (service: Service, signal: AbortSignal) => Promise<T>;
  /** Gets an answer that came when it was too late. */
  readonly late?: (answer: T) => void;
  /** Milliseconds from now, the time in line included; the offer's own time-out counts from when the question is put. */
  readonly deadlineMs: number;
  /** Aborted when nobody waits for the answer any more. */
  readonly signal?: AbortSignal | undefined;
}

interface Waiting { start(): void; end(error: TlsPoolError): void }

/** Timers of Node take no more. */
const maxTimerMs = 0x7fff_ffff;

export class Offer<Service> {
  /** Asked, and not ended. */
  readonly #asked = new Set<Waiting>();
  readonly #line = new Set<Waiting>();
  #isWithdrawn = false;
  #isMovingUp = false;

  /** `refusal`: the code of every error here. `atOnce`: questions that are put at a time; the others stand in line. */
  constructor(
    private readonly service: Service,
    private readonly settings: { readonly what: string; readonly refusal: ErrorCode; readonly timeoutMs: number; readonly atOnce: number },
  ) {}

  /** Rejects with the refusal's code, or with what the signal was aborted for. Whatever `ask` rejects with is a refusal; one that has its code keeps its text. */
  ask<T>(asking: Asking<Service, T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const { what, timeoutMs } = this.settings;
      const controller = new AbortController();
      let isOver = false;
      let timer: NodeJS.Timeout | undefined;
      const within = (ms: number) => {
        clearTimeout(timer);
        timer = setTimeout(() => { waiting.end(this.#refusal(`the ${what} did not answer in time`)); }, Math.min(Math.max(ms, 0), maxTimerMs)).unref();
      };
      const over = (settle: () => void) => {
        if (isOver) return;
        isOver = true;
        clearTimeout(timer);
        asking.signal?.removeEventListener('abort', aborted);
        settle();
        this.#leave(waiting);
      };
      const startedAt = performance.now();
      const waiting: Waiting = {
        start: () => {
          const known = asking.known?.();
          if (known !== undefined) {
            over(() => { resolve(known); });
            return;
          }
          within(Math.min(timeoutMs, asking.deadlineMs - (performance.now() - startedAt)));
          // So that what is thrown is a refusal, too.
          const answered = (async () => asking.ask(this.service, controller.signal))();
          answered.then((answer) => {
            if (isOver) asking.late?.(answer);
            else over(() => { resolve(answer); });
          }, (error: unknown) => { waiting.end(this.#asRefusal(error)); });
        },
        end: (error) => { over(() => { controller.abort(error); reject(error); }); },
      };
      const aborted = () => { waiting.end(reasonOf(asking.signal)); };
      if (this.#isWithdrawn) {
        waiting.end(this.#gone());
      } else if (asking.signal?.aborted === true) {
        aborted();
      } else {
        asking.signal?.addEventListener('abort', aborted);
        within(asking.deadlineMs);
        this.#line.add(waiting);
        this.#next();
      }
    });
  }

  /** Refuses everything that waits. May be called twice. */
  withdraw(): void {
    this.#isWithdrawn = true;
    for (const waiting of [...this.#asked, ...this.#line]) waiting.end(this.#gone());
  }

  /** One loop for all who move up, however many are answered on the spot: each inside of the one before would be as many calls deep as the line is long. */
  #next(): void {
    if (this.#isMovingUp) return;
    this.#isMovingUp = true;
    try {
      for (const waiting of this.#line) {
        if (this.#asked.size >= this.settings.atOnce) return;
        this.#line.delete(waiting);
        this.#asked.add(waiting);
        waiting.start();
      }
    } finally {
      this.#isMovingUp = false;
    }
  }

  #leave(waiting: Waiting): void {
    this.#line.delete(waiting);
    if (this.#asked.delete(waiting) && !this.#isWithdrawn) this.#next();
  }

  #gone(): TlsPoolError { return this.#refusal(`the ${this.settings.what} has gone`); }

  #asRefusal(error: unknown): TlsPoolError {
    const { what, refusal } = this.settings;
    return error instanceof TlsPoolError && error.code === refusal ? error : this.#refusal(`the ${what} refused`, error);
  }

  /** The cause is for the log: what a service says is not for whoever waits. */
  #refusal(text: string, cause?: unknown): TlsPoolError {
    return new TlsPoolError(this.settings.refusal, { text, ...(cause !== undefined && { cause }) });
  }
}

function reasonOf(signal: AbortSignal | undefined): TlsPoolError {
  const reason: unknown = signal?.reason;
  return reason instanceof TlsPoolError ? reason : new TlsPoolError('ABORTED', { cause: reason });
}
