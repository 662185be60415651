/**
 * What thousands of sessions have in common, kept once.
 *
 * The engine reports each session with fresh strings and a fresh copy of our certificate. Kept as they come, they would be
 * most of the memory of an idle session; interned, a session holds one pointer.
 */
import type { Endpoint } from 'libtlspool/protocol';
import { carriedName } from './carried.js';

/** What a profile is made from: the event that reports the session, or another profile with something changed. */
export type ProfileSource = { readonly [Key in keyof Profile as undefined extends Profile[Key] ? never : Key]: Profile[Key] }
  & { readonly [Key in keyof Profile as undefined extends Profile[Key] ? Key : never]?: Profile[Key] };

/** The part of SessionInfo that does not differ from one client of a service to the next. */
export interface Profile {
  readonly role: 'server' | 'client';
  readonly protocol: 'TLSv1.2' | 'TLSv1.3';
  readonly cipher: string;
  readonly cipherName: string;
  readonly group: string | undefined;
  readonly alpn: string | undefined;
  readonly servername: string | undefined;
  readonly localid: string;
  readonly revision: number;
  readonly resumed: boolean;
  readonly authorized: boolean;
  readonly authorizationError: string | undefined;
  readonly localCertificate: Uint8Array | undefined;
}

/** Peers choose the server name, so the tables are bounded: past this many entries they start anew and old sessions keep theirs. */
const maxEntries = 512;
const separator = '\0';
const noCertificates: readonly Uint8Array[] = [];

export class Profiles {
  readonly #profiles = new Map<string, Profile>();
  readonly #certificates = new Map<string, Uint8Array[]>();
  readonly #endpoints = new Map<string, Endpoint>();
  readonly #issuers = new Map<string, Uint8Array>();

  /** The shared profile of this session. */
  of(event: ProfileSource): Profile {
    const certificate = this.#certificate(event);
    // The server name comes last because the peer chose it: no name can imitate another profile's key.
    const key = [
      event.role, event.protocol, event.cipherName, event.group, event.alpn === undefined ? '' : `=${event.alpn}`, event.localid,
      event.revision, certificate.index, event.resumed, event.authorized, event.authorizationError,
      event.servername === undefined ? '' : `=${event.servername}`,
    ].join(separator);
    const known = this.#profiles.get(key);
    if (known !== undefined) return known;
    if (this.#profiles.size >= maxEntries) this.#profiles.clear();
    const profile: Profile = {
      role: event.role, protocol: event.protocol, cipher: event.cipher, cipherName: event.cipherName, group: event.group,
      alpn: carriedName(event.alpn), servername: carriedName(event.servername), localid: event.localid, revision: event.revision, resumed: event.resumed,
      authorized: event.authorized, authorizationError: event.authorizationError, localCertificate: certificate.der,
    };
    this.#profiles.set(key, profile);
    return profile;
  }

  /** Our side's address, which many sessions of a server share. */
  endpoint(endpoint: Endpoint | undefined): Endpoint | undefined {
    if (endpoint === undefined) return undefined;
    const key = endpoint.family + separator + endpoint.port + separator + endpoint.address;
    const known = this.#endpoints.get(key);
    if (known !== undefined) return known;
    if (this.#endpoints.size >= maxEntries) this.#endpoints.clear();
    this.#endpoints.set(key, endpoint);
    return endpoint;
  }

  /** A peer's certificates, of which only the leaf is its own. Those of a peer that is not authorized could be anything, and are not kept for others. */
  chain([leaf, ...issuers]: readonly Uint8Array[], isAuthorized: boolean): readonly Uint8Array[] {
    if (leaf === undefined) return noCertificates;
    return [leaf, ...(isAuthorized ? issuers.map((issuer) => this.#issuer(issuer)) : issuers)];
  }

  #issuer(der: Uint8Array): Uint8Array {
    const key = Buffer.from(der.buffer, der.byteOffset, der.byteLength).toString('latin1');
    const known = this.#issuers.get(key);
    if (known !== undefined) return known;
    if (this.#issuers.size >= maxEntries) this.#issuers.clear();
    this.#issuers.set(key, der);
    return der;
  }

  /** An identity may have several certificates (one per key type); which one was used is not told by its revision. */
  #certificate(event: ProfileSource): { der: Uint8Array | undefined; index: number } {
    const der = event.localCertificate;
    if (der === undefined) return { der: undefined, index: -1 };
    const key = `${event.revision}${separator}${event.localid}`;
    let known = this.#certificates.get(key);
    if (known === undefined) {
      if (this.#certificates.size >= maxEntries) this.#certificates.clear();
      known = [];
      this.#certificates.set(key, known);
    }
    let index = known.findIndex((one) => Buffer.compare(der, one) === 0);
    if (index < 0) index = known.push(der) - 1;
    return { der: known[index], index };
  }
}
