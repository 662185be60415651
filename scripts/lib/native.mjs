// Building the native addons with the workspace's node-gyp.
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { findProgram, root, run, ScriptError } from './run.mjs';

/** Packages that have an addon, the folder of its sources, and headers of another package that they include. */
const packages = [
  { name: 'libtlspool', sources: 'native/src', headers: [] },
  { name: 'daemon', sources: 'engine/src', headers: ['libtlspool/native/src/discard.h', 'libtlspool/native/src/interrupt.h'] },
];

export const addons = packages.filter(({ name }) => existsSync(path.join(root, name, 'binding.gyp')))
  .map((addon) => ({ ...addon, folder: path.join(root, addon.name), binary: targetName(path.join(root, addon.name, 'binding.gyp')) }));

/** The name of the .node file. */
function targetName(gypFile) {
  const name = /"target_name":\s*"(\w+)"/.exec(readFileSync(gypFile, 'utf8'))?.[1];
  if (name === undefined) throw new ScriptError(`${gypFile} has no "target_name".`);
  return name;
}

/** Where the running Node keeps its headers (OpenSSL's among them), or undefined when node-gyp must fetch them. */
export function nodeHeaders(prefix = path.dirname(path.dirname(process.execPath)), version = process.versions.node) {
  const include = path.join(prefix, 'include/node');
  const needed = ['node_api.h', 'uv.h', 'openssl/ssl.h', 'node_version.h'].map((file) => path.join(include, file));
  if (!needed.every((file) => existsSync(file))) return undefined;
  // A distribution may have put the headers of another Node there.
  const text = readFileSync(path.join(include, 'node_version.h'), 'utf8');
  const part = (word) => new RegExp(`#define NODE_${word}_VERSION (\\d+)`).exec(text)?.[1];
  return `${part('MAJOR')}.${part('MINOR')}.${part('PATCH')}` === version ? prefix : undefined;
}

/** What the headers of this Node are; objects made for another are of no use. */
const headers = `${process.arch}-${process.versions.modules}-openssl${process.versions.openssl.split('.')[0]}`;

/** Was the build with this fingerprint made for other headers? make does not watch those. */
export const isForOtherHeaders = (fingerprint) => fingerprint !== undefined && !fingerprint.startsWith(`${headers} `);

/** Changes whenever the addon has to be built again. */
export function addonFingerprint(addon) {
  const hash = createHash('sha256');
  const folder = path.join(addon.folder, addon.sources);
  const sources = existsSync(folder) ? readdirSync(folder, { recursive: true }).filter((file) => /\.(cc|cpp|c|h|hh|hpp)$/.test(file)) : [];
  const files = ['binding.gyp', ...sources.map((file) => path.join(addon.sources, file))];
  for (const file of addon.headers) hash.update(`${file}\0`).update(readFileSync(path.join(root, file))).update('\0');
  for (const file of files.sort()) hash.update(`${file}\0`).update(readFileSync(path.join(addon.folder, file))).update('\0');
  return `${headers} ${hash.digest('hex')}`;
}

export const builtFile = (addon) => path.join(addon.folder, 'build/Release', `${addon.binary}.node`);

/** Throws, saying what to install, when a tool of node-gyp is missing. */
export function checkTools() {
  const wanted = [['a C++ compiler', process.env.CXX ?? 'g++', 'g++'], ['make', process.env.MAKE ?? 'make', 'make'], ['Python 3', process.env.PYTHON ?? 'python3', 'python3']];
  const missing = wanted.filter(([, program]) => findProgram(program.split(' ')[0]) === undefined);
  if (missing.length === 0) return;
  throw new ScriptError(`The native addons cannot be built: ${missing.map(([what, program]) => `${what} (${program})`).join(', ')} is not on PATH.\n`
    + `On Debian or Ubuntu: sudo apt-get install ${missing.map(([,, debian]) => debian).join(' ')}`);
}

/** Builds in `folder` (the package, or a copy of what its binding.gyp needs). `fresh` forgets earlier objects; `holding` is that of run(). Resolves with the path of the binary. */
export async function buildAddon(folder, { fresh = false, nodeDir = nodeHeaders(), defines = [], executable = process.execPath, holding = [] } = {}) {
  checkTools();
  const gyp = path.join(root, 'node_modules/node-gyp/bin/node-gyp.js');
  const args = [gyp, ...(fresh ? ['rebuild'] : ['configure', 'build']), '--release', '--jobs=max', '--loglevel=warn'];
  if (nodeDir !== undefined) args.push(`--nodedir=${nodeDir}`);
  await run(executable, args, { cwd: folder, quiet: true, holding, env: { ...process.env, GYP_DEFINES: defines.join(' ') } });
  // node-gyp-build takes the first binary that it finds: one of an earlier target name must not stay.
  const release = path.join(folder, 'build/Release');
  const wanted = `${targetName(path.join(folder, 'binding.gyp'))}.node`;
  for (const file of readdirSync(release)) if (file.endsWith('.node') && file !== wanted) rmSync(path.join(release, file));
  return path.join(release, wanted);
}
