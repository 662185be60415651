// A small web application that gets its connections from the pool, one by one, and prints a line for each. `npm start`
// runs it as a process of its own. By hand, beside a running pool: PORT=8443 node examples/demo/app.mjs
import http from 'node:http';
import { listen } from 'libtlspool';
import { connectionLine } from './line.mjs';
import { answer } from './page.mjs';

const portsToTry = 20;
const host = '127.0.0.1';

/** To whoever started us with an IPC channel; else for people. */
const tell = (message) => (process.send === undefined ? console.log(JSON.stringify(message)) : process.send(message));

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
    console.log(connectionLine(socket, ended));
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
  tell({ listening: { host, port: listener.address().port } });
  for await (const socket of listener) serve(socket);
}

if (process.send !== undefined) {
  let poolPid = 0;
  process.on('message', (message) => { poolPid = message.poolPid ?? poolPid; });
  // Whoever started us was killed and could not clean up: the pool, which it started too, must not stay behind alone.
  process.on('disconnect', () => {
    if (poolPid > 0) try { process.kill(poolPid, 'SIGTERM'); } catch { /* it has ended as well */ }
    process.exit(1);
  });
}

try {
  await main();
  // The IPC channel would keep the process; connections that are still open end in their own time.
  process.channel?.unref();
} catch (error) {
  if (process.send === undefined) console.error(error.message);
  else await new Promise((resolve) => { process.send({ failed: error.message }, resolve); });
  process.exit(1);
}
