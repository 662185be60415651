/**
 * Locked keys and the PIN entry that opens them, one question at a time. An identity is asked for up to three times; then it is left locked until
 * another PIN entry is offered, its files change, or somebody asks for a reload. A PIN is wiped as soon as it was tried.
 */
import { TlsPoolError } from 'libtlspool/protocol';
import type { Client } from '../policy/access.js';
import type { Offer } from './offer.js';
import type { PinEntry, ServicesParts, Waiter } from './services.js';

type Parts = Pick<ServicesParts, 'store' | 'unlock' | 'log'>;
type Outcome = 'opened' | 'given up';

const maxAttempts = 3;

export class Unlocking {
  readonly #parts: Parts;
  readonly #givenUp = new Set<string>();
  /** Called, and forgotten, when it is settled what becomes of an identity. */
  readonly #waiting = new Map<string, Set<() => void>>();
  #offer: Offer<PinEntry> | undefined;
  #isAsking = false;
  #asking: Promise<void> = Promise.resolve();

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Asks for all that is locked now, and for what will be, until the function that is returned is called. */
  begin(offer: Offer<PinEntry>): () => void {
    this.#offer = offer;
    this.retry();
    return () => {
      this.#offer = undefined;
      offer.withdraw();
      for (const localid of [...this.#waiting.keys()]) this.#settled(localid);
    };
  }

  /** Asks again for what was given up. */
  retry(): void {
    this.#givenUp.clear();
    this.#next();
  }

  /** Resolves when no PIN is being tried and nobody is being asked. */
  idle(): Promise<void> { return this.#asking; }

  /** Is the identity locked for this client in this role, and is somebody there who may open it? */
  isAwaited(client: Client, localid: string, role: 'server' | 'client'): boolean {
    return this.#isAskedFor(localid) && this.#parts.store.isLocked(client, localid, role);
  }

  /** Resolves when it is settled whether the identity is opened, one way or the other. Rejects with IDENTITY_LOCKED at the deadline, and with ABORTED by the signal. */
  settled(localid: string, { deadlineMs, signal }: Waiter): Promise<void> {
    return new Promise((resolve, reject) => {
      let waiting = this.#waiting.get(localid);
      if (waiting === undefined) this.#waiting.set(localid, waiting = new Set());
      const over = (settle: () => void) => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', aborted);
        const all = this.#waiting.get(localid);
        all?.delete(done);
        if (all?.size === 0) this.#waiting.delete(localid);
        settle();
      };
      const done = () => { over(resolve); };
      const aborted = () => { over(() => { reject(new TlsPoolError('ABORTED', { cause: signal?.reason })); }); };
      const timer = setTimeout(() => { over(() => { reject(new TlsPoolError('IDENTITY_LOCKED', { text: `the key of the identity ${localid} was not unlocked in time` })); }); }, deadlineMs);
      waiting.add(done);
      if (signal?.aborted === true) aborted();
      else signal?.addEventListener('abort', aborted);
      // It may have been settled since the caller looked.
      if (!this.#isAskedFor(localid)) done();
    });
  }

  /** After a publication: what has changed is asked for again, and what was opened is settled. */
  published(changed: readonly string[]): void {
    for (const localid of changed) this.#givenUp.delete(localid);
    for (const localid of [...this.#waiting.keys()]) if (!this.#isAskedFor(localid)) this.#settled(localid);
    this.#next();
  }

  #isAskedFor(localid: string): boolean {
    return this.#offer !== undefined && !this.#givenUp.has(localid) && this.#parts.store.locked().some((one) => one.localid === localid);
  }

  #settled(localid: string): void {
    for (const done of [...this.#waiting.get(localid) ?? []]) done();
  }

  #next(): void {
    const offer = this.#offer;
    if (offer === undefined || this.#isAsking) return;
    const wanted = this.#parts.store.locked().find(({ localid }) => !this.#givenUp.has(localid));
    if (wanted === undefined) return;
    this.#isAsking = true;
    this.#asking = this.#open(offer, wanted).then((outcome) => {
      this.#isAsking = false;
      // By another PIN entry the same may be asked for again.
      if (outcome === 'given up' && this.#offer === offer) this.#givenUp.add(wanted.localid);
      if (!this.#isAskedFor(wanted.localid)) this.#settled(wanted.localid);
      this.#next();
    });
  }

  /** Never rejects. */
  async #open(offer: Offer<PinEntry>, { localid, source }: { readonly localid: string; readonly source: string }): Promise<Outcome> {
    const { log } = this.#parts;
    try {
      for (let attempt = 1; attempt <= maxAttempts; attempt += 1) {
        const outcome = await this.#try(offer, { localid, source, attempt });
        if (outcome !== 'wrong') {
          if (outcome === 'unlocked') log.info('an identity was unlocked', { localid, attempt });
          return 'opened';
        }
        log.warn('a wrong PIN for a locked identity', { localid, attempt });
      }
    } catch (error) {
      log.warn('an identity stays locked', { localid, text: error instanceof Error ? error.message : undefined });
    }
    return 'given up';
  }

  async #try(offer: Offer<PinEntry>, question: { readonly localid: string; readonly source: string; readonly attempt: number }): ReturnType<Parts['unlock']> {
    const pin = await offer.ask({
      ask: (entry, signal) => entry.enter(question, signal),
      late: (answer) => { answer.fill(0); },
      deadlineMs: Infinity,
    });
    try {
      return await this.#parts.unlock(question.localid, pin);
    } finally {
      pin.fill(0);
    }
  }
}
