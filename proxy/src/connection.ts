/** One connection of a client, from accept() to the hand-over; docs/proxy.md tells its steps. */
import { Conversation, farewellFor, preambles } from 'libtlspool/preamble';
import type { Face, ServerOutcome, ServerRole } from 'libtlspool/preamble';
import type { Handshaken, Hello, PlainSide, Verdict } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import { protectFd } from 'libtlspool/session';
import type { ProtectedSession, SessionEnd } from 'libtlspool/session';
import type { RouteConfig } from './config/types.js';
import { openBackend } from './handoff/connect.js';
import type { ConnectConfig, HeaderMaker, Learnt } from './handoff/connect.js';
import { handOver, handOverPlain, nameOfBackend, offerTo } from './handoff/index.js';
import type { FdConfig, HandoffOffer } from './handoff/index.js';
import type { HandedOver, SecuredConnection } from './handoff/types.js';
import { lastWords, sayLast } from './lastwords.js';
import { clientHeader, ownHeader, readOrigin } from './origin.js';
import type { Origin } from './origin.js';
import { ConnectionRecord } from './record.js';
import { Router } from './routing.js';
import { enterFrom, poolOf, unless } from './service.js';
import type { ServiceContext } from './service.js';

type TlsOutcome = Extract<ServerOutcome, { next: 'tls' }>;
type PlainOutcome = Extract<ServerOutcome, { next: 'plain' }>;

/** Anything that goes wrong in here has a code, for the log and for what the client is told. */
function typed(error: unknown): TlsPoolError {
  return error instanceof TlsPoolError ? error : new TlsPoolError('INTERNAL', { text: error instanceof Error ? error.message : 'something that is no error was thrown', cause: error });
}

/** What becomes of a session. The pool's last word may come at any time, also before anybody waits for it. */
class SessionEnding {
  /** Never rejects. `detached`: nothing more will be heard of it. */
  readonly end: Promise<SessionEnd | 'detached'>;
  /** The first word counts. */
  readonly note: (end: SessionEnd | 'detached') => void;

  constructor() {
    let note: SessionEnding['note'] = () => undefined;
    this.end = new Promise((resolve) => { note = resolve; });
    this.note = note;
  }
}

/** A client's connection. The descriptor is closed on every path. */
export class ClientConnection {
  readonly record: ConnectionRecord;
  readonly #context: ServiceContext;
  readonly #listener: string;
  readonly #role: ServerRole;
  #fd: OwnedFd | undefined;
  #origin: Origin;
  #face: Face;
  #route: RouteConfig | undefined;
  #offer: HandoffOffer | undefined;
  #giveBack = (): void => undefined;
  #isRefused = false;

  constructor(context: ServiceContext, listener: string, fd: OwnedFd) {
    this.#context = context;
    this.#listener = listener;
    this.#fd = fd;
    const { service } = context;
    this.#role = preambles[service.protocol].server as ServerRole;
    const { remote, local } = sockets.socketInfo(fd);
    this.#origin = { remote, local };
    this.#face = { hostname: service.hostname, ...(service.capabilities !== undefined && { capabilities: service.capabilities }) };
    this.record = new ConnectionRecord(service.name, listener, remote);
  }

  /** Resolves when the proxy has nothing more to do with it. Never rejects. */
  async run(): Promise<void> {
    try {
      const outcome = await this.#talk();
      if (outcome.next === 'plain') await this.#plain(outcome);
      else if (outcome.next === 'tls') await this.#secure(outcome);
      else this.#left(outcome);
    } catch (error) {
      this.#note(error);
    } finally {
      this.#closeClient();
      this.#offer?.close();
      this.#giveBack();
    }
  }

  /** Instead of run(), where there is no room for it. */
  turnAway(error: unknown): void {
    this.#note(error);
    const why = farewellFor(typed(error));
    if (why !== undefined) sayLast(this.#fd as BorrowedFd, this.#role.farewell(why, this.#face));
    this.#closeClient();
  }

  /** The dialogue is over, and the client was told why. */
  #left(outcome: ServerOutcome): void {
    if (outcome.next === 'end' && outcome.refused !== undefined) this.#note(new TlsPoolError('PREAMBLE', { text: outcome.refused }));
    else this.record.ending = 'left';
  }

  #note(error: unknown): void {
    const { code, message } = typed(error);
    // What was noticed first is the cause.
    this.record.error ??= { code, text: message };
    this.record.ending = code === 'PEER_CLOSED' ? 'left' : 'refused';
  }

  #closeClient(): void {
    if (this.#fd !== undefined) sockets.close(this.#fd);
    this.#fd = undefined;
  }

  /** Everything in plain text. Rejects when that was all, and the client was told. */
  async #talk(): Promise<ServerOutcome> {
    const { service } = this.#context;
    const talk = this.#conversation();
    try {
      this.#origin = await readOrigin(talk, this.#origin, this.#context.balancers);
      this.record.remote = this.#origin.remote;
      this.#giveBack = enterFrom(this.#context, this.#origin.remote);
      this.#face = { ...await this.#learn(), ...this.#face };
      const outcome = await talk.run(this.#role.serve({ face: this.#face, tls: service.tls }));
      if (outcome.next === 'tls') await this.#goAhead(talk, outcome);
      return outcome;
    } catch (error) {
      const why = this.#isRefused ? undefined : farewellFor(typed(error));
      if (why !== undefined) talk.tell(this.#role.farewell(why, this.#face));
      throw error;
    } finally {
      talk.close();
    }
  }

  /** Watching the connection takes a descriptor, too: without one there is just the farewell. */
  #conversation(): Conversation {
    const { service: { preambleMs }, signal } = this.#context;
    const fd = this.#fd as BorrowedFd;
    try {
      return new Conversation(fd, { deadlineMs: preambleMs, signal });
    } catch (error) {
      sayLast(fd, this.#role.farewell('unavailable', this.#face));
      throw error;
    }
  }

  /** What a plain-text backend says of itself, where it says anything and the configuration does not. */
  async #learn(): Promise<Learnt> {
    const { service, faces, signal } = this.#context;
    const config = this.#router().fallback?.backend;
    const { learn } = this.#role;
    if (config?.handoff !== 'connect' || learn === undefined || service.capabilities !== undefined) return {};
    const { protocol, hostname, backendMs: deadlineMs } = service;
    return faces.of({ protocol, config, learn, hostname, header: ownHeader }, { deadlineMs, signal });
  }

  async #goAhead(talk: Conversation, outcome: TlsOutcome): Promise<void> {
    try {
      await poolOf(this.#context);
    } catch (error) {
      // That is the answer to the request for TLS, and all that is said.
      this.#isRefused = true;
      talk.tell(outcome.refusal);
      throw error;
    }
    if (outcome.direct !== true) talk.refuseEarly();
    await talk.write(outcome.goAhead);
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
    });
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
      return await this.#offer.ask({ ...hello, ...(this.#origin.remote !== undefined && { remote: this.#origin.remote }) });
    } catch (error) {
      this.#note(error);
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
      return await this.#connectTo(backend, (version) => clientHeader(version, this.#origin, info));
    } catch (error) {
      this.#note(error);
      return lastWords(this.#role.farewell('unavailable', this.#face));
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
      await this.#follow(ending.end);
      return;
    }
    this.record.backend = nameOfBackend(this.#route.backend);
    let handed: HandedOver | undefined;
    try {
      const offer = this.#offer;
      this.#offer = undefined;
      handed = await handOver(this.#route.backend, this.#secured(session, plainfd, ending, outcome), this.#context, offer);
      this.record.backend = handed.to;
    } catch (error) {
      this.#note(error);
      sayLast(plainfd, this.#role.farewell('unavailable', this.#face));
      // A backend that hangs may have a copy, and would keep the connection open.
      sockets.shutdown(plainfd, 2);
    } finally {
      sockets.close(plainfd);
    }
    if (handed === undefined) return;
    if (!handed.followed) this.record.ending = 'handed-over';
    else await this.#follow(Promise.all([ending.end, handed.done]).then(([end]) => end));
  }

  /** The session as a hand-off has it. */
  #secured(session: ProtectedSession, plainfd: BorrowedFd, ending: SessionEnding, outcome: TlsOutcome): SecuredConnection {
    const { remote, local } = this.#origin;
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
  async #follow(ended: SessionEnding['end']): Promise<void> {
    const end = await unless(ended, this.#context.signal);
    const { ending } = this.record;
    if (end === 'detached') this.record.ending = 'handed-over';
    else this.record.closed(end instanceof TlsPoolError ? undefined : end);
    // The end of a session that only carried our last words is no news.
    if (this.record.error !== undefined) this.record.ending = ending;
  }

  async #plain(outcome: PlainOutcome): Promise<void> {
    const route = this.#router().fallback;
    const fd = this.#fd as OwnedFd;
    this.#fd = undefined;
    const { remote, local } = this.#origin;
    try {
      if (route === undefined) throw new TlsPoolError('NAME_REFUSED', { text: 'no route serves this listener' });
      this.record.backend = nameOfBackend(route.backend);
      const connect = (backend: ConnectConfig): Promise<OwnedFd> => this.#connectTo(backend, (version) => clientHeader(version, this.#origin), outcome.introduce);
      const relayed = await handOverPlain(route.backend, { plainfd: fd, protocol: this.#context.service.protocol, ahead: outcome.ahead, remote, local, ...(outcome.state !== undefined && { state: outcome.state }) }, this.#context, connect);
      this.record.relayed(relayed);
    } catch (error) {
      sayLast(fd, this.#role.farewell('unavailable', this.#face));
      throw error;
    } finally {
      sockets.close(fd);
    }
  }
}
