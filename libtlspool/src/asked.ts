/**
 * What the pool asks back while it does a handshake: may this name be served, and which plain-text socket belongs to the session.
 * Every question gets exactly one answer, and fails closed: without anybody to ask, and for anything but a clear answer, it is a refusal.
 */
import { sockets } from './native.js';
import type { BorrowedFd, OwnedFd } from './native.js';
import type { AnswerBody, CallbackBody, CallbackOp, SessionInfo, ToClientMessage } from './protocol/index.js';

/** What an application is told of a ClientHello before an identity is chosen. */
export interface Hello {
  /** Server name asked for (RFC 6066 section 3); absent when the client sent none. */
  readonly servername?: string;
  /** Application protocols that the client offers. */
  readonly alpn: readonly string[];
  /** Address of the client. */
  readonly remote?: CallbackBody<'servername'>['remote'];
}

/** true: choose by server name. false: refuse. An object: yes, with what it says. */
export type Verdict = boolean | {
  /** Identity to serve; absent: chosen by server name. */
  readonly localid?: string;
  /** Application protocols for this connection in place of those of the listener, the most preferred first, at most 32; empty: none is negotiated. */
  readonly alpn?: readonly string[];
};

/** A session whose handshake is done, and which waits for its plain-text side. */
export interface Handshaken {
  /** Names the session from now on. A secret: it is worth nothing to others as long as they do not have it. */
  readonly ctlkey: Uint8Array;
  /** What is known of the session. */
  readonly info: SessionInfo;
}

/**
 * The plain-text side of a session: a connected stream or seqpacket socket, which is the library's from then on; `pair`: a socket pair that
 * the pool makes; `refuse`: none, the session ends.
 */
export type PlainSide = OwnedFd | 'pair' | 'refuse';

/** What may be asked. */
export interface AskedOptions {
  /** Asked once per handshake, before the identity is chosen. Throwing refuses the connection and is reported as a process warning. */
  readonly onServername?: (hello: Hello) => Verdict | Promise<Verdict>;
  /**
   * Asked once per session, when its handshake is done, for its plain-text side. The pool waits as long as for a handshake; a socket that comes
   * too late is closed. Throwing refuses, and is reported as a process warning.
   */
  readonly onPlainside?: (session: Handshaken) => PlainSide | Promise<PlainSide>;
}

/** @internal Gives the answer, once; the descriptor stays the caller's. Throws BAD_MESSAGE for a body that is not as the message table has it: nothing was sent then. */
export type Answer<Op extends CallbackOp> = (body: AnswerBody<Op>, fd?: BorrowedFd) => void;

/** @internal Who answers the pool. What is absent is refused. */
export interface Asked {
  readonly servername?: (body: CallbackBody<'servername'>, answer: Answer<'servername'>) => void;
  readonly plainside?: (body: CallbackBody<'plainside'>, answer: Answer<'plainside'>) => void;
  readonly identity?: (body: CallbackBody<'identity'>, answer: Answer<'identity'>) => void;
  readonly pin?: (body: CallbackBody<'pin'>, answer: Answer<'pin'>) => void;
}

/** @internal Puts a question to whoever answers it: those that name a request to its maker, the others to the owner of the connection. What nobody answers is refused. */
export function putQuestion({ op, body }: Extract<ToClientMessage, { type: 'callback' }>, askedOf: (request: number | undefined) => Asked | undefined, answer: Answer<CallbackOp>): void {
  const asked = askedOf('request' in body ? body.request : undefined);
  const put = asked?.[op] as ((body: CallbackBody<CallbackOp>, answer: Answer<CallbackOp>) => void) | undefined;
  if (put === undefined) answer({ refuse: true });
  else put(body, answer);
}

/** @internal */
export function askedBy({ onServername, onPlainside }: AskedOptions): Asked {
  return {
    ...(onServername !== undefined && { servername: (body, answer) => void answerServername(onServername, body, answer) }),
    ...(onPlainside !== undefined && { plainside: (body, answer) => void answerPlainside(onPlainside, body, answer) }),
  } satisfies Asked;
}

/** @internal What a request must say so that its owner is asked. */
export function askFields({ onServername, onPlainside }: AskedOptions): { askServername?: true; askPlainside?: true } {
  return { ...(onServername !== undefined && { askServername: true as const }), ...(onPlainside !== undefined && { askPlainside: true as const }) };
}

async function answerServername(ask: NonNullable<AskedOptions['onServername']>, body: CallbackBody<'servername'>, answer: Answer<'servername'>): Promise<void> {
  const { servername, alpn, remote } = body;
  try {
    const hello = { alpn, ...(servername === undefined ? {} : { servername }), ...(remote === undefined ? {} : { remote }) };
    answer(bodyOf(await ask(hello)));
  } catch (error) {
    warn(error, 'onServername failed; the connection was refused');
    answer({ refuse: true });
  }
}

function bodyOf(verdict: Verdict): AnswerBody<'servername'> {
  if (verdict === true) return {};
  // Anything but a clear yes is a no, also where no compiler has looked at the program.
  if (typeof verdict !== 'object' || (verdict as unknown) === null) return { refuse: true };
  return { ...(verdict.localid === undefined ? {} : { localid: verdict.localid }), ...(verdict.alpn === undefined ? {} : { alpn: verdict.alpn }) };
}

async function answerPlainside(ask: NonNullable<AskedOptions['onPlainside']>, { ctlkey, info }: CallbackBody<'plainside'>, answer: Answer<'plainside'>): Promise<void> {
  let side: PlainSide;
  try {
    side = await ask({ ctlkey, info });
  } catch (error) {
    warn(error, 'onPlainside failed; the session was ended');
    side = 'refuse';
  }
  if (typeof side !== 'number') {
    answer(side === 'pair' ? {} : { refuse: true });
    return;
  }
  try {
    answer({}, side);
  } catch (error) {
    warn(error, 'the plain-text side could not be passed to the pool; the session was ended');
    answer({ refuse: true });
  } finally {
    sockets.close(side);
  }
}

function warn(error: unknown, detail: string): void {
  process.emitWarning(error instanceof Error ? error : String(error), { detail });
}
