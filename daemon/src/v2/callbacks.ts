/** What a client of the V2 dialect was asked and has not answered. The number of a question is its slot, 1 to 1024, of this connection. */
import { V2Error } from './errors.js';
import { codec, commands } from './frames.js';
import type { Inbound } from './reader.js';

/** Somebody who waits for an answer. One of the two is called, once, or neither when the question was abandoned. */
export interface Asked {
  /** The frame is the receiver's; the bag is closed when this returns. */
  answered(inbound: Inbound): void;
  /** The client has left. */
  gone(): void;
}

/** The number of slots, and so of the highest question: that of the original. */
export const callbackSlots = 1024;

/** What an answer may be. Anything else under the number of an abandoned question is a request that happens to have it. */
const answerCommands: ReadonlySet<number> = new Set([commands.STARTTLS_LOCALID, commands.PLAINTEXT_CONNECT, commands.LIDENTRY_CALLBACK, commands.PINENTRY, commands.ERROR]);

/**
 * Slots are taken from the top, the last one given back first, as the original does. A question that nobody waits for any more keeps its slot until its
 * answer has come: a late answer would else be taken for a request, and be answered by an error that the client takes for the reply to something else. Clients that
 * never answer (the C library cannot say no) lose their oldest abandoned slots when they run out.
 */
export class CallbackSlots {
  readonly #free = Array.from({ length: callbackSlots }, (_, index) => index + 1);
  readonly #open = new Map<number, Asked | 'abandoned'>();
  /** In the order in which they were abandoned. */
  readonly #abandoned = new Set<number>();

  /** The slot of a new question. Throws V2Error EAGAIN when all are open. */
  open(asked: Asked): number {
    const cbid = this.#free.pop() ?? this.#oldestAbandoned();
    this.#open.set(cbid, asked);
    return cbid;
  }

  /** Nobody waits any more. Does nothing when the slot has been answered or belongs to another question. */
  abandon(cbid: number, asked: Asked): void {
    if (this.#open.get(cbid) !== asked) return;
    this.#open.set(cbid, 'abandoned');
    this.#abandoned.add(cbid);
  }

  /** Is this frame the answer to a question? Then it has been dealt with; else it is a request, whatever its number says. */
  answer(inbound: Inbound): boolean {
    const { cbid, cmd } = codec.read(inbound.frame, 'head');
    const asked = this.#open.get(cbid);
    if (asked === undefined || (asked === 'abandoned' && !answerCommands.has(cmd))) return false;
    this.#open.delete(cbid);
    this.#abandoned.delete(cbid);
    this.#free.push(cbid);
    if (asked !== 'abandoned') asked.answered(inbound);
    return true;
  }

  /** The client has left: everybody who waits is told. */
  closeAll(): void {
    const waiting = [...this.#open.values()];
    this.#open.clear();
    this.#abandoned.clear();
    for (const asked of waiting) if (asked !== 'abandoned') asked.gone();
  }

  #oldestAbandoned(): number {
    const [oldest] = this.#abandoned;
    if (oldest === undefined) throw new V2Error('EAGAIN', `this connection has ${callbackSlots} callbacks to answer`);
    this.#abandoned.delete(oldest);
    return oldest;
  }
}
