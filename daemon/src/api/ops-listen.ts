/** listen, join, unlisten. */
import { TlsPoolError } from 'libtlspool/protocol';
import type { Endpoint, ReplyBody, RequestBody } from 'libtlspool/protocol';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { carriedEndpoint } from '../session/index.js';
import type { Call, Handlers } from './dispatch.js';
import { Listener } from './listeners.js';
import { signerFor } from './onthefly.js';
import { mayStart } from './ops-starttls.js';
import { mayServe, negotiate } from './permission.js';

export const listenHandlers: Handlers<'listen' | 'join' | 'unlisten'> = {
  listen(call, body) {
    const { front, connection: { client } } = call;
    return front.services.mustSettle(client, { role: 'server', localid: body.localid }) ? listenWhenSettled(call, body) : listen(call, body);
  },

  join(call, { share }) {
    const { front, connection } = call;
    mayHaveListener(call);
    const listener = front.listeners.shared(connection.client.uid, share);
    if (listener === undefined) throw new TlsPoolError('LISTENER_UNKNOWN', { text: `user ${connection.client.uid} has no listener that is shared as "${share}"`, field: 'body.share' });
    if (listener.members.includes(connection)) throw new TlsPoolError('BAD_STATE', { text: 'this connection has joined that listener already' });
    if (!mayServe(front.parts, connection.client, listener.settings)) {
      throw new TlsPoolError('NOT_PERMITTED', { text: 'this listener serves identities that the client may not use' });
    }
    front.listeners.join(listener, connection);
    return { listener: listener.number, local: listener.settings.local };
  },

  unlisten({ front, connection }, { listener }) {
    front.listeners.leave(front.listeners.memberOf(connection, listener), connection);
    return {};
  },
};

/** The engine takes the listening socket over. */
function listen(call: Call, body: RequestBody<'listen'>): ReplyBody<'listen'> {
  const { front, connection, fds } = call;
  const { client } = connection;
  const { engine, store, access } = front.parts;
  mayHaveListener(call);
  const spec = negotiate(access, client, 'server', body);
  const onTheFly = body.onTheFly === true;
  const selector = onTheFly ? signerFor(front.parts, client, 'server').undecided : store.serverSelector(client, body.localid);
  if (body.share !== undefined && front.listeners.shared(client.uid, body.share) !== undefined) throw new TlsPoolError('SHARE_TAKEN', { field: 'body.share' });
  const listenfd = fds.at(0) as OwnedFd;
  const local = listeningAddress(listenfd);
  const asksServername = body.askServername === true;
  const number = engine.listen(listenfd, { ...spec, selector, ask: asksServername || onTheFly });
  fds.release(0);
  const hasBackend = body.backend !== undefined;
  const settings = {
    client, localid: body.localid, asksServername, onTheFly, share: body.share, local, hasBackend,
    asksPlainside: body.askPlainside === true, isSilent: hasBackend && body.report !== true,
  };
  front.listeners.add(new Listener(number, settings), connection);
  front.parts.log.info('listening', { listener: number, ...flat(local), uid: client.uid, clientPid: client.pid, localid: body.localid });
  return { listener: number, local };
}

/** A PIN entry has the word first; the socket is held meanwhile, and closed unless the engine takes it. It waits as long as a handshake may take. */
async function listenWhenSettled(call: Call, body: RequestBody<'listen'>): Promise<ReplyBody<'listen'>> {
  const { front, connection } = call;
  mayHaveListener(call);
  // It counts as a handshake while it waits, so that it needs a place like one.
  mayStart(front, connection.client);
  const fds = call.fds.take();
  try {
    await front.waits.hold(connection, connection.client.uid, (signal) =>
      front.services.settle(connection.client, { role: 'server', localid: body.localid }, { deadlineMs: front.parts.limits.handshakeMs, signal }));
    if (connection.state !== 'ready') throw new TlsPoolError('ABORTED');
    return listen({ ...call, fds }, body);
  } finally {
    fds.close();
  }
}

function mayHaveListener({ front, connection }: Call): void {
  if (front.state === 'draining') throw new TlsPoolError('POOL_DRAINING');
  const { listenersPerClient } = front.parts.limits;
  if (front.listeners.countOf(connection) >= listenersPerClient) {
    throw new TlsPoolError('LIMIT_LISTENERS', { text: `this connection has ${listenersPerClient} listeners, which is the limit; close some, or raise limits.listenersPerClient` });
  }
}

function listeningAddress(fd: OwnedFd): Endpoint {
  const { type, listening, local } = sockets.socketInfo(fd);
  if (type === 'stream' && listening && local !== undefined) return carriedEndpoint(local);
  throw new TlsPoolError('FD_KIND', { text: `listen takes a listening TCP or UNIX stream socket, not a ${listening ? 'listening' : 'non-listening'} ${type} socket`, field: 'fds[0]' });
}

function flat({ address, port }: Endpoint): { address: string; port: number } {
  return { address, port };
}
