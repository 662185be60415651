/** MariaDB with one user. */
import path from 'node:path';
import { needProgram, run } from '../program.js';
import { account, asUser, freePorts, makePlace, startServer } from './server.js';
import type { ServerOptions, TestServer } from './server.js';

export interface MariadbServer extends TestServer { readonly port: number }

/** User joe with password secret (mysql_native_password), data base `test`. */
export async function startMariadb(options: ServerOptions = {}): Promise<MariadbServer> {
  const owner = asUser('mysql');
  const place = makePlace(options, owner);
  const data = path.join(place.folder, 'data');
  const debian = 'mariadb-server';
  const mariadbd = needProgram('mariadbd', debian);
  await run(needProgram('mariadb-install-db', debian), [
    '--no-defaults', `--datadir=${data}`, '--auth-root-authentication-method=normal', '--skip-test-db', '--skip-name-resolve', '--innodb-log-file-size=4M', '--innodb-buffer-pool-size=8M',
  ], { ...owner, cwd: place.folder, deadlineMs: 90_000 });
  const statements = place.write('init.sql', `CREATE DATABASE test;\nCREATE USER '${account.user}'@'%' IDENTIFIED BY '${account.password}';\nGRANT ALL ON test.* TO '${account.user}'@'%';\n`);
  const [port = 0] = await freePorts(1);
  const server = await startServer({
    command: mariadbd,
    args: [
      '--no-defaults', `--datadir=${data}`, '--bind-address=127.0.0.1', `--port=${String(port)}`, `--socket=${place.folder}/sock`, `--pid-file=${place.folder}/pid`, `--init-file=${statements}`,
      '--skip-name-resolve', '--innodb-buffer-pool-size=8M', '--innodb-log-file-size=4M', '--innodb-flush-log-at-trx-commit=0', '--performance-schema=OFF',
      ...(place.tls === undefined ? ['--skip-ssl'] : [`--ssl-cert=${place.tls.certFile}`, `--ssl-key=${place.tls.keyFile}`, ...(place.tls.caFile === undefined ? [] : [`--ssl-ca=${place.tls.caFile}`])]),
    ],
    // A signal before that is lost.
    ports: [port], says: /ready for connections/u, cwd: place.folder, ...owner,
  });
  return { ...server, port };
}
