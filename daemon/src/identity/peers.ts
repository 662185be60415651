/** Access rules on peers' certificates, held against the identity that they stand on. */
import type { X509Certificate } from 'node:crypto';
import { TlsPoolError } from 'libtlspool/protocol';
import { hasAllow } from '../policy/peers.js';
import { mayServe } from './inspect.js';
import type { IdentitySettings } from './types.js';

type Rules = Pick<IdentitySettings, 'clientAuth' | 'peers'>;

/**
 * Such an identity asks no client for a certificate, and accepts only some: no client could ever be among them, and a server that
 * lets all in would be the opposite of what was meant. It can judge the servers that it connects to.
 */
export function isForClientRoleOnly({ clientAuth, peers }: Rules): boolean {
  return clientAuth === 'none' && hasAllow(peers);
}

/** Refuses an allow list that nobody is ever held against, on certificates that can serve. Throws IDENTITY_BAD. */
export function checkPeerRules(rules: Rules, leaves: readonly X509Certificate[], what: string): void {
  if (!isForClientRoleOnly(rules) || !leaves.some(mayServe)) return;
  throw new TlsPoolError('IDENTITY_BAD', {
    text: `${what}: peers.allow says which certificates are accepted, and clientAuth none asks no client for one; set clientAuth to require (or request, which lets clients without a certificate in), or take peers.allow away, or use a certificate for clients only (extended key usage clientAuth)`,
  });
}
