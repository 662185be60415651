/**
 * One connection to the pool: packets out, packets in, requests matched with their replies.
 *
 * A channel lives once; link.ts makes a new one when it is lost, and says hello. A hand-off socket has no hello. It owns its descriptor
 * and every descriptor of a packet that it has not delivered yet.
 */
import { putQuestion } from './asked.js';
import type { Answer, Asked } from './asked.js';
import { pollDisconnect, pollOwned, pollReadable, pollWritable, sockets } from './native.js';
import type { BorrowedFd, OwnedFd, Poll } from './native.js';
import { closeAll, Inlet } from './inlet.js';
import type { Packet, Refused } from './inlet.js';
import { Outlet } from './outlet.js';
import { TlsPoolError, encodeMessage, isErrorCode } from './protocol/index.js';
import type { CallbackOp, ErrorBody, EventBody, Message, ReplyBody, RequestBody, RequestOp, ToClientMessage } from './protocol/index.js';

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

/** @internal Who is told how a session ended. */
export interface SessionSink {
  noteClosed(closed: EventBody<'closed'>): void;
  noteLost(error: TlsPoolError): void;
}

/** @internal What the maker of a request wants to be told before its promise settles. */
export interface RequestHooks<Op extends RequestOp> {
  /** Who answers callbacks that belong to this request. */
  readonly asked?: Asked;
  /** Called in the very turn in which the reply is read: a `closed` event may be right behind it. The descriptors belong to the promise's owner all the same. */
  readonly reply?: (reply: Reply<Op>) => void;
}

/** @internal What the owner of a channel does with what the pool sends. */
export interface ChannelOwner {
  /** The descriptor belongs to the owner. */
  connection(channel: Channel, body: EventBody<'connection'>, fd: OwnedFd | undefined): void;
  /** A connection was lost on its way, for want of a descriptor here; the pool ends its session. */
  missed?(error: TlsPoolError): void;
  listenerClosed(body: EventBody<'listenerClosed'>): void;
  drain(body: EventBody<'drain'>): void;
  /** Only a hand-off socket brings it. The descriptor belongs to the owner; absent: it is closed. */
  plainConnection?(body: EventBody<'plainConnection'>, fd: OwnedFd): void;
  /** Answers callbacks that belong to no request; absent: they are refused. */
  readonly asked?: Asked | undefined;
  /** Called once, after every outstanding request was rejected. Not called by close(). */
  lost(channel: Channel, error: TlsPoolError): void;
}

interface Pending {
  readonly op: RequestOp;
  readonly hooks: RequestHooks<RequestOp>;
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

/** @internal One connection to a pool, or to a proxy; see the top. */
export class Channel {
  readonly #fd: OwnedFd;
  readonly #owner: ChannelOwner;
  readonly #poll: Poll;
  readonly #inlet: Inlet;
  readonly #outlet: Outlet;
  readonly #pending = new Map<number, Pending>();
  readonly #sessions = new Map<string, SessionSink>();
  #inbox: Packet[] = [];
  #inboxScheduled = false;
  #paused = false;
  #held = false;
  #nextId = 1;
  #lost: TlsPoolError | undefined;
  /** Called when the last session ended. */
  onIdle: (() => void) | undefined;

  /** Takes the descriptor over, and closes it when it throws (SYSTEM). Does not keep the process alive until ref() or a request does. */
  constructor(fd: OwnedFd, owner: ChannelOwner) {
    this.#fd = fd;
    this.#owner = owner;
    // A pool that hears nothing goes on accepting for us: the end of a worker thread must be heard.
    sockets.closeWithThread(fd);
    this.#inlet = new Inlet(fd);
    this.#outlet = new Outlet(fd);
    this.#poll = pollOwned(fd, (status, events) => this.#onReady(status, events));
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

  /** The session is no longer ours to hear of. */
  removeSession(ctlkey: Uint8Array): void {
    if (this.#sessions.delete(keyOf(ctlkey)) && this.#sessions.size === 0) this.onIdle?.();
  }

  /**
   * Sends a request; settles exactly once. `fds` are borrowed for the duration of the call only: what cannot be sent at once
   * is kept as a copy. Rejects with the pool's error, POOL_LOST or TIMEOUT; a reply that comes too late is dropped, its descriptors are closed, and
   * a session that it brings is ended.
   */
  request<Op extends RequestOp>(
    op: Op, body: RequestBody<Op>, fds: readonly BorrowedFd[], timeoutMs: number, hooks: RequestHooks<Op> = {},
  ): Promise<Reply<Op>> {
    return new Promise((resolve, reject) => {
      const id = this.#send(op, body, fds);
      const timer = setTimeout(() => {
        this.#forget(id);
        reject(new TlsPoolError('TIMEOUT', { text: `the pool did not answer ${op} within ${timeoutMs} ms; see its log` }));
      }, timeoutMs);
      this.#pending.set(id, {
        op, hooks,
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
      op, hooks: {},
      resolve: (reply) => { closeAll(reply.fds); settled = { body: reply.body as unknown as ReplyBody<Op> }; },
      reject: (error) => { settled = { error }; },
    });
    while (settled === undefined) {
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) {
        this.#forget(id);
        throw new TlsPoolError('TIMEOUT', { text: `the pool did not answer ${op} within ${timeoutMs} ms; see its log` });
      }
      sockets.pollWait(this.#fd, this.#outlet.isBlocked ? pollIn | pollOut : pollIn, Math.ceil(leftMs));
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
    this.#outlet.send(data, fds);
    if (this.#outlet.isBlocked) this.#watch();
  }

  #flush(): void {
    try {
      this.#outlet.flush();
    } catch (error) {
      this.#fail(error);
      return;
    }
    if (!this.#outlet.isBlocked) this.#watch();
  }

  #watch(): void {
    if (this.#lost !== undefined) return;
    this.#poll.start((this.#paused ? pollDisconnect : pollReadable) | (this.#outlet.isBlocked ? pollWritable : 0));
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

  #settleQuietly({ message, fds, lost }: Packet): boolean {
    if (message.type === 'reply' || message.type === 'error') {
      this.#settle(message, fds, lost);
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

  #dispatch({ message, fds, lost }: Packet): void {
    switch (message.type) {
      case 'event':
        if (lost !== undefined) this.#owner.missed?.(lost);
        else if (message.op === 'connection') this.#owner.connection(this, message.body, fds[0]);
        else if (message.op === 'closed') this.#endSession(message.body);
        else if (message.op === 'listenerClosed') this.#owner.listenerClosed(message.body);
        else if (message.op === 'drain') this.#owner.drain(message.body);
        else if (this.#owner.plainConnection === undefined) closeAll(fds);
        else this.#owner.plainConnection(message.body, fds[0] as OwnedFd);
        return;
      case 'reply': case 'error':
        this.#settle(message, fds, lost);
        return;
      case 'callback':
        putQuestion(message, (request) => (request === undefined ? this.#owner.asked : this.#pending.get(request)?.hooks.asked), this.#answer(message.op, message.id));
        return;
    }
  }

  #answer<Op extends CallbackOp>(op: Op, id: number): Answer<Op> {
    let isAnswered = false;
    return (body, fd) => {
      if (isAnswered || this.#lost !== undefined) return;
      const packet = encodeMessage({ type: 'answer', op, id, body } as unknown as Message, this.maxMessageOctets);
      isAnswered = true;
      this.#transmit(packet, fd === undefined ? [] : [fd]);
      // What waits for room in the socket is still needed.
      if (op === 'pin' && !this.#outlet.isBlocked) packet.fill(0);
    };
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

  #settle(message: Extract<ToClientMessage, { type: 'reply' | 'error' }>, fds: readonly OwnedFd[], lost?: TlsPoolError): void {
    const pending = this.#pending.get(message.id);
    if (pending === undefined) {
      closeAll(fds);
      // Nobody waits for it any more: with a plain-text side of its own it would live on unseen.
      if (message.type === 'reply' && message.op === 'starttls') this.#send('close', { ctlkey: message.body.ctlkey, abort: true }, []);
      // Id 0: the pool could not read a message of ours at all.
      if (message.type === 'error' && message.id === 0) this.#fail(errorOf(message.body));
      return;
    }
    this.#forget(message.id);
    if (message.type === 'error') {
      pending.reject(errorOf(message.body));
    } else if (lost !== undefined) {
      pending.reject(lost);
    } else if (message.op === pending.op) {
      pending.hooks.reply?.({ body: message.body, fds });
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
    this.#outlet.close();
    for (const { fds } of this.#inbox) closeAll(fds);
    this.#inbox = [];
    const pending = [...this.#pending.values()];
    const sinks = [...this.#sessions.values()];
    this.#pending.clear();
    this.#sessions.clear();
    for (const one of pending) one.reject(error);
    for (const sink of sinks) sink.noteLost(error);
  }
}
