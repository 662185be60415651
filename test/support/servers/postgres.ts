/** PostgreSQL with one user and one data base. */
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { run } from '../program.js';
import { account, asUser, freePorts, makePlace, startServer } from './server.js';
import type { ServerOptions, TestServer } from './server.js';

export interface PostgresServer extends TestServer { readonly port: number }

/** Debian keeps the programs of each version apart, and off PATH. */
function programs(): string {
  const base = '/usr/lib/postgresql';
  const [newest] = existsSync(base) ? readdirSync(base).sort((one, other) => Number(other) - Number(one)) : [];
  if (newest === undefined) throw new Error('PostgreSQL is not installed: apt-get install postgresql');
  return path.join(base, newest, 'bin');
}

/** Superuser joe with password secret (SCRAM), data base `postgres`. */
export async function startPostgres(options: ServerOptions = {}): Promise<PostgresServer> {
  const owner = asUser('postgres');
  const place = makePlace(options, owner);
  const data = path.join(place.folder, 'data');
  const passwords = place.write('password', account.password);
  const bin = programs();
  await run(path.join(bin, 'initdb'), ['-D', data, '-U', account.user, '--auth=scram-sha-256', `--pwfile=${passwords}`, '--no-sync', '--locale=C', '-E', 'UTF8'], { ...owner, cwd: place.folder, deadlineMs: 60_000 });
  const [port = 0] = await freePorts(1);
  const settings = [
    'listen_addresses=127.0.0.1', `port=${String(port)}`, `unix_socket_directories=${place.folder}`, 'fsync=off', 'shared_buffers=1MB', 'max_connections=20', 'log_min_messages=info',
    ...(place.tls === undefined ? ['ssl=off'] : ['ssl=on', `ssl_cert_file=${place.tls.certFile}`, `ssl_key_file=${place.tls.keyFile}`]),
  ];
  // SIGINT is the fast shutdown: without waiting for clients.
  const server = await startServer({ command: path.join(bin, 'postgres'), args: ['-D', data, ...settings.flatMap((setting) => ['-c', setting])], ports: [port], says: /ready to accept connections/u, stopSignal: 'SIGINT', cwd: place.folder, ...owner });
  return { ...server, port };
}
