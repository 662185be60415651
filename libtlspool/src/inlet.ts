/**
 * What comes from the pool: packets, taken apart into messages with their descriptors.
 *
 * The socket is borrowed; every descriptor that was received and not yet handed out is owned here.
 */
import { sockets } from './native.js';
import type { BorrowedFd, OwnedFd } from './native.js';
import { TlsPoolError, checkFds, decodePacket, defaultMaxMessageOctets, maxPacketMessages, peekEnvelope } from './protocol/index.js';
import type { PeekedEnvelope, ToClientMessage } from './protocol/index.js';

/** A message, with descriptors that belong to whoever takes it. */
export interface Packet {
  readonly message: ToClientMessage;
  readonly fds: readonly OwnedFd[];
  /** Why its descriptors are not there (SYSTEM): this process has no more. */
  readonly lost?: TlsPoolError;
}

/** A packet that we do not understand; its descriptors are closed. */
export interface Refused { readonly refused: unknown; readonly envelope: PeekedEnvelope }

/** Closes descriptors that nobody asked for. */
export function closeAll(fds: readonly OwnedFd[]): void {
  for (const fd of fds) sockets.close(fd);
}

export class Inlet {
  readonly #fd: BorrowedFd;
  /** The rest of a packet that held several events. */
  #rest: Packet[] = [];
  /** What `hello` said. */
  maxOctets = defaultMaxMessageOctets;

  constructor(fd: BorrowedFd) {
    this.#fd = fd;
  }

  /** Messages that were received and not taken yet. */
  get waiting(): number { return this.#rest.length; }

  takeWaiting(): Packet | undefined { return this.#rest.shift(); }

  /** The next message; undefined when nothing is there now. Throws SYSTEM, MESSAGE_TOO_LARGE or FD_COUNT when the connection is of no more use. */
  take(): Packet | Refused | 'end' | undefined {
    const waiting = this.#rest.shift();
    if (waiting !== undefined) return waiting;
    const received = sockets.receive(this.#fd, this.maxOctets, maxPacketMessages, true);
    if (received === null) return undefined;
    if (received.eof) return 'end';
    try {
      const messages = decodePacket(received.data, this.maxOctets);
      if (received.lost !== undefined) return this.#takeRest(messages, received.fds, lostFor(received.lost));
      if (messages.length > 1) return this.#takeApart(messages, received.fds);
      const message = messages[0] as ToClientMessage;
      checkFds(message.type, message.op, received.fds.length);
      return { message, fds: received.fds };
    } catch (error) {
      closeAll(received.fds);
      return { refused: error, envelope: peekEnvelope(received.data) };
    }
  }

  /** Closes the descriptors of what was not taken. */
  close(): void {
    for (const { fds } of this.#rest) closeAll(fds);
    this.#rest = [];
  }

  /** Several events share a packet: each `connection` has one of the descriptors, in order. */
  #takeApart(messages: readonly ToClientMessage[], fds: readonly OwnedFd[]): Packet | undefined {
    const connections = messages.reduce((count, { op }) => count + (op === 'connection' ? 1 : 0), 0);
    if (connections !== fds.length) {
      throw new TlsPoolError('FD_COUNT', { text: `a packet with ${connections} connections came with ${fds.length} descriptors`, field: 'fds' });
    }
    let next = 0;
    this.#rest = messages.map((message) => ({ message, fds: message.op === 'connection' ? fds.slice(next, ++next) : [] }));
    return this.#rest.shift();
  }

  /** Descriptors were lost for want of room, and the first ones may have arrived. No message has more than one, and those that have none are no worse for it. */
  #takeRest(messages: readonly ToClientMessage[], fds: readonly OwnedFd[], lost: TlsPoolError): Packet | undefined {
    let next = 0;
    this.#rest = messages.map((message) => {
      if (messages.length > 1 && message.op !== 'connection') return { message, fds: [] };
      const fd = fds[next++];
      return fd === undefined ? { message, fds: [], lost } : { message, fds: [fd] };
    });
    return this.#rest.shift();
  }
}

function lostFor(errno: number): TlsPoolError {
  const text = 'a connection was lost because this process or host has no descriptor left for it; raise the limit (RLIMIT_NOFILE), or take fewer connections (maxConnections)';
  return new TlsPoolError('SYSTEM', { text, errno, syscall: 'recvmsg' });
}
