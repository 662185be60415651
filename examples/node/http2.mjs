// HTTP/2 and HTTP/1.1 on one port, chosen by ALPN. Run: node http2.mjs [port]
import http2 from 'node:http2';
import { attach } from 'libtlspool';

const server = http2.createServer((request, response) => {
  response.end(`HTTP/${request.httpVersion}\n`);
});
await attach(server, { port: Number(process.argv[2] ?? 8443) });
console.log(`listening on port ${server.address().port}`);
