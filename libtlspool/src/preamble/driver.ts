/** Carries out dialogues on a connected socket: one reader, one deadline, and never an octet more than the dialogue takes. */
import { constants } from 'node:os';
import { sockets, pollReadable, pollWritable } from '../native.js';
import type { BorrowedFd, Poll } from '../native.js';
import { TlsPoolError } from '../protocol/errors.js';
import type { Dialogue, Step } from './types.js';

const readOctets = 8192;
const defaultMostOctets = 65_536;
/** Reads of readOctets each. */
const mostThrownAway = 16;
const [lf, cr] = [10, 13];

/** Bounds of a conversation. */
export interface ConversationLimits {
  /** From now to its end, in milliseconds; 1 to 2^31 - 1. Nothing that is sent or received prolongs it. */
  readonly deadlineMs: number;
  /** Octets that the other end may send in all. Default 65,536. */
  readonly octets?: number;
  /** Ends it with ABORTED. */
  readonly signal?: AbortSignal;
}

/**
 * A plain-text conversation on one socket, of any number of dialogues one after the other. Borrows the descriptor.
 *
 * Octets are looked at first and taken afterwards, so what follows the end of the last dialogue is still in the kernel for the next reader:
 * another dialogue, the backend, or the pool. `quiet()` tells whether there is anything.
 * Errors: PREAMBLE, PREAMBLE_REFUSED of the dialogue, PEER_CLOSED (also a reset), TIMEOUT, ABORTED, SYSTEM; BAD_STATE when it is closed or busy;
 * INTERNAL for a dialogue that throws anything else. After one, only `tell` and `close` make sense.
 */
export class Conversation {
  readonly #fd: BorrowedFd;
  readonly #poll: Poll;
  readonly #timer: NodeJS.Timeout;
  readonly #limits: ConversationLimits;
  #left: number;
  #failure: TlsPoolError | undefined;
  #wake: (() => void) | undefined;
  #busy = false;
  #closed = false;
  readonly #onAbort = (): void => this.#fail(new TlsPoolError('ABORTED', { cause: this.#limits.signal?.reason }));

  /** Throws BAD_ARGUMENT for a deadline out of range, SYSTEM when the descriptor cannot be watched. */
  constructor(fd: BorrowedFd, limits: ConversationLimits) {
    const { deadlineMs, signal, octets = defaultMostOctets } = limits;
    // Out of range, a timer fires at once.
    if (!(deadlineMs > 0 && deadlineMs < 2 ** 31)) throw new TlsPoolError('BAD_ARGUMENT', { text: `deadlineMs is ${deadlineMs}; it is 1 to 2^31 - 1`, field: 'deadlineMs' });
    this.#fd = fd;
    this.#limits = limits;
    this.#left = octets;
    this.#poll = sockets.poll(fd, () => this.#ready());
    this.#timer = setTimeout(() => this.#fail(new TlsPoolError('TIMEOUT', { text: `the plain-text dialogue did not end within ${deadlineMs} ms` })), deadlineMs);
    if (signal?.aborted === true) this.#onAbort();
    else signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  /** Carries out one dialogue and gives its result. One at a time. */
  run<Result>(dialogue: Dialogue<Result>): Promise<Result> {
    return this.#alone(async () => {
      try {
        let next = dialogue.next();
        while (next.done !== true) next = dialogue.next(await this.#step(next.value));
        return next.value;
      } catch (error) {
        if (error instanceof TlsPoolError) throw error;
        throw new TlsPoolError('INTERNAL', { text: `a plain-text dialogue threw ${String(error)}; please report it`, cause: error });
      }
    });
  }

  /** Nothing of the other end waits to be read. False also at its end of stream. Throws PEER_CLOSED for a connection that broke, BAD_STATE behind close(). */
  quiet(): boolean {
    if (this.#closed) throw closedError();
    return guarded(() => sockets.peek(this.#fd, 1)) === null;
  }

  /**
   * What must hold before TLS begins: the other end has not sent anything yet that would be in front of it (RFC 3207 section 4 and its kin).
   * Throws EARLY_OCTETS; PEER_CLOSED when it has gone.
   */
  refuseEarly(): void {
    if (this.quiet()) return;
    if (guarded(() => sockets.peek(this.#fd, 1))?.length === 0) throw closedEarly();
    throw new TlsPoolError('EARLY_OCTETS', { text: 'the other end sent more in plain text before TLS began: it pipelined, or somebody on the way has added that' });
  }

  /** Writes all of it. Not while a dialogue runs. */
  write(octets: Uint8Array): Promise<void> {
    return this.#alone(() => this.#write(octets));
  }

  /**
   * A last word, as far as the socket takes it at once; for when something went wrong already, and the connection is closed next. What waits to be read
   * is thrown away, up to a bound: TCP answers a close in front of unread octets with a reset, which may overtake the last word.
   * Never throws; behind close() nothing is said.
   */
  tell(octets: Uint8Array): void {
    // The descriptor may be another socket by then.
    if (this.#closed) return;
    try {
      if (octets.length > 0) sockets.send(this.#fd, octets);
      for (let times = 0; times < mostThrownAway; times++) if ((sockets.receive(this.#fd, readOctets, 0)?.data.length ?? 0) === 0) break;
    } catch {
      // Whoever does not listen any more does not hear it.
    }
  }

  /** Releases the watcher and the timer; the descriptor stays its owner's. Call it before the descriptor is closed or given away. What still waits ends with ABORTED. May be called twice. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#limits.signal?.removeEventListener('abort', this.#onAbort);
    this.#poll.close();
    // An error takes longer to make than all the rest, and most conversations are closed when nobody waits for them any more.
    if (this.#busy) this.#fail(new TlsPoolError('ABORTED', { text: 'the conversation was closed' }));
  }

  /** Two readers would take each other's octets. */
  async #alone<Result>(work: () => Promise<Result>): Promise<Result> {
    if (this.#closed) throw closedError();
    if (this.#busy) throw new TlsPoolError('BAD_STATE', { text: 'a dialogue is running on this connection: wait for its end' });
    this.#busy = true;
    try {
      this.#check();
      return await work();
    } finally {
      this.#busy = false;
    }
  }

  async #step(step: Step): Promise<Buffer> {
    switch (step.do) {
      case 'write':
        await this.#write(step.octets);
        return Buffer.alloc(0);
      case 'line':
        return this.#line(step.most);
      case 'octets':
        return this.#octets(step.count);
      case 'some':
        return this.#take((await this.#peek(Math.min(readOctets, step.most))).length);
      case 'peek':
        return this.#peek(1);
    }
  }

  async #write(octets: Uint8Array): Promise<void> {
    for (let at = 0; at < octets.length;) {
      this.#check();
      const sent = guarded(() => sockets.send(this.#fd, octets.subarray(at)));
      if (sent >= 0) at += sent;
      else await this.#wait(pollWritable);
    }
  }

  async #line(most: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    for (let length = 0; ;) {
      // Two more than `most`: the line's end.
      const seen = await this.#peek(Math.min(readOctets, most + 2 - length));
      const end = seen.indexOf(lf);
      // Without an end, all of it is this line's: taking it lets us wait for more.
      const part = this.#take(end < 0 ? seen.length : end + 1);
      // Here and not at the end of the line: a ClientHello need not have one.
      if (part.includes(0)) throw unclearLine();
      parts.push(part);
      length += part.length;
      if (end >= 0) return lineOf(Buffer.concat(parts), most);
      if (length >= most + 2) throw longLine(most);
    }
  }

  async #octets(count: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    for (let length = 0; length < count;) {
      const part = this.#take((await this.#peek(Math.min(readOctets, count - length))).length);
      parts.push(part);
      length += part.length;
    }
    return Buffer.concat(parts);
  }

  /** Waits for at least one octet. */
  async #peek(most: number): Promise<Buffer> {
    for (;;) {
      this.#check();
      const seen = guarded(() => sockets.peek(this.#fd, most));
      if (seen !== null && seen.length > 0) return seen;
      if (seen !== null) throw closedEarly();
      await this.#wait(pollReadable);
    }
  }

  /** Takes octets that were seen. */
  #take(count: number): Buffer {
    this.#left -= count;
    if (this.#left < 0) throw new TlsPoolError('PREAMBLE', { text: `more than ${this.#limits.octets ?? defaultMostOctets} octets before TLS` });
    const taken = guarded(() => sockets.receive(this.#fd, count, 0));
    if (taken?.data.length !== count) throw new TlsPoolError('INTERNAL', { text: 'octets that were seen are gone: somebody else reads this socket' });
    return taken.data;
  }

  async #wait(events: number): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      this.#poll.start(events);
    });
    this.#check();
  }

  /** Readiness is told again and again until somebody stops the watcher, so it never runs without one who waits. */
  #ready(): void {
    if (!this.#closed) this.#poll.stop();
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  #fail(error: TlsPoolError): void {
    this.#failure ??= error;
    this.#ready();
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }
}

const longLine = (most: number): TlsPoolError => new TlsPoolError('PREAMBLE', { text: `a line of more than ${most} octets` });
const unclearLine = (): TlsPoolError => new TlsPoolError('PREAMBLE', { text: 'a line with a NUL or a lone CR in it: is that TLS, or another protocol?' });
const closedEarly = (): TlsPoolError => new TlsPoolError('PEER_CLOSED', { text: 'the other end closed the connection before TLS began' });
const closedError = (): TlsPoolError => new TlsPoolError('BAD_STATE', { text: 'the conversation is closed' });

function lineOf(whole: Buffer, most: number): Buffer {
  const end = whole.at(-2) === cr ? whole.length - 2 : whole.length - 1;
  const line = whole.subarray(0, end);
  if (line.length > most) throw longLine(most);
  // What ends a line for one reader and not for the next one is how commands are smuggled.
  if (line.includes(cr)) throw unclearLine();
  return line;
}

/** Errors of a connection that are not ours. */
const { ECONNRESET, ECONNABORTED, EPIPE, ETIMEDOUT, ENOTCONN, EHOSTUNREACH, ENETUNREACH, ENETDOWN } = constants.errno;
const broke: ReadonlySet<number> = new Set([ECONNRESET, ECONNABORTED, EPIPE, ETIMEDOUT, ENOTCONN, EHOSTUNREACH, ENETUNREACH, ENETDOWN]);

function guarded<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    if (error instanceof TlsPoolError && error.errno !== undefined && broke.has(-error.errno)) {
      throw new TlsPoolError('PEER_CLOSED', { text: 'the connection broke before TLS began', cause: error });
    }
    throw error;
  }
}
