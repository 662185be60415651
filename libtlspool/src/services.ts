/**
 * What a program may do for the pool: choose the identity of its user's outgoing sessions, and give the PIN of locked keys. Each question gets one answer, and fails
 * closed: whatever goes wrong here is a refusal.
 */
import type { Answer, Asked } from './asked.js';
import type { Channel } from './channel.js';
import type { Link } from './link.js';
import { TlsPoolError } from './protocol/index.js';
import type { AnswerBody, CallbackBody, RequestBody } from './protocol/index.js';

/** An identity that may be chosen. */
export interface IdentityCandidate {
  /** Its name. */
  readonly localid: string;
  /** Subject of its certificate; absent where it has none, or where the list is too long for that. */
  readonly subject?: string;
  /** When its certificate ends, in milliseconds since 1970; absent as the subject is. */
  readonly notAfterMs?: number;
}

/** What a chooser is asked. */
export interface IdentityQuestion {
  /** Name or address of the server; absent where the program does not verify it. */
  readonly remoteid?: string;
  /** What the program may use, in the order of the names; at least one. */
  readonly candidates: readonly IdentityCandidate[];
  /** Process that asked for the session; 0 when it is not known. */
  readonly pid: number;
}

/** What a chooser answers. */
export interface IdentityChoice {
  /** One of the candidates; absent: the session has no identity of its own. */
  readonly localid?: string;
  /** Seconds for which the pool gives the same answer itself, for this user and this remoteid, at most a year; absent or 0: this once. */
  readonly rememberS?: number;
}

/** Chooses; anything but a choice refuses the session. The signal is aborted when the connection to the pool is gone, and the answer with it. */
export type ChooseIdentity = (question: IdentityQuestion, signal: AbortSignal) => IdentityChoice | 'refuse' | Promise<IdentityChoice | 'refuse'>;

/** What a PIN entry is asked. */
export interface PinQuestion {
  /** The identity that is locked. */
  readonly localid: string;
  /** Where its key is. */
  readonly source: string;
  /** 1 to 3: a PIN that was wrong is asked for again. */
  readonly attempt: number;
}

/** Gives the PIN, at most 256 octets, which are wiped when they were sent; anything else leaves the identity locked. The signal is that of ChooseIdentity. */
export type EnterPin = (question: PinQuestion, signal: AbortSignal) => Uint8Array | 'refuse' | Promise<Uint8Array | 'refuse'>;

/** How a service is offered. */
export interface ServiceOptions {
  /** How long one answer may take, 1 to 600,000 milliseconds; the pool refuses afterwards. Default 60,000. */
  readonly timeoutMs?: number;
  /** Called when the service can no longer be offered, such as SERVICE_TAKEN after a reconnection, when another program was quicker. Absent: a process warning. */
  readonly onEnded?: (error: TlsPoolError) => void;
}

type Service = RequestBody<'register'>['service'];

/** A service that this program offers to the pool. It keeps the process alive. */
export class ServiceOffer {
  readonly #services: PoolServices;

  /** @internal */
  constructor(services: PoolServices) {
    this.#services = services;
  }

  /** Offers it no longer: what waits for an answer is refused. Resolves when the pool knows, also when it is gone. May be called twice. */
  withdraw(): Promise<void> { return this.#services.withdraw(this); }

  /** withdraw(). */
  [Symbol.asyncDispose](): Promise<void> { return this.withdraw(); }
}

interface Offered {
  readonly offer: ServiceOffer;
  readonly asked: Asked;
  readonly options: ServiceOptions;
  /** The pool has agreed to it once. Until then whoever offers it registers it, also with the pool that comes back. */
  isAgreed: boolean;
}

/** @internal The services of one connection to the pool; they are offered again when it is made anew. */
export class PoolServices {
  readonly #link: () => Link;
  readonly #offered = new Map<Service, Offered>();
  #gone = new AbortController();

  constructor(link: () => Link) { this.#link = link; }

  /** Answers what belongs to no request. */
  readonly asked: Asked = {
    identity: (body, answer) => { (this.#offered.get('chooser')?.asked.identity ?? refuse)(body, answer); },
    pin: (body, answer) => { (this.#offered.get('pin')?.asked.pin ?? refuse)(body, answer); },
  };

  offerChooser(choose: ChooseIdentity, options: ServiceOptions): Promise<ServiceOffer> {
    return this.#offer('chooser', { identity: (body, answer) => void answerIdentity(choose, body, answer, this.#gone.signal) }, options);
  }

  offerPinEntry(enter: EnterPin, options: ServiceOptions): Promise<ServiceOffer> {
    return this.#offer('pin', { pin: (body, answer) => void answerPin(enter, body, answer, this.#gone.signal) }, options);
  }

  /** The connection is gone: nobody waits for answers any more. */
  lost(): void {
    const gone = this.#gone;
    this.#gone = new AbortController();
    gone.abort(new TlsPoolError('POOL_LOST'));
  }

  /** The pool is back, and knows nothing of us. */
  async restored(): Promise<void> {
    for (const [service, { offer, options, isAgreed }] of [...this.#offered]) {
      // It may have been withdrawn since.
      if (!isAgreed || this.#offered.get(service)?.offer !== offer) continue;
      try {
        await this.#register(service, options);
      } catch (error) {
        // Gone again: the next reconnection offers it again.
        if (error instanceof TlsPoolError && (error.kind === 'closed' || error.kind === 'timeout')) return;
        this.#end(service, offer);
        const failure = TlsPoolError.from(error);
        if (options.onEnded === undefined) process.emitWarning(failure, { detail: `the service ${service} is no longer offered` });
        else options.onEnded(failure);
      }
    }
  }

  async withdraw(offer: ServiceOffer): Promise<void> {
    const found = [...this.#offered].find(([, one]) => one.offer === offer);
    if (found === undefined) return;
    this.#end(found[0], offer);
    const channel: Channel | undefined = this.#link().channel;
    try {
      await channel?.request('unregister', { service: found[0] }, [], this.#link().timeoutMs);
    } catch (error) {
      // A pool that is gone, or does not know of it, has nothing left to forget.
      if (!(error instanceof TlsPoolError) || (error.kind !== 'closed' && error.code !== 'BAD_STATE')) throw error;
    }
  }

  async #offer(service: Service, asked: Asked, options: ServiceOptions): Promise<ServiceOffer> {
    if (this.#offered.has(service)) throw new TlsPoolError('SERVICE_TAKEN', { text: 'this program offers the service already' });
    const offer = new ServiceOffer(this);
    // Before the pool knows: its first question may be right behind its reply.
    const offered: Offered = { offer, asked, options, isAgreed: false };
    this.#offered.set(service, offered);
    this.#link().ref();
    try {
      await this.#register(service, options);
      offered.isAgreed = true;
      return offer;
    } catch (error) {
      this.#end(service, offer);
      throw error;
    }
  }

  async #register(service: Service, { timeoutMs }: ServiceOptions): Promise<void> {
    await this.#link().request('register', { service, ...(timeoutMs !== undefined && { timeoutMs }) }, []);
  }

  #end(service: Service, offer: ServiceOffer): void {
    if (this.#offered.get(service)?.offer !== offer) return;
    this.#offered.delete(service);
    if (this.#offered.size === 0) this.#link().unref();
  }
}

const refuse = (_body: unknown, answer: (body: { readonly refuse: true }) => void): void => { answer({ refuse: true }); };

async function answerIdentity(choose: ChooseIdentity, body: CallbackBody<'identity'>, answer: Answer<'identity'>, signal: AbortSignal): Promise<void> {
  try {
    answer(choiceOf(await choose(body, signal)));
  } catch (error) {
    warn(error, 'the chooser failed; the session was refused');
    answer({ refuse: true });
  }
}

function choiceOf(choice: IdentityChoice | 'refuse'): AnswerBody<'identity'> {
  // Anything but a clear choice refuses, also where no compiler has looked at the program.
  if (typeof choice !== 'object' || (choice as unknown) === null) return { refuse: true };
  const { localid, rememberS } = choice;
  return { ...(localid !== undefined && { localid }), ...(rememberS !== undefined && { rememberS }) };
}

async function answerPin(enter: EnterPin, body: CallbackBody<'pin'>, answer: Answer<'pin'>, signal: AbortSignal): Promise<void> {
  let pin: Uint8Array | undefined;
  try {
    const given = await enter(body, signal);
    pin = given instanceof Uint8Array ? given : undefined;
    answer(pin === undefined ? { refuse: true } : { pin });
  } catch (error) {
    warn(error, 'the PIN entry failed; the identity stays locked');
    answer({ refuse: true });
  } finally {
    pin?.fill(0);
  }
}

function warn(error: unknown, detail: string): void {
  process.emitWarning(error instanceof Error ? error : String(error), { detail });
}
