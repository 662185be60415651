/** Who a client of the pool is, and what its credentials let it do. Fails closed. */
import type { PeerCredentials } from 'libtlspool/native';

export interface Client extends Omit<PeerCredentials, 'pidfd'> {
  /** systemd unit from the client's cgroup, such as `dovecot.service`; absent where there is none. */
  readonly unit?: string;
}

export type Permission = 'server' | 'client' | 'backend' | 'sign' | 'operator';

/** Decisions about clients of the pool. */
export interface AccessPolicy {
  /** May this client talk to the pool at all? */
  mayConnect(client: Client): boolean;
  /** May it do this kind of thing? */
  may(client: Client, permission: Permission): boolean;
  /** May it use this identity in this role? */
  mayUse(client: Client, localid: string, role: 'server' | 'client'): boolean;
  /** The cap on sessions of one client (by uid). */
  readonly sessionsPerClient: number;
}
