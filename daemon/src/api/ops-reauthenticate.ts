/** reauthenticate: a server asks the client of a running session for a certificate. The reply comes with what the client answers. */
import { TlsPoolError } from 'libtlspool/protocol';
import type { Context } from '../engine.js';
import type { Client } from '../policy/access.js';
import { factsOf, sessionInfoOf } from '../session/index.js';
import type { Session } from '../session/index.js';
import type { Profile } from '../session/profile.js';
import type { Call, Handler } from './dispatch.js';
import { asPoolError } from './faults.js';
import { later } from './parts.js';
import type { FrontParts } from './parts.js';
import { refusalOf } from './work.js';
import type { EngineAnswer } from './work.js';

export const reauthenticate: Handler<'reauthenticate'> = (call, { ctlkey, require, localid, timeoutMs }) => {
  const { front, connection, id } = call;
  if (timeoutMs === 0) throw new TlsPoolError('BAD_ARGUMENT', { text: 'timeoutMs is from 1 to 3600000', field: 'body.timeoutMs' });
  const session = front.sessions.controlled(ctlkey, connection);
  const { profile } = factsOf(session);
  mayBeAsked(profile);
  const context = verifierOf(front.parts, connection.client, localid, profile);
  front.work.start({
    session: session.number, connection,
    answered: (answer) => {
      // What is known of the session has been replaced already: that does not depend on anybody waiting.
      if (answer.kind !== 'reauthenticated') connection.refuse('reauthenticate', id, refusalOf(answer));
      else if (answer.outcome !== 'authenticated' || isStill(context, front.parts, connection.client, localid, profile)) connection.reply('reauthenticate', id, { outcome: answer.outcome, info: sessionInfoOf(factsOf(session)) });
      else disown(call, session, answer);
    },
    ended: () => { connection.refuse('reauthenticate', id, new TlsPoolError('CTLKEY_UNKNOWN')); },
  }, (request) => {
    front.parts.engine.reauthenticate(session.number, request, { require: require === true, context, ...(timeoutMs !== undefined && { timeoutMs }) });
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

/**
 * Today's trust decides, not that of the time of the handshake: a root that was taken away since must not vouch for anybody. Fails closed where the session's own
 * identity is gone, or made on the fly.
 */
function verifierOf({ store }: FrontParts, client: Client, localid: string | undefined, own: Profile): Context {
  if (localid !== undefined) return store.verifier(client, localid);
  try {
    return store.verifier(client, own.localid);
  } catch (thrown) {
    const error = asPoolError(thrown);
    if (error.code !== 'IDENTITY_UNKNOWN') throw error;
    throw new TlsPoolError('REAUTH_UNAVAILABLE', { text: 'the identity of this session is none that this client may serve today, so that its roots cannot decide; name an identity by localid', cause: error });
  }
}

/** Does what has decided still hold? The client may have thought for an hour, and the roots, the rules or the identity may have changed meanwhile. */
function isStill(context: Context, ...question: Parameters<typeof verifierOf>): boolean {
  try {
    return verifierOf(...question) === context;
  } catch {
    return false;
  }
}

/**
 * A certificate that was verified by what does not hold any more is not accepted. The session ends, required or not: the engine takes the client for authenticated, so that
 * it would not end one whose listener or identity requires a certificate.
 */
function disown({ front, connection, id }: Call, session: Session, { peerCertificates }: Extract<EngineAnswer, { kind: 'reauthenticated' }>): void {
  front.sessions.reauthenticated(session, { authorized: false, authorizationError: 'CERT_UNTRUSTED', peerCertificates });
  connection.refuse('reauthenticate', id, new TlsPoolError('REAUTH_REFUSED', { text: 'the identity that decides has changed while the client was asked; the session ends' }));
  front.endSession(session, 'revoked');
}
