// WebSockets (wss:) with ws. Run: node ws.mjs [port]
import http from 'node:http';
import { attach } from 'libtlspool';
import { WebSocketServer } from 'ws';

const server = http.createServer();
new WebSocketServer({ server }).on('connection', (socket) => {
  socket.on('message', (data) => socket.send(`you said: ${data}`));
});
await attach(server, { port: Number(process.argv[2] ?? 8443) });
console.log(`listening on port ${server.address().port}`);
