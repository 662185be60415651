/** Whose connection it is: the peer's, or the one that a load balancer in front tells of; and how we tell backends of it. */
import type { Conversation } from 'libtlspool/preamble';
import type { Endpoint, SessionInfo } from 'libtlspool/protocol';
import { encodeV1, encodeV2, readProxyHeader, tlsFactsOf } from './proxyprotocol/index.js';
import type { AddressList, ProxyAddresses } from './proxyprotocol/index.js';

/** Both ends of a client's connection, as far as they are known. */
export interface Origin {
  readonly remote: Endpoint | undefined;
  readonly local: Endpoint | undefined;
}

/** Reads the header where the peer is one of the load balancers; they always send one. Rejects as Conversation.run() does. */
export async function readOrigin(talk: Conversation, socket: Origin, balancers: AddressList): Promise<Origin> {
  if (!balancers.has(socket.remote)) return socket;
  const { addresses } = await talk.run(readProxyHeader());
  return addresses === undefined ? socket : { remote: addresses.source, local: addresses.destination };
}

/** Addresses of both ends, where the format can carry them. */
function addressesOf({ remote, local }: Origin): ProxyAddresses | undefined {
  if (remote === undefined || local === undefined || (remote.family === 'unix') !== (local.family === 'unix')) return undefined;
  return { source: remote, destination: local };
}

/** Header of a connection: with `info` of a session, with nothing about TLS without. Version 1 has no place for it. */
export function clientHeader(version: 1 | 2, origin: Origin, info?: SessionInfo): Uint8Array {
  const addresses = addressesOf(origin);
  if (version === 1) return encodeV1(addresses);
  return encodeV2({ command: 'PROXY', ...(addresses !== undefined && { addresses }), ...(info !== undefined && { tls: tlsFactsOf(info) }) });
}

/**
 * Header of a connection of the proxy's own, with these ends as its socket has them. Version 1 has no word for that: it says who connects, as HAProxy does for its
 * health checks, since Postfix turns UNKNOWN away.
 */
export function ownHeader(version: 1 | 2, { remote, local }: Origin): Uint8Array {
  return version === 1 ? encodeV1(addressesOf({ remote: local, local: remote })) : encodeV2({ command: 'LOCAL' });
}
