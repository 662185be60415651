/** What decides on the certificate of a client that is asked while its session runs, and whether it still does when the answer comes. */
import { TlsPoolError } from 'libtlspool/protocol';
import type { Context } from '../engine.js';
import type { Client } from '../policy/access.js';
import type { Profile } from '../session/profile.js';
import { asPoolError } from './faults.js';
import type { FrontParts } from './parts.js';

export interface Judgement {
  /** For the engine. */
  readonly context: Context;
  /** The client may have thought for an hour, and the roots, the rules or the identity may have changed meanwhile. */
  holds(): boolean;
}

/** The question: who asks, the identity whose trust is to decide (default: the session's own), and the session's profile. */
export interface Question { readonly client: Client; readonly localid?: string | undefined; readonly own: Profile }

/** Throws TlsPoolError REAUTH_UNAVAILABLE, IDENTITY_UNKNOWN or NOT_PERMITTED where nothing may decide. */
export function judgementOf(parts: FrontParts, question: Question): Judgement {
  const context = verifierOf(parts, question);
  return {
    context,
    holds: () => {
      try {
        return verifierOf(parts, question) === context;
      } catch {
        return false;
      }
    },
  };
}

/**
 * Today's trust decides, not that of the time of the handshake: a root that was taken away since must not vouch for anybody. Fails closed where the session's own
 * identity is gone, or made on the fly.
 */
function verifierOf({ store }: FrontParts, { client, localid, own }: Question): Context {
  if (localid !== undefined) return store.verifier(client, localid);
  try {
    return store.verifier(client, own.localid);
  } catch (thrown) {
    const error = asPoolError(thrown);
    if (error.code !== 'IDENTITY_UNKNOWN') throw error;
    throw new TlsPoolError('REAUTH_UNAVAILABLE', { text: 'the identity of this session is none that this client may serve today, so that its roots cannot decide; name an identity by localid', cause: error });
  }
}
