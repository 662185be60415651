/**
 * From the identities of the V2 dialect, such as `alice@example.org` or `www.example.org`, to those of the pool. The original looked them up in its own data bases; here
 * the configuration of the pool says what there is, and its access rules who may use it.
 */
import { isIP } from 'node:net';
import { TlsPoolError } from 'libtlspool/protocol';
import type { Front } from '../api/front.js';
import { signerFor } from '../api/onthefly.js';
import type { Waiter } from '../api/services.js';
import type { Signer } from '../identity/onthefly.js';
import type { Context, Selector } from '../engine.js';
import type { Client } from '../policy/access.js';
import { V2Error } from './errors.js';
import { domainOf } from './flags.js';

const isUnknown = (error: unknown): boolean => error instanceof TlsPoolError && error.code === 'IDENTITY_UNKNOWN';
export const isSameName = (left: string, right: string): boolean => left.toLowerCase() === right.toLowerCase();

/** The identity of this very name, or else that of its domain; undefined where there is neither, or not for this client. */
function namedSelector({ parts: { store } }: Front, client: Client, localid: string): Selector | undefined {
  for (const name of new Set([localid, domainOf(localid)])) {
    if (name === '') continue;
    try {
      return store.serverSelector(client, name);
    } catch (error) {
      if (!isUnknown(error)) throw error;
    }
  }
  return undefined;
}

/** The locked identity by which a server with this localid would be served, if somebody is there who may unlock it. */
export function awaitedIdentity({ services: { unlocking } }: Front, client: Client, localid: string): string | undefined {
  return [localid, domainOf(localid)].find((name) => name !== '' && unlocking.isAwaited(client, name, 'server'));
}

/** Whoever serves another name than the one that was chosen would be somebody else. */
function checkName(localid: string, servername: string): void {
  if (localid !== '' && !isSameName(domainOf(localid), servername)) throw new TlsPoolError('IDENTITY_UNKNOWN');
}

/**
 * What serves `localid` to a peer that asks for `servername`: the identity of this very name, else that of its domain, else, where the domain is what the peer
 * asks for, whichever identity has that name. Without a localid, all that the client may use. Throws IDENTITY_UNKNOWN.
 */
export function serverSelector(front: Front, client: Client, localid: string, servername: string): Selector {
  const { store } = front.parts;
  if (localid === '') return store.serverSelector(client, undefined);
  const named = namedSelector(front, client, localid);
  if (named !== undefined) return named;
  checkName(localid, servername);
  // Not the identity for unknown names: this one is known, and was asked for.
  const serving = store.serving(client, servername);
  if (serving === undefined) throw new TlsPoolError('IDENTITY_UNKNOWN', { text: `no identity that this client may use serves ${JSON.stringify(servername.slice(0, 255))}` });
  return serving;
}

/** The same, and where no identity has the name that the peer asks for, a certificate that is made for it. Rejects also as the signer does. */
export async function madeSelector(front: Front, client: Client, localid: string, servername: string): Promise<Selector> {
  const named = namedSelector(front, client, localid);
  if (named !== undefined) return named;
  checkName(localid, servername);
  return front.parts.store.serving(client, servername, undefined) ?? signerFor(front.parts, client, 'server').serverSelector(client, servername);
}

export interface ClientIdentity { readonly context: Context; readonly localid: string }

/**
 * What a client shows: the identity of this very name, and never that of its domain, because that would disclose another one than was asked for. Without a localid, what the
 * chooser of the user picks, or what is remembered; without those, no certificate. A locked one is waited for while somebody may unlock it.
 * Rejects with IDENTITY_UNKNOWN, IDENTITY_LOCKED, CHOICE_REFUSED, ABORTED.
 */
export async function clientIdentity(front: Front, client: Client, { localid, remoteid }: { readonly localid: string; readonly remoteid: string }, waiter: Waiter): Promise<ClientIdentity> {
  const settled = await front.services.settle(client, { role: 'client', remoteid, ...(localid !== '' && { localid }) }, waiter);
  return { context: front.parts.store.clientContext(client, settled), localid: settled ?? '' };
}

/** Who makes certificates on the fly. Throws V2Error COMMAND_NOTIMPL where the pool has no signing CA, NOT_PERMITTED where the client may not use it. */
export function signerOf({ parts }: Front, client: Client, role: 'server' | 'client'): Signer {
  try {
    return signerFor(parts, client, role);
  } catch (error) {
    if (error instanceof TlsPoolError && error.code === 'SIGNING_UNAVAILABLE') throw new V2Error('COMMAND_NOTIMPL', error.message);
    throw error;
  }
}

/** A client certificate made for this name. Rejects like `signerOf`, and with SIGNING_UNAVAILABLE. */
export async function madeIdentity(front: Front, client: Client, localid: string): Promise<ClientIdentity> {
  return { context: await signerOf(front, client, 'client').clientContext(client, localid), localid };
}

/** SNI for this remote. RFC 6066 section 3: literal addresses are not permitted. */
export function servernameOf(remoteid: string): string {
  const domain = domainOf(remoteid);
  return isIP(domain) === 0 ? domain : '';
}
