/** PING: which dialect this is, and which facilities the client may use. */
import { codec } from './frames.js';
import type { V2Call } from './dispatch.js';
import type { V2Front } from './front.js';
import type { Client } from '../policy/access.js';

/** The version of the protocol, as every V2 pool names it. Programs may compare it. */
export const producer = '20151111api@tlspool.arpa2.net';
/** Facilities beside it (STARTGSS, STARTSSH) are not offered. */
const startTlsFacility = 0x1;

/** Has this client the STARTTLS facility: may it use either role? */
export function mayStartTls({ access }: V2Front, client: Client): boolean {
  return access.may(client, 'server') || access.may(client, 'client');
}

export function ping({ v2, connection, frame }: V2Call): void {
  const { facilities } = codec.read(frame, 'ping');
  codec.patch(frame, 'ping', { producer, facilities: mayStartTls(v2, connection.client) ? facilities & startTlsFacility : 0 });
  connection.send(frame);
}
