/** Whose connection it is: the peer's, or the one that a load balancer in front tells of; and how we tell backends of it. */
import type { Conversation } from 'libtlspool/preamble';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd } from 'libtlspool/native';
import type { Endpoint, SessionInfo } from 'libtlspool/protocol';
import { encodeV1, encodeV2, readProxyHeader, tlsFactsOf } from './proxyprotocol/index.js';
import { octetsOf, textOf, unmapped } from './proxyprotocol/addresses.js';
import type { AddressList, ProxyAddresses } from './proxyprotocol/index.js';

/** Both ends of a client's connection, as far as they are known. */
export interface Origin {
  readonly remote: Endpoint | undefined;
  readonly local: Endpoint | undefined;
}

/** The ends of a socket. Throws SYSTEM for one whose peer has left already. */
export function originOf(fd: BorrowedFd): Origin {
  const { remote, local } = sockets.socketInfo(fd);
  return { remote: plainly(remote), local: plainly(local) };
}

/** One client, one name, which can be passed on. */
function plainly<End extends Endpoint | undefined>(end: End): Endpoint | End {
  if (end?.family === 'IPv6') {
    // As a socket that takes both shows IPv4 (RFC 4291 section 2.5.5.2), and as rules and bans do not know it.
    const bare = unmapped(octetsOf(end.address) ?? Buffer.alloc(0));
    if (bare.length === 4) return { family: 'IPv4', address: textOf(bare), port: end.port };
  }
  // A client on a UNIX socket may call itself by any octets. A path is told; other names (abstract ones begin with NUL), and what is no text, are none that messages can carry.
  return end?.family === 'unix' && /[\0\ufeff\ufffd]/u.test(end.address) ? { ...end, address: '' } : end;
}

/** Reads the header where the peer is one of the load balancers; they always send one. Rejects as Conversation.run() does. */
export async function readOrigin(talk: Conversation, socket: Origin, balancers: AddressList): Promise<Origin> {
  if (!balancers.has(socket.remote)) return socket;
  const { addresses } = await talk.run(readProxyHeader());
  return addresses === undefined ? socket : { remote: plainly(addresses.source), local: plainly(addresses.destination) };
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
