/** Requests about one session, by its control key. */
import { TlsPoolError } from 'libtlspool/protocol';
import type { AccessPolicy, Client } from '../policy/access.js';
import { factsOf, sessionInfoOf } from '../session/index.js';
import type { Session } from '../session/index.js';
import type { Handlers } from './dispatch.js';
import { later } from './parts.js';

/** Labels by which TLS 1.2 derives its own keys (RFC 5246, RFC 7627): an exporter with one of them would give those away. */
const reservedLabels: ReadonlySet<string> = new Set(['client finished', 'server finished', 'master secret', 'key expansion', 'extended master secret']);

export const sessionHandlers: Handlers<'prng' | 'info' | 'detach' | 'reattach' | 'close' | 'taken'> = {
  prng({ front, connection, id }, { ctlkey, label, context, length }) {
    checkLabel(label);
    if (length < 1) throw new TlsPoolError('EXPORTER', { text: 'an exporter gives 1 to 4096 octets', field: 'body.length' });
    const { number } = front.sessions.controlled(ctlkey, connection);
    const request = front.work.add({ connection, id, op: 'prng', session: number });
    try {
      front.parts.engine.exporter(number, request, label, context === undefined ? null : Buffer.from(context), length);
    } catch (error) {
      front.work.take(request);
      throw error;
    }
    return later;
  },

  info({ front, connection, id }, { ctlkey }) {
    const { number } = front.sessions.controlled(ctlkey, connection);
    const request = front.work.add({ connection, id, op: 'info', session: number });
    try {
      front.parts.engine.bindings(number, request);
    } catch (error) {
      front.work.take(request);
      throw error;
    }
    return later;
  },

  detach({ front, connection }, { ctlkey }) {
    front.sessions.detach(front.sessions.controlled(ctlkey, connection, 'detach'));
    return {};
  },

  reattach({ front, connection }, { ctlkey }) {
    const { access } = front.parts;
    const { uid } = connection.client;
    const { session, previousUid } = front.sessions.reattach(ctlkey, connection, access.sessionsPerClient, (client, one) => mayControl(access, client, one));
    if (previousUid !== uid) {
      front.sessionsChanged(previousUid, -1);
      front.sessionsChanged(uid, 1);
    }
    return { info: sessionInfoOf(factsOf(session)) };
  },

  close({ front, connection }, { ctlkey, abort }) {
    front.endSession(front.sessions.controlled(ctlkey, connection, 'close'), abort === true ? 'abort' : 'orderly');
    return {};
  },

  taken() {
    throw new TlsPoolError('BAD_STATE', { text: 'taken is for hand-off sockets: send it to the proxy that handed the connection over; at a pool, reattach' });
  },
};

/** RFC 5705 section 4: labels are printable ASCII. */
function checkLabel(label: string): void {
  if (!/^[\x20-\x7e]+$/.test(label)) throw new TlsPoolError('EXPORTER', { text: 'an exporter label is 1 to 255 characters of printable ASCII', field: 'body.label' });
  if (reservedLabels.has(label)) throw new TlsPoolError('EXPORTER', { text: `the label "${label}" is one that TLS itself uses; take one that begins with EXPORTER`, field: 'body.label' });
}

/** A key that was handed on is worth something only to a client that could have had the session itself. */
function mayControl(access: AccessPolicy, client: Client, session: Session): boolean {
  const { role, localid } = factsOf(session).profile;
  return access.may(client, role) && (localid === '' || access.mayUse(client, localid, role));
}
