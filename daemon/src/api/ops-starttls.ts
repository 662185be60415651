/** starttls, in both roles. The reply comes with the engine's `established` or `failed`. */
import { isIP } from 'node:net';
import { TlsPoolError } from 'libtlspool/protocol';
import type { RequestBody } from 'libtlspool/protocol';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import type { ClientSpec, ServerSpec } from '../engine.js';
import type { Client } from '../policy/access.js';
import { limitReached } from '../session/index.js';
import type { Call, Handlers } from './dispatch.js';
import { later } from './parts.js';
import type { FrontParts } from './parts.js';
import { negotiate } from './permission.js';

type Asked = RequestBody<'starttls'>;

export const starttlsHandlers: Handlers<'starttls'> = {
  starttls(call, body) {
    const { front, connection, fds, id } = call;
    const { client } = connection;
    mayStart(call);
    const plainfd = fds.at(1);
    if (plainfd !== -1 && body.backend !== undefined) {
      throw new TlsPoolError('BAD_ARGUMENT', { text: 'there is both a plainfd and a backend; a session has one plain-text side', field: 'body.backend' });
    }
    if (plainfd !== -1 && body.askPlainside === true) {
      throw new TlsPoolError('BAD_ARGUMENT', { text: 'there are both a plainfd and askPlainside; a session has one plain-text side', field: 'body.askPlainside' });
    }
    const spec = body.role === 'server' ? serverSpec(front.parts, client, body) : clientSpec(front.parts, client, body);
    const cryptfd = fds.at(0) as OwnedFd;
    checkSockets(cryptfd, plainfd);
    const number = front.parts.engine.startTls(cryptfd, plainfd, spec);
    fds.release(0);
    fds.release(1);
    front.sessions.begin(number, connection, body.fork === true);
    front.sessionsChanged(client.uid, 1);
    const hasPlainSide = plainfd !== -1 || body.backend !== undefined || body.askPlainside === true;
    front.starts.set(number, { connection, id, localid: body.localid, hasPlainSide });
    return later;
  },
};

function mayStart({ front, connection: { client } }: Call): void {
  if (front.state === 'draining') throw new TlsPoolError('POOL_DRAINING');
  const { access, engine, limits } = front.parts;
  if (front.sessions.countOf(client.uid) >= access.sessionsPerClient) throw limitReached(access.sessionsPerClient);
  if (engine.counters().handshakes >= limits.handshakes) {
    throw new TlsPoolError('LIMIT_HANDSHAKES', { text: `${limits.handshakes} handshakes are in flight, which is the limit; try again, or raise limits.handshakes` });
  }
}

function serverSpec({ access, store }: FrontParts, client: Client, body: Asked): ServerSpec {
  refuseFields(body, 'server', ['remoteid', 'servername']);
  return {
    role: 'server', ...negotiate(access, client, 'server', body), selector: store.serverSelector(client, body.localid),
    ask: body.askServername === true, ...deadline(body),
  };
}

function clientSpec({ access, store }: FrontParts, client: Client, body: Asked): ClientSpec {
  refuseFields(body, 'client', ['clientAuth', 'askServername']);
  const { remoteid } = body;
  if (remoteid === '' || (remoteid === undefined && body.rejectUnauthorized !== false)) {
    throw new TlsPoolError('BAD_ARGUMENT', { text: 'the client role needs the remoteid that the server\'s certificate must carry; only rejectUnauthorized false goes without', field: 'body.remoteid' });
  }
  // RFC 6066 section 3: literal addresses are not permitted in SNI.
  const servername = body.servername ?? (remoteid === undefined || isIP(remoteid) !== 0 ? '' : remoteid);
  if (isIP(servername) !== 0) throw new TlsPoolError('BAD_ARGUMENT', { text: 'SNI carries names, not addresses', field: 'body.servername' });
  return {
    role: 'client', ...negotiate(access, client, 'client', body), context: store.clientContext(client, body.localid),
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
