/** What each command that asks the pool prints. `--json` prints the reply as it came, with binary as base64. */
import type { Endpoint, ReplyBody } from 'libtlspool/protocol';
import type { PoolClient } from './client.js';
import { duration, list, moment, octets, printable, table } from './format.js';

/** The answer, and how people want to see it. */
export interface Shown { readonly value: unknown; readonly text: string }

export type PoolCommand = (pool: PoolClient) => Shown;

const dayMs = 86_400_000;
const sessionsPage = 200;

export const poolCommands = {
  ping(pool) {
    const startMs = performance.now();
    const { pool: product, pid, uptimeMs } = pool.request('ping', {});
    const tookMs = performance.now() - startMs;
    const value = { pool: product, pid, uptimeMs, tookMs: Number(tookMs.toFixed(3)) };
    return { value, text: `${product} (process ${pid}, up ${duration(uptimeMs)}) answered in ${tookMs.toFixed(1)} ms` };
  },

  status(pool) {
    const value = pool.request('status', {});
    return { value, text: statusText(value) };
  },

  sessions(pool) {
    const sessions = allSessions(pool);
    return { value: { sessions }, text: sessions.length === 0 ? 'no sessions' : sessionsText(sessions) };
  },

  identities(pool) {
    const identities = allIdentities(pool);
    return { value: { identities }, text: identities.length === 0 ? 'no identities' : identitiesText(identities) };
  },

  reload(pool) {
    const value = pool.request('reload', {});
    const changed = value.changed.length === 0 ? 'nothing has changed' : `changed: ${value.changed.map(printable).join(', ')}`;
    return { value, text: `reloaded; ${changed}; unchanged: ${value.unchanged}` };
  },
} as const satisfies Record<string, PoolCommand>;

function statusText(status: ReplyBody<'status'>): string {
  return list([
    ['pool', status.pool], ['process', status.pid], ['state', status.state], ['up', duration(status.uptimeMs)],
    ['socket', status.socket], ['configuration', status.config ?? 'none (development default)'],
    ['node', status.node], ['openssl', status.openssl], ['workers', status.workers],
    ['clients', status.clients], ['listeners', status.listeners], ['sessions', status.sessions], ['identities', status.identities],
    ['handshakes in flight', status.handshakes], ['handshakes done', status.handshakesDone],
    ['handshakes failed', status.handshakesFailed], ['handshakes resumed', status.handshakesResumed],
    ['received', octets(status.octetsReceived)], ['sent', octets(status.octetsSent)],
    ['last reload', status.reloadedAtMs === undefined ? undefined : moment(status.reloadedAtMs)], ['reload error', status.reloadError],
  ]);
}

function allSessions(pool: PoolClient): ReplyBody<'sessions'>['sessions'] {
  const sessions: ReplyBody<'sessions'>['sessions'][number][] = [];
  let after: number | undefined;
  do {
    const page = pool.request('sessions', { limit: sessionsPage, ...(after !== undefined && { after }) });
    sessions.push(...page.sessions);
    after = page.next;
  } while (after !== undefined);
  return sessions;
}

function allIdentities(pool: PoolClient): ReplyBody<'identities'>['identities'] {
  const identities: ReplyBody<'identities'>['identities'][number][] = [];
  let after: string | undefined;
  do {
    const page = pool.request('identities', after === undefined ? {} : { after });
    identities.push(...page.identities);
    after = page.next;
  } while (after !== undefined);
  return identities;
}

function sessionsText(sessions: ReplyBody<'sessions'>['sessions']): string {
  const header = ['session', 'role', 'identity', 'rev', 'name', 'protocol', 'cipher', 'alpn', 'peer', 'subject', 'ok', 'owner', 'age'];
  return table(header, sessions.map((one) => [
    one.session, one.role, one.localid, one.revision, one.servername, one.protocol, one.cipher, one.alpn, endpointText(one.remote), one.subject,
    one.authorized, one.ownerPid === undefined ? 'detached' : `${one.ownerPid}/${one.ownerUid ?? ''}`, duration(Date.now() - one.startedAtMs),
  ]));
}

function endpointText(endpoint: Endpoint | undefined): string | undefined {
  if (endpoint === undefined) return undefined;
  if (endpoint.family === 'unix') return endpoint.address === '' ? 'unix' : `unix:${endpoint.address}`;
  return endpoint.family === 'IPv6' ? `[${endpoint.address}]:${endpoint.port}` : `${endpoint.address}:${endpoint.port}`;
}

function identitiesText(identities: ReplyBody<'identities'>['identities']): string {
  const rows = identities.flatMap((identity) => {
    const marks = [...(identity.isDefault ? ['default'] : []), ...(identity.locked === true ? ['locked'] : [])];
    const own = [marks.length > 0 ? `${identity.localid} (${marks.join(', ')})` : identity.localid, identity.revision, identity.policy, identity.clientAuth, identity.trustRoots, identity.names.join(' ')];
    if (identity.certificates.length === 0) return [[...own, undefined, undefined, undefined]];
    return identity.certificates.map((certificate) => [...own, certificate.keyType, certificate.subject, expiry(certificate.notAfterMs)]);
  });
  return table(['identity', 'rev', 'policy', 'client auth', 'roots', 'names', 'key', 'subject', 'expires'], rows);
}

function expiry(notAfterMs: number): string {
  const days = Math.floor((notAfterMs - Date.now()) / dayMs);
  return days < 0 ? `EXPIRED ${moment(notAfterMs)}` : `${moment(notAfterMs)} (${days} days)`;
}
