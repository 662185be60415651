/**
 * One connection to the pool: packets out, packets in, requests matched with their replies.
 *
 * A channel lives once; link.ts makes a new one when it is lost. It owns its descriptor, every descriptor of a packet that it
 * has not delivered yet, and copies of the descriptors of packets that wait for room in the socket.
 */
import { pollDisconnect, pollReadable, pollWritable, sockets } from './native.js';
import type { BorrowedFd, OwnedFd, Poll } from './native.js';
import { closeAll, Inlet } from './inlet.js';
import type { Packet, Refused } from './inlet.js';
import { TlsPoolError, encodeMessage, isErrorCode } from './protocol/index.js';
import type { AnswerBody, CallbackBody, ErrorBody, EventBody, Message, ReplyBody, RequestBody, RequestOp, ToClientMessage } from './protocol/index.js';

/** Packets handled per wake-up, so that a busy pool connection does not starve the rest of the loop. */
const packetsPerTurn = 64;
const pollIn = 1;
const pollOut = 4;

/** A reply and the descriptors that came with it, which are the caller's. */
export interface Reply<Op extends RequestOp> {
  /** As the message table has it. */
  readonly body: ReplyBody<Op>;
  /** Owned by the caller; usually none. */
  readonly fds: readonly OwnedFd[];
}

/** Who is told how a session ended. */
export interface SessionSink {
  noteClosed(closed: EventBody<'closed'>): void;
  noteLost(error: TlsPoolError): void;
}

/** What the owner of a channel does with what the pool sends. */
export interface ChannelOwner {
  /** The descriptor belongs to the owner. */
  connection(channel: Channel, body: EventBody<'connection'>, fd: OwnedFd | undefined): void;
  listenerClosed(body: EventBody<'listenerClosed'>): void;
  drain(body: EventBody<'drain'>): void;
  /** Called once; `answer` may be called later, and does nothing on a channel that was lost. */
  servername(body: CallbackBody<'servername'>, answer: (body: AnswerBody<'servername'>) => void): void;
  /** Called once, after every outstanding request was rejected. Not called by close(). */
  lost(channel: Channel, error: TlsPoolError): void;
}

interface Outgoing { readonly data: Uint8Array; readonly fds: readonly OwnedFd[] }
interface Pending {
  readonly op: RequestOp;
  resolve(reply: Reply<RequestOp>): void;
  reject(error: Error): void;
}

/** The error that an `error` message stands for. A code of a newer pool that we do not know keeps its text. */
export function errorOf(body: ErrorBody): TlsPoolError {
  const field = body.field === undefined ? {} : { field: body.field };
  return isErrorCode(body.code)
    ? new TlsPoolError(body.code, { text: body.text, ...field })
    : new TlsPoolError('INTERNAL', { text: `the pool answered with the unknown code ${body.code}: ${body.text}`, ...field });
}

/** Sessions are looked up by their control key; one character per octet is the cheapest exact key. */
const keyOf = (ctlkey: Uint8Array): string => Buffer.from(ctlkey.buffer, ctlkey.byteOffset, ctlkey.byteLength).toString('latin1');

export class Channel {
  readonly #fd: OwnedFd;
  readonly #owner: ChannelOwner;
  readonly #poll: Poll;
  readonly #inlet: Inlet;
  readonly #pending = new Map<number, Pending>();
  readonly #sessions = new Map<string, SessionSink>();
  #outgoing: Outgoing[] = [];
  #inbox: Packet[] = [];
  #inboxScheduled = false;
  #paused = false;
  #held = false;
  #nextId = 1;
  #lost: TlsPoolError | undefined;
  /** Called when the last session ended. */
  onIdle: (() => void) | undefined;

  /** Takes the descriptor over. Does not keep the process alive until ref() or a request does. */
  constructor(fd: OwnedFd, owner: ChannelOwner) {
    this.#fd = fd;
    this.#owner = owner;
    this.#inlet = new Inlet(fd);
    this.#poll = sockets.poll(fd, (status, events) => this.#onReady(status, events));
    this.#poll.start(pollReadable);
    this.#poll.unref();
  }

  /** Set once the connection is gone. */
  get lost(): TlsPoolError | undefined { return this.#lost; }
  get sessions(): number { return this.#sessions.size; }

  /** What `hello` said. */
  set maxMessageOctets(octets: number) { this.#inlet.maxOctets = octets; }
  get maxMessageOctets(): number { return this.#inlet.maxOctets; }

  ref(): void { this.#held = true; this.#poll.ref(); }
  unref(): void { this.#held = false; this.#releaseLoop(); }

  /** Stops taking packets from the pool; its queue fills and it stops accepting. Sessions and requests still learn what they wait for. */
  pause(): void { this.#paused = true; this.#watch(); }
  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#watch();
    this.#scheduleInbox();
  }

  addSession(ctlkey: Uint8Array, sink: SessionSink): void { this.#sessions.set(keyOf(ctlkey), sink); }

  /**
   * Sends a request; settles exactly once. `fds` are borrowed for the duration of the call only: what cannot be sent at once
   * is kept as a copy. Rejects with the pool's error, POOL_LOST or TIMEOUT; a reply that comes too late is dropped and its descriptors are closed.
   */
  request<Op extends RequestOp>(op: Op, body: RequestBody<Op>, fds: readonly BorrowedFd[], timeoutMs: number): Promise<Reply<Op>> {
    return new Promise((resolve, reject) => {
      const id = this.#send(op, body, fds);
      const timer = setTimeout(() => {
        this.#forget(id);
        reject(new TlsPoolError('TIMEOUT', { text: `the pool did not answer ${op} within ${timeoutMs} ms; see its log` }));
      }, timeoutMs);
      this.#pending.set(id, {
        op,
        resolve: (reply) => { clearTimeout(timer); resolve(reply); },
        reject: (error) => { clearTimeout(timer); reject(error); },
      });
      this.#poll.ref();
    });
  }

  /** Like request(), but blocks the thread until the reply is there. For interfaces that Node made synchronous. */
  requestSync<Op extends RequestOp>(op: Op, body: RequestBody<Op>, timeoutMs: number): ReplyBody<Op> {
    const id = this.#send(op, body, []);
    const deadline = performance.now() + timeoutMs;
    let settled: { body: ReplyBody<Op> } | { error: Error } | undefined;
    this.#pending.set(id, {
      op,
      resolve: (reply) => { closeAll(reply.fds); settled = { body: reply.body as unknown as ReplyBody<Op> }; },
      reject: (error) => { settled = { error }; },
    });
    while (settled === undefined) {
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) {
        this.#forget(id);
        throw new TlsPoolError('TIMEOUT', { text: `the pool did not answer ${op} within ${timeoutMs} ms; see its log` });
      }
      sockets.pollWait(this.#fd, this.#outgoing.length > 0 ? pollIn | pollOut : pollIn, Math.ceil(leftMs));
      this.#flush();
      this.#drain();
    }
    if ('error' in settled) throw settled.error;
    return settled.body;
  }

  /**
   * Takes in everything that the pool has sent so far, without running anybody's handlers: replies and `closed` events reach
   * those who wait for them, everything else is handled on a later turn. A session that reads end of stream calls this
   * first: the pool sends `closed` before it closes the plain-text side.
   */
  catchUp(): void { this.#drain(); }

  /** Ends the connection, and with it every session that it owns. May be called twice. */
  close(): void {
    this.#end(new TlsPoolError('POOL_LOST', { text: 'the connection to the pool was closed by this program' }));
  }

  #send<Op extends RequestOp>(op: Op, body: RequestBody<Op>, fds: readonly BorrowedFd[]): number {
    if (this.#lost !== undefined) throw this.#lost;
    const id = this.#nextId;
    this.#nextId = id === 0xffff_ffff ? 1 : id + 1;
    this.#transmit(encodeMessage({ type: 'request', op, id, body } as unknown as Message, this.maxMessageOctets), fds);
    return id;
  }

  #transmit(data: Uint8Array, fds: readonly BorrowedFd[]): void {
    if (this.#outgoing.length === 0) {
      try {
        if (sockets.send(this.#fd, data, fds) >= 0) return;
      } catch (error) {
        // A dead connection is reported by the reading side, which first takes in what the pool said before it went.
        if (!isDisconnect(error)) throw error;
        return;
      }
    }
    const copies: OwnedFd[] = [];
    try {
      for (const fd of fds) copies.push(sockets.dup(fd));
    } catch (error) {
      closeAll(copies);
      throw error;
    }
    this.#outgoing.push({ data, fds: copies });
    this.#watch();
  }

  #flush(): void {
    while (this.#lost === undefined) {
      const next = this.#outgoing[0];
      if (next === undefined) break;
      try {
        if (sockets.send(this.#fd, next.data, next.fds) < 0) return;
      } catch (error) {
        if (!isDisconnect(error)) { this.#fail(error); return; }
      }
      this.#outgoing.shift();
      closeAll(next.fds);
    }
    this.#watch();
  }

  #watch(): void {
    if (this.#lost !== undefined) return;
    this.#poll.start((this.#paused ? pollDisconnect : pollReadable) | (this.#outgoing.length > 0 ? pollWritable : 0));
  }

  #onReady(status: number, events: number): void {
    if (status < 0) { this.#fail(new Error(`poll: errno ${status}`)); return; }
    if ((events & pollWritable) !== 0) this.#flush();
    if (this.#paused) {
      if ((events & pollDisconnect) !== 0) this.#drain();
      return;
    }
    this.#runInbox();
    for (let packets = 0; packets < packetsPerTurn && !this.#paused; packets++) {
      const packet = this.#receive();
      if (packet === undefined) return;
      this.#dispatch(packet);
    }
    if (this.#inlet.waiting > 0) this.#scheduleInbox();
  }

  /** The next packet that we understand; undefined when nothing is there or the connection is lost. */
  #receive(): Packet | undefined {
    while (this.#lost === undefined) {
      let taken: Packet | Refused | 'end' | undefined;
      try {
        taken = this.#inlet.take();
      } catch (error) {
        this.#fail(error);
        return undefined;
      }
      if (taken === undefined) return undefined;
      if (taken === 'end') this.#fail(undefined);
      else if ('message' in taken) return taken;
      else if (!this.#declines(taken)) this.#fail(taken.refused);
    }
    return undefined;
  }

  /** A newer pool may send events that we do not know (ignored) and ask what we do not know (answered so, never with silence). */
  #declines({ refused, envelope: { type, op, id } }: Refused): boolean {
    if (!(refused instanceof TlsPoolError) || refused.code !== 'UNKNOWN_OP') return false;
    if (type === 'event') return true;
    if (type !== 'callback' || op === undefined || id === undefined) return false;
    this.#transmit(encodeMessage({ type: 'error', op, id, body: { code: 'UNKNOWN_OP', text: refused.message } }), []);
    return true;
  }

  /** Everything in the socket, none of it to handlers; see catchUp(). The kernel bounds what can be queued. */
  #drain(): void {
    for (let packet = this.#receive(); packet !== undefined; packet = this.#receive()) {
      if (!this.#settleQuietly(packet)) this.#inbox.push(packet);
    }
    this.#scheduleInbox();
  }

  #settleQuietly({ message, fds }: Packet): boolean {
    if (message.type === 'reply' || message.type === 'error') {
      this.#settle(message, fds);
      return true;
    }
    if (message.type !== 'event' || message.op !== 'closed') return false;
    // A session whose `connection` event still waits in the inbox is not known yet: keep the order.
    return this.#endSession(message.body);
  }

  #scheduleInbox(): void {
    if (this.#inboxScheduled || this.#inbox.length + this.#inlet.waiting === 0 || this.#paused) return;
    this.#inboxScheduled = true;
    setImmediate(() => { this.#inboxScheduled = false; this.#runInbox(); });
  }

  #runInbox(): void {
    while (!this.#paused && this.#lost === undefined) {
      const packet = this.#inbox.shift() ?? this.#inlet.takeWaiting();
      if (packet === undefined) return;
      this.#dispatch(packet);
    }
  }

  #dispatch({ message, fds }: Packet): void {
    switch (message.type) {
      case 'event':
        if (message.op === 'connection') this.#owner.connection(this, message.body, fds[0]);
        else if (message.op === 'closed') this.#endSession(message.body);
        else if (message.op === 'listenerClosed') this.#owner.listenerClosed(message.body);
        else this.#owner.drain(message.body);
        return;
      case 'reply': case 'error':
        this.#settle(message, fds);
        return;
      case 'callback': {
        const { op, id } = message;
        this.#owner.servername(message.body, (body) => {
          if (this.#lost === undefined) this.#transmit(encodeMessage({ type: 'answer', op, id, body }, this.maxMessageOctets), []);
        });
        return;
      }
    }
  }

  #endSession(closed: EventBody<'closed'>): boolean {
    const key = keyOf(closed.ctlkey);
    const sink = this.#sessions.get(key);
    if (sink === undefined) return false;
    this.#sessions.delete(key);
    sink.noteClosed(closed);
    if (this.#sessions.size === 0) this.onIdle?.();
    return true;
  }

  #settle(message: Extract<ToClientMessage, { type: 'reply' | 'error' }>, fds: readonly OwnedFd[]): void {
    const pending = this.#pending.get(message.id);
    if (pending === undefined) {
      closeAll(fds);
      // Id 0: the pool could not read a message of ours at all.
      if (message.type === 'error' && message.id === 0) this.#fail(errorOf(message.body));
      return;
    }
    this.#forget(message.id);
    if (message.type === 'error') {
      pending.reject(errorOf(message.body));
    } else if (message.op === pending.op) {
      pending.resolve({ body: message.body, fds });
    } else {
      closeAll(fds);
      pending.reject(new TlsPoolError('UNEXPECTED_MESSAGE', { text: `the pool answered ${pending.op} with a reply to ${message.op}` }));
    }
  }

  #forget(id: number): void {
    this.#pending.delete(id);
    this.#releaseLoop();
  }

  #releaseLoop(): void {
    if (!this.#held && this.#pending.size === 0 && this.#lost === undefined) this.#poll.unref();
  }

  #fail(cause: unknown): void {
    if (this.#lost !== undefined) return;
    const why = cause === undefined ? 'the pool closed it' : cause instanceof Error ? cause.message : 'an unknown failure';
    const error = new TlsPoolError('POOL_LOST', { text: `the connection to the pool is gone: ${why}`, cause });
    this.#end(error);
    this.#owner.lost(this, error);
  }

  #end(error: TlsPoolError): void {
    if (this.#lost !== undefined) return;
    this.#lost = error;
    this.#poll.close();
    sockets.close(this.#fd);
    this.#inlet.close();
    for (const { fds } of [...this.#outgoing, ...this.#inbox]) closeAll(fds);
    this.#outgoing = [];
    this.#inbox = [];
    const pending = [...this.#pending.values()];
    const sinks = [...this.#sessions.values()];
    this.#pending.clear();
    this.#sessions.clear();
    for (const one of pending) one.reject(error);
    for (const sink of sinks) sink.noteLost(error);
  }
}

function isDisconnect(error: unknown): boolean {
  return error instanceof Error && /\b(EPIPE|ECONNRESET|ENOTCONN)\b/.test(error.message);
}
