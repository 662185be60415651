// One process accepts, another one talks: it gets the plain text and the control key of each connection. Run: node handover.mjs [port]
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { connectPool } from 'libtlspool';
import { pollReadable, sockets } from 'libtlspool/native';

const pool = await connectPool();

async function accept(port) {
  const [ours, theirs] = sockets.socketpair('seqpacket');
  spawn(process.execPath, [fileURLToPath(import.meta.url), 'worker'], { stdio: ['ignore', 'inherit', 'inherit', theirs] });
  sockets.close(theirs);
  const listener = await pool.listen({ port, pauseOnConnect: true });
  console.log(`listening on port ${listener.address().port}`);
  for await (const socket of listener) {
    const { fd, ctlkey } = await socket.release();
    // One packet: the control key, and the descriptor beside it.
    sockets.send(ours, ctlkey, [fd]);
    sockets.close(fd);
  }
}

function work(from) {
  sockets.poll(from, async () => {
    const packet = sockets.receive(from, 64, 1);
    if (packet === null) return;
    if (packet.eof) process.exit();
    const socket = await pool.reattach(packet.data, packet.fds[0]);
    socket.on('error', (error) => console.error(error.code, error.message));
    socket.end(`process ${process.pid} of ${process.ppid}, ${socket.getProtocol()} to ${socket.servername}\n`);
  }).start(pollReadable);
}

if (process.argv[2] === 'worker') work(3);
else await accept(Number(process.argv[2] ?? 8443));
