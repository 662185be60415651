/**
 * One of several processes behind one port. Arguments: NAME and how it gets its listener: `share PORT` (0: the kernel chooses) or `fd NUMBER`, inherited.
 * Answers each connection with NAME and ends it. Says {port}.
 */
import type net from 'node:net';
import { listen } from 'libtlspool';

const [name = '', how = '', number = ''] = process.argv.slice(2);
const listener = await listen(how === 'fd' ? { fd: Number(number), localid: 'localhost' } : { share: 'web', localid: 'localhost', host: '127.0.0.1', port: Number(number) });
process.on('disconnect', () => { process.exit(0); });
process.send?.({ port: (listener.address() as net.AddressInfo).port });
for await (const socket of listener) {
  socket.on('error', () => undefined);
  socket.end(name);
  socket.resume();
}
