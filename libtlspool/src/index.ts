/**
 * TLS without keys, certificates or a TLS library in the process: the client of the tlspool daemon.
 *
 * @packageDocumentation
 */
import type net from 'node:net';
import type { ConnectOptions } from './connect.js';
import type { ListenOptions, Listener } from './listener.js';
import { defaultPool } from './pool.js';
import type { PoolSocket } from './socket.js';
import type { OwnedFd } from './native.js';
import { protect } from './starttls.js';
import type { StartTlsOptions } from './starttls.js';

export { connectPool, Pool } from './pool.js';
export type { PlainOp, PoolEvents, PoolOptions } from './pool.js';
export type { Reply } from './channel.js';
export type { LinkOptions } from './link.js';
export { Listener } from './listener.js';
export type { ListenOptions } from './listener.js';
export { Acceptor } from './acceptor.js';
export type { ListenerEvents } from './acceptor.js';
export { HandoffListener, listenForHandoff } from './handoff.js';
export type { HandedOver, HandoffOptions } from './handoff.js';
export { PlainSocket } from './plain.js';
export { withoutGreeting } from './greeting.js';
export type { AskedOptions, Handshaken, Hello, PlainSide, Verdict } from './asked.js';
export { ServiceOffer } from './services.js';
export type { ChooseIdentity, EnterPin, IdentityCandidate, IdentityChoice, IdentityQuestion, PinQuestion, ServiceOptions } from './services.js';
export type { SourceOptions } from './source.js';
export { PoolSocket } from './socket.js';
export type { ChannelBindings, Released, SessionNames } from './control.js';
export type { ReattachOptions } from './reattach.js';
export type { Reauthentication, ReauthenticateOptions } from './reauthenticate.js';
export type { StartTlsOptions } from './starttls.js';
export type { StartOptions } from './start.js';
export type { PreambleOptions, ViaOptions } from './speak.js';
export { preambleNames } from './preamble/registry.js';
export type { PreambleName } from './preamble/registry.js';
export type { ConnectOptions } from './connect.js';
export { createServer, Server } from './server.js';
export type { ServerAddress, ServerEvents, ServerOptions } from './server.js';
export { attach } from './attach.js';
export type { Attached, AttachOptions, FastifyLike, RequestHandler } from './attach.js';
export { Agent } from './agent.js';
export type { AgentOptions } from './agent.js';
export { socketPaths, systemSocket } from './path.js';
export { errorTable, isErrorCode, TlsPoolError } from './protocol/index.js';
export type { Backend, ClientAuth, Endpoint, ErrorCode, ErrorKind, PreambleInfo, ReplyBody, RequestBody, RequestOp, SessionInfo, TlsPoolErrorDetails } from './protocol/index.js';
export type { BorrowedFd, OwnedFd } from './native.js';

/** Pool.listen() on the pool of this process, which is connected when it is first needed. Rejects also as connectPool() does. */
export async function listen(options: ListenOptions): Promise<Listener> { return (await defaultPool()).listen(options); }

/** Pool.connect() on the pool of this process. Rejects also as connectPool() does. */
export async function connect(options: ConnectOptions): Promise<PoolSocket> { return (await defaultPool()).connect(options); }

/** Pool.starttls() on the pool of this process. Reading stops at once, also when the pool has to be connected first. Rejects also as connectPool() does. */
export function starttls(socket: net.Socket | number, options: StartTlsOptions): Promise<PoolSocket> {
  return protect(defaultPool().then((pool) => pool.link), typeof socket === 'number' ? socket as OwnedFd : socket, options);
}
