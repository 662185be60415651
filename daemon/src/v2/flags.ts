/** Flags of STARTTLS, and the roles that they ask for. */

export const startFlags = {
  LOCALROLE_CLIENT: 0x1, LOCALROLE_SERVER: 0x2, REMOTEROLE_CLIENT: 0x4, REMOTEROLE_SERVER: 0x8,
  /** Without meaning on a stream socket: what the socket is decides. */
  DTLS: 0x100,
  WITHOUT_SNI: 0x200, IGNORE_CACHES: 0x400, REQUEST_REMOTEID: 0x800, IGNORE_REMOTEID: 0x1000,
  DETACH: 0x2000, FORK: 0x4000, DOMAIN_REPRESENTS_USER: 0x8000, LOCALID_CHECK: 0x1_0000, RENEGOTIATE: 0x2_0000, LOCALID_ONTHEFLY: 0x4_0000,
} as const;

export type StartFlag = keyof typeof startFlags;

export const hasFlag = (flags: number, flag: StartFlag): boolean => (flags & startFlags[flag]) !== 0;

/**
 * The role that is left when the impossible ones are dropped: a local server needs a remote client, and the other way round. `peer`: both are left, and the
 * two ends would have to agree.
 */
export function roleOf(flags: number): 'client' | 'server' | 'peer' | 'none' {
  const isClient = hasFlag(flags, 'LOCALROLE_CLIENT') && hasFlag(flags, 'REMOTEROLE_SERVER');
  const isServer = hasFlag(flags, 'LOCALROLE_SERVER') && hasFlag(flags, 'REMOTEROLE_CLIENT');
  if (isClient) return isServer ? 'peer' : 'client';
  return isServer ? 'server' : 'none';
}

/** The part of an identity after its last `@`: the host or domain. Without one all of it. */
export const domainOf = (identity: string): string => identity.slice(identity.lastIndexOf('@') + 1);
