/**
 * Callbacks: a session waits in the engine while its client says whether, and as whom, a name may be served (`servername`), or brings the plain-text
 * side (`plainside`). Fails closed: a wrong answer, an error instead of one, or the death of the client refuse. The deadline is the engine's: it
 * fails the session in time, and `forget` follows; a later answer finds nothing to decide.
 */
import { TlsPoolError, fitText } from 'libtlspool/protocol';
import type { AnswerBody, CallbackBody, CallbackOp, ToPoolMessage } from 'libtlspool/protocol';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import type { Engine, EngineEvent, Selector } from '../engine.js';
import type { Connection } from './connection.js';
import { carriedEndpoint } from '../session/index.js';
import type { FdBag } from './fdbag.js';
import { checkAlpn } from './permission.js';

type HelloEvent = Extract<EngineEvent, { kind: 'hello' }>;
type Answer = Extract<ToPoolMessage, { type: 'answer' }>;

/** What the client is asked about: a `starttls` request of its own, or a listener. */
export type Subject = { readonly request: number } | { readonly listener: number };

interface Ask {
  readonly op: CallbackOp;
  readonly connection: Connection;
  readonly id: number;
  readonly session: number;
  readonly settings: AskSettings;
}

/** What `hello` events of the engine are answered from. */
export interface AskSettings {
  readonly localid: string | undefined;
  /** The pool has a plain-text side for this session already, or will ask for it: a backend, a descriptor of the request, `askPlainside`. */
  readonly hasPlainSide: boolean;
  /** Takes over from here with what the client has answered, and owns the descriptor; absent: an identity is chosen at once. */
  readonly decide?: (answer: Pick<AnswerBody<'servername'>, 'localid' | 'alpn'>, plainfd: OwnedFd | -1) => void;
}

const maxId = 0xffff_ffff;
/** The callback's lists and names, as in the message table. */
const maxAlpn = 64;
const maxNameOctets = 255;
/** `plainside` decides on nothing but the plain-text side. */
const noSettings: AskSettings = { localid: undefined, hasPlainSide: false };

export class AskTable {
  readonly #bySession = new Map<number, Ask>();
  readonly #byClient = new Map<Connection, Map<number, Ask>>();
  /** Who was asked about a handshake that is still under way: it gets the session. */
  readonly #asked = new Map<number, Connection>();
  #lastId = 0;

  /** `refusing` is told why a session is refused, where the engine will not know. */
  constructor(
    private readonly engine: () => Engine, private readonly selectorOf: (connection: Connection, localid: string | undefined) => Selector,
    private readonly refusing: (session: number, error: TlsPoolError) => void,
  ) {}

  /** Puts the engine's question about a name to the client. */
  askServername(event: HelloEvent, connection: Connection, subject: Subject, settings: AskSettings): void {
    this.#asked.set(event.session, connection);
    this.#ask('servername', connection, event.session, settings, {
      ...subject,
      ...(event.servername !== undefined && { servername: fitText(event.servername, maxNameOctets) }),
      alpn: event.alpn.slice(0, maxAlpn).map((name) => fitText(name, maxNameOctets)),
      ...(event.remote !== undefined && { remote: carriedEndpoint(event.remote) }),
    });
  }

  /** Asks the owner of a session for its plain-text side. */
  askPlainside(session: number, connection: Connection, body: CallbackBody<'plainside'>): void {
    this.#ask('plainside', connection, session, noSettings, body);
  }

  /** The client's answer. An answer to nothing is ignored, because its session may have timed out while it was under way. */
  answer(connection: Connection, message: Answer, fds: FdBag): TlsPoolError | undefined {
    const ask = this.#byClient.get(connection)?.get(message.id);
    if (ask === undefined) return undefined;
    try {
      if (message.op !== ask.op) throw new TlsPoolError('UNEXPECTED_MESSAGE', { text: `an answer to ${message.op} came for a callback ${ask.op}` });
      if (message.op === 'servername') this.#decide(ask, message.body, fds);
      else this.#supply(ask, message.body, fds);
      return undefined;
    } catch (thrown) {
      const error = TlsPoolError.from(thrown);
      if (error.code === 'FD_KIND' && ask.op === 'plainside') this.refusing(ask.session, error);
      this.#refuse(ask);
      return error;
    }
  }

  /** An `error` instead of an answer. */
  refused(connection: Connection, id: number): void {
    const ask = this.#byClient.get(connection)?.get(id);
    if (ask !== undefined) this.#refuse(ask);
  }

  /** The client that was asked about this session's name; undefined when nobody was. */
  askedOf(session: number): Connection | undefined {
    return this.#asked.get(session);
  }

  /** What was asked about the session is of no more interest: its handshake is over, or it has its plain-text side. */
  forget(session: number): void {
    this.#asked.delete(session);
    const ask = this.#bySession.get(session);
    if (ask !== undefined) this.#settle(ask);
  }

  gone(connection: Connection): void {
    for (const ask of [...this.#byClient.get(connection)?.values() ?? []]) this.#refuse(ask);
  }

  #ask<Op extends CallbackOp>(op: Op, connection: Connection, session: number, settings: AskSettings, body: CallbackBody<Op>): void {
    const ask: Ask = { op, connection, id: this.newId(), session, settings };
    this.#bySession.set(session, ask);
    let asks = this.#byClient.get(connection);
    if (asks === undefined) this.#byClient.set(connection, asks = new Map<number, Ask>());
    asks.set(ask.id, ask);
    try {
      connection.callback(op, ask.id, body);
    } catch {
      // What the peer sent does not fit into the message: nobody can be asked.
      this.#refuse(ask);
    }
  }

  #decide(ask: Ask, { refuse, localid, alpn }: AnswerBody<'servername'>, fds: FdBag): void {
    if (refuse === true) throw new TlsPoolError('NAME_REFUSED');
    if (alpn !== undefined) checkAlpn(alpn);
    const { settings } = ask;
    const selector = settings.decide === undefined ? this.selectorOf(ask.connection, localid ?? settings.localid) : undefined;
    const plainfd = fds.at(0);
    if (plainfd !== -1) checkPlainfd(plainfd, settings);
    this.#settle(ask);
    if (selector === undefined) {
      fds.release(0);
      settings.decide?.({ ...(localid !== undefined && { localid }), ...(alpn !== undefined && { alpn }) }, plainfd);
      return;
    }
    this.engine().decide(ask.session, { selector, ...(alpn !== undefined && { alpn }) }, plainfd);
    fds.release(0);
  }

  /**
   * Whether the socket is of the right kind is the engine's to say, so that the client hears of it with the end of the session. What is no socket must not come that far:
   * its calls and its end may take as long as the client likes (a file of FUSE).
   */
  #supply(ask: Ask, { refuse }: AnswerBody<'plainside'>, fds: FdBag): void {
    if (refuse === true) throw new TlsPoolError('PLAINSIDE_REFUSED');
    const plainfd = fds.at(0);
    if (plainfd !== -1) sockets.socketInfo(plainfd);
    this.#settle(ask);
    this.engine().supply(ask.session, plainfd);
    fds.release(0);
  }

  #settle(ask: Ask): void {
    this.#bySession.delete(ask.session);
    const asks = this.#byClient.get(ask.connection);
    asks?.delete(ask.id);
    if (asks?.size === 0) this.#byClient.delete(ask.connection);
  }

  #refuse(ask: Ask): void {
    this.#settle(ask);
    if (ask.op === 'servername') this.engine().decide(ask.session, { refuse: true }, -1);
    else this.engine().supply(ask.session, 'refuse');
  }

  /** The number of a callback; others that ask number theirs by it too, so that an answer fits one question only. */
  newId(): number {
    this.#lastId = this.#lastId % maxId + 1;
    return this.#lastId;
  }
}

function checkPlainfd(fd: OwnedFd, { hasPlainSide }: AskSettings): void {
  if (hasPlainSide) throw new TlsPoolError('BAD_ARGUMENT', { text: 'the answer brings a plainfd, but the session has a plain-text side already, or asks for it by plainside' });
  if (!sockets.socketInfo(fd).connected) throw new TlsPoolError('FD_KIND', { text: 'the plainfd of the answer is no connected socket' });
}
