/** starttls, in both roles. The reply comes with the engine's `established` or `failed`. */
import { isIP } from 'node:net';
import { TlsPoolError } from 'libtlspool/protocol';
import type { RequestBody } from 'libtlspool/protocol';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import type { ClientSpec, Context, ServerSpec } from '../engine.js';
import type { Client } from '../policy/access.js';
import { limitReached } from '../session/index.js';
import type { Call, Handlers } from './dispatch.js';
import type { Front } from './front.js';
import { signerFor } from './onthefly.js';
import { later } from './parts.js';
import type { FrontParts } from './parts.js';
import { negotiate } from './permission.js';
import type { Wanted } from './services.js';

type Asked = RequestBody<'starttls'>;

export const starttlsHandlers: Handlers<'starttls'> = {
  starttls(call, body) {
    const { front, connection: { client }, fds } = call;
    mayStart(front, client);
    const plainfd = fds.at(1);
    if (plainfd !== -1 && body.backend !== undefined) {
      throw new TlsPoolError('BAD_ARGUMENT', { text: 'there is both a plainfd and a backend; a session has one plain-text side', field: 'body.backend' });
    }
    if (plainfd !== -1 && body.askPlainside === true) {
      throw new TlsPoolError('BAD_ARGUMENT', { text: 'there are both a plainfd and askPlainside; a session has one plain-text side', field: 'body.askPlainside' });
    }
    if (mustSign(front.parts, client, body)) return beginWhenSigned(call, body);
    return front.services.mustSettle(client, wantedOf(body)) ? beginWhenSettled(call, body) : begin(call, body);
  },
};

/** The engine takes over, and with it the descriptors. */
function begin({ front, connection, fds, id }: Call, body: Asked, made?: Context): typeof later {
  const { client } = connection;
  const spec = specOf(front.parts, client, body, made);
  const [cryptfd, plainfd] = [fds.at(0) as OwnedFd, fds.at(1)];
  checkSockets(cryptfd, plainfd);
  const number = front.parts.engine.startTls(cryptfd, plainfd, spec);
  fds.release(0);
  fds.release(1);
  front.sessions.begin(number, connection, body.fork === true);
  front.sessionsChanged(client.uid, 1);
  const hasPlainSide = plainfd !== -1 || body.backend !== undefined || body.askPlainside === true;
  front.starts.set(number, { connection, id, localid: body.localid, hasPlainSide, asksServername: body.askServername === true, onTheFly: body.onTheFly === true });
  return later;
}

/** A name that the program does not verify is no reason to show an identity: no chooser is told of it, and nothing is remembered for it. */
function wantedOf({ role, localid, remoteid, rejectUnauthorized }: Asked): Wanted {
  return { role, localid, remoteid: rejectUnauthorized === false ? undefined : remoteid };
}

/**
 * A chooser, or a PIN entry, has the word first. The descriptors are held meanwhile, and are closed unless the engine takes them. The time that this takes counts as part
 * of the handshake's.
 */
async function beginWhenSettled(call: Call, body: Asked): Promise<typeof later> {
  const { front, connection: { client } } = call;
  // What would be refused afterwards is refused before anybody is asked.
  ignoreLocked(() => { specOf(front.parts, client, body); });
  checkSockets(call.fds.at(0) as OwnedFd, call.fds.at(1));
  const deadlineMs = body.handshakeMs ?? front.parts.limits.handshakeMs;
  const startedAt = performance.now();
  return await beginAfter(call, (signal) => front.services.settle(client, wantedOf(body), { deadlineMs, signal }), (held, localid) => {
    const handshakeMs = Math.max(1, Math.round(deadlineMs - (performance.now() - startedAt)));
    return begin(held, { ...body, handshakeMs, ...(localid !== undefined && { localid }) });
  });
}

/** Begins with what `wait` brings. The descriptors are held meanwhile, and closed unless the engine takes them. */
async function beginAfter<Found>(call: Call, wait: (signal: AbortSignal) => Promise<Found>, start: (held: Call, found: Found) => typeof later): Promise<typeof later> {
  const { front, connection } = call;
  const { client } = connection;
  const fds = call.fds.take();
  try {
    const found = await front.waits.hold(connection, client.uid, wait);
    if (connection.state !== 'ready') return later;
    mayStart(front, client);
    return start({ ...call, fds }, found);
  } finally {
    fds.close();
  }
}

/**
 * In the client role: is there no identity of this name that the client may use, so that one is to be made? Throws BAD_ARGUMENT without a name, NOT_PERMITTED and
 * SIGNING_UNAVAILABLE.
 */
function mustSign(parts: FrontParts, client: Client, { role, onTheFly, localid }: Asked): boolean {
  if (role !== 'client' || onTheFly !== true) return false;
  if (localid === undefined) throw new TlsPoolError('BAD_ARGUMENT', { text: 'onTheFly in the client role needs the localid that a certificate is to be made for', field: 'body.onTheFly' });
  signerFor(parts, client, 'client');
  try {
    parts.store.clientContext(client, localid);
    return false;
  } catch (error) {
    // One that is locked is there, and its PIN may come.
    if (error instanceof TlsPoolError && error.code === 'IDENTITY_UNKNOWN') return true;
    if (error instanceof TlsPoolError && error.code === 'IDENTITY_LOCKED') return false;
    throw error;
  }
}

/** The certificate is made before the handshake, so that whoever asks hears why there is none. */
async function beginWhenSigned(call: Call, body: Asked): Promise<typeof later> {
  const { front: { parts }, connection: { client } } = call;
  // What would be refused afterwards is refused before anything is made.
  specOf(parts, client, body, parts.store.clientContext(client, undefined));
  checkSockets(call.fds.at(0) as OwnedFd, call.fds.at(1));
  return await beginAfter(call, () => signerFor(parts, client, 'client').clientContext(client, body.localid ?? ''), (held, made) => begin(held, body, made));
}

function ignoreLocked(check: () => void): void {
  try {
    check();
  } catch (error) {
    if (!(error instanceof TlsPoolError) || error.code !== 'IDENTITY_LOCKED') throw error;
  }
}

/** May one more handshake begin for this client? Throws POOL_DRAINING, LIMIT_SESSIONS or LIMIT_HANDSHAKES. */
export function mayStart(front: Front, client: Client): void {
  if (front.state === 'draining') throw new TlsPoolError('POOL_DRAINING');
  const { access, engine, limits } = front.parts;
  if (front.sessions.countOf(client.uid) + front.waits.countOf(client.uid) >= access.sessionsPerClient) throw limitReached(access.sessionsPerClient);
  if (engine.counters().handshakes + front.waits.size >= limits.handshakes) {
    throw new TlsPoolError('LIMIT_HANDSHAKES', { text: `${limits.handshakes} handshakes are in flight, which is the limit; try again, or raise limits.handshakes` });
  }
}

/** `made`: the context of a client whose certificate was made on the fly. */
function specOf(parts: FrontParts, client: Client, body: Asked, made?: Context): ServerSpec | ClientSpec {
  return body.role === 'server' ? serverSpec(parts, client, body) : clientSpec(parts, client, body, made);
}

function serverSpec(parts: FrontParts, client: Client, body: Asked): ServerSpec {
  refuseFields(body, 'server', ['remoteid', 'servername']);
  const negotiation = negotiate(parts.access, client, 'server', body);
  const onTheFly = body.onTheFly === true;
  const selector = onTheFly ? signerFor(parts, client, 'server').undecided : parts.store.serverSelector(client, body.localid);
  return { role: 'server', ...negotiation, selector, ask: body.askServername === true || onTheFly, ...deadline(body) };
}

function clientSpec({ access, store }: FrontParts, client: Client, body: Asked, made?: Context): ClientSpec {
  refuseFields(body, 'client', ['clientAuth', 'askServername']);
  const { remoteid } = body;
  if (remoteid === '' || (remoteid === undefined && body.rejectUnauthorized !== false)) {
    throw new TlsPoolError('BAD_ARGUMENT', { text: 'the client role needs the remoteid that the server\'s certificate must carry; only rejectUnauthorized false goes without', field: 'body.remoteid' });
  }
  // RFC 6066 section 3: literal addresses are not permitted in SNI.
  const servername = body.servername ?? (remoteid === undefined || isIP(remoteid) !== 0 ? '' : remoteid);
  if (isIP(servername) !== 0) throw new TlsPoolError('BAD_ARGUMENT', { text: 'SNI carries names, not addresses', field: 'body.servername' });
  return {
    role: 'client', ...negotiate(access, client, 'client', body), context: made ?? store.clientContext(client, body.localid),
    ...(remoteid !== undefined && { remoteid }), ...(servername !== '' && { servername }), ...deadline(body),
  };
}

function refuseFields(body: Asked, role: string, fields: readonly (keyof Asked)[]): void {
  for (const field of fields) {
    if (body[field] !== undefined) throw new TlsPoolError('BAD_ARGUMENT', { text: `${field} has no meaning in the ${role} role`, field: `body.${field}` });
  }
}

function deadline({ handshakeMs }: Asked): { handshakeMs?: number } {
  if (handshakeMs === 0) throw new TlsPoolError('BAD_ARGUMENT', { text: 'handshakeMs is from 1 to 3600000', field: 'body.handshakeMs' });
  return handshakeMs === undefined ? {} : { handshakeMs };
}

function checkSockets(cryptfd: OwnedFd, plainfd: OwnedFd | -1): void {
  const crypt = sockets.socketInfo(cryptfd);
  if (crypt.type !== 'stream' || !crypt.connected) throw new TlsPoolError('FD_KIND', { text: 'the cryptfd must be a connected stream socket', field: 'fds[0]' });
  if (plainfd === -1) return;
  const plain = sockets.socketInfo(plainfd);
  if ((plain.type !== 'stream' && plain.type !== 'seqpacket') || !plain.connected) {
    throw new TlsPoolError('FD_KIND', { text: 'the plainfd must be a connected stream or seqpacket socket', field: 'fds[1]' });
  }
}
