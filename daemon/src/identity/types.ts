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
  /** Digest of everything read, to tell whether anything changed. Reveals nothing about keys. */
  readonly digest: string;
}

export interface IdentitySource {
  /** For people: a folder or file name. */
  readonly description: string;
  /** Reads everything now. Throws TlsPoolError IDENTITY_BAD that names the file and the cure. */
  load(): Promise<Material>;
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
  readonly context: Context;
  readonly summary: ReplyBody<'identities'>['identities'][number];
}

export interface ReloadResult { readonly changed: readonly string[]; readonly unchanged: number }

/** The published identities and what may be made of them. */
export interface IdentityStore {
  list(): readonly Published[];
  /**
   * SNI table for a server of this client: one identity (then it also serves clients without SNI), or all that the client may use.
   * Throws IDENTITY_UNKNOWN, with the same text whether it does not exist or is not permitted. Results are cached until the next publication.
   */
  serverSelector(client: Client, localid: string | undefined): Selector;
  /** Context for the client role; without a localid one that has no certificate and the pool's default trust. Throws IDENTITY_UNKNOWN. */
  clientContext(client: Client, localid: string | undefined): Context;
  /** Called after each publication that changed something; listeners renew their selectors then. */
  onPublished(callback: (changed: readonly string[]) => void): void;
}
