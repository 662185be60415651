/** Whatever was thrown, with a code: for the log, and for what the client is told. */
import { TlsPoolError } from 'libtlspool/protocol';

/** The error itself when it is one of ours. */
export function asPoolError(error: unknown): TlsPoolError {
  return error instanceof TlsPoolError ? error : new TlsPoolError('INTERNAL', { text: error instanceof Error ? error.message : 'something that is no error was thrown', cause: error });
}
