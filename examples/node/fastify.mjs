// Fastify behind the pool. Run: node fastify.mjs [port]
import fastify from 'fastify';
import { attach } from 'libtlspool';

const app = fastify();
app.get('/', (request) => ({ protocol: request.protocol, ip: request.ip }));
const { address } = await attach(app, { port: Number(process.argv[2] ?? 8443) });
console.log(`listening on port ${address().port}`);
