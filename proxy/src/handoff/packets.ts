/**
 * The pool's part of the pool protocol, on one connection to a backend: packets to it, and packets from it one at a time.
 *
 * One at a time, so that a backend which asks without reading answers holds up nobody but itself, and nothing piles up here.
 */
import { pollOwned, pollReadable, pollWritable, sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd, Poll } from 'libtlspool/native';
import { TlsPoolError, checkFds, decodeMessage, encodeMessage, errorTable, highestMaxMessageOctets, maxMessageFds, peekEnvelope } from 'libtlspool/protocol';
import type { Message, ToPoolMessage } from 'libtlspool/protocol';

/** A hand-off socket has no hello, which would say less. */
const maxOctets = highestMaxMessageOctets;
/** As the message table has it. */
const maxTextOctets = 2048;

interface Outgoing { readonly packet: Uint8Array; readonly fds: readonly BorrowedFd[]; sent(): void; failed(error: TlsPoolError): void }
interface Reader { resolve(): void; reject(error: TlsPoolError): void }

const hungUp = (): TlsPoolError => new TlsPoolError('ABORTED', { text: 'the connection to the backend was closed' });

/** Owns the connection, and nothing else: descriptors that a backend sends are closed at once, since no message of a backend takes one here. */
export class Packets {
  readonly #fd: OwnedFd;
  readonly #poll: Poll;
  #outgoing: Outgoing[] = [];
  #reader: Reader | undefined;
  #failure: TlsPoolError | undefined;
  #isClosed = false;

  /** Closes the descriptor when it throws (SYSTEM). */
  constructor(fd: OwnedFd) {
    this.#fd = fd;
    this.#poll = pollOwned(fd, () => this.#ready());
  }

  /** Resolves when the kernel has it for the backend. The descriptors are borrowed until then. Rejects with BACKEND_FAILED, MESSAGE_TOO_LARGE, or what fail() was given. */
  send(message: Message, fds: readonly BorrowedFd[] = []): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#check();
      const outgoing = { packet: encodeMessage(message, maxOctets), fds, sent: resolve, failed: reject };
      if (this.#outgoing.length === 0 && this.#sendNow(outgoing)) return;
      this.#outgoing.push(outgoing);
      this.#watch();
    });
  }

  /** Answers a request with an error; see send(). */
  refuse({ op, id }: { readonly op: string; readonly id: number }, error: unknown): Promise<void> {
    const { code, message, field } = TlsPoolError.from(error);
    // A text is for people: what does not fit is said in fewer words.
    const text = Buffer.byteLength(message) <= maxTextOctets ? message : errorTable[code].text;
    return this.send({ type: 'error', op, id, body: { code, text, ...(field === undefined || Buffer.byteLength(field) > 256 ? {} : { field }) } });
  }

  /**
   * The next message that is as the table has it; others are answered with an error. Rejects with BACKEND_FAILED when the backend has hung up or cannot be
   * understood at all, and with what fail() was given. One caller at a time.
   */
  async next(): Promise<ToPoolMessage> {
    for (;;) {
      const packet = this.#receive();
      if (packet === undefined) await this.#readable();
      else {
        const message = await this.#understand(packet);
        if (message !== undefined) return message;
      }
    }
  }

  /** Whoever waits is rejected with this, as is everything from now on. */
  fail(error: TlsPoolError): void {
    if (this.#failure !== undefined || this.#isClosed) return;
    this.#failure = error;
    this.#poll.stop();
    const reader = this.#reader;
    this.#reader = undefined;
    reader?.reject(error);
    for (const outgoing of this.#outgoing.splice(0)) outgoing.failed(error);
  }

  /** Hangs up. May be called twice. */
  close(): void {
    if (this.#isClosed) return;
    // Most are closed when nobody waits for anything any more, and an error takes longer to make than all the rest.
    if (this.#reader !== undefined || this.#outgoing.length > 0) this.fail(hungUp());
    this.#isClosed = true;
    this.#poll.close();
    // What is left unread when a socket is closed resets the connection, and the backend would miss the last packet.
    sockets.closeDrained(this.#fd);
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#isClosed) throw hungUp();
  }

  #broken(text: string, cause?: unknown): TlsPoolError {
    this.fail(new TlsPoolError('BACKEND_FAILED', { text, cause }));
    return this.#failure as TlsPoolError;
  }

  /** False: the socket is full. */
  #sendNow(outgoing: Outgoing): boolean {
    try {
      if (sockets.send(this.#fd, outgoing.packet, outgoing.fds) < 0) return false;
      outgoing.sent();
    } catch (error) {
      outgoing.failed(this.#broken('the backend has hung up', error));
    }
    return true;
  }

  #receive(): { readonly data: Buffer; readonly fds: number } | undefined {
    this.#check();
    // Its last answer first.
    if (this.#outgoing.length > 0) return undefined;
    let received;
    try {
      received = sockets.receive(this.#fd, maxOctets, maxMessageFds);
    } catch (error) {
      throw this.#broken(error instanceof TlsPoolError && error.code !== 'SYSTEM' ? `the backend sent what no message is: ${error.message}` : 'the backend has hung up', error);
    }
    if (received === null) return undefined;
    if (received.eof) throw this.#broken('the backend has hung up');
    for (const fd of received.fds) sockets.discard(fd);
    return { data: received.data, fds: received.fds.length };
  }

  async #understand({ data, fds }: { readonly data: Buffer; readonly fds: number }): Promise<ToPoolMessage | undefined> {
    try {
      const message = decodeMessage(data, 'toPool', maxOctets);
      checkFds(message.type, message.op, fds);
      if (fds > 0) throw new TlsPoolError('FD_COUNT', { text: 'a message on a hand-off socket takes no descriptors from the backend', field: 'fds' });
      return message;
    } catch (error) {
      const { type, op, id } = peekEnvelope(data);
      const isRequest = type === 'request' && op !== undefined && id !== undefined;
      await this.refuse(isRequest ? { op, id } : { op: 'unknown', id: 0 }, error);
      if (isRequest) return undefined;
      throw this.#broken(`the backend sent what cannot be understood: ${error instanceof Error ? error.message : 'no error'}`, error);
    }
  }

  #readable(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#check();
      this.#reader = { resolve, reject };
      this.#watch();
    });
  }

  #watch(): void {
    if (this.#failure !== undefined || this.#isClosed) return;
    const events = this.#outgoing.length > 0 ? pollWritable : this.#reader === undefined ? 0 : pollReadable;
    if (events === 0) this.#poll.stop();
    else this.#poll.start(events);
  }

  #ready(): void {
    for (let next = this.#outgoing[0]; next !== undefined && this.#sendNow(next); next = this.#outgoing[0]) this.#outgoing.shift();
    if (this.#outgoing.length === 0) {
      const reader = this.#reader;
      this.#reader = undefined;
      reader?.resolve();
    }
    this.#watch();
  }
}
