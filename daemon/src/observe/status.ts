/** What `status` answers: the pool's state in numbers. */
import type { ReplyBody } from 'libtlspool/protocol';
import type { EngineCounters } from '../engine.js';

/** What does not change while the daemon runs. */
export interface Identification {
  /** Product and version, such as `tlspool/0.1.0`. */
  readonly pool: string;
  readonly openssl: string;
  readonly workers: number;
  readonly socket: string;
  readonly config?: string;
  /** performance.now() of the start. */
  readonly startedAtMs: number;
}

/** How the last reloads went. */
export interface ReloadRecord { atMs?: number; error?: string }

export interface Gauges {
  readonly state: 'running' | 'draining';
  readonly clients: number;
  readonly listeners: number;
  readonly identities: number;
  readonly counters: EngineCounters;
  readonly reload: Readonly<ReloadRecord>;
}

export function uptimeMs(identification: Identification): number {
  return Math.max(0, Math.round(performance.now() - identification.startedAtMs));
}

export function statusOf(fixed: Identification, now: Gauges): ReplyBody<'status'> {
  const { counters, reload } = now;
  return {
    pool: fixed.pool, pid: process.pid, uptimeMs: uptimeMs(fixed), node: process.version, openssl: fixed.openssl, workers: fixed.workers,
    state: now.state, socket: fixed.socket, ...(fixed.config !== undefined && { config: fixed.config }),
    clients: now.clients, listeners: now.listeners, sessions: counters.sessions, handshakes: counters.handshakes, identities: now.identities,
    handshakesDone: counters.handshakesDone, handshakesFailed: counters.handshakesFailed, handshakesResumed: counters.handshakesResumed,
    octetsReceived: counters.octetsReceived, octetsSent: counters.octetsSent,
    ...(reload.atMs !== undefined && { reloadedAtMs: reload.atMs }), ...(reload.error !== undefined && { reloadError: reload.error }),
  };
}
