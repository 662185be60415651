/**
 * `servername` callbacks: a handshake waits in the engine while its client says whether, and as whom, the name may be served. Fails
 * closed: no answer, a wrong answer, or the death of the client refuse the name. The deadline is the engine's: it fails the handshake
 * in time, and `forget` follows; a later answer finds nothing to decide.
 */
import { TlsPoolError, fitText } from 'libtlspool/protocol';
import type { AnswerBody } from 'libtlspool/protocol';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import type { Engine, EngineEvent, Selector } from '../engine.js';
import type { Connection } from './connection.js';
import { carriedEndpoint } from '../session/index.js';
import type { FdBag } from './fdbag.js';

type HelloEvent = Extract<EngineEvent, { kind: 'hello' }>;

interface Ask {
  readonly connection: Connection;
  readonly id: number;
  readonly session: number;
  /** The identity that the request named. */
  readonly localid: string | undefined;
  readonly hasPlainSide: boolean;
}

/** What `hello` events of the engine are answered from. */
export interface AskSettings {
  readonly localid: string | undefined;
  /** The pool has a plain-text side for this session already: a backend, or a descriptor of the request. */
  readonly hasPlainSide: boolean;
}

const maxId = 0xffff_ffff;
/** The callback's lists and names, as in the message table. */
const maxAlpn = 64;
const maxNameOctets = 255;

export class AskTable {
  readonly #bySession = new Map<number, Ask>();
  readonly #byClient = new Map<Connection, Map<number, Ask>>();
  /** Who was asked about a handshake that is still under way: it gets the session. */
  readonly #asked = new Map<number, Connection>();
  #lastId = 0;

  constructor(private readonly engine: () => Engine, private readonly selectorOf: (connection: Connection, localid: string | undefined) => Selector) {}

  /** Puts the engine's question to the client. */
  ask(event: HelloEvent, connection: Connection, settings: AskSettings): void {
    const ask: Ask = { connection, id: this.#newId(), session: event.session, ...settings };
    this.#bySession.set(event.session, ask);
    this.#asked.set(event.session, connection);
    let asks = this.#byClient.get(connection);
    if (asks === undefined) this.#byClient.set(connection, asks = new Map<number, Ask>());
    asks.set(ask.id, ask);
    try {
      connection.callback('servername', ask.id, {
        ...(event.listener !== 0 && { listener: event.listener }),
        ...(event.servername !== undefined && { servername: fitText(event.servername, maxNameOctets) }),
        alpn: event.alpn.slice(0, maxAlpn).map((name) => fitText(name, maxNameOctets)),
        ...(event.remote !== undefined && { remote: carriedEndpoint(event.remote) }),
      });
    } catch {
      // What the peer sent does not fit into the message: nobody can be asked, so the name is not served.
      this.#refuse(ask);
    }
  }

  /** The client's answer. An answer to nothing is ignored, because the handshake may have timed out while it was under way. */
  answer(connection: Connection, id: number, body: AnswerBody<'servername'>, fds: FdBag): TlsPoolError | undefined {
    const ask = this.#byClient.get(connection)?.get(id);
    if (ask === undefined) return undefined;
    try {
      if (body.refuse === true) throw new TlsPoolError('NAME_REFUSED');
      const selector = this.selectorOf(connection, body.localid ?? ask.localid);
      const plainfd = fds.at(0);
      if (plainfd !== -1) checkPlainfd(plainfd, ask);
      this.#settle(ask);
      this.engine().decide(ask.session, { selector }, plainfd);
      fds.release(0);
      return undefined;
    } catch (error) {
      this.#refuse(ask);
      return error instanceof TlsPoolError ? error : new TlsPoolError('INTERNAL', { cause: error });
    }
  }

  /** An `error` instead of an answer. */
  refused(connection: Connection, id: number): void {
    const ask = this.#byClient.get(connection)?.get(id);
    if (ask !== undefined) this.#refuse(ask);
  }

  /** The client that was asked about this session; undefined when nobody was. */
  askedOf(session: number): Connection | undefined {
    return this.#asked.get(session);
  }

  /** The handshake is over. */
  forget(session: number): void {
    this.#asked.delete(session);
    const ask = this.#bySession.get(session);
    if (ask !== undefined) this.#settle(ask);
  }

  #settle(ask: Ask): void {
    this.#bySession.delete(ask.session);
    const asks = this.#byClient.get(ask.connection);
    asks?.delete(ask.id);
    if (asks?.size === 0) this.#byClient.delete(ask.connection);
  }

  gone(connection: Connection): void {
    for (const ask of [...this.#byClient.get(connection)?.values() ?? []]) this.#refuse(ask);
  }

  #refuse(ask: Ask): void {
    this.#settle(ask);
    this.engine().decide(ask.session, { refuse: true }, -1);
  }

  #newId(): number {
    this.#lastId = this.#lastId % maxId + 1;
    return this.#lastId;
  }
}

function checkPlainfd(fd: OwnedFd, ask: Ask): void {
  if (ask.hasPlainSide) throw new TlsPoolError('BAD_ARGUMENT', { text: 'the answer brings a plainfd, but the session has a plain-text side already' });
  if (!sockets.socketInfo(fd).connected) throw new TlsPoolError('FD_KIND', { text: 'the plainfd of the answer is no connected socket' });
}
