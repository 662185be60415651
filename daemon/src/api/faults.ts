/** Turns whatever was thrown into what a client may be told. */
import { TlsPoolError, fitText, isErrorCode } from 'libtlspool/protocol';
import type { ErrorBody, ErrorCode } from 'libtlspool/protocol';

/** Octets of errorBody's text and field. */
const maxTextOctets = 2048;
const maxFieldOctets = 256;

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
    code: error.code, text: fitText(error.message, maxTextOctets),
    ...(error.field !== undefined && { field: fitText(error.field, maxFieldOctets) }),
  };
}
