/** One TLS session's life, as a table. */
import { TlsPoolError } from 'libtlspool/protocol';

/**
 * handshake: started by `starttls`, no reply sent yet. waiting: its handshake is done, and its client brings the plain-text
 * side. open: a client controls it. detached: nobody does.
 * closing: the engine was told to end it and has not reported the end. closed: over; its control key is worthless.
 */
export type SessionState = 'handshake' | 'waiting' | 'open' | 'detached' | 'closing' | 'closed';

export type SessionEvent = 'established' | 'waits' | 'supplied' | 'failed' | 'control' | 'detach' | 'reattach' | 'close' | 'ended';

/** state x event -> next state. An absent cell is an event that must not happen in that state. */
export const transitions: Readonly<Record<SessionState, Readonly<Partial<Record<SessionEvent, SessionState>>>>> = {
  handshake: { established: 'open', waits: 'waiting', failed: 'closed', close: 'closing', ended: 'closed' },
  waiting: { supplied: 'open', control: 'waiting', failed: 'closed', close: 'closing', ended: 'closed' },
  open: { control: 'open', detach: 'detached', close: 'closing', ended: 'closed' },
  detached: { reattach: 'open', close: 'closing', ended: 'closed' },
  // The engine may have reported any of these just before it heard that the session is to end.
  closing: { established: 'closing', waits: 'closing', supplied: 'closing', failed: 'closed', close: 'closing', ended: 'closed' },
  closed: {},
};

/** The state after the event. Throws INTERNAL for an absent cell. */
export function nextState(state: SessionState, event: SessionEvent): SessionState {
  const next = transitions[state][event];
  if (next === undefined) throw new TlsPoolError('INTERNAL', { text: `a session that is '${state}' cannot take the event '${event}'` });
  return next;
}

/** Is there a cell for this event? */
export function mayHappen(state: SessionState, event: SessionEvent): boolean {
  return transitions[state][event] !== undefined;
}
