/**
 * Control keys of the V2 dialect. Clients make them, so that they are as good as the random numbers of the client; they are of no use in the pool protocol, whose
 * keys the pool makes, and those are of no use here. A key is there from just before the reply to STARTTLS until the session ends, or until its client leaves
 * without FORK.
 */
import { ctlkeyFromOctets, isSameCtlkey } from '../session/index.js';
import type { Session } from '../session/index.js';

interface Entry { readonly key: string; readonly session: Session }

export class V2Keys {
  readonly #byKey = new Map<string, Entry>();
  readonly #bySession = new Map<Session, Entry>();

  get size(): number { return this.#byKey.size; }

  /** False when the key is taken, by whomever. */
  register(octets: Uint8Array, session: Session): boolean {
    const key = ctlkeyFromOctets(octets);
    if (this.#byKey.has(key)) return false;
    const entry = { key, session };
    this.#byKey.set(key, entry);
    this.#bySession.set(session, entry);
    return true;
  }

  /** The session with this key, unless it is about to end. The Map finds the candidate; the comparison that counts is in constant time. */
  find(octets: Uint8Array): Session | undefined {
    const key = ctlkeyFromOctets(octets);
    const entry = this.#byKey.get(key);
    if (entry === undefined || !isSameCtlkey(entry.key, key)) return undefined;
    const { state } = entry.session;
    return state === 'open' || state === 'detached' ? entry.session : undefined;
  }

  has(session: Session): boolean { return this.#bySession.has(session); }

  /** May be called twice. */
  remove(session: Session): void {
    const entry = this.#bySession.get(session);
    if (entry === undefined) return;
    this.#bySession.delete(session);
    this.#byKey.delete(entry.key);
  }
}
