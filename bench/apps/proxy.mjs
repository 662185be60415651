/**
 * The pool as a plain TLS proxy: hands it a listening socket with a backend, and keeps the owner's place, to which the
 * pool reports each connection. Its CPU time counts as the pool's. Argument: the backend's port.
 */
import { listen } from 'libtlspool';
import { report } from './handler.mjs';

const backend = { host: '127.0.0.1', port: Number(process.argv[2]) };
const listener = await listen({ host: '127.0.0.1', port: 0, backlog: 4096, localid: 'bench', backend });
report(listener.address().port);
