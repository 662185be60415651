/** What the front is made of; main.ts puts it together, tests put fakes in. */
import type { Engine } from '../engine.js';
import type { Choices } from '../identity/choices.js';
import type { Signer } from '../identity/onthefly.js';
import type { IdentityStore, ReloadResult, UnlockOutcome } from '../identity/types.js';
import type { Identification, Log, ReloadRecord } from '../observe/index.js';
import type { AccessPolicy } from '../policy/access.js';

/** All counts are at least 1. */
export interface FrontLimits {
  /** Handshakes in flight in all. */
  readonly handshakes: number;
  /** Cap on one message, both ways: 4096 to `highestMaxMessageOctets`. */
  readonly messageOctets: number;
  readonly clients: number;
  readonly listenersPerClient: number;
  readonly requestsPerClient: number;
  readonly queuedConnections: number;
  /** Also the time in which a client must have said hello. */
  readonly handshakeMs: number;
}

export interface FrontParts {
  readonly engine: Engine;
  readonly access: AccessPolicy;
  readonly store: IdentityStore;
  /** Makes certificates on the fly; absent: nobody does. */
  readonly signer?: Signer;
  readonly limits: FrontLimits;
  readonly log: Log;
  readonly identification: Identification;
  /** How the last reloads went; kept by whoever reloads. */
  readonly reloads: Readonly<ReloadRecord>;
  /** Reads configuration and credentials again, all or nothing. Throws TlsPoolError. */
  reload(): Promise<ReloadResult>;
  /** Opens the keys of a locked identity with a PIN, which stays the caller's, and publishes it. Throws what else is wrong with it. Absent: nothing is locked. */
  readonly unlock?: (localid: string, pin: Buffer) => Promise<UnlockOutcome>;
  /** Remembered choices; absent: they end with the pool. */
  readonly choices?: Choices;
}

/** The body of a reply, or `later`: an event of the engine brings it. Now, or from a promise. */
export type Outcome<Body> = Body | typeof later | Promise<Body | typeof later>;
export const later: unique symbol = Symbol('later');

