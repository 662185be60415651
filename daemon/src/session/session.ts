/** One TLS session as the front knows it: who may control it, and what to answer about it. */
import type { Endpoint, SessionInfo } from 'libtlspool/protocol';
import type { Client } from '../policy/access.js';
import type { Profile } from './profile.js';
import type { SessionState } from './states.js';

/** A client connection, seen from its sessions. */
export interface Owner {
  readonly client: Client;
  readonly sessions: Set<Session>;
}

/** Of an established session; undefined before. */
export interface SessionFacts {
  readonly profile: Profile;
  /** DER, leaf first, as far as the chain fits into a message; the shared empty list where the peer showed none. */
  readonly peerCertificates: readonly Uint8Array[];
  readonly remote: Endpoint | undefined;
  readonly local: Endpoint | undefined;
}

/**
 * Kept small on purpose: thousands of idle ones are the normal case. Only the table changes `state`, `owner` and `uid`.
 */
export class Session {
  state: SessionState = 'handshake';
  ctlkey = '';
  profile: Profile | undefined = undefined;
  peerCertificates: readonly Uint8Array[] = [];
  remote: Endpoint | undefined = undefined;
  local: Endpoint | undefined = undefined;
  startedAtMs = 0;
  /** Where it came from; 0 for `starttls`. */
  listener = 0;
  /** Outlives the connection that started it. */
  fork = false;
  /** Its owner asked not to be told of it. */
  isSilent = false;

  constructor(
    /** The engine's number. */
    readonly number: number,
    /** Who controls it; null when detached or when its owner has gone. */
    owner: Owner,
  ) {
    this.owner = owner;
    this.uid = owner.client.uid;
  }

  owner: Owner | null;
  /** Whose session limit it counts against. */
  uid: number;
}

/** What the message table calls SessionInfo. Absent things are absent, never undefined: the codec accepts no nil. */
export function sessionInfoOf(facts: SessionFacts): SessionInfo {
  const { profile, remote, local } = facts;
  return {
    role: profile.role,
    protocol: profile.protocol,
    cipher: profile.cipher,
    cipherName: profile.cipherName,
    ...(profile.group !== undefined && { group: profile.group }),
    ...(profile.alpn !== undefined && { alpn: profile.alpn }),
    ...(profile.servername !== undefined && { servername: profile.servername }),
    ...(profile.localid !== '' && { localid: profile.localid, revision: profile.revision }),
    resumed: profile.resumed,
    authorized: profile.authorized,
    ...(profile.authorizationError !== undefined && { authorizationError: profile.authorizationError }),
    peerCertificates: facts.peerCertificates,
    ...(profile.localCertificate !== undefined && { localCertificate: profile.localCertificate }),
    ...(remote !== undefined && { remote }),
    ...(local !== undefined && { local }),
  };
}
