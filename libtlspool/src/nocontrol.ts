/** What stands in for the connection to the pool where this program has no control of a session. */
import type { SessionControl } from './control.js';
import { TlsPoolError } from './protocol/index.js';

/** @internal Nobody tells what becomes of the session, and nobody can be asked. */
export class NoControl implements SessionControl {
  readonly lost = undefined;
  readonly isDeaf = true;
  readonly #why: string;

  constructor(why: string) { this.#why = why; }

  addSession(): void { /* nothing will be heard */ }
  removeSession(): void { /* as above */ }
  catchUp(): void { /* as above */ }
  request(): Promise<never> { return Promise.reject(this.#error()); }
  requestSync(): never { throw this.#error(); }
  #error(): TlsPoolError { return new TlsPoolError('BAD_STATE', { text: `this program has no control of the session: ${this.#why}` }); }
}
