// Express behind the pool: req.secure, req.ip and the client's certificate as always. Run: node express.mjs [port]
import express from 'express';
import { attach } from 'libtlspool';

const app = express();
app.get('/', (request, response) => {
  const { subject } = request.socket.getPeerCertificate();
  response.send(`secure: ${request.secure}, ip: ${request.ip}, client: ${subject?.CN ?? 'no certificate'}\n`);
});
const { address } = await attach(app, { port: Number(process.argv[2] ?? 8443), clientAuth: 'request' });
console.log(`listening on port ${address().port}`);
