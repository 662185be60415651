/** From a request to its handler and back to exactly one reply. */
import { TlsPoolError, requests } from 'libtlspool/protocol';
import type { ReplyBody, RequestBody, RequestOp, ToPoolMessage } from 'libtlspool/protocol';
import type { Connection } from './connection.js';
import { asPoolError } from './faults.js';
import type { FdBag } from './fdbag.js';
import type { Front } from './front.js';
import { basicHandlers } from './ops-basic.js';
import { listenHandlers } from './ops-listen.js';
import { operatorHandlers } from './ops-operator.js';
import { serviceHandlers } from './ops-services.js';
import { sessionHandlers } from './ops-session.js';
import { starttlsHandlers } from './ops-starttls.js';
import { later } from './parts.js';
import type { Outcome } from './parts.js';

/** One request being handled. */
export interface Call {
  readonly front: Front;
  readonly connection: Connection;
  readonly id: number;
  /** What came with the request; closed afterwards unless released. */
  readonly fds: FdBag;
}

/** Answers a request, or throws what the client is told. */
export type Handler<Op extends RequestOp> = (call: Call, body: RequestBody<Op>) => Outcome<ReplyBody<Op>>;
export type Handlers<Op extends RequestOp = RequestOp> = { readonly [O in Op]: Handler<O> };

const handlers: Handlers = {
  ...basicHandlers, ...listenHandlers, ...starttlsHandlers, ...sessionHandlers, ...operatorHandlers, ...serviceHandlers,
};

type Request = Extract<ToPoolMessage, { type: 'request' }>;

export function dispatch(front: Front, connection: Connection, message: Request, fds: FdBag): void {
  run({ front, connection, id: message.id, fds }, message.op, message.body);
}

function run<Op extends RequestOp>(call: Call, op: Op, body: RequestBody<Op>): void {
  const { connection, id } = call;
  try {
    mayRun(call, op);
    // Before the handler does anything, because afterwards it could not be undone.
    connection.postpone(op, id);
  } catch (error) {
    // The id may be that of a request which is still to be answered; refusing this one must not strike it out.
    connection.refuse(op, id, error, { keepOutstanding: true });
    return;
  }
  try {
    const outcome = handlers[op](call, body);
    if (outcome === later) return;
    if (outcome instanceof Promise) answerLater(call, op, outcome);
    else connection.reply(op, id, outcome);
  } catch (error) {
    refuse(call, op, error);
  }
}

function mayRun({ front, connection }: Call, op: RequestOp): void {
  if (connection.state === 'fresh' && op !== 'hello') throw new TlsPoolError('UNEXPECTED_MESSAGE', { text: `the first message must be hello, not ${op}` });
  if (connection.state === 'ready' && op === 'hello') throw new TlsPoolError('UNEXPECTED_MESSAGE', { text: 'hello was said already' });
  if (requests[op].operator && !front.parts.access.may(connection.client, 'operator')) {
    throw new TlsPoolError('NOT_PERMITTED', { text: `${op} is for operators: root, or the user that the pool runs as` });
  }
}

function answerLater<Op extends RequestOp>(call: Call, op: Op, outcome: Promise<ReplyBody<Op> | typeof later>): void {
  outcome.then(
    (body) => { if (body !== later && call.connection.state === 'ready') call.connection.reply(op, call.id, body); },
    (error: unknown) => { if (call.connection.state === 'ready') refuse(call, op, error); },
  ).catch((error: unknown) => { call.front.parts.log.error('a reply could not be sent', { op, text: String(error) }); });
}

function refuse({ front, connection, id }: Call, op: RequestOp, thrown: unknown): void {
  const error = asPoolError(thrown);
  if (error.kind === 'bug') front.parts.log.error('a request failed unexpectedly', { op, text: error.message, cause: String(error.cause) });
  connection.refuse(op, id, error);
}
