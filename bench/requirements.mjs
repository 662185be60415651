/** What must be there before anything is measured. Installs nothing; says what is missing and how to get it. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, statSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { run } from './processes.mjs';

/**
 * Names of Debian packages that are missing.
 * @param {readonly {program: string, packages: readonly string[]}[]} peers  the ones that take part
 */
export function missingPackages(peers) {
  const missing = peers.filter(({ program }) => !existsSync(program)).flatMap(({ packages }) => packages);
  if (!missing.includes('libnginx-mod-stream') && peers.some(({ packages }) => packages.includes('libnginx-mod-stream')) &&
    !existsSync('/usr/lib/nginx/modules/ngx_stream_module.so')) missing.push('libnginx-mod-stream');
  if (!existsSync('/usr/include/openssl/ssl.h')) missing.push('libssl-dev');
  if (!responds('g++')) missing.push('g++');
  if (!responds('openssl', 'version')) missing.push('openssl');
  if (!responds('setpriv')) missing.push('util-linux');
  return missing;
}

function responds(program, argument = '--version') {
  return spawnSync(program, [argument], { stdio: 'ignore' }).status === 0;
}

/**
 * Compiles the load generator and the backend where they are older than their sources.
 * @param {{sources: string, output: string}} folders
 * @returns {Promise<{load: string, backend: string}>}
 */
export async function buildPrograms({ sources, output }) {
  mkdirSync(output, { recursive: true });
  const newest = Math.max(...readdirSync(sources).map((file) => statSync(path.join(sources, file)).mtimeMs));
  for (const name of ['load', 'backend']) {
    const program = path.join(output, name);
    if (existsSync(program) && statSync(program).mtimeMs > newest) continue;
    await run({ name: 'g++', argv: ['g++', '-std=c++20', '-O2', '-Wall', '-Wextra', '-Werror', '-o', program, path.join(sources, `${name}.cc`), '-lssl', '-lcrypto'] });
  }
  return { load: path.join(output, 'load'), backend: path.join(output, 'backend') };
}
