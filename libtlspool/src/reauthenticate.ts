/** Asking the client of a running session for a certificate: what is asked, and what comes of it. */
import { TlsPoolError } from './protocol/index.js';
import type { ReplyBody, RequestBody } from './protocol/index.js';

/** As the message table has it. */
const longestMs = 3_600_000;
/** The pool takes a handshake's deadline, of a minute at most unless its configuration says otherwise. */
const defaultMs = 60_000;
/** The pool's answer is on its way when the client's time is up, perhaps through a proxy. */
const slackMs = 5_000;

/** How to ask the client for a certificate. */
export interface ReauthenticateOptions {
  /** A client that shows no certificate, or one that is not accepted, ends the session. Default false: it goes on without a client identity. */
  readonly require?: boolean;
  /** Identity whose roots and access rules decide. Default: that of the session. */
  readonly localid?: string;
  /** How long the client may take, 1 to 3,600,000 milliseconds; a person may have to choose a certificate. Default: the pool's deadline for handshakes. */
  readonly timeoutMs?: number;
}

/** What the client has answered. */
export interface Reauthentication {
  /** authenticated: its certificate was verified. refused: it showed none. rejected: what it showed was not accepted, and authorizationError says why. */
  readonly outcome: ReplyBody<'reauthenticate'>['outcome'];
  /** As the socket answers it from now on. */
  readonly authorized: boolean;
  /** As the socket answers it from now on. */
  readonly authorizationError: string | null;
}

/** @internal The body of the request. Throws BAD_ARGUMENT. */
export function reauthenticateBody(ctlkey: Uint8Array, { require, localid, timeoutMs }: ReauthenticateOptions): RequestBody<'reauthenticate'> {
  if (timeoutMs !== undefined && !(Number.isInteger(timeoutMs) && timeoutMs >= 1 && timeoutMs <= longestMs)) {
    throw new TlsPoolError('BAD_ARGUMENT', { text: `timeoutMs is ${String(timeoutMs)}; it must be from 1 to ${longestMs} milliseconds`, field: 'timeoutMs' });
  }
  return {
    ctlkey, ...(require === undefined ? {} : { require }), ...(localid === undefined ? {} : { localid }), ...(timeoutMs === undefined ? {} : { timeoutMs }),
  };
}

/** @internal How long the pool may take for its reply, in milliseconds. */
export function reauthenticateMs({ timeoutMs }: Pick<RequestBody<'reauthenticate'>, 'timeoutMs'>): number { return (timeoutMs ?? defaultMs) + slackMs; }

/** @internal What a reply says. */
export function reauthenticationOf({ outcome, info: { authorized, authorizationError } }: ReplyBody<'reauthenticate'>): Reauthentication {
  return { outcome, authorized, authorizationError: authorizationError ?? null };
}
