/** How the pool goes down: nothing new, the sessions may finish, then all is closed. */
import type { Log } from '../observe/index.js';
import type { Front } from './front.js';

export interface ShutdownParts {
  readonly front: Front;
  readonly log: Log;
  /** How long sessions may go on. 0: not at all. */
  readonly drainMs: number;
  /** How long a closing session may wait for its peer, as the engine was told. */
  readonly lingerMs: number;
  /** Stops letting clients in. */
  closeSocket(): void;
}

/** Beyond lingerMs: what the engine's threads and the last messages to the clients need. */
const graceMs = 1000;
/** How often it is looked whether all has ended. */
const lookMs = 20;

/** Drains; `now` cuts it short. The front is closed when `finished` resolves; the engine is still to be stopped. */
export class Shutdown {
  readonly finished: Promise<void>;
  readonly #parts: ShutdownParts;
  #finish: () => void = () => undefined;
  #timer: NodeJS.Timeout | undefined;
  #look: NodeJS.Timeout | undefined;
  #isOver = false;

  constructor(parts: ShutdownParts) {
    this.#parts = parts;
    this.finished = new Promise((resolve) => { this.#finish = resolve; });
    const { front, log, drainMs } = parts;
    parts.closeSocket();
    log.info('draining', { sessions: front.sessions.size, drainMs });
    front.drain(drainMs);
    this.#timer = setTimeout(() => { this.#deadline(); }, drainMs);
    // Looked at rather than told: not everything that ends is an event of the engine.
    this.#look = setInterval(() => { this.#lookIdle(); }, lookMs);
    this.#lookIdle();
  }

  /** A second signal: no more waiting. */
  now(): void {
    this.#over();
  }

  #deadline(): void {
    const { front, log, lingerMs } = this.#parts;
    log.warn('the drain deadline has passed; ending the sessions that are left', { sessions: front.sessions.size });
    this.#timer = setTimeout(() => { this.#over(); }, lingerMs + graceMs);
    front.endAll();
  }

  #lookIdle(): void {
    if (!this.#parts.front.isIdle()) return;
    clearInterval(this.#look);
    this.#flush();
  }

  /** No session is left: clients get what waits for them, and then the end of the connection. */
  #flush(): void {
    const { front } = this.#parts;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => { this.#over(); }, graceMs);
    front.close('flushed');
    front.whenEmpty(() => { this.#over(); });
  }

  #over(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    clearInterval(this.#look);
    this.#parts.front.close('now');
    this.#finish();
  }
}
