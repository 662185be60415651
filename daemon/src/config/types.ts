/** The configuration, checked and with every default filled in. What each key means is in schema.ts and docs/configuration.md. */
import type { ClientAuth } from 'libtlspool/protocol';
import type { PolicyName } from '../identity/types.js';
import type { Permission } from '../policy/access.js';
import type { PeerRules } from '../policy/peers.js';

export interface SocketConfig {
  /** Absolute, at most 107 octets. */
  readonly path: string;
  /** Permission bits. */
  readonly mode: number;
  /** Group that owns the socket; absent: the pool's own. */
  readonly gid?: number;
}

/** The V2 dialect. */
export interface V2Config {
  readonly socket: SocketConfig;
  /** Absolute. */
  readonly pidFile?: string;
}

export interface LimitsConfig {
  readonly sessions: number;
  readonly sessionsPerClient: number;
  readonly handshakes: number;
  readonly handshakeMs: number;
  readonly messageOctets: number;
  readonly clients: number;
  readonly listenersPerClient: number;
  readonly requestsPerClient: number;
  readonly lingerMs: number;
  readonly queuedConnections: number;
}

export interface LogConfig { readonly level: 'debug' | 'info' | 'warn' | 'error' | 'silent'; readonly format: 'json' }

/** Where the credentials of an identity are; paths are absolute. */
export type SourceConfig =
  | { readonly kind: 'directory'; readonly directory: string }
  | { readonly kind: 'files'; readonly certificate: string; readonly key: string; readonly trust?: string }
  | { readonly kind: 'pkcs12'; readonly file: string; /** Absent: locked until a PIN entry gives the password. */ readonly passwordFile?: string; readonly trust?: string };

export interface IdentityConfig {
  readonly localid: string;
  readonly source: SourceConfig;
  readonly names: readonly string[];
  readonly policy: PolicyName;
  readonly clientAuth: ClientAuth;
  readonly isDefault: boolean;
  readonly ticketLifetimeS: number;
  /** Which certificates of peers are accepted; absent: all that verify. */
  readonly peers?: PeerRules;
  /** How many revisions before the current one may live on; absent: all. */
  readonly priorRevisions?: number;
}

/** The signing CA, and what may be made with it. */
export interface OnTheFlyConfig {
  /** PEM, the CA first, then its issuers. */
  readonly certificate: string;
  readonly key: string;
  /** Globs, in lower case, on the names that may be signed. */
  readonly names: readonly string[];
  readonly lifetimeS: number;
  /** Most certificates that are kept. */
  readonly cache: number;
  readonly policy: PolicyName;
  readonly clientAuth: ClientAuth;
  readonly trust?: string;
}

/** Grants to the clients that match all of uid, gid and unit that are present. At least one of the three is. */
export interface AccessRule {
  readonly uids?: readonly number[];
  readonly gids?: readonly number[];
  /** Globs on the name of a unit of the system's service manager. */
  readonly units?: readonly string[];
  /** Globs on localids. */
  readonly identities: readonly string[];
  readonly permissions: readonly Permission[];
}

export interface Config {
  /** Absolute path of the configuration file; absent for the development default. */
  readonly file?: string;
  /** True without a file: prepareState makes a development CA and the identity `localhost`. */
  readonly development: boolean;
  readonly socket: SocketConfig;
  /** Absent: the V2 dialect is not offered. */
  readonly v2?: V2Config;
  /** Folder for what the pool itself writes, mode 0700. */
  readonly state: string;
  /** Engine threads, 1 to 256. */
  readonly workers: number;
  /** Processors that the threads are bound to, in turn; absent: the scheduler decides. */
  readonly workerCpus?: readonly number[];
  readonly log: LogConfig;
  readonly limits: LimitsConfig;
  readonly drainMs: number;
  /** PEM files with the roots for outgoing connections that name no identity. */
  readonly trust: { readonly roots: readonly string[] };
  readonly identities: readonly IdentityConfig[];
  /** Each sub-folder is one more identity, named like the folder. */
  readonly identitiesDirectory?: string;
  /** Absent: nothing is signed. */
  readonly onTheFly?: OnTheFlyConfig;
  readonly access: readonly AccessRule[];
}

/** Values of the command line; they win over the file. */
export interface Overrides { readonly socket?: string; readonly state?: string }
