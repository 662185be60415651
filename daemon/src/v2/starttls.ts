/** STARTTLS: what is asked for is checked in the order of the original, and handed to the engine. What follows is in claim.ts. */
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import type { ClientAuth } from 'libtlspool/protocol';
import { mayStart } from '../api/ops-starttls.js';
import { negotiate } from '../api/permission.js';
import type { Front } from '../api/front.js';
import type { Waiter } from '../api/services.js';
import type { NegotiationSpec, Selector } from '../engine.js';
import type { FdBag } from '../api/fdbag.js';
import type { Client } from '../policy/access.js';
import { StartClaim } from './claim.js';
import type { Asked } from './claim.js';
import { refuse } from './dispatch.js';
import type { V2Call } from './dispatch.js';
import { V2Error } from './errors.js';
import { domainOf, hasFlag, roleOf } from './flags.js';
import { codec } from './frames.js';
import type { V2Front } from './front.js';
import { awaitedIdentity, clientIdentity, madeIdentity, serverSelector, servernameOf, signerOf } from './identities.js';
import { renegotiate } from './renegotiate.js';

/** Of IP: unset and TCP. */
const streamProtocols: ReadonlySet<number> = new Set([0, 6]);
/** As the engine takes it; the client's `no timeout` is as good as this. */
const maxHandshakeMs = 3_600_000;

export function starttls(call: V2Call): void {
  const { v2, connection: { client }, frame, fds } = call;
  const fields = codec.read(frame, 'starttls');
  if (hasFlag(fields.flags, 'RENEGOTIATE')) {
    renegotiate(call, fields);
    return;
  }
  const cryptfd = fds.at(0);
  if (cryptfd === -1) throw new V2Error('CIPHER_SOCKET_NEEDED');
  const role = roleOf(fields.flags);
  if (role === 'none') throw new V2Error('COMMAND_NOTIMPL', `no role is left of the flags 0x${fields.flags.toString(16)}`);
  checkTransport(cryptfd, fields.ipproto[0] ?? 0);
  if (role === 'peer') throw new V2Error('CONNECTION_DRIVER_SETUP', 'two peers cannot agree on a role; one has to be the client, the other the server');
  if (role === 'client' && domainOf(fields.remoteid) === '') throw new V2Error('CONNECTION_DRIVER_SETUP', 'the client role needs a remoteid');
  mayStart(v2.front, client);
  const asked: Asked = {
    role, flags: fields.flags, localid: fields.localid, remoteid: fields.remoteid, ctlkey: Buffer.from(fields.ctlkey),
    handshakeMs: handshakeMsOf(fields.timeout),
  };
  if (role === 'server') startServer(call, asked);
  else startClient(call, asked);
}

function checkTransport(cryptfd: OwnedFd, ipproto: number): void {
  if (!streamProtocols.has(ipproto)) throw new V2Error('COMMAND_NOTIMPL', `TLS over TCP is all there is, not IP protocol ${ipproto}`);
  let socket;
  try {
    socket = sockets.socketInfo(cryptfd);
  } catch {
    throw new V2Error('ENOTSOCK', 'the encrypted side is no socket');
  }
  if (socket.type !== 'stream') throw new V2Error('COMMAND_NOTIMPL', 'TLS over streams is all there is, neither DTLS nor SCTP');
  if (!socket.connected) throw new V2Error('ENOTCONN', 'the socket of the encrypted side is not connected');
}

/** 0: as configured. 0xffffffff: none, which is an hour here, because nothing waits for ever. */
function handshakeMsOf(timeout: number): number | undefined {
  return timeout === 0 ? undefined : Math.min(timeout, maxHandshakeMs);
}

function clientAuthOf(flags: number): ClientAuth {
  if (hasFlag(flags, 'IGNORE_REMOTEID')) return 'none';
  return hasFlag(flags, 'REQUEST_REMOTEID') ? 'request' : 'require';
}

/** The plain-text side is asked for in any case: an answer to STARTTLS_LOCALID may bring it before. */
function negotiation({ access }: V2Front, client: Client, { role, flags }: Asked): NegotiationSpec {
  if (!access.may(client, role)) throw new V2Error('FACILITY_STARTTLS', `user ${client.uid} may not use the ${role} role`);
  return negotiate(access, client, role, {
    askPlainside: true,
    ...(role === 'server' && { clientAuth: clientAuthOf(flags) }),
    ...(role === 'client' && hasFlag(flags, 'IGNORE_REMOTEID') && { rejectUnauthorized: false }),
  });
}

/** Always asks, because what the peer asks for must be what the program has said, if it has. A locked identity is waited for while somebody may unlock it. */
function startServer(call: V2Call, asked: Asked): void {
  const { v2, connection: { client } } = call;
  const { front } = v2;
  const spec = negotiation(v2, client, asked);
  const start = (cryptfd: OwnedFd, handshakeMs: number | undefined): number => front.parts.engine.startTls(cryptfd, -1, {
    role: 'server', ...spec, selector: startSelector(front, client, asked), ask: true, ...(handshakeMs !== undefined && { handshakeMs }),
  });
  const claim = new StartClaim({ ...call, asked });
  const locked = awaitedIdentity(front, client, asked.localid);
  if (locked === undefined) begin(claim, call.fds, (cryptfd) => start(cryptfd, asked.handshakeMs));
  else beginAfter(call, claim, asked, { wait: (waiter) => front.services.unlocking.settled(locked, waiter), start: (cryptfd, handshakeMs) => start(cryptfd, handshakeMs) });
}

/** What is edited in a callback, or made, need not be there yet; what is neither, has to. */
function startSelector(front: Front, client: Client, { flags, localid }: Asked): Selector {
  if (hasFlag(flags, 'LOCALID_ONTHEFLY')) return signerOf(front, client, 'server').undecided;
  if (hasFlag(flags, 'LOCALID_CHECK')) return front.parts.store.serverSelector(client, undefined);
  return serverSelector(front, client, localid, domainOf(localid));
}

function startClient(call: V2Call, asked: Asked): void {
  const { v2, connection: { client } } = call;
  const { front } = v2;
  const { localid, remoteid, flags } = asked;
  const spec = negotiation(v2, client, asked);
  const isMade = hasFlag(flags, 'LOCALID_ONTHEFLY');
  if (isMade && localid === '') throw new V2Error('CONNECTION_DRIVER_SETUP', 'a certificate on the fly needs the localid that it is for');
  const servername = hasFlag(flags, 'WITHOUT_SNI') ? '' : servernameOf(remoteid);
  const claim = new StartClaim({ ...call, asked });
  beginAfter(call, claim, asked, {
    wait: (waiter) => (isMade ? madeIdentity(front, client, localid) : clientIdentity(front, client, { localid, remoteid }, waiter)),
    start: (cryptfd, handshakeMs, identity) => {
      claim.chose(identity);
      return front.parts.engine.startTls(cryptfd, -1, {
        role: 'client', ...spec, context: identity.context, remoteid: domainOf(remoteid), ...(servername !== '' && { servername }),
        ...(hasFlag(flags, 'LOCALID_CHECK') && { ask: true }), handshakeMs,
      });
    },
  });
}

/** The engine owns the descriptor when `start` has not thrown. */
function begin(claim: StartClaim, fds: FdBag, start: (cryptfd: OwnedFd) => number): void {
  const number = start(fds.at(0) as OwnedFd);
  fds.release(0);
  claim.begun(number);
}

/** Something to be waited for, and what to do then; `handshakeMs` is what is left of the time. */
interface Plan<T> {
  wait(waiter: Waiter): Promise<T>;
  start(cryptfd: OwnedFd, handshakeMs: number, found: T): number;
}

/** The descriptor is ours while we wait, which is part of the handshake's time and counts as a handshake. */
function beginAfter<T>({ v2: { front }, connection, frame, fds }: V2Call, claim: StartClaim, { handshakeMs }: Asked, plan: Plan<T>): void {
  const { client } = connection;
  const deadlineMs = handshakeMs ?? front.parts.limits.handshakeMs;
  const startedAt = performance.now();
  const held = fds.take();
  front.waits.hold(connection, client.uid, (signal) => plan.wait({ deadlineMs, signal })).then((found) => {
    if (connection.state === 'closed') return;
    mayStart(front, client);
    const leftMs = Math.max(1, Math.round(deadlineMs - (performance.now() - startedAt)));
    begin(claim, held, (cryptfd) => plan.start(cryptfd, leftMs, found));
  }).catch((error: unknown) => {
    if (connection.state === 'open') refuse(front, connection, frame, error, 'CONNECTION_DRIVER_SETUP');
  }).finally(() => { held.close(); }).catch((error: unknown) => {
    front.parts.log.error('a V2 client could not be answered', { text: String(error), clientPid: client.pid });
  });
}
