/**
 * One client of the V2 dialect: a stream socket, frames in, frames out. It owns its socket and every descriptor that came over it until somebody has taken it, and
 * it knows which callbacks the client still has to answer. What a frame means is not known here.
 */
import { TlsPoolError } from 'libtlspool/protocol';
import { pollDisconnect, pollReadable, pollWritable, sockets } from 'libtlspool/native';
import type { OwnedFd, Poll } from 'libtlspool/native';
import { asPoolError } from '../api/faults.js';
import { Outbox } from '../api/outbox.js';
import type { Client } from '../policy/access.js';
import type { Owner, Session } from '../session/index.js';
import { CallbackSlots } from './callbacks.js';
import type { Asked } from './callbacks.js';
import { V2Error, messageOf } from './errors.js';
import { codec, commands, frameOctets } from './frames.js';
import type { Command } from './frames.js';
import { FrameReader } from './reader.js';
import type { Inbound } from './reader.js';

export interface V2Limits {
  /** Requests without a reply yet, handshakes not counted. */
  readonly requestsPerClient: number;
}

/** What a connection tells its maker. */
export interface V2Hooks {
  /** A request. The bag is closed when this returns. */
  request(connection: V2Connection, inbound: Inbound): void;
  /** The connection is over, its socket closed, its callbacks refused. Called once. `reason` is for the log; undefined when the client has closed. */
  gone(connection: V2Connection, reason: TlsPoolError | undefined): void;
}

/** Frames handled per wake-up, so that one busy client does not keep the others waiting. */
const framesPerTurn = 32;
/** Messages that may wait for a client that does not read: so many times its outstanding requests. */
const queueFactor = 4;
/** The kernel passes no more descriptors with one message (SCM_MAX_FD). */
const kernelMaxFds = 253;

export class V2Connection implements Owner {
  readonly sessions = new Set<Session>();
  state: 'open' | 'closed' = 'open';
  readonly #fd: OwnedFd;
  readonly #limits: V2Limits;
  readonly #hooks: V2Hooks;
  readonly #reader = new FrameReader();
  readonly #callbacks = new CallbackSlots();
  readonly #outbox: Outbox;
  readonly #poll: Poll;
  #isWriting = false;
  #outstanding = 0;

  /** Owns the socket from now on (also when this throws). With a refusal, every request is answered by it: a client that is disconnected comes again, for ever. */
  constructor(fd: OwnedFd, readonly client: Client, limits: V2Limits, hooks: V2Hooks, private readonly refusal?: V2Error) {
    this.#fd = fd;
    this.#limits = limits;
    this.#hooks = hooks;
    this.#outbox = new Outbox(fd, {
      writable: (wanted) => { this.#watch(wanted); },
      failed: (error) => { this.close(asPoolError(error)); },
    }, frameOctets);
    try {
      this.#poll = sockets.poll(fd, (status, events) => { this.#onReady(status, events); });
      this.#poll.start(pollReadable | pollDisconnect);
    } catch (error) {
      sockets.closeDrained(fd);
      throw error;
    }
  }

  /** Has part of a message arrived? */
  get isHalf(): boolean { return this.#reader.isHalf; }

  /** Sends a frame, which stays the caller's. One frame is one send. */
  send(frame: Buffer): void {
    // A copy, because it may wait while the caller goes on with the frame.
    this.#outbox.push({ data: Buffer.from(frame), kind: 'reply', sendFd: -1, closeFd: -1, sharesPacket: false });
    if (this.#outbox.replies > this.#limits.requestsPerClient * queueFactor) {
      this.close(new TlsPoolError('LIMIT_REQUESTS', { text: 'the client does not read what it is sent' }));
    }
  }

  /** Answers the request in this frame by an error; the frame becomes the answer. */
  refuse(frame: Buffer, error: V2Error): void {
    codec.patch(frame, 'head', { cbid: 0, cmd: commands.ERROR });
    codec.patch(frame, 'error', { tlserrno: error.tlserrno, message: messageOf(error) });
    this.send(frame);
  }

  /** Answers the request in this frame by SUCCESS, without anything else. */
  succeed(frame: Buffer): void {
    codec.patch(frame, 'head', { cbid: 0, cmd: commands.SUCCESS });
    this.send(frame);
  }

  /**
   * Asks the client: the frame is sent with this command and a callback number, and what comes back under that number goes to `asked`. The result forgets the
   * question; an answer that is still to come is then swallowed with its descriptor. Throws V2Error EAGAIN when the client has too much to answer.
   */
  ask(frame: Buffer, cmd: Command, asked: Asked): () => void {
    if (this.state === 'closed') throw new V2Error('CLIENT_DISCONNECT');
    const cbid = this.#callbacks.open(asked);
    codec.patch(frame, 'head', { cbid, cmd });
    this.send(frame);
    return () => { this.#callbacks.abandon(cbid, asked); };
  }

  /** Counts a request that will be answered later; call the result, once, when it was. Throws V2Error EAGAIN at the limit. */
  postpone(): () => void {
    if (this.#outstanding >= this.#limits.requestsPerClient) {
      throw new V2Error('EAGAIN', `this connection has ${this.#limits.requestsPerClient} requests outstanding, which is the limit`);
    }
    this.#outstanding += 1;
    return () => { this.#outstanding -= 1; };
  }

  /** Closes now. May be called twice. */
  close(reason?: TlsPoolError): void {
    if (this.state === 'closed') return;
    this.state = 'closed';
    this.#outbox.close();
    this.#poll.close();
    this.#reader.close();
    sockets.closeDrained(this.#fd);
    this.#callbacks.closeAll();
    this.#hooks.gone(this, reason);
  }

  #onReady(status: number, events: number): void {
    if (status < 0) {
      this.close(new TlsPoolError('SYSTEM', { text: 'waiting for the client has failed', errno: status, syscall: 'poll' }));
      return;
    }
    if ((events & pollWritable) !== 0) this.#outbox.flush();
    // What was sent before a disconnection is read first.
    if (this.state === 'open') this.#receive();
  }

  #receive(): void {
    for (let turn = 0; turn < framesPerTurn && this.state === 'open'; turn += 1) {
      let received;
      try {
        received = sockets.receive(this.#fd, this.#reader.wanted, kernelMaxFds);
      } catch (error) {
        // Octets went with the descriptors that could not be received: where the next frame begins is not known any more.
        this.close(asPoolError(error));
        return;
      }
      if (received === null) return;
      if (received.eof) {
        this.close(this.#reader.isHalf ? new TlsPoolError('BAD_MESSAGE', { text: `the client has left in the middle of a message of ${frameOctets} octets` }) : undefined);
        return;
      }
      const inbound = this.#reader.take(received);
      if (inbound !== undefined) this.#handle(inbound);
    }
  }

  #handle(inbound: Inbound): void {
    try {
      if (this.refusal !== undefined) this.refuse(inbound.frame, this.refusal);
      else if (!this.#callbacks.answer(inbound)) this.#hooks.request(this, inbound);
    } finally {
      inbound.fds.close();
    }
  }

  #watch(writable: boolean): void {
    if (this.state === 'closed' || this.#isWriting === writable) return;
    this.#isWriting = writable;
    this.#poll.start(pollReadable | pollDisconnect | (writable ? pollWritable : 0));
  }
}
