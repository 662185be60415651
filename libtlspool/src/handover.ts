/** One connection of a proxy to a hand-off socket, which brings one connection of a client; docs/protocol.md, "Hand-off sockets". */
import { setTimeout as delay } from 'node:timers/promises';
import { WaitingSession } from './acceptor.js';
import type { Offer } from './acceptor.js';
import { askedBy } from './asked.js';
import type { AskedOptions } from './asked.js';
import { Channel } from './channel.js';
import type { Reply } from './channel.js';
import type { SessionControl } from './control.js';
import { closeAll } from './inlet.js';
import { sockets } from './native.js';
import type { BorrowedFd, OwnedFd } from './native.js';
import { NoControl } from './nocontrol.js';
import { PlainSocket } from './plain.js';
import type { PlainStart } from './plain.js';
import { Pool, defaultPool } from './pool.js';
import { TlsPoolError, highestMaxMessageOctets } from './protocol/index.js';
import type { EventBody, SessionInfo } from './protocol/index.js';
import { PassingControl } from './passing.js';
import type { PoolSocket } from './socket.js';

/** How long a proxy may take to answer `taken`. */
const takenMs = 10_000;
/** A proxy that dies closes its descriptors one after the other: the pool may learn of it later than we, and lets go of the session only then. */
const replaceRetriesMs: readonly number[] = [20, 50, 100, 250, 500, 1000];
/** A relayed word of how a session ended takes two more processes than the end itself. */
const relayGraceMs = 5_000;

/** What a hand-off socket gives to accept(). */
export type HandedOver = PoolSocket | PlainSocket;

/** How hand-overs are taken; see HandoffOptions. */
export interface HandoverOptions extends Pick<AskedOptions, 'onServername'> {
  readonly reattach?: boolean | Pool;
  readonly plain?: boolean;
  readonly allowHalfOpen?: boolean;
  readonly pauseOnConnect?: boolean;
  readonly offerMs: number;
}

/** What a hand-over tells the listener. Each hand-over ends with one `left`. */
export interface HandoverOwner {
  /** One more, or one less, is about to bring a connection. While its proxy waits for a handshake it is not: a client that stalls must not keep others away. */
  expect(count: 1 | -1): void;
  /** It is ours. */
  taken(offer: Offer<HandedOver>): void;
  /** It could not be taken, and is the proxy's still, or closed. */
  refused(error: TlsPoolError): void;
  /** Nothing more comes of this hand-over. */
  left(handover: Handover): void;
}

/** From accept() on the hand-off socket until the client's connection is ours or is not to be; with relay, until the proxy has gone. */
export class Handover {
  readonly #channel: Channel;
  readonly #options: HandoverOptions;
  readonly #owner: HandoverOwner;
  readonly #timer: NodeJS.Timeout;
  #isExpected = false;
  #isTaking = false;
  #isOver = false;
  /** The proxy has said that it ends, and that the session does not. */
  #isReleased = false;
  /** Of a session for which the proxy relays. */
  #relayed: { readonly control: PassingControl; readonly body: EventBody<'connection'> } | undefined;

  /** The descriptor is ours. */
  constructor(fd: OwnedFd, options: HandoverOptions, owner: HandoverOwner) {
    this.#options = options;
    this.#owner = owner;
    const { servername } = askedBy(options.onServername === undefined ? {} : { onServername: options.onServername });
    this.#channel = new Channel(fd, {
      asked: {
        servername: (question, answer) => {
          this.#expect(false);
          if (servername === undefined) answer({ refuse: true });
          else servername(question, answer);
        },
      },
      connection: (_channel, body, plainfd) => this.#onConnection(body, plainfd),
      plainConnection: (body, plainfd) => this.#onPlainConnection(body, plainfd),
      listenerClosed: () => undefined,
      drain: () => { this.#isReleased = true; },
      // Before a connection came: the handshake failed, or the proxy has gone. It owes us nothing.
      lost: (_channel, error) => this.#onLost(error),
    });
    // Without hello, which says less, the highest that there is.
    this.#channel.maxMessageOctets = highestMaxMessageOctets;
    this.#timer = setTimeout(() => this.#refuse(new TlsPoolError('TIMEOUT', { text: `a proxy connected to the hand-off socket and handed nothing over within ${options.offerMs} ms` })), options.offerMs);
    this.#timer.unref();
    this.#expect(true);
  }

  #expect(isExpected: boolean): void {
    if (this.#isExpected === isExpected) return;
    this.#isExpected = isExpected;
    this.#owner.expect(isExpected ? 1 : -1);
  }

  /** Gives up what was not taken yet. May be called twice. */
  cancel(): void {
    if (this.#isOver) return;
    this.#channel.close();
    this.#end();
  }

  #onLost(error: TlsPoolError): void {
    if (this.#relayed !== undefined) void this.#replaceProxy(this.#relayed);
    if (this.#isTaking) return;
    // It did not just leave: what it sent could not be understood.
    if (error.cause === undefined) this.#end();
    else this.#refuse(error);
  }

  #end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#expect(false);
    this.#owner.left(this);
  }

  /** Hanging up tells the proxy that we do not have it. */
  #refuse(error: TlsPoolError): void {
    if (this.#isOver) return;
    this.#channel.close();
    this.#owner.refused(error);
    this.#end();
  }

  /** One hand-off connection brings one connection. */
  #begin(fds: readonly OwnedFd[]): OwnedFd | undefined {
    const [fd] = fds;
    if (fd !== undefined && !this.#isTaking && !this.#isOver) {
      this.#isTaking = true;
      clearTimeout(this.#timer);
      this.#expect(true);
      return fd;
    }
    closeAll(fds);
    if (this.#isTaking) this.#channel.close();
    else this.#refuse(new TlsPoolError('FD_COUNT', { text: 'a proxy handed over a connection without its plain-text side' }));
    return undefined;
  }

  #onConnection(body: EventBody<'connection'>, plainfd: OwnedFd | undefined): void {
    const fd = this.#begin(plainfd === undefined ? [] : [plainfd]);
    if (fd === undefined) return;
    const { allowHalfOpen = false, pauseOnConnect = false } = this.#options;
    const control = new PassingControl(this.#channel);
    const session = new WaitingSession({ channel: control, fd, ctlkey: body.ctlkey, info: body.info, preamble: body.preamble, lossGraceMs: relayGraceMs, allowHalfOpen, pauseOnConnect });
    void this.#take(session, async () => {
      checkKind(fd, ['unix']);
      const { relay } = await this.#taken({ ctlkey: body.ctlkey });
      if (relay === true) this.#stay({ control, body });
      else await this.#control(session, body);
    });
  }

  #onPlainConnection(body: EventBody<'plainConnection'>, plainfd: OwnedFd): void {
    const fd = this.#begin([plainfd]);
    if (fd === undefined) return;
    const { allowHalfOpen = false, pauseOnConnect = false, plain } = this.#options;
    void this.#take(new WaitingPlain({ body, fd, allowHalfOpen, pauseOnConnect }), async () => {
      if (plain !== true) throw new TlsPoolError('NOT_PERMITTED', { text: 'a proxy handed over a connection without TLS, which this program does not take: set `plain`, or have the service require TLS' });
      checkKind(fd, ['IPv4', 'IPv6', 'unix']);
      await this.#taken({});
      this.#channel.close();
    });
  }

  /** Does what it takes, then offers the connection; or closes our copy of it and says why. */
  async #take(offer: Offer<HandedOver>, steps: () => Promise<void>): Promise<void> {
    try {
      await steps();
    } catch (error) {
      offer.drop();
      this.#refuse(TlsPoolError.from(error));
      return;
    }
    if (this.#isOver) {
      offer.drop();
      return;
    }
    this.#owner.taken(offer);
    this.#end();
  }

  /** Until the proxy has answered, it may take the connection back: nothing is read or written before. */
  async #taken(body: { readonly ctlkey?: Uint8Array }): Promise<Reply<'taken'>['body']> {
    try {
      return (await this.#channel.request('taken', body, [], takenMs)).body;
    } catch (error) {
      if (!(error instanceof TlsPoolError)) throw error;
      throw new TlsPoolError(error.code, { text: `a proxy did not let go of a connection that it was handing over: ${error.message}`, cause: error });
    }
  }

  /** The hand-off connection is the session's from now on, until it has ended. */
  #stay(relayed: { readonly control: PassingControl; readonly body: EventBody<'connection'> }): void {
    this.#relayed = relayed;
    this.#channel.onIdle = () => this.#channel.close();
    if (this.#channel.sessions === 0) this.#channel.close();
  }

  /** The proxy has left: the pool itself is asked for control. */
  async #control(session: WaitingSession, body: EventBody<'connection'>): Promise<void> {
    this.#channel.close();
    const { reattach } = this.#options;
    if (reattach === false) {
      session.follow(new NoControl('the proxy does not relay, and reattach is false'));
      return;
    }
    try {
      await this.#reattach(body, (channel, info) => session.follow(channel, info));
    } catch (error) {
      if (reattach !== undefined || !(error instanceof TlsPoolError)) throw error;
      session.follow(new NoControl(`the proxy does not relay, and the pool gave none: ${error.message}`));
    }
  }

  /**
   * The proxy has gone, which is not the end of the session: the pool itself is asked for control. Where it gives none, nobody will tell of the end of a session that was
   * released; the end of any other, and for who wants sessions with control or none, is the loss of the proxy. Never rejects.
   */
  async #replaceProxy({ control, body }: { readonly control: PassingControl; readonly body: EventBody<'connection'> }): Promise<void> {
    const { reattach } = this.#options;
    if (this.#isReleased && (reattach === undefined || reattach === false)) control.pass(new NoControl('the proxy that relayed for it was stopped'));
    if (reattach === false) return;
    for (const waitMs of replaceRetriesMs) {
      try {
        return await this.#reattach(body, (channel) => control.pass(channel));
      } catch (error) {
        if (!(error instanceof TlsPoolError) || error.code !== 'CTLKEY_UNKNOWN') return;
      }
      await delay(waitMs, undefined, { ref: false });
    }
  }

  /** Takes control of a session that the proxy has given up. What the pool says of it counts, except for the addresses, which a balancer in front may have told the proxy. */
  async #reattach({ ctlkey, info: { remote, local } }: EventBody<'connection'>, follow: (channel: SessionControl, info: SessionInfo) => void): Promise<void> {
    const { reattach } = this.#options;
    const { link } = reattach instanceof Pool ? reattach : await defaultPool();
    const channel = await link.whenUp();
    // In the turn of the reply: `closed` may be right behind it.
    await channel.request('reattach', { ctlkey }, [], link.timeoutMs, {
      reply: ({ body: { info } }) => follow(channel, { ...info, ...(remote === undefined ? {} : { remote }), ...(local === undefined ? {} : { local }) }),
    });
  }
}

type Domain = ReturnType<typeof sockets.socketInfo>['domain'];

function checkKind(fd: BorrowedFd, domains: readonly Domain[]): void {
  const { domain, type, listening } = sockets.socketInfo(fd);
  if (type === 'stream' && !listening && domains.includes(domain)) return;
  throw new TlsPoolError('FD_KIND', { text: `a proxy handed over a ${listening ? 'listening ' : ''}${domain} ${type} socket; a stream socket (${domains.join(', ')}) was expected` });
}

/** A connection without TLS that waits for accept(). */
class WaitingPlain implements Offer<PlainSocket> {
  readonly #start: PlainStart;
  constructor(start: PlainStart) { this.#start = start; }
  drop(): void { sockets.close(this.#start.fd); }
  take(): PlainSocket {
    try {
      return new PlainSocket(this.#start);
    } catch (error) {
      this.drop();
      throw new TlsPoolError('SYSTEM', { text: 'the connection could not be opened', cause: error });
    }
  }
}

