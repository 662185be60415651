/**
 * A client of the pool that knows only docs/protocol.md: MessagePack over SOCK_SEQPACKET, nothing of libtlspool but the system
 * calls. Synchronous, as a test's questions about the state of the pool are: one request, one answer.
 */
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd } from 'libtlspool/native';
import { Packr } from 'msgpackr';

const packr = new Packr({ useRecords: false, variableMapSize: true });
const pollIn = 1;
/** Most events, and so most descriptors, in one packet. */
const maxEvents = 32;

export interface WireMessage {
  readonly type: string;
  readonly op: string;
  readonly id?: number;
  readonly body: Record<string, unknown>;
  /** Owned by the receiver. */
  readonly fds: readonly OwnedFd[];
}

/** The pool said no. `code` is one of the error table. */
export class WireError extends Error {
  constructor(readonly code: string, text: string, readonly field?: string) { super(`${code}: ${text}`); }
}

export class PoolWire {
  readonly fd: OwnedFd;
  /** Events and callbacks that came while a reply was awaited. */
  readonly others: WireMessage[] = [];
  #nextId = 1;
  #closed = false;

  /** Connects and, unless told not to, says hello. Throws TlsPoolError SYSTEM when nobody listens. */
  constructor(path: string, options: { readonly hello?: boolean } = {}) {
    this.fd = sockets.unixConnect(path, 'seqpacket');
    try {
      if (options.hello !== false) this.request('hello', { versions: [1], client: 'test' });
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Sends any octets with any descriptors, which stay the caller's. */
  sendRaw(octets: Uint8Array, fds: readonly BorrowedFd[] = []): void {
    if (sockets.send(this.fd, octets, fds) < 0) throw new Error('the pool does not read what it is sent');
  }

  send(message: Record<string, unknown>, fds: readonly BorrowedFd[] = []): void {
    this.sendRaw(packr.pack(message), fds);
  }

  /** The next message of any kind; undefined at end of stream. Blocks for at most `deadlineMs`. */
  next(deadlineMs = 10_000): WireMessage | undefined {
    return this.others.shift() ?? this.#receive(deadlineMs);
  }

  /** One request and its reply; throws WireError on an error reply. Messages of other kinds are kept in `others`. */
  request(op: string, body: Record<string, unknown> = {}, fds: readonly BorrowedFd[] = [], deadlineMs = 10_000): WireMessage {
    const id = this.#nextId++;
    this.send({ type: 'request', op, id, body }, fds);
    for (;;) {
      const message = this.#receive(deadlineMs);
      if (message === undefined) throw new Error(`the pool closed the connection instead of answering ${op}`);
      if (message.id !== id || (message.type !== 'reply' && message.type !== 'error')) { this.others.push(message); continue; }
      if (message.type === 'error') {
        const { code, text, field } = message.body as { code: string; text: string; field?: string };
        throw new WireError(code, text, field);
      }
      return message;
    }
  }

  /** May be called twice. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const { fds } of this.others) for (const fd of fds) sockets.close(fd);
    sockets.close(this.fd);
  }

  #receive(deadlineMs: number): WireMessage | undefined {
    if (sockets.pollWait(this.fd, pollIn, deadlineMs) === 0) throw new Error(`the pool sent nothing for ${String(deadlineMs)} ms`);
    const received = sockets.receive(this.fd, 131_072, maxEvents);
    if (received === null) throw new Error('the pool socket was readable and had nothing to read');
    if (received.eof) return undefined;
    const [first, ...rest] = packr.unpackMultiple(received.data) as Omit<WireMessage, 'fds'>[];
    if (first === undefined) throw new Error('a packet without a message');
    if (rest.length === 0) return { ...first, fds: received.fds };
    // Several events: the descriptors are those of the connections, in order.
    const fds = [...received.fds];
    const messages = [first, ...rest].map((message) => ({ ...message, fds: message.op === 'connection' ? fds.splice(0, 1) : [] }));
    this.others.push(...messages.slice(1));
    return messages[0];
  }
}
