// `node scripts/other-node.mjs [22 24 26] [-- groups]`: the addons and tests under other versions of Node. Each version is fetched
// from npm into build/node-<version>. First the binaries that this Node built must load and pass (Node-API's promise), then
// those built against that version's own headers. Groups default to unit and native.
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { addons, buildAddon, builtFile } from './lib/native.mjs';
import { copyAddon, place } from './lib/addon-copy.mjs';
import { root, run, script, ScriptError } from './lib/run.mjs';

await script(async () => {
  const words = process.argv.slice(2);
  const end = words.includes('--') ? words.indexOf('--') : words.length;
  const versions = end === 0 ? ['22', '24', '26'] : words.slice(0, end);
  const groups = words.slice(end + 1).length === 0 ? ['unit', 'native'] : words.slice(end + 1);
  const bad = versions.find((version) => !/^\d+(\.\d+){0,2}$/.test(version));
  if (bad !== undefined) throw new ScriptError(`${bad} is no version of Node; usage: node scripts/other-node.mjs [22 24 26] [-- groups]`);
  const failures = [];
  for (const version of versions) {
    const prefix = await fetchNode(version);
    for (const built of ['this Node', 'its own headers']) {
      const folder = built === 'this Node' ? placeBuilt(version) : await buildFor(version, prefix);
      console.log(`\n== Node ${version}, addons built with ${built}`);
      await testWith(path.join(prefix, 'bin/node'), folder, groups).catch((error) => failures.push(`Node ${version}, ${built}: ${error.message}`));
    }
  }
  if (failures.length > 0) throw new ScriptError(failures.join('\n'));
});

/** The folder that has bin/node and include/node of that version. */
async function fetchNode(version) {
  const folder = path.join(root, `build/node-${version}`);
  const prefix = path.join(folder, `node_modules/node-linux-${process.arch}`);
  if (!existsSync(path.join(prefix, 'bin/node'))) {
    mkdirSync(folder, { recursive: true });
    writeFileSync(path.join(folder, 'package.json'), '{"private":true}\n'); // Else npm would look for the workspace above.
    await run('npm', ['install', '--no-save', '--no-audit', '--no-fund', '--ignore-scripts', `node-linux-${process.arch}@${version}`], { cwd: folder, quiet: true });
  }
  return prefix;
}

function placeBuilt(version) {
  const folder = path.join(root, `build/node-${version}/from-this-node`);
  rmSync(folder, { recursive: true, force: true });
  for (const addon of addons) place(builtFile(addon), folder);
  return folder;
}

async function buildFor(version, prefix) {
  const folder = path.join(root, `build/node-${version}/own`);
  const executable = path.join(prefix, 'bin/node');
  for (const addon of addons) {
    const copy = copyAddon(addon, path.join(folder, addon.name));
    place(await buildAddon(copy, { nodeDir: prefix, executable }), folder);
  }
  return folder;
}

async function testWith(executable, addonFolder, groups) {
  const bin = path.dirname(executable); // Child processes of the tests get the same Node.
  const env = { ...process.env, TLSPOOL_ADDON_DIR: addonFolder, PATH: `${bin}${path.delimiter}${process.env.PATH}` };
  await run(executable, [path.join(root, 'scripts/test.mjs'), ...groups], { env });
}
