/** A pool that offers the V2 dialect. */
import path from 'node:path';
import { startPool } from '../pool.js';
import type { PoolOptions, TestPool } from '../pool.js';

export interface V2Pool { readonly pool: TestPool; readonly socket: string }

/** Identities `localhost` (a server that wants no certificate by itself, with trust) and `alice` (for clients) where none are given; its own CA is trusted by the client role. */
export async function startV2Pool({ config = {}, ...options }: Omit<PoolOptions, 'config'> & { readonly config?: Readonly<Record<string, unknown>> } = {}): Promise<V2Pool> {
  const pool = await startPool({
    identities: [{ localid: 'localhost', trust: true }, { localid: 'alice', usage: 'clientAuth', sans: ['email:alice@example.org'], trust: true }],
    ...options, config: { trust: { roots: ['ca/ca.crt'] }, v2: { socket: { path: 'v2.sock' } }, ...config },
  });
  return { pool, socket: path.join(path.dirname(pool.socket), 'v2.sock') };
}
