/** Requests about one session, by its control key. */
import { TlsPoolError, escapeText } from 'libtlspool/protocol';
import { firstSignedRevision } from '../identity/onthefly.js';
import type { AccessPolicy, Client } from '../policy/access.js';
import { factsOf, isExporterLabel, maxExporterLabel, sessionInfoOf } from '../session/index.js';
import type { Session } from '../session/index.js';
import type { Handlers } from './dispatch.js';
import { infoReply } from './info-reply.js';
import { reauthenticate } from './ops-reauthenticate.js';
import { later } from './parts.js';
import { refusalOf } from './work.js';
import type { EngineAnswer } from './work.js';

export const sessionHandlers: Handlers<'prng' | 'info' | 'reauthenticate' | 'detach' | 'reattach' | 'close' | 'taken'> = {
  reauthenticate,

  prng({ front, connection, id }, { ctlkey, label, context, length }) {
    checkLabel(label);
    if (length < 1) throw new TlsPoolError('EXPORTER', { text: 'an exporter gives 1 to 4096 octets', field: 'body.length' });
    const session = front.sessions.controlled(ctlkey, connection);
    const { number } = session;
    const { protocol } = factsOf(session).profile;
    checkLabelLength(label, protocol);
    const answered = (answer: EngineAnswer): void => {
      if ('octets' in answer) connection.reply('prng', id, { octets: answer.octets });
      else connection.refuse('prng', id, exporterRefusal(answer, protocol, context));
    };
    front.work.start({ session: number, connection, answered, ended: () => { connection.refuse('prng', id, new TlsPoolError('CTLKEY_UNKNOWN')); } },
      (request) => { front.parts.engine.exporter(number, request, label, context === undefined ? null : Buffer.from(context), length); });
    return later;
  },

  info({ front, connection, id }, { ctlkey }) {
    const session = front.sessions.controlled(ctlkey, connection);
    const answered = (answer: EngineAnswer): void => {
      if ('bindings' in answer) connection.reply('info', id, infoReply(session, answer.bindings, front.parts.limits.messageOctets));
      else connection.refuse('info', id, refusalOf(answer));
    };
    front.work.start({ session: session.number, connection, answered, ended: () => { connection.refuse('info', id, new TlsPoolError('CTLKEY_UNKNOWN')); } },
      (request) => { front.parts.engine.bindings(session.number, request); });
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

function checkLabel(label: string): void {
  if (isExporterLabel(label)) return;
  const text = `the label "${escapeText(label)}" is not one to export with: take one of the IANA registry "TLS Exporter Labels", one that begins with EXPORTER, or for private use one that begins with EXPERIMENTAL (RFC 5705 section 4, RFC 8447), in printable ASCII`;
  throw new TlsPoolError('EXPORTER', { text, field: 'body.label' });
}

function checkLabelLength(label: string, protocol: 'TLSv1.2' | 'TLSv1.3'): void {
  const most = maxExporterLabel(protocol);
  if (label.length > most) throw new TlsPoolError('EXPORTER', { text: `the label has ${label.length} octets; over ${protocol} it may have ${most}`, field: 'body.label' });
}

/** OpenSSL calls it an internal error when label and context do not fit into the seed of the PRF of TLS 1.2. */
function exporterRefusal(answer: EngineAnswer, protocol: 'TLSv1.2' | 'TLSv1.3', context: Uint8Array | undefined): TlsPoolError {
  const error = refusalOf(answer);
  if (error.code !== 'EXPORTER' || protocol !== 'TLSv1.2' || context === undefined) return error;
  return new TlsPoolError('EXPORTER', { text: `${error.message}; over TLS 1.2 label and context may have some 950 octets together, and this context has ${context.length}: pass its hash`, field: 'body.context' });
}

/** A key that was handed on is worth something only to a client that could have had the session itself. */
export function mayControl(access: AccessPolicy, client: Client, session: Session): boolean {
  const { role, localid, revision } = factsOf(session).profile;
  const mayHave = revision >= firstSignedRevision ? access.may(client, 'sign') : localid === '' || access.mayUse(client, localid, role);
  return access.may(client, role) && mayHave;
}
