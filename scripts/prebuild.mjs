// Puts release builds of both addons where node-gyp-build looks in an installed package: <package>/prebuilds/linux-<arch>/.
// They use Node-API only (and the OpenSSL that every Node exports), so one file serves all versions of Node; they
// need a libc and libstdc++ at least as new as those of the machine that runs this.
import { copyFileSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import { addons, builtFile } from './lib/native.mjs';
import { findProgram, root, run, script, ScriptError } from './lib/run.mjs';

await script(async () => {
  if (findProgram('strip') === undefined) throw new ScriptError('strip is not on PATH. On Debian or Ubuntu: sudo apt-get install binutils');
  const libc = process.report.getReport().header.glibcVersionRuntime === undefined ? 'musl' : 'glibc';
  for (const addon of addons) {
    const folder = path.join(addon.folder, 'prebuilds', `${process.platform}-${process.arch}`);
    const file = path.join(folder, `node.napi.${libc}.node`);
    const fresh = `${file}.${process.pid}`;
    mkdirSync(folder, { recursive: true });
    try {
      copyFileSync(builtFile(addon), fresh);
      await run('strip', ['--strip-unneeded', fresh]);
      renameSync(fresh, file); // Whole or not at all: a process may have the old one mapped.
    } finally {
      rmSync(fresh, { force: true });
    }
    console.log(`prebuild: ${path.relative(root, file)}`);
  }
});
