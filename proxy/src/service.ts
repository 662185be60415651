/** What the connections of one service share. Replaced whole when the configuration changes; connections keep the one they began with. */
import type { Pool } from 'libtlspool';
import { TlsPoolError } from 'libtlspool/protocol';
import type { Endpoint } from 'libtlspool/protocol';
import type { ServiceConfig } from './config/types.js';
import type { Faces } from './handoff/connect.js';
import { addressKey } from './limits.js';
import type { Places } from './limits.js';
import type { AddressList } from './proxyprotocol/index.js';

/** Counters that outlive a configuration. */
export interface ServicePlaces {
  readonly all: Places;
  readonly services: Places;
  readonly addresses: Places;
  /** Programs of `exec`, each with the limit of its backend. */
  readonly programs: Places;
}

/** What the proxy as a whole gives to its services. */
export interface Surroundings {
  readonly pool: Pool;
  readonly faces: Faces;
  readonly places: ServicePlaces;
  /** Ends what is not handed over yet. */
  readonly signal: AbortSignal;
  /** A line that a program of `exec` wrote to its standard error, made harmless. */
  readonly onProgramOutput: (service: string, line: string) => void;
}

/** One service as it is configured now. */
export interface ServiceContext extends Surroundings {
  readonly service: ServiceConfig;
  /** Load balancers, whose PROXY header is awaited and believed. */
  readonly balancers: AddressList;
}

/** A place in all, and one of the service. Throws LIMIT_CLIENTS; nothing is held then. */
export function enter({ places, service }: ServiceContext): () => void {
  const leaveAll = places.all.take('');
  try {
    const leaveService = places.services.take(service.name, service.connections);
    return () => { leaveAll(); leaveService(); };
  } catch (error) {
    leaveAll();
    throw error;
  }
}

/** A place for the client's address. Throws LIMIT_CLIENTS. */
export function enterFrom({ places, service }: ServiceContext, remote: Endpoint | undefined): () => void {
  return places.addresses.take(`${service.name} ${addressKey(remote)}`, service.perAddress);
}

/**
 * Resolves when the pool is there. It may just be restarting, so a client waits for it as long as for a backend. Rejects with POOL_LOST, and with ABORTED
 * when the proxy goes down.
 */
export async function poolOf({ pool, service, signal }: ServiceContext): Promise<void> {
  if (pool.link.channel !== undefined) return;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      reject(new TlsPoolError('POOL_LOST', { text: `the pool went away and did not come back within ${service.backendMs} ms; is tlspoold running?` }));
    }, service.backendMs);
  });
  try {
    if (await unless(Promise.race([pool.link.whenUp(), late]), signal) === undefined) throw new TlsPoolError('ABORTED', { cause: signal.reason });
  } finally {
    clearTimeout(timer);
  }
}

/** What a promise comes to, or undefined when the signal is given first. */
export function unless<T>(promise: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const abort = (): void => resolve(undefined);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => { signal.removeEventListener('abort', abort); });
  });
}
