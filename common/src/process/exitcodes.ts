/** Exit codes of `tlspool`, `tlspoold` and `tlspool-proxy`; docs/operations.md and docs/proxy-configuration.md list them. */
import type { TlsPoolError } from 'libtlspool/protocol';

export const exitCodes = {
  ok: 0,
  /** tlspool: the pool refused or failed. The others: could not start or go on. */
  failed: 1,
  /** The command line or the configuration is wrong. */
  usage: 2,
  /** No pool answers at the socket. */
  unreachable: 3,
} as const;

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

/** What a script should make of an error. */
export function exitCodeOf(error: TlsPoolError): ExitCode {
  switch (error.code) {
    case 'POOL_UNREACHABLE': case 'POOL_LOST': case 'TIMEOUT': return exitCodes.unreachable;
    case 'CONFIG_BAD': case 'IDENTITY_BAD': case 'BAD_ARGUMENT': return exitCodes.usage;
    default: return exitCodes.failed;
  }
}
