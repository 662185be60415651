/** TLS from the first octet: HTTPS, IMAPS and their like. */
import { broken } from './dialogue.js';
import type { Dialogue, Preamble, ServeOptions, ServerOutcome } from './types.js';

const nothing = new Uint8Array(0);
/** TLS record type of a handshake (RFC 8446 section 5.1), and so the first octet of a ClientHello. */
export const handshakeRecord = 0x16;

function* serve({ tls }: ServeOptions): Dialogue<ServerOutcome> {
  // Looked at also where TLS is required: who connects and says nothing, or something else, does not cost the pool a handshake.
  const [first] = yield { do: 'peek' };
  if (first !== handshakeRecord && tls === 'optional') return { next: 'plain', ahead: nothing };
  if (first !== handshakeRecord) throw broken('not a ClientHello');
  return { next: 'tls', goAhead: nothing, refusal: nothing, direct: true };
}

/** The other end is told nothing, and says nothing. */
function* client(): Dialogue<object> {
  return {};
}

export const none: Preamble = {
  name: 'none',
  title: 'TLS at once, without a preamble',
  server: { serve, farewell: () => nothing, plainBackend: true },
  client,
};
