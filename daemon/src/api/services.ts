/**
 * What clients do for the pool: a chooser picks the identity of outgoing sessions of its own user, a PIN entry unlocks keys. In whatever dialect they are offered.
 * Fails closed: a wrong answer, a refusal, silence beyond the deadline, and the end of whoever offers it refuse what waits.
 */
import { TlsPoolError } from 'libtlspool/protocol';
import type { Choices } from '../identity/choices.js';
import type { IdentityStore, UnlockOutcome } from '../identity/types.js';
import type { Log } from '../observe/index.js';
import type { Client } from '../policy/access.js';
import { Offer } from './offer.js';
import { Unlocking } from './unlocking.js';

export interface Candidate { readonly localid: string; readonly subject?: string; readonly notAfterMs?: number }

/** Which of the candidates shall a session use? */
export interface Question {
  /** Whom the session will be with; undefined where the program does not verify it. */
  readonly remoteid: string | undefined;
  /** In the order of their names, at least one. */
  readonly candidates: readonly Candidate[];
  /** The program that asked for the session. */
  readonly pid: number;
}

export interface Choice {
  /** One of the candidates; absent: no identity of our own. */
  readonly localid?: string;
  /** Seconds for which it holds for this user and remote; absent or 0: this once. Not kept for sessions without a remoteid. */
  readonly rememberS?: number;
}

/** Rejects: refused. The signal is aborted when nobody waits for the answer any more. */
export interface Chooser { choose(question: Question, signal: AbortSignal): Promise<Choice> }

export interface PinQuestion {
  readonly localid: string;
  /** Where the locked key is. */
  readonly source: string;
  /** 1 to 3. */
  readonly attempt: number;
}

/** Rejects: refused. The buffer is wiped by the receiver. */
export interface PinEntry { enter(question: PinQuestion, signal: AbortSignal): Promise<Buffer> }

/** Someone who waits. */
export interface Waiter {
  /** Milliseconds from now. */
  readonly deadlineMs: number;
  /** Aborted when it no longer does. */
  readonly signal?: AbortSignal;
}

/** An identity as it is asked for. */
export interface Wanted {
  readonly role: 'server' | 'client';
  readonly localid?: string | undefined;
  readonly remoteid?: string | undefined;
}

export interface ServicesParts {
  readonly store: Pick<IdentityStore, 'clientIdentities' | 'locked' | 'isLocked'>;
  readonly choices: Choices;
  /** Opens the keys of an identity with a PIN, which stays the caller's, and publishes it. Throws what is wrong with the identity otherwise. */
  readonly unlock: (localid: string, pin: Buffer) => Promise<UnlockOutcome>;
  readonly log: Pick<Log, 'info' | 'warn' | 'error'>;
}

/** Questions put to one chooser at a time. The others stand in line, where an answer that is remembered may answer them. */
const choicesAtOnce = 8;
/** A year, as the message table has it. */
const maxRememberS = 31_536_000;

export class Services {
  readonly unlocking: Unlocking;
  readonly #parts: ServicesParts;
  readonly #choosers = new Map<number, Offer<Chooser>>();
  #hasPinEntry = false;

  constructor(parts: ServicesParts) {
    this.#parts = parts;
    this.unlocking = new Unlocking(parts);
  }

  /**
   * From now on the chooser of this user, until the function that is returned is called (more than once does no harm). That it runs as this user is the
   * caller's to know. timeoutMs: for one answer. Throws SERVICE_TAKEN.
   */
  offerChooser(uid: number, chooser: Chooser, timeoutMs: number): () => void {
    if (this.#choosers.has(uid)) throw new TlsPoolError('SERVICE_TAKEN', { text: `user ${uid} has a chooser already; a user has one` });
    const offer = new Offer(chooser, { what: 'chooser', refusal: 'CHOICE_REFUSED', timeoutMs, atOnce: choicesAtOnce });
    this.#choosers.set(uid, offer);
    return () => {
      if (this.#choosers.get(uid) === offer) this.#choosers.delete(uid);
      offer.withdraw();
    };
  }

  /** From now on the PIN entry of the pool, until the function that is returned is called. That it is an operator's is the caller's to know. Throws SERVICE_TAKEN. */
  offerPinEntry(entry: PinEntry, timeoutMs: number): () => void {
    if (this.#hasPinEntry) throw new TlsPoolError('SERVICE_TAKEN', { text: 'the pool has a PIN entry already; end the other one first' });
    this.#hasPinEntry = true;
    const withdraw = this.unlocking.begin(new Offer(entry, { what: 'PIN entry', refusal: 'IDENTITY_LOCKED', timeoutMs, atOnce: 1 }));
    let isOffered = true;
    return () => {
      if (!isOffered) return;
      isOffered = false;
      this.#hasPinEntry = false;
      withdraw();
    };
  }

  /** Is there something that `settle` has to wait for, or to look up? Otherwise the identity is used as it is asked for. */
  mustSettle(client: Client, { role, localid, remoteid }: Wanted): boolean {
    if (localid !== undefined) return this.unlocking.isAwaited(client, localid, role);
    return role === 'client' && (this.#choosers.has(client.uid) || this.#remembered(client, remoteid) !== undefined);
  }

  /**
   * The localid that is to be used: in the client role without one, a chooser picks it; one that is locked is waited for while somebody may unlock it, and may be locked still.
   * Rejects as `choose` does, and with IDENTITY_LOCKED at the deadline.
   */
  async settle(client: Client, { role, localid, remoteid }: Wanted, { deadlineMs, signal }: Waiter): Promise<string | undefined> {
    const endsAt = performance.now() + deadlineMs;
    const chosen = localid === undefined && role === 'client' ? (await this.choose(client, remoteid, deadlineMs, signal))?.localid : localid;
    if (chosen !== undefined && this.unlocking.isAwaited(client, chosen, role)) {
      await this.unlocking.settled(chosen, { deadlineMs: Math.max(0, endsAt - performance.now()), ...(signal !== undefined && { signal }) });
    }
    return chosen;
  }

  /**
   * Which identity shall an outgoing session of this client use that names none? Undefined: nobody offers to choose, nothing is remembered, and nothing has
   * changed; the same where there is nothing to choose from. Rejects with CHOICE_REFUSED, at the latest after deadlineMs milliseconds, and with ABORTED by the signal. The
   * identity is one that the client may use now, or is locked.
   */
  async choose(client: Client, remoteid: string | undefined, deadlineMs: number, signal?: AbortSignal): Promise<Choice | undefined> {
    const remembered = this.#remembered(client, remoteid);
    if (remembered !== undefined) return remembered;
    const offer = this.#choosers.get(client.uid);
    const candidates = this.#candidates(client);
    if (offer === undefined || candidates.length === 0) return undefined;
    return offer.ask<Choice>({
      known: () => this.#remembered(client, remoteid),
      ask: async (chooser, gone) => {
        const choice = await chooser.choose({ remoteid, candidates, pid: client.pid }, gone);
        // An answer that comes too late is not remembered either.
        gone.throwIfAborted();
        return this.#accepted(client, remoteid, candidates, choice);
      },
      deadlineMs, signal,
    });
  }

  /** Forgets remembered choices of this user, for one remote or all; returns how many. */
  forget(uid: number, remoteid?: string): number {
    return this.#parts.choices.forget(uid, remoteid);
  }

  #candidates(client: Client): Candidate[] {
    return this.#parts.store.clientIdentities(client).filter(({ locked }) => locked === undefined).map(({ summary: { localid, certificates } }) => {
      const [leaf] = certificates;
      return leaf === undefined ? { localid } : { localid, subject: leaf.subject, notAfterMs: leaf.notAfterMs };
    }).sort((a, b) => (a.localid < b.localid ? -1 : 1));
  }

  /** What was remembered is only worth something while the identity is there and may be used. A locked one is still there. */
  #remembered(client: Client, remoteid: string | undefined): Choice | undefined {
    const { choices, store } = this.#parts;
    if (remoteid === undefined) return undefined;
    const remembered = choices.find(client.uid, remoteid);
    if (remembered?.localid === undefined) return remembered;
    if (store.clientIdentities(client).some(({ summary }) => summary.localid === remembered.localid)) return remembered;
    choices.forget(client.uid, remoteid);
    return undefined;
  }

  /** What a chooser says is held against what it was asked, and against what holds now: it may have thought for long. */
  #accepted(client: Client, remoteid: string | undefined, candidates: readonly Candidate[], { localid, rememberS = 0 }: Choice): Choice {
    if (localid !== undefined) {
      if (!candidates.some((one) => one.localid === localid)) throw new TlsPoolError('CHOICE_REFUSED', { text: 'the chooser named an identity that is not among the candidates' });
      if (!this.#candidates(client).some((one) => one.localid === localid)) throw new TlsPoolError('CHOICE_REFUSED', { text: 'the identity that was chosen may no longer be used' });
    }
    const choice = localid === undefined ? {} : { localid };
    if (!(rememberS > 0) || remoteid === undefined) return choice;
    this.#parts.choices.remember(client.uid, remoteid, choice, Math.min(rememberS, maxRememberS));
    return { ...choice, rememberS };
  }
}
