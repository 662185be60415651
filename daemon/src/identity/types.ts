/**
 * Where credentials come from. One source is one file; all have this one interface, and reload happens in one
 * place (store.ts), so that a new source gets watching, all-or-nothing publication and revisions for free.
 */
import type { Context, KeyPairSpec, Selector } from '../engine.js';
import type { ClientAuth, ReplyBody } from 'libtlspool/protocol';
import type { Client } from '../policy/access.js';
import type { PeerRules } from '../policy/peers.js';

/** What one identity is made from, as read at one moment. */
export interface Material {
  /** Chain and key per key type; the caller wipes the keys when they have been used. */
  readonly keyPairs: readonly KeyPairSpec[];
  /** For people: where each chain was read, parallel to keyPairs. */
  readonly certificateFiles: readonly string[];
  readonly trust?: Buffer;
  /** Digest of everything read, to tell whether anything changed. Reveals nothing about keys; the same with and without a PIN. */
  readonly digest: string;
  /** A key is encrypted, and no PIN was given: its octets are absent (empty), and for PKCS#12 everything but the trust is. */
  readonly isLocked?: true;
}

/** What became of a PIN. gone: there is nothing to unlock any more. */
export type UnlockOutcome = 'unlocked' | 'wrong' | 'gone';

export interface IdentitySource {
  /** For people: a folder or file name. */
  readonly description: string;
  /** Reads everything now. The PIN opens encrypted keys and stays the caller's. Throws TlsPoolError IDENTITY_BAD that names the file and the cure; WrongPinError. */
  load(pin?: Buffer): Promise<Material>;
  /** Calls back when anything may have changed; spurious calls are fine. Returns a way to stop. */
  watch(changed: () => void): { close(): void };
}

export type PolicyName = 'modern' | 'intermediate';

export interface IdentitySettings {
  readonly localid: string;
  readonly source: IdentitySource;
  readonly policy: PolicyName;
  readonly clientAuth: ClientAuth;
  /** SNI names; empty: the DNS names of the certificates. */
  readonly names: readonly string[];
  readonly isDefault: boolean;
  readonly ticketLifetimeS: number;
  /** Which certificates of peers are accepted; absent: all that verify. */
  readonly peers?: PeerRules;
  /** Sessions of more revisions before the current one than this are closed; absent: none are. */
  readonly priorRevisions?: number;
}

/** An identity that is in use. */
export interface Published {
  readonly settings: IdentitySettings;
  readonly revision: number;
  /** SNI names in lower case, wildcards as `*.example.org`. */
  readonly names: readonly string[];
  /** Absent when the key is locked. */
  readonly context?: Context;
  /** all: the key is locked. client: it was opened and serves, but there is no context for TLS clients until it is opened again. */
  readonly locked?: 'all' | 'client';
  readonly summary: ReplyBody<'identities'>['identities'][number];
}

export interface LockedIdentity {
  readonly localid: string;
  /** Where the key is. */
  readonly source: string;
}

export interface ReloadResult { readonly changed: readonly string[]; readonly unchanged: number }

/** The published identities and what may be made of them. */
export interface IdentityStore {
  list(): readonly Published[];
  /**
   * SNI table for a server of this client: one identity (then it also serves clients without SNI), or all that the client may use.
   * Throws IDENTITY_UNKNOWN, with the same text whether it does not exist or is not permitted, and IDENTITY_LOCKED when all that the client
   * may use there is locked. Results are cached until the next publication.
   */
  serverSelector(client: Client, localid: string | undefined): Selector;
  /**
   * SNI table of the identity that serves this name, exactly or by a wildcard, for a server of this client: the preferred one where it has the name, else the one that
   * the choice by SNI gives. Undefined when there is none; a default identity, which serves names that it does not have, does not count.
   * Throws IDENTITY_LOCKED where the one that has the name is locked: its names stay its own.
   */
  serving(client: Client, name: string, preferred?: string): Selector | undefined;
  /** Context for the client role; without a localid one that has no certificate and the pool's default trust. Throws IDENTITY_UNKNOWN, IDENTITY_LOCKED. */
  clientContext(client: Client, localid: string | undefined): Context;
  /** What this client may use in the client role now, and what it could use if it were not locked. */
  clientIdentities(client: Client): readonly Published[];
  /** Identities that wait for a PIN, in the order of their names. */
  locked(): readonly LockedIdentity[];
  /** Would this client have this identity in this role if its key were not locked? False also for those that it may not use. */
  isLocked(client: Client, localid: string, role: 'server' | 'client'): boolean;
  /**
   * Context whose trust and peer rules decide on certificates of clients that a session asks for one later; an identity without a certificate of its own will do. Throws
   * IDENTITY_UNKNOWN as serverSelector() does, REAUTH_UNAVAILABLE when it has no roots.
   */
  verifier(client: Client, localid: string): Context;
  /** Called after each publication that changed something; listeners renew their selectors then. */
  onPublished(callback: (changed: readonly string[]) => void): void;
}
