/** The application in plain text, for a peer in front of it that does TLS. */
import http from 'node:http';
import { handler, keepAliveTimeout, report } from './handler.mjs';

const server = http.createServer({ keepAliveTimeout }, handler);
server.listen(0, '127.0.0.1', 4096, () => report(server.address().port));
