/** Applications behind a test pool, in the test's own process. */
import type net from 'node:net';
import { attach, connectPool } from 'libtlspool';
import type { Listener, ListenOptions, Pool, PoolSocket } from 'libtlspool';
import type { TestPool } from './pool.js';

export interface Served {
  readonly port: number;
  /** Stops accepting; sessions and the server's own sockets are the test's business. May be called twice. */
  close(): Promise<void>;
}

/** Puts an existing http, http2 or framework server behind the pool, on a port of 127.0.0.1 that the kernel chooses. */
export async function serve(pool: TestPool, server: Parameters<typeof attach>[0], options: Omit<ListenOptions, 'port' | 'host'> = {}): Promise<Served> {
  const connection: Pool = await connectPool({ path: pool.socket });
  const attached = await attach(server, { ...options, pool: connection, host: '127.0.0.1', port: 0 });
  const { port } = attached.address() as net.AddressInfo;
  let closed = false;
  return {
    port,
    close: async () => {
      if (closed) return;
      closed = true;
      await attached.close();
      connection.close();
    },
  };
}

/** An accept loop: each socket goes to `handle`, whose errors are the test's errors unless the socket reports them. */
export async function acceptLoop(
  pool: TestPool, handle: (socket: PoolSocket) => void, options: Omit<ListenOptions, 'port' | 'host'> = {},
): Promise<Served> {
  const connection = await connectPool({ path: pool.socket });
  const listener: Listener = await connection.listen({ ...options, host: '127.0.0.1', port: 0 });
  const loop = (async (): Promise<void> => {
    for await (const socket of listener) handle(socket);
  })();
  const { port } = listener.address() as net.AddressInfo;
  let closed = false;
  return {
    port,
    close: async () => {
      if (closed) return;
      closed = true;
      await listener.close();
      await loop.catch((error: unknown) => { if ((error as { code?: string }).code !== 'LISTENER_CLOSED') throw error; });
      connection.close();
    },
  };
}
