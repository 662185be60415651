/** The application on node:https. Arguments: chain file, key file. */
import { readFileSync } from 'node:fs';
import https from 'node:https';
import { handler, keepAliveTimeout, report } from './handler.mjs';

const [chain, key] = process.argv.slice(2);
const server = https.createServer({ cert: readFileSync(chain), key: readFileSync(key), ecdhCurve: 'X25519:P-256:P-384', keepAliveTimeout }, handler);
server.listen(0, '127.0.0.1', 4096, () => report(server.address().port));
