// An HTTPS server without a key. Run: node http.mjs [port]
import http from 'node:http';
import { attach } from 'libtlspool';

const server = http.createServer((request, response) => {
  const { servername, remoteAddress } = request.socket;
  response.end(`${request.socket.getProtocol()} from ${remoteAddress} to ${servername || 'nobody in particular'}\n`);
});
await attach(server, { port: Number(process.argv[2] ?? 8443) });
console.log(`listening on port ${server.address().port}`);
