/** Sessions that are not the pool protocol's: whoever has started them takes their events. */
import type { EngineEvent } from '../engine.js';

/** Steps in the life of one session. */
export type ClaimedEvent = Extract<EngineEvent, { kind: 'hello' | 'established' | 'supplied' | 'failed' | 'closed' }>;

/** Entered in `front.claims` as soon as the engine has given the session its number; to be removed with its `failed` or `closed`. */
export interface SessionClaim {
  /** Descriptors in the event belong to the claim. What it throws is logged. */
  onEvent(event: ClaimedEvent): void;
}
