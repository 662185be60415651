/** What a proxy goes on doing for a backend that has no access to the pool: requests about the session it was given, and the word of how that ended. */
import { timingSafeEqual } from 'node:crypto';
import { TlsPoolError } from 'libtlspool/protocol';
import type { EventBody, Message, ReplyBody, RequestBody, SessionInfo, ToPoolMessage } from 'libtlspool/protocol';
import type { Packets } from './packets.js';
import { sessionOps } from './types.js';
import type { SecuredConnection, SessionOp } from './types.js';

/** How long a backend may go on asking about a session that is over. */
const lingerMs = 5_000;

/** A request of a backend. */
export type BackendRequest = Extract<ToPoolMessage, { type: 'request' }>;

/** Is it about this session? */
export function isAbout({ ctlkey }: Pick<SecuredConnection, 'ctlkey'>, key: Uint8Array | undefined): boolean {
  return key !== undefined && key.length === ctlkey.length && timingSafeEqual(key, ctlkey);
}

function isSessionOp(op: string): op is SessionOp { return (sessionOps as readonly string[]).includes(op); }

/** The client as the backend was told of it, whatever balancer is before us. */
export function withEndpoints(info: SessionInfo, { remote, local }: Pick<SecuredConnection, 'remote' | 'local'>): SessionInfo {
  return { ...info, ...(remote !== undefined && { remote }), ...(local !== undefined && { local }) };
}

/** The pool's reply. Throws CTLKEY_UNKNOWN for any other session, NOT_PERMITTED for what is not relayed, and the pool's errors. */
async function ask(connection: SecuredConnection, { op, body }: BackendRequest): Promise<ReplyBody<SessionOp>> {
  if (op === 'taken') throw new TlsPoolError('BAD_STATE', { text: 'the connection was taken before' });
  if (!isSessionOp(op)) throw new TlsPoolError('NOT_PERMITTED', { text: `a proxy relays ${sessionOps.join(', ')}; connect to the pool for everything else` });
  const about = body as RequestBody<SessionOp>;
  if (!isAbout(connection, about.ctlkey)) throw new TlsPoolError('CTLKEY_UNKNOWN');
  const reply = await connection.request(op, about);
  return 'info' in reply ? { ...reply, info: withEndpoints(reply.info, connection) } : reply;
}

/** The relay of one session. `packets` stays the caller's. */
export class Relay {
  readonly #packets: Packets;
  readonly #connection: SecuredConnection;
  #state: 'open' | 'detaching' | 'over' | 'lost' | 'left' = 'open';
  #timer: NodeJS.Timeout | undefined;
  #leaving: Promise<void> | undefined;
  /** One request is with the client; more than one would be more than a backend needs to keep in here. */
  #isAsking = false;

  constructor(packets: Packets, connection: SecuredConnection) {
    this.#packets = packets;
    this.#connection = connection;
  }

  /**
   * Relays until the session is over, the backend has given it up, or the backend hangs up, which ends the session as the loss of its owner does at the
   * pool. Fails closed: whatever else is wrong with the hand-off connection ends the session too. Never rejects.
   */
  async run(): Promise<void> {
    void this.#connection.closed.then((closed) => this.#ended(closed));
    try {
      while (this.#state !== 'left') await this.#serve();
    } catch {
      await this.#giveUp();
    }
    clearTimeout(this.#timer);
    await this.#leaving;
  }

  /** The proxy ends. The session does not: it is detached, the backend is told so, and run() comes to its end. May be called twice. */
  leave(): void {
    if (this.#state !== 'open') return;
    this.#state = 'left';
    this.#leaving = this.#takeLeave();
  }

  async #takeLeave(): Promise<void> {
    // Whatever comes of it: a session that nobody controls goes on just as well.
    await this.#connection.request('detach', { ctlkey: this.#connection.ctlkey }).catch(() => undefined);
    this.#packets.send({ type: 'event', op: 'drain', body: { deadlineMs: 0 } }).catch(() => undefined);
    this.#packets.fail(new TlsPoolError('ABORTED'));
  }

  /** No request will come any more. A session outlives the proxy, but not the backend that it belongs to. */
  async #giveUp(): Promise<void> {
    if (this.#state === 'over' || this.#state === 'lost' || this.#state === 'left') return;
    this.#state = 'left';
    // It may have ended in this moment.
    await this.#connection.request('close', { ctlkey: this.#connection.ctlkey }).catch(() => undefined);
  }

  /** The pool's last word, or none, when it is gone or has given up control for the backend. */
  #ended(closed: EventBody<'closed'> | undefined): void {
    if (this.#state === 'left' || (this.#state === 'detaching' && closed === undefined)) return;
    this.#state = closed === undefined ? 'lost' : 'over';
    if (closed === undefined) {
      this.#packets.fail(new TlsPoolError('POOL_LOST'));
      return;
    }
    // The backend hangs up when it has read this; hanging up at once would take the answers to its last requests away.
    this.#timer = setTimeout(() => this.#packets.fail(new TlsPoolError('TIMEOUT')), lingerMs);
    // Where it cannot be sent, whoever reads finds that out too.
    this.#packets.send({ type: 'event', op: 'closed', body: closed }).catch(() => undefined);
  }

  /** One request. Rejects when there will be no further one. */
  async #serve(): Promise<void> {
    const message = await this.#packets.next();
    if (message.type !== 'request') throw new TlsPoolError('UNEXPECTED_MESSAGE');
    if (message.op !== 'reauthenticate') await this.#answer(message);
    else if (this.#isAsking) await this.#packets.refuse(message, new TlsPoolError('BAD_STATE', { text: 'the client has been asked and has not answered yet: wait for that' }));
    else void this.#askClient(message);
  }

  /** The client may take its time. Meanwhile the backend can ask for other things, and its hanging up must be seen. Never rejects. */
  async #askClient(message: BackendRequest): Promise<void> {
    this.#isAsking = true;
    try {
      await this.#answer(message);
    } catch (error) {
      this.#packets.fail(TlsPoolError.from(error));
    } finally {
      this.#isAsking = false;
    }
  }

  /** Rejects when there will be no further request. */
  async #answer(message: BackendRequest): Promise<void> {
    const { op, id } = message;
    const isDetach = op === 'detach' && isAbout(this.#connection, message.body.ctlkey) && this.#state === 'open';
    if (isDetach) this.#state = 'detaching';
    let body: ReplyBody<SessionOp>;
    try {
      body = await ask(this.#connection, message);
    } catch (error) {
      if (isDetach && this.#state === 'detaching') this.#state = 'open';
      await this.#packets.refuse(message, error);
      // What had been taken for a consequence of detaching was the end.
      if (isDetach && error instanceof TlsPoolError && error.code === 'POOL_LOST') throw error;
      return;
    }
    await this.#packets.send({ type: 'reply', op, id, body } as Message);
    if (isDetach) this.#state = 'left';
  }
}
