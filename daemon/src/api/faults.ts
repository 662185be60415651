/** Turns whatever was thrown into what a client may be told. */
import { TlsPoolError, isErrorCode } from 'libtlspool/protocol';
import type { ErrorBody, ErrorCode } from 'libtlspool/protocol';

/** Octets of errorBody's text and field. */
const maxTextOctets = 2048;
const maxFieldOctets = 256;

/** Cuts text to so many octets of UTF-8, on a character, and takes out NULs, which the protocol does not carry. */
export function clipText(text: string, maxOctets: number): string {
  const clean = text.includes('\0') ? text.replaceAll('\0', '\ufffd') : text;
  if (clean.length * 3 <= maxOctets || Buffer.byteLength(clean) <= maxOctets) return clean;
  const octets = Buffer.from(clean);
  let end = maxOctets;
  // Step back over the continuation octets of a character that would be cut in half.
  while (end > 0 && ((octets[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return octets.subarray(0, end).toString();
}

/**
 * A TlsPoolError stays what it is. An Error with a `code` of the table (the engine's) becomes one. Anything else is INTERNAL
 * with the table's text: what an unforeseen error says is for the log, not for a client.
 */
export function asPoolError(thrown: unknown): TlsPoolError {
  if (thrown instanceof TlsPoolError) return thrown;
  if (thrown instanceof Error) {
    const { code, field } = thrown as { code?: unknown; field?: unknown };
    if (typeof code === 'string' && isErrorCode(code)) {
      return new TlsPoolError(code, { text: thrown.message, cause: thrown, ...(typeof field === 'string' && { field }) });
    }
  }
  return new TlsPoolError('INTERNAL', { cause: thrown });
}

/** The code of an engine event; one that the table does not have is INTERNAL. */
export function asErrorCode(code: string): ErrorCode {
  return isErrorCode(code) ? code : 'INTERNAL';
}

/** The body of an `error` message. */
export function errorBodyOf(error: TlsPoolError): ErrorBody {
  return {
    code: error.code, text: clipText(error.message, maxTextOctets),
    ...(error.field !== undefined && { field: clipText(error.field, maxFieldOctets) }),
  };
}
