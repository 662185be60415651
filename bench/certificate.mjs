/** One certificate for everybody: ECDSA P-256, signed by itself, made anew for each run. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { run } from './processes.mjs';

/**
 * @param {string} folder  private to this run
 * @returns {Promise<{chain: string, key: string, both: string, identity: string}>} files; `identity` is a folder in the layout that tlspool reads
 */
export async function makeCertificate(folder) {
  const identity = path.join(folder, 'bench');
  mkdirSync(identity, { mode: 0o700 });
  const chain = path.join(identity, 'tls.crt');
  const key = path.join(identity, 'tls.key');
  await run({
    name: 'openssl',
    argv: ['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=localhost',
      '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', key, '-out', chain],
  });
  const both = path.join(folder, 'both.pem');
  writeFileSync(both, Buffer.concat([readFileSync(key), readFileSync(chain)]), { mode: 0o600 });
  return { chain, key, both, identity };
}
