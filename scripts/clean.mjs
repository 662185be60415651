// Removes everything that the other commands make, node_modules included. `--keep-deps` leaves node_modules.
import { rmSync } from 'node:fs';
import path from 'node:path';
import { root, script } from './lib/run.mjs';

const made = ['build', 'coverage', 'docs/api', 'node_modules/.tlspool-setup.json',
  ...['libtlspool', 'common', 'daemon', 'proxy'].flatMap((name) => ['build', 'dist', 'prebuilds', 'node_modules'].map((folder) => `${name}/${folder}`))];

await script(async () => {
  const dependencies = process.argv.includes('--keep-deps') ? [] : ['node_modules'];
  for (const name of [...made, ...dependencies]) rmSync(path.join(root, name), { recursive: true, force: true });
});
