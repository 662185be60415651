/** `node proxy/dist/config/table.js` prints the table of keys in docs/proxy-configuration.md. */
import { fileURLToPath } from 'node:url';
import { keyTable } from 'tlspool-common/config';
import { configSchema } from './schema.js';

if (process.argv[1] === fileURLToPath(import.meta.url)) process.stdout.write(`${keyTable(configSchema)}\n`);
