/** What a client may ask of a handshake. Fails closed. */
import { TlsPoolError } from 'libtlspool/protocol';
import type { Backend, ClientAuth } from 'libtlspool/protocol';
import type { NegotiationSpec } from '../engine.js';
import type { AccessPolicy, Client } from '../policy/access.js';
import type { ListenerSettings } from './listeners.js';
import type { FrontParts } from './parts.js';

/** The part of `listen` and `starttls` that both have. */
export interface Negotiation {
  readonly alpn?: readonly string[];
  readonly clientAuth?: ClientAuth;
  readonly rejectUnauthorized?: boolean;
  readonly backend?: Backend;
  readonly askPlainside?: boolean;
}

/** Checks what the client asks for. Throws NOT_PERMITTED, or BAD_ARGUMENT with the field. */
export function negotiate(access: AccessPolicy, client: Client, role: 'server' | 'client', asked: Negotiation): NegotiationSpec {
  if (!access.may(client, role)) throw new TlsPoolError('NOT_PERMITTED', { text: `user ${client.uid} may not use the ${role} role of this pool` });
  const { alpn, clientAuth, rejectUnauthorized, backend, askPlainside } = asked;
  if (backend !== undefined) checkBackend(access, client, backend);
  if (alpn !== undefined) checkAlpn(alpn);
  if (askPlainside === true && backend !== undefined) {
    throw new TlsPoolError('BAD_ARGUMENT', { text: 'there are both askPlainside and a backend; a session has one plain-text side', field: 'body.askPlainside' });
  }
  return {
    ...(alpn !== undefined && alpn.length > 0 && { alpn }),
    ...(clientAuth !== undefined && { clientAuth }),
    ...(rejectUnauthorized !== undefined && { rejectUnauthorized }),
    ...(backend !== undefined && { backend }),
    ...(askPlainside === true && { askPlain: true }),
  };
}

/**
 * May this client have what this listener serves? Two processes of one user may differ in groups and unit, and a reload may have changed the
 * rules since: a member must be allowed all that the listener serves.
 */
export function mayServe({ access, store }: Pick<FrontParts, 'access' | 'store'>, client: Client, settings: ListenerSettings): boolean {
  if (!access.may(client, 'server') || (settings.hasBackend && !access.may(client, 'backend')) || (settings.onTheFly && !access.may(client, 'sign'))) return false;
  // What is signed needs no identity; but any that its maker may use wins over signing.
  const served = settings.localid === undefined || settings.onTheFly
    ? store.list().map((identity) => identity.settings.localid).filter((localid) => access.mayUse(settings.client, localid, 'server'))
    : [settings.localid];
  return served.every((localid) => access.mayUse(client, localid, 'server'));
}

function checkBackend(access: AccessPolicy, client: Client, backend: Backend): void {
  // The pool connects with its own rights, to places that the client itself may not reach.
  if (!access.may(client, 'backend')) {
    throw new TlsPoolError('NOT_PERMITTED', { text: `user ${client.uid} may not have the pool connect to backends; the operator can allow it by "backend" in a rule`, field: 'body.backend' });
  }
  const isPath = backend.path !== undefined && backend.path !== '' && backend.host === undefined && backend.port === undefined;
  const isHost = backend.path === undefined && backend.host !== undefined && backend.host !== '' && backend.port !== undefined && backend.port > 0;
  if (!isPath && !isHost) throw new TlsPoolError('BAD_ARGUMENT', { text: 'a backend is a host and a port from 1 to 65535, or a path', field: 'body.backend' });
}

/** RFC 7301 section 3.1: a protocol name has 1 to 255 octets. */
export function checkAlpn(alpn: readonly string[]): void {
  const empty = alpn.indexOf('');
  if (empty >= 0) throw new TlsPoolError('BAD_ARGUMENT', { text: 'an application protocol name has 1 to 255 octets', field: `body.alpn[${empty}]` });
}
