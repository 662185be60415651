/** One request to the pool, start to finish. A command does nothing else meanwhile, so this waits in poll(2). */
import { constants } from 'node:os';
import {
  TlsPoolError, decodeMessage, defaultMaxMessageOctets, encodeMessage, isErrorCode, maxMessageFds, protocolVersion,
} from 'libtlspool/protocol';
import type { Message, ReplyBody, RequestBody, RequestOp } from 'libtlspool/protocol';
import { socketPaths } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';

export interface PoolAddress {
  /** Absent: $TLSPOOL_SOCKET, else the usual places. */
  readonly path: string | undefined;
  /** For each answer. */
  readonly timeoutMs: number;
}

const pollIn = 1;

/** A connection to the pool for a few requests, one after the other. */
export class PoolClient {
  readonly #fd: OwnedFd;
  readonly #timeoutMs: number;
  #lastId = 0;
  #maxOctets = defaultMaxMessageOctets;

  /** Connects and says hello. Throws POOL_UNREACHABLE, or what the pool answers. */
  constructor({ path: named, timeoutMs }: PoolAddress) {
    this.#timeoutMs = timeoutMs;
    this.#fd = connect(socketPaths(named));
    try {
      this.#maxOctets = this.request('hello', { versions: [protocolVersion], client: 'tlspool' }).maxMessageOctets;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Throws the pool's error, TIMEOUT, or POOL_LOST. */
  request<Op extends RequestOp>(op: Op, body: RequestBody<Op>): ReplyBody<Op> {
    this.#lastId += 1;
    const id = this.#lastId;
    this.#send(encodeMessage(requestOf(op, id, body), this.#maxOctets));
    const deadlineMs = performance.now() + this.#timeoutMs;
    for (;;) {
      const message = this.#receive(deadlineMs);
      if (message.type === 'error' && (message.id === id || message.id === 0)) throw errorOf(message.body.code, message.body.text, message.body.field);
      if (message.type === 'reply' && message.op === op && message.id === id) return message.body as unknown as ReplyBody<Op>;
    }
  }

  close(): void {
    sockets.close(this.#fd);
  }

  #send(packet: Buffer): void {
    try {
      if (sockets.send(this.#fd, packet) !== -1) return;
    } catch {
      // A pool that has closed may have said why: that is read next.
      return;
    }
    throw new TlsPoolError('TIMEOUT', { text: 'the pool does not read what is sent to it' });
  }

  #receive(deadlineMs: number): Message {
    for (;;) {
      const received = this.#tryReceive();
      if (received !== null) {
        for (const fd of received.fds) sockets.close(fd);
        if (received.eof) throw new TlsPoolError('POOL_LOST');
        return decodeMessage(received.data, 'toClient', this.#maxOctets);
      }
      const leftMs = Math.ceil(deadlineMs - performance.now());
      if (leftMs <= 0 || sockets.pollWait(this.#fd, pollIn, leftMs) === 0) {
        throw new TlsPoolError('TIMEOUT', { text: `the pool did not answer within ${this.#timeoutMs} ms` });
      }
    }
  }

  #tryReceive(): ReturnType<typeof sockets.receive> {
    try {
      return sockets.receive(this.#fd, this.#maxOctets, maxMessageFds);
    } catch (error) {
      if (error instanceof TlsPoolError && error.errno === -constants.errno.ECONNRESET) throw new TlsPoolError('POOL_LOST', { cause: error });
      throw error;
    }
  }
}

function connect(paths: readonly string[]): OwnedFd {
  const reasons: string[] = [];
  for (const one of paths) {
    try {
      return sockets.unixConnect(one, 'seqpacket');
    } catch (error) {
      // The queue of the socket is full: it is the right one.
      if (error instanceof TlsPoolError && error.errno === -constants.errno.EAGAIN) throw new TlsPoolError('POOL_UNREACHABLE', { text: `the pool at ${one} does not take new clients; it is overloaded or stopped`, cause: error });
      reasons.push(`${one}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  throw new TlsPoolError('POOL_UNREACHABLE', { text: `no pool answers (${reasons.join('; ')}); start tlspoold, or name its socket with --socket or TLSPOOL_SOCKET` });
}

/** The union of all messages is too wide for the compiler to see that these four belong together. */
function requestOf(op: RequestOp, id: number, body: object): Message {
  return { type: 'request', op, id, body } as Message;
}

function errorOf(code: string, text: string, field: string | undefined): TlsPoolError {
  const known = isErrorCode(code) ? code : 'INTERNAL';
  return new TlsPoolError(known, { text: known === code ? text : `${code}: ${text}`, ...(field !== undefined && { field }) });
}
