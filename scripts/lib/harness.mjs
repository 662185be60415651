// Programs of test/fuzz/native, linked with the core of the engine (all of it that knows nothing about Node) and Debian's OpenSSL.
// `node scripts/lib/harness.mjs NAME {fuzz|address|thread}` builds one and prints where it is.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { findProgram, root, run, script, ScriptError } from './run.mjs';

const engineFolder = path.join(root, 'daemon/engine/src');
/** Of libtlspool, for headers that both addons have. */
const sharedFolder = path.join(root, 'libtlspool/native/src');
const harnessFolder = path.join(root, 'test/fuzz/native');
const shared = ['rig.cc', 'peer.cc'].map((file) => path.join(harnessFolder, file));

/**
 * How a program is built. vptr is left out: its check opens a pipe, and calls every object damaged when descriptors run out.
 * Everything that is found ends the program, so that it cannot be overlooked.
 */
export const kinds = {
  fuzz: { compile: ['-fsanitize=fuzzer-no-link,address,undefined'], link: ['-fsanitize=fuzzer,address,undefined'] },
  address: { compile: ['-fsanitize=address,undefined'], link: ['-fsanitize=address,undefined'] },
  thread: { compile: ['-fsanitize=thread'], link: ['-fsanitize=thread'] },
};
const common = ['-std=c++20', '-O1', '-g', '-Wall', '-Wextra', '-Werror', '-fno-omit-frame-pointer', `-I${engineFolder}`, `-I${sharedFolder}`];
const behind = ['-fno-sanitize=vptr', '-fno-sanitize-recover=all'];

/** Builds one program into build/fuzz/<kind>; resolves with its path. Objects are kept by what they are made of. */
export async function buildHarness(name, kind) {
  checkTools();
  const folder = path.join(root, 'build/fuzz', kind);
  mkdirSync(folder, { recursive: true });
  const flags = [...common, ...kinds[kind].compile, ...behind];
  const headers = [...[engineFolder, harnessFolder].flatMap((place) => filesOf(place, '.hh')), ...filesOf(sharedFolder, '.h')].map((file) => readFileSync(file));
  const sources = [...coreSources(), ...shared, path.join(harnessFolder, `${name}.cc`)];
  const wanted = sources.map((source) => {
    const hash = createHash('sha256').update(flags.join(' '));
    for (const text of [readFileSync(source), ...headers]) hash.update('\0').update(text);
    return { source, object: path.join(folder, `${path.basename(source, '.cc')}-${hash.digest('hex').slice(0, 16)}.o`) };
  });
  const missing = wanted.filter(({ object }) => !existsSync(object));
  const workers = Array.from({ length: availableParallelism() }, async () => {
    for (let next = missing.pop(); next !== undefined; next = missing.pop()) await compile(next, flags);
  });
  await Promise.all(workers);
  const program = path.join(folder, name);
  const objects = wanted.map(({ object }) => object);
  // Another process may be running it, or be building it at the same time.
  const fresh = `${program}.${process.pid}`;
  await run('clang++', [...kinds[kind].link, ...objects, '-o', fresh, '-lssl', '-lcrypto', '-lpthread'], { quiet: true });
  renameSync(fresh, program);
  return program;
}

async function compile({ source, object }, flags) {
  const fresh = `${object}.${process.pid}`;
  await run('clang++', [...flags, '-c', source, '-o', fresh], { quiet: true });
  renameSync(fresh, object);
}

const filesOf = (folder, ending) => readdirSync(folder).filter((file) => file.endsWith(ending)).sort().map((file) => path.join(folder, file));

/** Sources of the engine that do not need Node: those that include none of its headers, not even by their own header. */
function coreSources() {
  const needsNode = (file) => existsSync(file) && /#include [<"](?:node_api\.h|uv\.h|js_\w+\.hh|event_maker\.hh)[>"]/.test(readFileSync(file, 'utf8'));
  const core = filesOf(engineFolder, '.cc').filter((file) => !needsNode(file) && !needsNode(file.replace(/\.cc$/, '.hh')));
  if (core.length === 0) throw new ScriptError(`${engineFolder} has no source that builds without Node.`);
  return core;
}

function checkTools() {
  if (findProgram('clang++') === undefined) {
    throw new ScriptError('clang++ is not on PATH; fuzzers need it.\nOn Debian or Ubuntu: sudo apt-get install clang libclang-rt-14-dev libssl-dev');
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await script(async () => {
    const [name = '', kind = ''] = process.argv.slice(2);
    if (!Object.hasOwn(kinds, kind)) throw new ScriptError(`usage: node scripts/lib/harness.mjs NAME {${Object.keys(kinds).join('|')}}`);
    console.log(await buildHarness(name, kind));
  });
}
