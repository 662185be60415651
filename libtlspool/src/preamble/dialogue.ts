/** Pieces that the dialogues are written with. */
import { TlsPoolError } from '../protocol/errors.js';
import type { ErrorCode } from '../protocol/errors.js';
import { escapeText } from '../protocol/escape.js';
import type { Dialogue } from './types.js';

/** Most octets of a line that a protocol without a limit of its own may take. */
export const defaultLineOctets = 8192;
/** Most lines of one answer of a server, such as an EHLO with many keywords. */
export const mostAnswerLines = 256;
/** Most commands before TLS: a client needs a handful. */
export const mostCommands = 64;

/** Octets that can be told of the plain-text phase. */
export const mostStateOctets = 4096;

/** Says something; latin1, so that a server's own octets come through unchanged. */
export function* say(text: string | Uint8Array): Dialogue<void> {
  yield { do: 'write', octets: typeof text === 'string' ? octets(text) : text };
}

/** The next line without its end, as latin1. */
export function* readLine(most = defaultLineOctets): Dialogue<string> {
  return (yield { do: 'line', most }).toString('latin1');
}

/** Exactly so many octets. */
export function* readOctets(count: number): Dialogue<Buffer> {
  return yield { do: 'octets', count };
}

/** For goAhead and the like. Throws BAD_ARGUMENT for characters that are no octets: Node would cut them, and U+010A to a line end. */
export function octets(text: string): Buffer {
  if (/[^\0-\xff]/u.test(text)) throw new TlsPoolError('BAD_ARGUMENT', { text: 'a name, greeting or capability with characters that are no octets: encode it first' });
  return Buffer.from(text, 'latin1');
}

/** What the other end said breaks the rules of its protocol. */
export function broken(what: string): TlsPoolError {
  return new TlsPoolError('PREAMBLE', { text: what });
}

/** The other end does not begin TLS, in its own words (escaped, cut). */
export function refused(what: string, said?: string): TlsPoolError {
  return worded('PREAMBLE_REFUSED', what, said);
}

function worded(code: ErrorCode, what: string, said: string | undefined): TlsPoolError {
  return new TlsPoolError(code, { text: said === undefined ? what : `${what}: ${escapeText(said, 200)}` });
}
