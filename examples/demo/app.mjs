// A small web application that gets its connections from the pool, one by one, and prints a line for each. `npm start`
// runs it as a process of its own. By hand, beside a running pool: PORT=8443 node examples/demo/app.mjs
import http from 'node:http';
import { listen } from 'libtlspool';
import { connectionLine } from './line.mjs';
import { answer } from './page.mjs';
import { endWithParent, tell } from './parent.mjs';

const portsToTry = 20;
const host = '127.0.0.1';

/** The port asked for, or without one the first free from 8443 on. Whoever holds a port is told of. */
async function openListener() {
  const asked = process.env.PORT;
  const first = Number(asked ?? 8443);
  for (let port = first; ; port++) {
    try {
      return await listen({ port, host, alpn: ['http/1.1'] });
    } catch (error) {
      const isTaken = error.code === 'SYSTEM' && error.message.includes('EADDRINUSE');
      if (isTaken) tell({ taken: port });
      if (!isTaken || asked !== undefined || port + 1 >= first + portsToTry) throw error;
    }
  }
}

// Plain http: there is no key, no certificate and no TLS library here. It never listens by itself.
const web = http.createServer({ keepAliveTimeout: 1_000 }, answer);
const open = new Set();

function serve(socket) {
  open.add(socket);
  let ended = 'closed';
  socket.on('error', (error) => { ended = error.code ?? error.message; });
  socket.on('close', () => {
    open.delete(socket);
    console.log(connectionLine(socket, 'https', ended));
  });
  web.emit('connection', socket);
}

async function main() {
  const listener = await openListener();
  const stop = () => {
    listener.close().catch(() => undefined);
    for (const socket of open) socket.end();
  };
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, stop);
  tell({ ready: { host, port: listener.address().port } });
  for await (const socket of listener) serve(socket);
}

await endWithParent(main);
