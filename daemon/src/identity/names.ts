/** The server names that identities answer to. */
import type { X509Certificate } from 'node:crypto';
import { TlsPoolError } from 'libtlspool/protocol';
import { normalizeHostName } from 'tlspool-common/config';
import { mayServe } from './inspect.js';

/** The cap of the `identities` reply. */
export const maxNames = 256;

/**
 * The DNS names of a certificate (subjectAltName, RFC 5280 section 4.2.1.6), in canonical form; what is no host name is
 * left out. Node prints the extension as text and quotes values with odd characters, so that `DNS:"a, DNS:b"` is one name.
 */
export function dnsNames(certificate: X509Certificate): readonly string[] {
  const names: string[] = [];
  for (const [, type, value = ''] of (certificate.subjectAltName ?? '').matchAll(/([^:,"]+):("(?:[^"\\]|\\.)*"|[^,]*)(?:, |$)/g)) {
    const name = type === 'DNS' ? normalizeHostName(value) : undefined;
    if (name !== undefined) names.push(name);
  }
  return names;
}

/** The configured names, or else those of the certificates that are for servers, without doubles. Throws IDENTITY_BAD for more than 256. */
export function servedNames(configured: readonly string[], certificates: readonly X509Certificate[], what: string): readonly string[] {
  const names = [...new Set(configured.length > 0 ? configured : certificates.filter(mayServe).flatMap(dnsNames))];
  if (names.length > maxNames) throw new TlsPoolError('IDENTITY_BAD', { text: `${what}: the certificates have ${names.length} DNS names; at most ${maxNames} are served; choose some by "names" in the configuration` });
  return names;
}

/** As much of an identity as the table of names needs. */
export interface Named { readonly localid: string; readonly names: readonly string[]; readonly isConfigured: boolean }

export interface NameTable {
  /** Server name -> localid. */
  readonly owners: ReadonlyMap<string, string>;
  /** Names of several certificates that no configuration gives to one: not served by name alone. */
  readonly ambiguous: readonly { readonly name: string; readonly localids: readonly string[] }[];
}

/**
 * Who serves which name when the choice is by SNI alone. A name that is configured goes to that identity, and it is an error
 * (CONFIG_BAD) to configure it for two. A name that merely stands in two certificates belongs to nobody: the two
 * may differ in whom they let in, and guessing would fail open.
 */
export function nameTable(identities: readonly Named[]): NameTable {
  const claims = new Map<string, Named[]>();
  for (const identity of identities) {
    for (const name of identity.names) claims.set(name, [...(claims.get(name) ?? []), identity]);
  }
  const owners = new Map<string, string>();
  const ambiguous: { name: string; localids: string[] }[] = [];
  for (const [name, all] of claims) {
    const configured = all.filter((identity) => identity.isConfigured);
    const [owner, second] = configured.length > 0 ? configured : all;
    if (owner === undefined) continue;
    if (second === undefined) owners.set(name, owner.localid);
    else if (configured.length > 0) {
      throw new TlsPoolError('CONFIG_BAD', { text: `the server name ${name} is configured for the identities ${owner.localid} and ${second.localid}; take it out of the names of one` });
    } else ambiguous.push({ name, localids: all.map(({ localid }) => localid) });
  }
  return { owners, ambiguous };
}
