/**
 * An application behind the pool that takes one connection after another and sends or receives a lot, as the test tells it by IPC.
 * TLSPOOL_SOCKET names the pool. Says {port}; then for {start, total, holdEvery} the next connection is served that way.
 */
import type net from 'node:net';
import { connectPool } from 'libtlspool';
import { BulkReader, BulkWriter } from '../bulk.js';

type Command =
  | { readonly do: 'send' | 'receive'; readonly total: number; readonly holdEvery?: number }
  | { readonly do: 'resume' | 'state' };

const say = (message: object): void => { process.send?.(message); };
let next: Extract<Command, { do: 'send' | 'receive' }> | undefined;
let bulk: BulkReader | BulkWriter | undefined;

process.on('message', (command: Command) => {
  if (command.do === 'send' || command.do === 'receive') {
    next = command;
    bulk = undefined;
    say({ ready: true });
  } else {
    if (command.do === 'resume') bulk?.resume();
    say({ state: bulk?.state() ?? { octets: 0, held: false } });
  }
});
process.on('disconnect', () => { process.exit(0); });

const pool = await connectPool();
const listener = await pool.listen({ host: '127.0.0.1', port: 0, localid: 'localhost' });
say({ port: (listener.address() as net.AddressInfo).port });
for await (const socket of listener) {
  const hold = next?.holdEvery === undefined ? {} : { holdEvery: next.holdEvery };
  if (next?.do === 'send') {
    bulk = new BulkWriter(socket, next.total, hold);
    socket.resume();
  } else {
    bulk = new BulkReader(socket, hold);
  }
}
