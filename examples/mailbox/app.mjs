// A mailbox whose IMAP and SMTP servers get their connections from a proxy, one by one, with TLS and STARTTLS done. `npm start` runs it as a
// process of its own. By hand, beside a pool and a proxy with `backend: {fd: FOLDER/imap.sock}`: node examples/mailbox/app.mjs FOLDER
import path from 'node:path';
import { listenForHandoff, withoutGreeting } from 'libtlspool';
import { connectionLine } from '../demo/line.mjs';
import { endWithParent, tell } from '../demo/parent.mjs';
import { serveImap } from './imap.mjs';
import { Inbox } from './inbox.mjs';
import { smtpServer } from './smtp.mjs';
import { welcome } from './welcome.mjs';

const [user, password] = ['demo', 'demo'];
const inbox = new Inbox();
inbox.add(welcome(`${user}@localhost`));

const deliver = smtpServer(inbox);
/** How the servers get a connection. This IMAP server can do without its greeting; one that always greets, as most do, is kept from greeting twice. */
const serve = {
  imap: (socket) => void serveImap(socket, { inbox, user, password, greets: socket.preamble.protocol === 'none' }),
  smtp: (socket) => deliver(withoutGreeting(socket, socket.preamble.protocol)),
};

const open = new Set();

async function acceptAll(name, listener) {
  for await (const socket of listener) {
    open.add(socket);
    const service = socket.preamble.protocol === 'none' ? `${name}s` : name;
    let ended = 'closed';
    socket.on('error', (error) => { ended = error.code ?? error.message; });
    socket.on('close', () => {
      open.delete(socket);
      console.log(connectionLine(socket, service, ended));
    });
    serve[name](socket);
  }
}

async function main() {
  const [folder] = process.argv.slice(2);
  if (folder === undefined) throw new Error('usage: node app.mjs FOLDER, in which the hand-off sockets imap.sock and smtp.sock are made');
  const listeners = [];
  for (const name of Object.keys(serve)) listeners.push([name, await listenForHandoff({ path: path.join(folder, `${name}.sock`) })]);
  const stop = () => {
    for (const [, listener] of listeners) void listener.close();
    for (const socket of open) socket.end();
  };
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, stop);
  tell({ ready: { user, password } });
  await Promise.all(listeners.map(([name, listener]) => acceptAll(name, listener)));
}

await endWithParent(main);
