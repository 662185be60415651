/** What an AbortSignal means to something that goes on for as long as it is not closed. */
import { TlsPoolError } from './protocol/index.js';

/** Throws ABORTED when the signal is aborted. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new TlsPoolError('ABORTED', { cause: signal.reason });
}

/** Closes what was opened while the signal was aborted, and throws ABORTED. */
export async function closeIfAborted(signal: AbortSignal | undefined, opened: { close(): Promise<void> }): Promise<void> {
  if (signal?.aborted === true) await opened.close();
  throwIfAborted(signal);
}

/** Calls `close` once when the signal is aborted, later or, if it is already, in the next turn. Call what is returned when there is nothing to close any more. */
export function closeWhenAborted(signal: AbortSignal | undefined, close: () => void): () => void {
  if (signal?.aborted === true) process.nextTick(close);
  else signal?.addEventListener('abort', close, { once: true });
  return () => signal?.removeEventListener('abort', close);
}
