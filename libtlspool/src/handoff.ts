/** A socket on which proxies hand over connections: the backend's end of a hand-off socket. */
import { Acceptor } from './acceptor.js';
import type { AskedOptions } from './asked.js';
import { Handover } from './handover.js';
import type { HandedOver, HandoverOptions } from './handover.js';
import { pollReadable, sockets } from './native.js';
import type { OwnedFd, Poll } from './native.js';
import type { PlainSocket } from './plain.js';
import type { Pool } from './pool.js';
import { TlsPoolError } from './protocol/index.js';
import { refuseTlsOptions } from './refuse.js';
import { checkSource, openPacketSource } from './source.js';
import type { Source } from './source.js';
import type { PoolSocket } from './socket.js';

export type { HandedOver } from './handover.js';

/** Hand-overs under way at most: while a handshake waits for the answer to a server name, its proxy keeps one connection to us. */
const mostUnderWay = 1024;
/** How long to wait when the process has no descriptor left, before accepting again. */
const exhaustedMs = 100;
/** The longest that a timer of Node takes. */
const longestMs = 2 ** 31 - 1;

/** How to take connections from a proxy. */
export interface HandoffOptions extends Pick<AskedOptions, 'onServername'> {
  /** Path of the UNIX SOCK_SEQPACKET socket to make; one that a killed process left behind is replaced. Removed when the listener is closed. */
  readonly path?: string;
  /** Instead of a path: a listening socket of that kind, inherited or from systemd. It belongs to the library from the call on. Processes that have the same one share the work. */
  readonly fd?: number;
  /** Permission bits of the path. Default 0o600, and 0o666 with `allow`, which is what decides then. */
  readonly mode?: number;
  /** Length of the kernel's accept queue. Default 511. */
  readonly backlog?: number;
  /** Users whose processes may hand over connections, by number. Default: our own and root. Others are refused, and reported by the event `refused`. */
  readonly allow?: readonly number[];
  /**
   * Who is asked about a session, and tells how it ended, when the proxy does not relay. Absent: the pool of this process, where it can be reached and lets us; otherwise
   * nobody, and the session is served without (see PoolSocket). true, or a Pool: the connection is refused when that pool does not give us control. false: nobody.
   */
  readonly reattach?: boolean | Pool;
  /** Take also connections without TLS, from services where it is optional; they come as PlainSocket. Default false: they are refused. */
  readonly plain?: boolean;
  /** Connections that wait for accept() before further ones are left to other processes. 1 or more, default 16. */
  readonly highWaterMark?: number;
  /** How long a proxy may be connected without handing anything over, which it is while a handshake goes on, in milliseconds. Default 120,000. */
  readonly offerMs?: number;
  /** As in net.createServer. Default false. */
  readonly allowHalfOpen?: boolean;
  /** Accepted sockets do not read before resume(): for those who hand the socket on. */
  readonly pauseOnConnect?: boolean;
}

/**
 * Accepts the connections that proxies hand over, as Listener accepts those that the pool has accepted itself.
 *
 * What the proxy says is believed, so only processes of users in `allow` are heard. A connection is ours from the moment at which the proxy has answered; until
 * then it can tell its client that the service is not available. One that cannot be taken is reported by the event `refused`.
 */
export class HandoffListener<S extends HandedOver = PoolSocket> extends Acceptor<S> {
  readonly #source: Source;
  readonly #path: string | undefined;
  readonly #poll: Poll;
  readonly #options: HandoverOptions;
  readonly #allow: readonly number[];
  readonly #highWaterMark: number;
  readonly #underWay = new Set<Handover>();
  /** Of those, the ones that will soon wait for accept(). */
  #expected = 0;
  /** Keeps the process alive, also while there is no room and so nothing to wait for. */
  readonly #life: NodeJS.Timeout;
  #timer: NodeJS.Timeout | undefined;

  /** @internal Use listenForHandoff(). */
  constructor(options: HandoffOptions) {
    super();
    this.#highWaterMark = options.highWaterMark ?? 16;
    this.#allow = options.allow ?? [process.geteuid?.() ?? 0, 0];
    this.#options = { ...options, offerMs: options.offerMs ?? 120_000 };
    this.#source = openPacketSource({ ...options, mode: options.mode ?? (options.allow === undefined ? 0o600 : 0o666) });
    this.#path = options.path ?? pathOf(this.#source.fd);
    try {
      this.#poll = sockets.poll(this.#source.fd, () => this.#onReadable());
    } catch (error) {
      this.#source.close();
      throw error;
    }
    this.#poll.unref();
    this.#poll.start(pollReadable);
    this.#life = setInterval(() => undefined, longestMs);
  }

  /** The path of the socket; null once closed, and for a socket without one. */
  address(): string | null { return this.ended === undefined ? this.#path ?? null : null; }

  /** The listener keeps the process alive (the default). */
  ref(): this {
    if (this.ended === undefined) this.#life.ref();
    return this;
  }
  /** The listener alone does not keep the process alive. */
  unref(): this {
    if (this.ended === undefined) this.#life.unref();
    return this;
  }

  /** Stops accepting; hand-overs that are under way are given back, connections that nobody accepted are closed, the others go on. May be called twice. */
  close(): Promise<void> {
    this.finish(new TlsPoolError('LISTENER_CLOSED'), undefined, () => {
      clearTimeout(this.#timer);
      clearInterval(this.#life);
      this.#poll.close();
      this.#source.close();
      for (const handover of this.#underWay) handover.cancel();
    });
    return Promise.resolve();
  }

  protected override onTaken(): void { this.#watch(); }

  get #hasRoom(): boolean { return this.waiting + this.#expected < this.#highWaterMark && this.#underWay.size < mostUnderWay; }

  #watch(): void {
    if (this.ended !== undefined || this.#timer !== undefined) return;
    if (this.#hasRoom) this.#poll.start(pollReadable);
    else this.#poll.stop();
  }

  #onReadable(): void {
    try {
      while (this.ended === undefined && this.#hasRoom) {
        const fd = sockets.accept(this.#source.fd);
        // Another process was quicker.
        if (fd === null) return;
        this.#accepted(fd);
      }
    } catch (error) {
      this.#pauseAfter(error);
    }
    this.#watch();
  }

  /** Without a descriptor to spare the connection stays in the queue, and the poll would fire again at once. */
  #pauseAfter(error: unknown): void {
    this.#poll.stop();
    this.#timer = setTimeout(() => { this.#timer = undefined; this.#watch(); }, exhaustedMs);
    this.#timer.unref();
    this.emit('refused', TlsPoolError.from(error));
  }

  #accepted(fd: OwnedFd): void {
    const refusal = this.#refusal(fd);
    if (refusal !== undefined) {
      sockets.close(fd);
      this.emit('refused', refusal);
      return;
    }
    this.#underWay.add(new Handover(fd, this.#options, {
      expect: (count) => { this.#expected += count; this.#watch(); },
      taken: (offer) => this.offer(offer as { take(): S; drop(): void }),
      refused: (error) => this.emit('refused', error),
      left: (handover) => {
        this.#underWay.delete(handover);
        this.#watch();
      },
    }));
  }

  /** Fails closed. */
  #refusal(fd: OwnedFd): TlsPoolError | undefined {
    try {
      const { uid, pid, pidfd } = sockets.peerCredentials(fd);
      if (pidfd !== undefined) sockets.close(pidfd);
      if (this.#allow.includes(uid)) return undefined;
      return new TlsPoolError('NOT_PERMITTED', { text: `process ${pid} of user ${uid} may not hand over connections here; name its user in \`allow\` if it is a proxy` });
    } catch (error) {
      return TlsPoolError.from(error);
    }
  }
}

function pathOf(fd: OwnedFd): string | undefined {
  const address = sockets.socketInfo(fd).local?.address;
  return address === '' ? undefined : address;
}

/**
 * Listens for a proxy that hands over connections (`handoff: fd` in its configuration).
 *
 * The sockets are PoolSockets, as from listen(), with `preamble` set. What is known of a session's end, and what it can be asked, depends on who controls it: with `relay: true` in
 * the proxy, the proxy; else the pool, by the option `reattach`. Without either, exportKeyingMaterial() and channelBindings() fail with BAD_STATE; a half close by the
 * client is still known to be complete, but the end of a session, such as the one that follows our own end(), is an error (SESSION_LOST), because a stream that was cut looks the same.
 *
 * Rejects with BAD_ARGUMENT, FD_KIND, or SYSTEM (EADDRINUSE: another process answers at the path).
 */
export function listenForHandoff(options: HandoffOptions & {
  /** Connections without TLS are taken too. */
  readonly plain: true;
}): Promise<HandoffListener<PoolSocket | PlainSocket>>;
export function listenForHandoff(options: HandoffOptions): Promise<HandoffListener>;
export async function listenForHandoff(options: HandoffOptions): Promise<HandoffListener<HandedOver>> {
  try {
    checkOptions(options);
  } catch (error) {
    if (options.fd !== undefined && options.fd >= 0) sockets.close(options.fd as OwnedFd);
    throw error;
  }
  return new HandoffListener<HandedOver>(options);
}

function checkOptions(options: HandoffOptions): void {
  refuseTlsOptions(options, { requestCert: 'the proxy decides, by clientAuth of its service', ALPNProtocols: 'the proxy decides, by alpn of its service' });
  const { path, fd, highWaterMark, allow, offerMs } = options;
  const isCount = (value: number | undefined, most: number): boolean => value === undefined || (Number.isInteger(value) && value >= 1 && value <= most);
  if ((path === undefined) === (fd === undefined)) throw new TlsPoolError('BAD_ARGUMENT', { text: 'give one of path and fd to listen on for hand-overs' });
  if (fd !== undefined) checkSource({ fd });
  if (!isCount(highWaterMark, mostUnderWay)) throw new TlsPoolError('BAD_ARGUMENT', { text: `highWaterMark is ${String(highWaterMark)}; it must be from 1 to ${mostUnderWay}`, field: 'highWaterMark' });
  if (!isCount(offerMs, longestMs)) throw new TlsPoolError('BAD_ARGUMENT', { text: `offerMs is ${String(offerMs)}; it must be from 1 to ${longestMs} milliseconds`, field: 'offerMs' });
  if (allow !== undefined && !allow.every((uid) => Number.isInteger(uid) && uid >= 0)) throw new TlsPoolError('BAD_ARGUMENT', { text: 'allow must be a list of user numbers', field: 'allow' });
}
