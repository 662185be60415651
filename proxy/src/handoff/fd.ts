/**
 * Hand-over by descriptor: over the backend's own UNIX socket the proxy plays the pool, for one connection. docs/protocol.md, "Hand-off sockets".
 *
 *   connect, [ask for the server name], hand over, wait for `taken`, [relay]
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Hello, Verdict } from 'libtlspool';
import { isErrno, sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd } from 'libtlspool/native';
import { TlsPoolError, highestMaxMessageOctets } from 'libtlspool/protocol';
import type { Message, SessionInfo, ToPoolMessage } from 'libtlspool/protocol';
import type { BackendConfig } from '../config/types.js';
import { Packets } from './packets.js';
import { isAbout, Relay, withEndpoints } from './relay.js';
import type { HandedOver, PlainConnection, SecuredConnection } from './types.js';

/** A backend that takes descriptors. */
export type FdConfig = Extract<BackendConfig, { handoff: 'fd' }>;

/** Bounds of what is done with a backend. */
export interface FdLimits {
  /** For each step that waits for the backend, in milliseconds. */
  readonly deadlineMs: number;
  /** Ends a step that waits, with ABORTED; and a relay, whose session goes on. */
  readonly signal?: AbortSignal;
}

/** The queue of the backend's socket is full; trying again soon is the cure. */
const busyRetryMs = 10;
/** The one callback on a connection. */
const askId = 1;
/** Octets that fit beside everything else in a packet. */
const mostAheadOctets = 32_768;

/**
 * One connection to a backend, for one connection of a client: asked about the server name or not, then given the connection or not.
 *
 * All that goes wrong with the backend is BACKEND_FAILED, with the path in the text, or ABORTED; nothing of the client's connection has been used then.
 */
export class HandoffOffer {
  readonly #config: FdConfig;
  readonly #limits: FdLimits;
  readonly #packets: Packets;
  #isGiven = false;
  readonly #abort = (): void => this.#packets.fail(new TlsPoolError('ABORTED', { cause: this.#limits.signal?.reason }));

  private constructor(fd: OwnedFd, config: FdConfig, limits: FdLimits) {
    this.#config = config;
    this.#limits = limits;
    this.#packets = new Packets(fd);
    limits.signal?.addEventListener('abort', this.#abort, { once: true });
    if (limits.signal?.aborted === true) this.#abort();
  }

  /** Connects. Whichever process of the backend accepts first has it. Rejects with BACKEND_FAILED or ABORTED. */
  static async connect(config: FdConfig, limits: FdLimits): Promise<HandoffOffer> {
    const { deadlineMs, signal } = limits;
    for (const until = performance.now() + deadlineMs; ;) {
      if (signal?.aborted === true) throw new TlsPoolError('ABORTED', { cause: signal.reason });
      try {
        return new HandoffOffer(sockets.unixConnect(config.path, 'seqpacket'), config, limits);
      } catch (error) {
        if (!isErrno(error, 'EAGAIN')) throw failed(config, 'cannot be connected', error);
        if (performance.now() > until) throw failed(config, `accepts no further connection within ${deadlineMs} ms: its processes are too few, or hang`, error);
      }
      await delay(busyRetryMs);
    }
  }

  /** May this server name be served, and how? Throws as above; the caller refuses the name then. */
  ask({ servername, alpn, remote }: Hello): Promise<Verdict> {
    return this.#step('answer for the server name', async () => {
      const body = { alpn, ...(servername !== undefined && { servername }), ...(remote !== undefined && { remote }) };
      await this.#packets.send({ type: 'callback', op: 'servername', id: askId, body });
      for (;;) {
        const message = await this.#packets.next();
        if (message.type === 'request') await this.#packets.refuse(message, notYet);
        else return verdictOf(message);
      }
    });
  }

  /**
   * Hands over a protected connection; without relay, control of it was given up at the pool before. Resolves once the backend has said that it has it. Rejects
   * as above, and with the pool's error when the session cannot be detached, which is not the backend's fault.
   */
  async give(connection: SecuredConnection): Promise<HandedOver> {
    if (!this.#config.relay) await connection.detach();
    const { ctlkey, protocol, state } = connection;
    const preamble = { protocol, tls: true, ...(state !== undefined && { state }) };
    const event = (info: SessionInfo): Message => ({ type: 'event', op: 'connection', body: { listener: 0, ctlkey, info: withEndpoints(info, connection), preamble } });
    await this.#hand(fitting(event, connection.info), connection.plainfd, (key) => isAbout(connection, key));
    if (!this.#config.relay) return this.#left();
    this.#isGiven = true;
    return { to: this.#config.path, followed: true, done: this.#relay(new Relay(this.#packets, connection)) };
  }

  /** Hands over a connection without TLS. Rejects as above, and with PREAMBLE when the client has said more than a packet holds. */
  async givePlain({ plainfd, protocol, state, ahead, remote, local }: PlainConnection): Promise<HandedOver> {
    if (ahead.length > mostAheadOctets) throw new TlsPoolError('PREAMBLE', { text: `the client's first command has ${ahead.length} octets; at most ${mostAheadOctets} can be handed over` });
    const body = { preamble: { protocol, tls: false, ...(state !== undefined && { state }) }, ...(ahead.length > 0 && { ahead }), ...(remote !== undefined && { remote }), ...(local !== undefined && { local }) };
    await this.#hand({ type: 'event', op: 'plainConnection', body }, plainfd, (key) => key === undefined);
    return this.#left();
  }

  async #relay(relay: Relay): Promise<void> {
    const { signal } = this.#limits;
    const leave = (): void => relay.leave();
    signal?.removeEventListener('abort', this.#abort);
    signal?.addEventListener('abort', leave, { once: true });
    if (signal?.aborted === true) leave();
    await relay.run();
    signal?.removeEventListener('abort', leave);
    this.#hangUp();
  }

  /** Hangs up, unless the connection has been given. May be called twice. */
  close(): void {
    if (!this.#isGiven) this.#hangUp();
  }

  #hangUp(): void {
    this.#limits.signal?.removeEventListener('abort', this.#abort);
    this.#packets.close();
  }

  #left(): HandedOver {
    this.#isGiven = true;
    this.#hangUp();
    return { to: this.#config.path, followed: false, done: Promise.resolve() };
  }

  /** From sending to the backend's word that it has it, and our word that it may keep it. */
  #hand(event: Message, plainfd: BorrowedFd, isIt: (key: Uint8Array | undefined) => boolean): Promise<void> {
    return this.#step('take the connection', async () => {
      await this.#packets.send(event, [plainfd]);
      for (;;) {
        const message = await this.#packets.next();
        if (message.type !== 'request') throw new TlsPoolError('UNEXPECTED_MESSAGE', { text: `it sent ${message.type} ${message.op}, for which nobody asked` });
        if (message.op !== 'taken') await this.#packets.refuse(message, notYet);
        else if (!isIt(message.body.ctlkey)) await this.#packets.refuse(message, new TlsPoolError('CTLKEY_UNKNOWN'));
        else return this.#packets.send({ type: 'reply', op: 'taken', id: message.id, body: event.op === 'connection' && this.#config.relay ? { relay: true } : {} });
      }
    });
  }

  /** Ends the connection to the backend when the step fails: what comes from it later is nothing to us. */
  async #step<T>(what: string, run: () => Promise<T>): Promise<T> {
    const { deadlineMs } = this.#limits;
    const timer = setTimeout(() => this.#packets.fail(new TlsPoolError('TIMEOUT', { text: `it did not ${what} within ${deadlineMs} ms` })), deadlineMs);
    try {
      return await run();
    } catch (error) {
      this.#hangUp();
      throw error instanceof TlsPoolError && error.code === 'ABORTED' ? error : failed(this.#config, `did not ${what}`, error);
    } finally {
      clearTimeout(timer);
    }
  }
}

const notYet = new TlsPoolError('BAD_STATE', { text: 'on a hand-off socket nothing can be asked before the connection was taken' });

function failed({ path }: FdConfig, what: string, cause: unknown): TlsPoolError {
  return new TlsPoolError('BACKEND_FAILED', { text: `backend ${path} ${what}: ${cause instanceof Error ? cause.message : 'unknown failure'}`, cause });
}

/** Fails closed: anything but a clear answer to our question is a refusal, or the end. */
function verdictOf(message: Exclude<ToPoolMessage, { type: 'request' }>): Verdict {
  if (message.op !== 'servername' || message.id !== askId) throw new TlsPoolError('UNEXPECTED_MESSAGE', { text: `it sent ${message.type} ${message.op}, for which nobody asked` });
  if (message.type === 'error') return false;
  const { refuse, localid, alpn } = message.body as { refuse?: boolean; localid?: string; alpn?: readonly string[] };
  if (refuse === true) return false;
  return localid === undefined && alpn === undefined ? true : { ...(localid !== undefined && { localid }), ...(alpn !== undefined && { alpn }) };
}

/** A chain that filled the pool's message may not fit beside what the proxy adds: then the issuers are left out, and our own certificate, as the pool does it. */
function fitting(event: (info: SessionInfo) => Message, info: SessionInfo): Message {
  const { localCertificate, peerCertificates, ...rest } = info;
  const octets = [...peerCertificates, ...(localCertificate === undefined ? [] : [localCertificate])].reduce((sum, { length }) => sum + length, 0);
  // Everything else of the message, at its longest, has less than 16 KiB.
  return event(octets <= highestMaxMessageOctets - 16_384 ? info : { ...rest, peerCertificates: peerCertificates.slice(0, 1) });
}
