/**
 * Server handshakes for whose name a certificate may have to be made. An identity that is there and has the name wins; else the signing CA is asked. The session waits in the engine
 * meanwhile, whose deadline holds; should it be over before, the decision finds nothing, and the engine closes what came with it.
 */
import { TlsPoolError } from 'libtlspool/protocol';
import type { OwnedFd } from 'libtlspool/native';
import type { Selector } from '../engine.js';
import type { Signer } from '../identity/onthefly.js';
import { isSameName } from '../identity/signed-names.js';
import type { Client } from '../policy/access.js';
import { asPoolError } from './faults.js';
import { discardFd } from './fdbag.js';
import type { Front } from './front.js';
import type { FrontParts } from './parts.js';

/** What is to be decided. */
export interface Undecided {
  /** The engine's number. */
  readonly session: number;
  /** Whose permissions count. */
  readonly client: Client;
  /** SNI; absent when the peer sent none. */
  readonly servername: string | undefined;
  /** For peers that send no name, and which identity is preferred where two have it. */
  readonly localid: string | undefined;
  /** The program was asked and has named this localid: it is used, or the peer is refused. */
  readonly isChosen: boolean;
  readonly alpn?: readonly string[];
}

/** The signer, if this client may have anything signed in this role. Throws NOT_PERMITTED, SIGNING_UNAVAILABLE. */
export function signerFor({ signer }: Pick<FrontParts, 'signer'>, client: Client, role: 'server' | 'client'): Signer {
  if (signer === undefined) throw new TlsPoolError('SIGNING_UNAVAILABLE');
  signer.ensure(client, role);
  return signer;
}

/** Decides, now or soon. Owns the descriptor. */
export function decideOnTheFly(front: Front, undecided: Undecided, plainfd: OwnedFd | -1): void {
  selectorFor(front.parts, undecided).then((selector) => {
    decide(front, undecided, selector, plainfd);
  }, (thrown: unknown) => {
    discardFd(plainfd);
    refuse(front, undecided, asPoolError(thrown));
  }).catch((thrown: unknown) => {
    front.parts.log.error('a decision could not be given to the engine', { session: undecided.session, text: asPoolError(thrown).message });
  });
}

function decide(front: Front, { session, alpn }: Undecided, selector: Selector, plainfd: OwnedFd | -1): void {
  try {
    front.parts.engine.decide(session, { selector, ...(alpn !== undefined && { alpn }) }, plainfd);
  } catch (error) {
    discardFd(plainfd);
    throw error;
  }
}

/** The peer gets unrecognized_name (RFC 6066 section 3); who asked for the session, and the log, hear why. */
function refuse(front: Front, { session, client, servername }: Undecided, error: TlsPoolError): void {
  front.parts.log.failure('no certificate for a handshake', { code: error.code, text: error.message, servername, uid: client.uid, clientPid: client.pid });
  const start = front.starts.get(session);
  if (start !== undefined) start.refusal = error;
  front.parts.engine.decide(session, { refuse: true }, -1);
}

async function selectorFor(parts: FrontParts, { client, servername, localid, isChosen }: Undecided): Promise<Selector> {
  const { store } = parts;
  if (localid !== undefined && (isChosen || servername === undefined)) return namedSelector(parts, client, localid, servername);
  if (servername === undefined) return store.serverSelector(client, undefined);
  return store.serving(client, servername, localid) ?? signerFor(parts, client, 'server').serverSelector(client, servername);
}

/** That identity; where there is none, a certificate for this name, unless it is another one than the peer asks for. */
async function namedSelector(parts: FrontParts, client: Client, localid: string, servername: string | undefined): Promise<Selector> {
  try {
    return parts.store.serverSelector(client, localid);
  } catch (error) {
    const isUnknown = error instanceof TlsPoolError && error.code === 'IDENTITY_UNKNOWN';
    if (!isUnknown || (servername !== undefined && !isSameName(servername, localid))) throw error;
    return signerFor(parts, client, 'server').serverSelector(client, localid);
  }
}
