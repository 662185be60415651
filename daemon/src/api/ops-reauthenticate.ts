/** reauthenticate: a server asks the client of a running session for a certificate. The reply comes with what the client answers. */
import { TlsPoolError } from 'libtlspool/protocol';
import { factsOf, sessionInfoOf } from '../session/index.js';
import type { Profile } from '../session/profile.js';
import type { Handler } from './dispatch.js';
import { judgementOf } from './judgement.js';
import { later } from './parts.js';
import { refusalOf } from './work.js';

export const reauthenticate: Handler<'reauthenticate'> = ({ front, connection, id }, { ctlkey, require, localid, timeoutMs }) => {
  if (timeoutMs === 0) throw new TlsPoolError('BAD_ARGUMENT', { text: 'timeoutMs is from 1 to 3600000', field: 'body.timeoutMs' });
  const session = front.sessions.controlled(ctlkey, connection);
  const { profile } = factsOf(session);
  mayBeAsked(profile);
  const judgement = judgementOf(front.parts, { client: connection.client, localid, own: profile });
  front.work.start({
    session: session.number, connection, judgement,
    answered: (answer) => {
      // What is known of the session has been replaced already: that does not depend on anybody waiting.
      if (answer.kind !== 'reauthenticated') connection.refuse('reauthenticate', id, refusalOf(answer));
      else connection.reply('reauthenticate', id, { outcome: answer.outcome, info: sessionInfoOf(factsOf(session)) });
    },
    ended: () => { connection.refuse('reauthenticate', id, new TlsPoolError('CTLKEY_UNKNOWN')); },
  }, (request) => {
    front.parts.engine.reauthenticate(session.number, request, { require: require === true, context: judgement.context, ...(timeoutMs !== undefined && { timeoutMs }) });
  });
  return later;
};

function mayBeAsked({ role, alpn }: Profile): void {
  if (role === 'client') {
    throw new TlsPoolError('REAUTH_UNAVAILABLE', { text: 'this session is in the client role: its server asks for certificates, and the pool answers' });
  }
  // RFC 9113 section 9.2.1 forbids renegotiation, RFC 8740 section 3 post-handshake authentication: requests of different rights share the connection.
  if (alpn === 'h2') {
    throw new TlsPoolError('REAUTH_UNAVAILABLE', { text: 'HTTP/2 forbids asking for a certificate during the session (RFC 9113 section 9.2.1, RFC 8740); offer http/1.1 alone by ALPN where clients are to be asked' });
  }
}
