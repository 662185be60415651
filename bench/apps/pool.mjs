/** The same application behind the pool, whose socket TLSPOOL_SOCKET names. */
import http from 'node:http';
import { attach } from 'libtlspool';
import { handler, keepAliveTimeout, report } from './handler.mjs';

const server = http.createServer({ keepAliveTimeout }, handler);
const attached = await attach(server, { host: '127.0.0.1', port: 0, backlog: 4096, localid: 'bench' });
report(attached.address().port);
