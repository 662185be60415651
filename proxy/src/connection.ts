/** One connection of a client, from accept() to the hand-over; docs/proxy.md tells its steps. */
import { preambles } from 'libtlspool/preamble';
import type { ServerOutcome, ServerRole } from 'libtlspool/preamble';
import type { Handshaken, Hello, PlainSide, Verdict } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import { protectFd } from 'libtlspool/session';
import type { ProtectedSession, SessionEnd } from 'libtlspool/session';
import type { RouteConfig } from './config/types.js';
import { asPoolError } from './faults.js';
import { openBackend } from './handoff/connect.js';
import type { ConnectConfig, HeaderMaker } from './handoff/connect.js';
import { handOver, handOverPlain, nameOfBackend, offerTo } from './handoff/index.js';
import type { FdConfig, HandoffOffer } from './handoff/index.js';
import type { HandedOver, SecuredConnection } from './handoff/types.js';
import { lastWords, sayLast } from './lastwords.js';
import { clientHeader, originOf } from './origin.js';
import { PlainTextPhase } from './plaintext.js';
import { ConnectionRecord } from './record.js';
import { Router } from './routing.js';
import { unless } from './service.js';
import type { ServiceContext } from './service.js';

/** What the plain-text phase leads to. */
type TlsOutcome = Extract<ServerOutcome, { next: 'tls' }>;
type PlainOutcome = Extract<ServerOutcome, { next: 'plain' }>;

/** The pool takes connected sockets only, and so was this one when it was accepted. */
function leftEarly(error: unknown): never {
  if (asPoolError(error).code !== 'FD_KIND') throw error;
  throw new TlsPoolError('PEER_CLOSED', { text: 'the client left before the handshake', cause: error });
}

/** What becomes of a session. The pool's last word may come at any time, also before anybody waits for it. */
class SessionEnding {
  /** Never rejects. `detached`: nothing more will be heard of it. */
  readonly end: Promise<SessionEnd | 'detached'>;
  /** What came of it; undefined while nothing is known. */
  known: SessionEnd | 'detached' | undefined;
  readonly #resolve: (end: SessionEnd | 'detached') => void;

  constructor() {
    let resolve_: (end: SessionEnd | 'detached') => void = () => undefined;
    this.end = new Promise((resolve) => { resolve_ = resolve; });
    this.#resolve = resolve_;
  }

  /** The first word counts. */
  note(end: SessionEnd | 'detached'): void {
    this.known ??= end;
    this.#resolve(end);
  }
}

/** A client's connection. The descriptor is closed on every path. */
export class ClientConnection {
  readonly record: ConnectionRecord;
  readonly #context: ServiceContext;
  readonly #listener: string;
  readonly #role: ServerRole;
  readonly #plainText: PlainTextPhase;
  #fd: OwnedFd | undefined;
  #route: RouteConfig | undefined;
  #offer: HandoffOffer | undefined;

  /** Throws SYSTEM for a client that has left already; the descriptor is the caller's then. */
  constructor(context: ServiceContext, listener: string, fd: OwnedFd) {
    this.#context = context;
    this.#listener = listener;
    this.#fd = fd;
    const { service } = context;
    this.#role = preambles[service.protocol].server as ServerRole;
    const origin = originOf(fd);
    this.#plainText = new PlainTextPhase(context, this.#role, { fd, origin });
    this.record = new ConnectionRecord(service.name, listener, origin.remote);
  }

  /** Resolves when the proxy has nothing more to do with it. Never rejects. */
  async run(): Promise<void> {
    try {
      const outcome = await this.#plainText.talk(this.#router(), ({ remote }) => { this.record.remote = remote; });
      if (outcome.next === 'plain') await this.#plain(outcome);
      else if (outcome.next === 'tls') await this.#secure(outcome);
      else this.#left(outcome);
    } catch (error) {
      this.record.failed(error);
    } finally {
      this.#closeClient();
      this.#offer?.close();
      this.#plainText.leave();
    }
  }

  /** Instead of run(), where there is no room for it. */
  turnAway(error: unknown): void {
    this.record.failed(error);
    this.#plainText.turnAway(error);
    this.#closeClient();
  }

  /** The dialogue is over, and the client was told why. */
  #left(outcome: ServerOutcome): void {
    if (outcome.next === 'end' && outcome.refused !== undefined) this.record.failed(new TlsPoolError('PREAMBLE', { text: outcome.refused }));
    else this.record.ending = 'left';
  }

  #closeClient(): void {
    if (this.#fd !== undefined) sockets.closeDrained(this.#fd);
    this.#fd = undefined;
  }

  #router(alpn?: string): Router { return new Router(this.#context.service, this.#listener, alpn); }

  async #secure(outcome: TlsOutcome): Promise<void> {
    const { service, pool, signal } = this.#context;
    const fd = this.#fd as OwnedFd;
    this.#fd = undefined;
    const router = this.#router(outcome.alpn);
    this.#route = router.only;
    const asksName = this.#route === undefined || (this.#route.backend.handoff === 'fd' && this.#route.backend.checkServername);
    const ending = new SessionEnding();
    const session = await protectFd(pool, fd, {
      role: 'server', fork: true, signal, onClosed: (end) => ending.note(end),
      ...(service.localid !== undefined && { localid: service.localid }),
      ...(service.clientAuth !== undefined && { clientAuth: service.clientAuth }),
      ...(this.#route !== undefined && router.verdictOf(this.#route)),
      ...(asksName && { onServername: (hello: Hello) => this.#chooseRoute(router, hello) }),
      ...((router.connects || outcome.alpn !== undefined) && { onPlainside: (session_: Handshaken) => this.#plainSide(session_, outcome) }),
    }).catch(leftEarly);
    this.record.tls = session.info;
    await this.#handOver(session, ending, outcome);
  }

  async #chooseRoute(router: Router, hello: Hello): Promise<Verdict> {
    this.record.servername = hello.servername;
    const { route, verdict } = router.choose(hello);
    this.#route = route;
    if (route === undefined) {
      this.record.error ??= { code: 'NAME_REFUSED', text: verdict === false ? 'no route serves this server name' : 'no route serves this server name with an application protocol that the client offers' };
      return verdict;
    }
    if (route.backend.handoff !== 'fd' || !route.backend.checkServername) return verdict;
    const said = await this.#ask(route.backend, hello);
    // What the backend says goes before what the route says.
    return typeof said === 'boolean' ? said && verdict : { ...verdict, ...said };
  }

  /** Fails closed. */
  async #ask(backend: FdConfig, hello: Hello): Promise<Verdict> {
    try {
      this.record.backend = nameOfBackend(backend);
      this.#offer = await offerTo(backend, this.#context);
      return await this.#offer.ask({ ...hello, ...(this.#plainText.origin.remote !== undefined && { remote: this.#plainText.origin.remote }) });
    } catch (error) {
      this.record.failed(error);
      return false;
    }
  }

  /** Asked by the pool when the handshake is done: the backend's socket. */
  async #plainSide({ info }: Handshaken, outcome: TlsOutcome): Promise<PlainSide> {
    const backend = this.#route?.backend;
    if (backend === undefined) return 'refuse';
    this.record.tls = info;
    if (outcome.alpn !== undefined && info.alpn !== outcome.alpn) {
      this.record.error ??= { code: 'NAME_REFUSED', text: `this protocol needs the application protocol ${outcome.alpn}, which the client did not offer` };
      return 'refuse';
    }
    if (backend.handoff !== 'connect') return 'pair';
    this.record.backend = nameOfBackend(backend);
    try {
      return await this.#connectTo(backend, (version) => clientHeader(version, this.#plainText.origin, info));
    } catch (error) {
      this.record.failed(error);
      return lastWords(this.#plainText.unavailable()) ?? 'refuse';
    }
  }

  /** A backend in its first state, with its greeting read where the client has had one. */
  #connectTo(backend: ConnectConfig, header: HeaderMaker, introduce?: PlainOutcome['introduce']): Promise<OwnedFd> {
    const { service, signal } = this.#context;
    return openBackend(backend, header, async (conversation) => {
      if (this.#role.settle !== undefined) await conversation.run(this.#role.settle());
      if (introduce !== undefined) await conversation.run(introduce());
    }, { deadlineMs: service.backendMs, signal });
  }

  async #handOver(session: ProtectedSession, ending: SessionEnding, outcome: TlsOutcome): Promise<void> {
    const { plainfd } = session;
    if (plainfd === undefined || this.#route === undefined) {
      // The pool has the backend's socket, or the last words of a failure.
      if (plainfd !== undefined) sockets.close(plainfd);
      await this.#follow(ending);
      return;
    }
    this.record.backend = nameOfBackend(this.#route.backend);
    let handed: HandedOver | undefined;
    let isOver = false;
    try {
      const offer = this.#offer;
      this.#offer = undefined;
      handed = await handOver(this.#route.backend, this.#secured(session, plainfd, ending, outcome), this.#context, offer);
      this.record.backend = handed.to;
    } catch (error) {
      // The client was quicker than the backend, and how it ended is told as of any other.
      isOver = asPoolError(error).code === 'CTLKEY_UNKNOWN';
      if (!isOver) this.record.failed(error);
      sayLast(plainfd, this.#plainText.unavailable());
      // A backend that hangs may have a copy, and would keep the connection open.
      sockets.shutdown(plainfd, 2);
    } finally {
      sockets.close(plainfd);
    }
    if (isOver) await this.#follow(ending);
    if (handed === undefined) return;
    if (!handed.followed) this.record.ending = 'handed-over';
    else await this.#follow(ending, handed.done);
  }

  /** The session as a hand-off has it. */
  #secured(session: ProtectedSession, plainfd: BorrowedFd, ending: SessionEnding, outcome: TlsOutcome): SecuredConnection {
    const { remote, local } = this.#plainText.origin;
    const { ctlkey, info } = session;
    return {
      ctlkey, plainfd, remote, local, protocol: this.#context.service.protocol, state: outcome.state,
      // The client's own addresses, also where a load balancer stands between.
      info: { ...info, ...(remote !== undefined && { remote }), ...(local !== undefined && { local }) },
      request: (op, body) => {
        const reply = session.request(op, body);
        if (op === 'detach') reply.then(() => ending.note('detached'), () => undefined);
        return reply;
      },
      detach: async () => {
        await session.detach();
        ending.note('detached');
      },
      closed: ending.end.then((end) => (end === 'detached' || end instanceof TlsPoolError ? undefined : end)),
    };
  }

  /** To the end of the session, or of the proxy, which the session outlives. */
  async #follow(session: SessionEnding, done?: Promise<void>): Promise<void> {
    await unless(session.end, this.#context.signal);
    await done;
    const { known } = session;
    const { ending, error } = this.record;
    if (known === 'detached') this.record.ending = 'handed-over';
    else this.record.closed(known instanceof TlsPoolError ? undefined : known);
    // The end of a session that only carried our last words is no news.
    if (error !== undefined) this.record.ending = ending;
  }

  async #plain(outcome: PlainOutcome): Promise<void> {
    const route = this.#router().fallback;
    const fd = this.#fd as OwnedFd;
    this.#fd = undefined;
    const { remote, local } = this.#plainText.origin;
    try {
      if (route === undefined) throw new TlsPoolError('NAME_REFUSED', { text: 'no route serves this listener' });
      this.record.backend = nameOfBackend(route.backend);
      const connect = (backend: ConnectConfig): Promise<OwnedFd> => this.#connectTo(backend, (version) => clientHeader(version, this.#plainText.origin), outcome.introduce);
      const relayed = await handOverPlain(route.backend, { plainfd: fd, protocol: this.#context.service.protocol, ahead: outcome.ahead, remote, local, ...(outcome.state !== undefined && { state: outcome.state }) }, this.#context, connect);
      this.record.relayed(relayed);
    } catch (error) {
      sayLast(fd, this.#plainText.unavailable());
      throw error;
    } finally {
      sockets.closeDrained(fd);
    }
  }
}
