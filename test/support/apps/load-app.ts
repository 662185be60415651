/**
 * TLS clients by Node's own TLS, in numbers. Argument: JSON {port, caFile, count, octets, holdAt}. Each sends `octets` of noise, stopping at `holdAt` until {go} is said, reads what comes back, and
 * compares both by SHA-256. Says {connected} when all are, and {results} when all have ended.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import tls from 'node:tls';
import { BulkReader, BulkWriter } from '../bulk.js';

interface Arguments { readonly port: number; readonly caFile: string; readonly count: number; readonly octets: number; readonly holdAt: number }
/** Of one connection. */
export interface LoadResult { readonly port: number; readonly sent: number; readonly received: number; readonly isSame: boolean; readonly how: string }

const { port, caFile, count, octets, holdAt } = JSON.parse(process.argv[2] ?? '{}') as Arguments;
const ca = readFileSync(caFile);
process.on('disconnect', () => { process.exit(0); });

/** Writes and reads at once; resolves when the connection is closed. */
function exchange(socket: tls.TLSSocket): { readonly writer: BulkWriter; readonly result: Promise<LoadResult> } {
  const localPort = socket.localPort ?? 0;
  let how = 'closed';
  const reader = new BulkReader(socket);
  // An end before we have ended ours is not that of an echo.
  socket.once('end', () => { how = 'end'; if (!socket.writableEnded) socket.destroy(); });
  socket.on('error', (error: NodeJS.ErrnoException) => { how = error.code ?? error.message; });
  const writer = new BulkWriter(socket, octets, { holdEvery: holdAt });
  // Not events.once, which rejects on `error`.
  const result = new Promise<void>((resolve) => { socket.once('close', () => { resolve(); }); }).then(() => {
    const [up, down] = [writer.state(), reader.state()];
    return { port: localPort, sent: up.octets, received: down.octets, isSame: up.sha256 !== undefined && up.sha256 === down.sha256, how };
  });
  return { writer, result };
}

const exchanges = await Promise.all(Array.from({ length: count }, async () => {
  const socket = tls.connect({ host: '127.0.0.1', port, ca, servername: 'localhost', allowHalfOpen: true } as tls.ConnectionOptions);
  await once(socket, 'secureConnect');
  return exchange(socket);
}));
process.on('message', () => { for (const { writer } of exchanges) writer.resume(); });
process.send?.({ connected: true });
process.send?.({ results: await Promise.all(exchanges.map(({ result }) => result)) });
