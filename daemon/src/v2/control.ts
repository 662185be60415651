/** CONTROL_DETACH and CONTROL_REATTACH, and who may know of a session. `me` is the connection, not the process. */
import { mayControl } from '../api/ops-session.js';
import type { Client } from '../policy/access.js';
import { ctlkeyToOctets } from '../session/index.js';
import type { Session } from '../session/index.js';
import type { V2Connection } from './connection.js';
import type { V2Call } from './dispatch.js';
import { V2Error } from './errors.js';
import type { TableError } from './errors.js';
import { codec } from './frames.js';
import type { V2Front } from './front.js';

type Place = 'unknown' | 'mine' | 'others' | 'detached';

/** What a request by key is answered where the session is not where it should be. */
const refusals = {
  detach: { unknown: 'CTLKEY_NOT_FOUND', others: 'CTLKEY_NOT_YOURS', detached: 'CTLKEY_DETACHED' },
  reattach: { unknown: 'CTLKEY_NOT_FOUND', mine: 'CTLKEY_ATTACHED', others: 'CTLKEY_ATTACHED' },
} as const satisfies Record<string, Partial<Record<Place, TableError>>>;

export function detach({ v2, connection, frame }: V2Call): void {
  const { session, place } = placeOf(v2, connection, codec.read(frame, 'control').ctlkey);
  if (place !== 'mine') throw new V2Error(refusals.detach[place]);
  v2.front.sessions.detach(session);
  connection.succeed(frame);
}

export function reattach({ v2, connection, frame }: V2Call): void {
  const { front, access } = v2;
  const { session, place } = placeOf(v2, connection, codec.read(frame, 'control').ctlkey);
  if (place !== 'detached') throw new V2Error(refusals.reattach[place]);
  const { previousUid } = front.sessions.reattach(ctlkeyToOctets(session.ctlkey), connection, access.sessionsPerClient, () => true);
  const { uid } = connection.client;
  if (previousUid !== uid) {
    front.sessionsChanged(previousUid, -1);
    front.sessionsChanged(uid, 1);
  }
  connection.succeed(frame);
}

/** The session with this key that is attached to this connection. Throws V2Error `otherwise`. */
export function attached(v2: V2Front, connection: V2Connection, ctlkey: Uint8Array, otherwise: TableError = 'CTLKEY_NOT_FOUND'): Session {
  const { session, place } = placeOf(v2, connection, ctlkey);
  if (place !== 'mine') throw new V2Error(otherwise);
  return session;
}

type Found = { readonly session: Session; readonly place: 'mine' | 'others' | 'detached' } | { readonly session: undefined; readonly place: 'unknown' };

/** Fails closed: for whom the session is none of their business, there is none. */
function placeOf({ keys, access }: V2Front, connection: V2Connection, ctlkey: Uint8Array): Found {
  const session = keys.find(ctlkey);
  if (session === undefined) return { session, place: 'unknown' };
  if (session.owner === connection) return { session, place: 'mine' };
  if (!mayKnow(connection.client, session) && !mayControl(access, connection.client, session)) return { session: undefined, place: 'unknown' };
  return { session, place: session.owner === null ? 'detached' : 'others' };
}

/** A user's own sessions are no secret to any of its programs. */
function mayKnow(client: Client, session: Session): boolean {
  return client.uid === session.uid;
}
