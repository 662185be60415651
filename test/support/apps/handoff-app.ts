/**
 * A backend behind a hand-off socket. Argument: HandoffOptions as JSON, with `name`, `uid` to become after the start, and `stall`: receive a connection and never take it.
 * A client says a line and gets one: `who` the name, `export` keying material in hex, `peer` its own address, `end` ends the connection.
 * Says {listening}, {accepted: name}, {ended: 'end' or the code of the error}, {refused: code}, {stalled}.
 */
import { listenForHandoff } from 'libtlspool';
import type { HandoffOptions, PoolSocket } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';

interface Arguments extends Omit<HandoffOptions, 'plain'> { readonly name: string; readonly uid?: number; readonly stall?: boolean; readonly serve?: string }

const { name, uid, stall, serve, ...options } = JSON.parse(process.argv[2] ?? '{}') as Arguments;
process.on('disconnect', () => { process.exit(0); });
const say = (message: object): void => { process.send?.(message); };

if (uid !== undefined) {
  process.setgroups?.([]);
  process.setgid?.(uid);
  process.setuid?.(uid);
}

async function answer(socket: PoolSocket, line: string): Promise<void> {
  if (line === 'who') socket.write(`${name}\n`);
  else if (line === 'export') socket.write(`${await socket.exportKeyingMaterialAsync(16, 'EXPORTER-handoff').then((octets) => octets.toString('hex'), (error: unknown) => (error as { code: string }).code)}\n`);
  else if (line === 'peer') socket.write(`${socket.remoteAddress ?? ''} ${socket.preamble?.protocol ?? ''}\n`);
  else if (line === 'end') socket.end('bye\n');
}

if (stall === true) {
  const fd = options.fd as OwnedFd;
  sockets.poll(fd, () => {
    const connection = sockets.accept(fd);
    if (connection === null) return;
    sockets.poll(connection, () => {
      if (sockets.receive(connection, 131_072, 4) !== null) say({ stalled: true });
    }).start(1);
  }).start(1);
  say({ listening: true });
} else {
  const listener = await listenForHandoff({ ...options, ...(serve === undefined ? {} : { onServername: ({ servername }) => servername === serve }) });
  listener.on('refused', ({ code }) => { say({ refused: code }); });
  say({ listening: true });
  for await (const socket of listener) {
    say({ accepted: name });
    let isTold = false;
    const ended = (how: string): void => {
      if (!isTold) say({ ended: how });
      isTold = true;
    };
    socket.on('error', (error: NodeJS.ErrnoException) => { ended(error.code ?? 'error'); });
    socket.on('end', () => { ended('end'); });
    let text = '';
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      text += chunk;
      const lines = text.split('\n');
      text = lines.pop() ?? '';
      for (const line of lines) void answer(socket, line);
    });
  }
}
