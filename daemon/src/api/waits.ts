/**
 * Requests that wait for somebody's decision before the engine has anything to do with them, such as the choice of an identity. They count against the limits of
 * handshakes and sessions as if they were under way, and end with their client, or when the pool goes down.
 */
import { TlsPoolError } from 'libtlspool/protocol';

interface Wait { readonly owner: object; readonly uid: number; readonly controller: AbortController }

export class WaitTable {
  readonly #waits = new Set<Wait>();
  readonly #perUid = new Map<number, number>();

  get size(): number { return this.#waits.size; }

  /** Those of this user. */
  countOf(uid: number): number { return this.#perUid.get(uid) ?? 0; }

  /** Runs `work` as one that waits on behalf of `owner`; the signal is aborted by `gone` and `endAll`. */
  async hold<T>(owner: object, uid: number, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const wait: Wait = { owner, uid, controller: new AbortController() };
    this.#waits.add(wait);
    this.#count(uid, 1);
    try {
      return await work(wait.controller.signal);
    } finally {
      this.#waits.delete(wait);
      this.#count(uid, -1);
    }
  }

  gone(owner: object): void {
    for (const wait of this.#waits) if (wait.owner === owner) wait.controller.abort(new TlsPoolError('ABORTED', { text: 'the client has gone' }));
  }

  endAll(error: TlsPoolError): void {
    for (const wait of this.#waits) wait.controller.abort(error);
  }

  #count(uid: number, step: 1 | -1): void {
    const count = this.countOf(uid) + step;
    if (count === 0) this.#perUid.delete(uid);
    else this.#perUid.set(uid, count);
  }
}
