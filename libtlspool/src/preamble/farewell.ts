/** Which farewell goes with which error. */
import type { TlsPoolError } from '../protocol/errors.js';
import type { Farewell } from './types.js';

/** Why a client is turned away, when this went wrong before the service had it; undefined where nobody is there to be told. */
export function farewellFor({ code }: TlsPoolError): Farewell | undefined {
  switch (code) {
    case 'PEER_CLOSED': return undefined;
    case 'TIMEOUT': return 'timeout';
    case 'EARLY_OCTETS': return 'early';
    case 'PREAMBLE': case 'BAD_MESSAGE': return 'syntax';
    default: return code.startsWith('LIMIT_') ? 'limit' : 'unavailable';
  }
}
