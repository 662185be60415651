/**
 * The IMAP backend of the STARTTLS rows: a line in, a line out. Argument: a path, at which connections are handed over to it, or nothing, for a
 * server on TCP as it stands behind a proxy that connects.
 */
import net from 'node:net';
import { listenForHandoff } from 'libtlspool';
import { report } from './handler.mjs';

/** As much IMAP as the rows need. */
function serve(socket, greets) {
  if (greets) socket.write('* OK [CAPABILITY IMAP4rev1] ready\r\n');
  let text = '';
  socket.on('error', () => socket.destroy());
  socket.on('data', (data) => {
    text += data.toString('latin1');
    for (let end = text.indexOf('\r\n'); end >= 0; end = text.indexOf('\r\n')) {
      answer(socket, text.slice(0, end));
      text = text.slice(end + 2);
    }
  });
}

function answer(socket, line) {
  const [tag, command = ''] = line.split(' ');
  switch (command.toUpperCase()) {
    case 'CAPABILITY': return socket.write(`* CAPABILITY IMAP4rev1\r\n${tag} OK done\r\n`);
    case 'LOGOUT': return socket.end(`* BYE\r\n${tag} OK done\r\n`);
    default: return socket.write(`${tag} OK done\r\n`);
  }
}

const [path] = process.argv.slice(2);
if (path === undefined) {
  const server = net.createServer({ noDelay: true }, (socket) => serve(socket, true));
  server.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, () => report(server.address().port));
} else {
  // Nothing is asked about the sessions, so nobody needs to be told of their ends.
  const listener = await listenForHandoff({ path, reattach: false, backlog: 4096, highWaterMark: 256 });
  report(0);
  for await (const socket of listener) serve(socket, false);
}
