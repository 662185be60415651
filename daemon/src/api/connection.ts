/**
 * One client's connection: packets in, decoded and handed to the front; messages out. It owns its socket and every descriptor that
 * came over it until the front has taken it. Nothing is believed because it came over this socket: a packet is exactly what
 * the message table says, or it is refused.
 */
import {
  TlsPoolError, checkFds, decodeMessage, encodeMessage, maxMessageFds, peekEnvelope,
} from 'libtlspool/protocol';
import type { CallbackBody, CallbackOp, EventBody, EventOp, Message, ReplyBody, RequestOp, ToPoolMessage } from 'libtlspool/protocol';
import { pollDisconnect, pollReadable, pollWritable, sockets } from 'libtlspool/native';
import type { OwnedFd, Poll } from 'libtlspool/native';
import type { Client } from '../policy/access.js';
import type { Owner, Session } from '../session/index.js';
import { asPoolError, errorBodyOf } from './faults.js';
import { FdBag, closeEnded, closeFd } from './fdbag.js';
import { Outbox } from './outbox.js';
import type { ItemKind } from './outbox.js';

export interface ConnectionLimits {
  /** Cap on one message, and on one packet, both ways; at most `highestMaxMessageOctets`. */
  readonly messageOctets: number;
  /** Requests without a reply yet. */
  readonly requestsPerClient: number;
  /** `connection` events and callbacks that may wait before the client counts as clogged. */
  readonly queuedConnections: number;
}

/** What a connection tells its maker. */
export interface ConnectionHooks {
  /** A message that is as the table says, with the number of descriptors that it takes. The bag is closed when this returns. */
  message(connection: Connection, message: ToPoolMessage, fds: FdBag): void;
  /** The client reads too slowly (true), or has caught up (false). */
  clogged(connection: Connection, isClogged: boolean): void;
  /** The connection is over, its socket closed. Called once. `reason` is for the log; undefined when the client has closed. */
  gone(connection: Connection, reason: TlsPoolError | undefined): void;
}

/** Packets handled per wake-up, so that one busy client does not keep the others waiting. */
const packetsPerTurn = 32;
/** Replies that may wait for a client that sends requests but does not read: so many times its outstanding requests. */
const repliesFactor = 4;

/** fresh: nothing but `hello` is accepted. refused: its first message is answered with why it may not
 * talk to us. ending: closes once all is sent. */
export type ConnectionState = 'fresh' | 'refused' | 'ready' | 'ending' | 'closed';

export class Connection implements Owner {
  readonly sessions = new Set<Session>();
  /** Ids of requests that will be answered later. */
  readonly outstanding = new Set<number>();
  /** Those of them that are handshakes, which have limits of their own (one per session): a proxy has one per client, and they last as long as a peer likes. */
  readonly #handshakes = new Set<number>();
  state: ConnectionState;
  isClogged = false;
  readonly #fd: OwnedFd;
  readonly #limits: ConnectionLimits;
  readonly #hooks: ConnectionHooks;
  readonly #refusal: TlsPoolError | undefined;
  readonly #outbox: Outbox;
  readonly #poll: Poll;
  #isWriting = false;
  #helloTimer: NodeJS.Timeout | undefined;

  /** Owns the socket from now on (also when this throws). With a refusal, the client is told that and nothing else. */
  constructor(fd: OwnedFd, readonly client: Client, limits: ConnectionLimits, hooks: ConnectionHooks, refusal?: TlsPoolError) {
    this.#fd = fd;
    this.#limits = limits;
    this.#hooks = hooks;
    this.#refusal = refusal;
    this.state = refusal === undefined ? 'fresh' : 'refused';
    this.#outbox = new Outbox(fd, {
      writable: (wanted) => { this.#watch(wanted); },
      failed: (error) => { this.close(asPoolError(error)); },
    }, limits.messageOctets);
    try {
      this.#poll = sockets.poll(fd, (status, events) => { this.#onReady(status, events); });
      this.#poll.start(pollReadable | pollDisconnect);
    } catch (error) {
      sockets.closeDrained(fd);
      throw error;
    }
  }

  /** Answers a request. `sendFd` (or -1) is owned by the connection from now on. */
  reply<Op extends RequestOp>(op: Op, id: number, body: ReplyBody<Op>, sendFd = -1): void {
    this.#answered(id);
    if (this.state === 'closed') {
      closeFd(sendFd);
      return;
    }
    this.#send({ type: 'reply', op, id, body } as unknown as Message, 'reply', sendFd, -1, { op, id });
  }

  /** Answers a request with an error. `keepOutstanding`: another request with this id is still to be answered. */
  refuse(op: string, id: number, error: unknown, options: { readonly keepOutstanding?: boolean } = {}): void {
    if (options.keepOutstanding !== true) this.#answered(id);
    this.#send({ type: 'error', op, id, body: errorBodyOf(asPoolError(error)) }, 'reply', -1, -1);
  }

  /**
   * Sends an event. `sendFd` rides along; `closeFd` is closed after the message was sent (both may be -1, and both are
   * owned by the connection from now on). Throws, having closed both, when the message cannot be encoded.
   */
  event<Op extends EventOp>(op: Op, body: EventBody<Op>, sendFd = -1, closeAfterwards = -1): void {
    this.#send({ type: 'event', op, body } as unknown as Message, op === 'connection' ? 'connection' : 'other', sendFd, closeAfterwards);
  }

  /** Until uncork(), messages wait so that events can share packets. True when it was not corked before. */
  cork(): boolean { return this.#outbox.cork(); }

  uncork(): void {
    if (this.state === 'closed') return;
    this.#outbox.uncork();
    if (this.#outbox.isBlocked) this.#checkQueue();
    if (this.state === 'ending' && this.#outbox.isEmpty) this.close();
  }

  /** Asks the client. Throws when the message cannot be encoded. */
  callback<Op extends CallbackOp>(op: Op, id: number, body: CallbackBody<Op>): void {
    this.#send({ type: 'callback', op, id, body } as unknown as Message, 'callback', -1, -1);
  }

  /** Callbacks that the client has left no room for. */
  get unsentCallbacks(): number { return this.#outbox.callbacks; }

  /** Closes unless the first message has been dealt with in time. */
  expectHello(withinMs: number): void {
    this.#helloTimer = setTimeout(() => {
      this.close(new TlsPoolError('TIMEOUT', { text: 'the client has not said hello in time' }));
    }, withinMs).unref();
  }

  /** The client has said hello: everything may be asked now. */
  ready(): void {
    this.state = 'ready';
    clearTimeout(this.#helloTimer);
  }

  /** Notes that the request will be answered later. Throws LIMIT_REQUESTS or DUPLICATE_ID. */
  postpone(op: RequestOp, id: number): void {
    if (this.outstanding.has(id)) throw new TlsPoolError('DUPLICATE_ID');
    const { requestsPerClient } = this.#limits;
    if (op === 'starttls' || (op === 'reauthenticate' && this.#handshakes.size < this.sessions.size)) {
      this.#handshakes.add(id);
    } else if (this.outstanding.size - this.#handshakes.size >= requestsPerClient) {
      throw new TlsPoolError('LIMIT_REQUESTS', { text: `this connection has ${requestsPerClient} requests outstanding, which is the limit; wait for replies first` });
    }
    this.outstanding.add(id);
  }

  #answered(id: number): void {
    this.outstanding.delete(id);
    this.#handshakes.delete(id);
  }

  /** Closes once everything has been sent; nothing more is read. The caller sets the deadline and then calls `close`. */
  end(): void {
    if (this.state === 'closed') return;
    this.state = 'ending';
    if (this.#outbox.isEmpty) this.close();
    else this.#arm();
  }

  /** Closes now. May be called twice. */
  close(reason?: TlsPoolError): void {
    if (this.state === 'closed') return;
    this.state = 'closed';
    clearTimeout(this.#helloTimer);
    this.#outbox.close();
    this.#poll.close();
    // Unread packets would turn our last message into ECONNRESET at the client.
    sockets.closeDrained(this.#fd);
    this.#hooks.gone(this, reason);
  }

  #onReady(status: number, events: number): void {
    if (status < 0) {
      this.close(new TlsPoolError('SYSTEM', { text: 'waiting for the client has failed', errno: status, syscall: 'poll' }));
      return;
    }
    if ((events & pollWritable) !== 0) this.#drain();
    if (this.state === 'ending') {
      // A client that is being shown the door and has gone itself need not be waited for.
      if ((events & pollDisconnect) !== 0) this.close();
      return;
    }
    if (this.state !== 'closed') this.#receive();
  }

  #drain(): void {
    this.#outbox.flush();
    if (this.state === 'closed') return;
    if (this.state === 'ending' && this.#outbox.isEmpty) {
      this.close();
      return;
    }
    // Half full again before more is taken on: at the limit itself each connection would switch a listener on and off.
    if (this.isClogged && (this.#outbox.connections + this.#outbox.callbacks) * 2 <= this.#limits.queuedConnections) {
      this.isClogged = false;
      this.#hooks.clogged(this, false);
    }
  }

  #receive(): void {
    for (let turn = 0; turn < packetsPerTurn; turn += 1) {
      let received;
      try {
        received = sockets.receive(this.#fd, this.#limits.messageOctets, maxMessageFds);
      } catch (error) {
        this.#unreadable(asPoolError(error));
        return;
      }
      if (received === null) return;
      const fds = new FdBag(received.fds);
      try {
        if (received.eof) this.close();
        else this.#packet(received.data, fds);
      } finally {
        fds.close();
      }
      if (this.state === 'closed' || this.state === 'ending') return;
    }
  }

  /** The packet is gone and with it its id (too large, or too many descriptors), or the socket is broken. */
  #unreadable(error: TlsPoolError): void {
    if (error.code === 'SYSTEM') {
      this.close(error);
      return;
    }
    this.refuse('unknown', 0, error, { keepOutstanding: true });
    this.close(error);
  }

  #packet(packet: Buffer, fds: FdBag): void {
    let message: ToPoolMessage;
    try {
      message = decodeMessage(packet, 'toPool', this.#limits.messageOctets);
      checkFds(message.type, message.op, fds.count);
    } catch (error) {
      this.#malformed(packet, error);
      return;
    }
    if (this.state === 'refused') {
      this.refuse(message.op, message.id, this.#refusal);
      this.close(this.#refusal);
      return;
    }
    this.#hooks.message(this, message, fds);
  }

  /** Answered where it can be told what it was; else the two sides no longer agree on anything and the connection ends. */
  #malformed(packet: Buffer, thrown: unknown): void {
    const { type, op, id } = peekEnvelope(packet);
    const error = this.#refusal ?? asPoolError(thrown);
    this.refuse(op ?? 'unknown', id ?? 0, error, { keepOutstanding: true });
    // It may have been meant to bring a PIN.
    packet.fill(0);
    // A bad `answer` or `error` is about a callback's id; the session it is about waits until the callback is answered or times out.
    if (id === undefined || op === undefined || type === undefined || this.state === 'refused') this.close(error);
  }

  /** `instead`: the request to answer with an error when the reply cannot be encoded. */
  #send(message: Message, kind: ItemKind, sendFd: number, closeAfterwards: number, instead?: { readonly op: string; readonly id: number }): void {
    let data: Buffer;
    try {
      data = encodeMessage(message, this.#limits.messageOctets);
    } catch (error) {
      closeFd(sendFd);
      closeEnded(closeAfterwards);
      if (instead === undefined) throw error;
      this.refuse(instead.op, instead.id, error);
      return;
    }
    const sharesPacket = message.type === 'event' && (message.op === 'closed' || (message.op === 'connection' && sendFd >= 0));
    this.#outbox.push({ data, kind, sendFd, closeFd: closeAfterwards, sharesPacket });
    if (this.#outbox.isBlocked) this.#checkQueue();
  }

  #checkQueue(): void {
    const { queuedConnections, requestsPerClient } = this.#limits;
    if (!this.isClogged && this.#outbox.connections + this.#outbox.callbacks >= queuedConnections) {
      this.isClogged = true;
      this.#hooks.clogged(this, true);
    }
    if (this.#outbox.replies > requestsPerClient * repliesFactor) {
      this.close(new TlsPoolError('LIMIT_REQUESTS', { text: 'the client sends requests but does not read the replies' }));
    }
  }

  #watch(writable: boolean): void {
    if (this.state === 'closed' || this.#isWriting === writable) return;
    this.#isWriting = writable;
    this.#arm();
  }

  #arm(): void {
    // Level-triggered: what is not read while we end would wake us for ever.
    const reading = this.state === 'ending' ? 0 : pollReadable;
    this.#poll.start(reading | pollDisconnect | (this.#isWriting ? pollWritable : 0));
  }
}
