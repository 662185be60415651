// Makes a checkout ready: dependencies, native addons, TypeScript. Each step is skipped when nothing it depends on has
// changed since it was last done, so that every command can begin with it.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { addonFingerprint, addons, buildAddon, builtFile, isForOtherHeaders } from './lib/native.mjs';
import { lock } from './lib/lock.mjs';
import { root, run, script, ScriptError } from './lib/run.mjs';

const projects = ['libtlspool', 'common', 'daemon', 'proxy', 'test'];
const stampFile = path.join(root, 'node_modules/.tlspool-setup.json');
/** What NODE_ENV=production and npm settings of the user would leave out, put elsewhere or refuse is needed to build. */
const asLocked = ['--include=dev', '--include=optional', '--include=peer', '--install-strategy=hoisted', '--bin-links', '--engine-strict=false',
  '--location=project', '--global=false', '--dry-run=false', '--package-lock', '--package-lock-only=false', '--loglevel=warn'];

const steps = [
  {
    name: 'dependencies', fingerprint: lockFingerprint, present: () => notInstalled() === undefined, run: installDependencies,
    absent: () => `npm ci ended well, and yet ${notInstalled()} is not as package-lock.json wants it. Some setting of npm may leave it out: npm config ls`,
  },
  ...addons.map((addon) => ({
    name: `native addon of ${addon.name}`,
    fingerprint: () => addonFingerprint(addon),
    present: () => existsSync(builtFile(addon)),
    run: ({ before, holding }) => buildAddon(addon.folder, { fresh: isForOtherHeaders(before), holding }),
    absent: () => `node-gyp ended well, and yet there is no ${builtFile(addon)}`,
  })),
  {
    name: 'TypeScript', fingerprint: sourceFingerprint, present: typescriptBuilt,
    run: ({ holding }) => run(process.execPath, [path.join(root, 'node_modules/typescript/bin/tsc'), '-b'], { holding }),
    absent: () => 'tsc ended well, and yet there is a project that it did not build',
  },
];

await script(async () => {
  checkNode();
  if (pending(readStamp()).length === 0) return;
  const { fd, release } = await lock(`setup ${root}`, () => console.log('setup: waiting for another set-up to finish'));
  try {
    // Read again: whoever held the lock may have done all of it.
    const failures = [];
    for (const step of pending(readStamp())) {
      // A later step is tried even so: its errors are worth seeing in the same run. Without dependencies there is nothing to try.
      await perform(step, [fd]).catch((error) => failures.push(new ScriptError(`setup: ${step.name} failed\n${error.message}`)));
      if (failures.length > 0 && step.name === 'dependencies') break;
    }
    if (failures.length > 0) throw new ScriptError(failures.map((failure) => failure.message).join('\n\n'));
  } finally {
    release();
  }
});

function pending(stamp) {
  return steps.filter((step) => stamp.done[step.name] !== step.fingerprint() || !step.present());
}

/** `holding`: npm goes on for a while when we are killed, and a second one beside it would undo what the first does. */
async function perform(step, holding) {
  const before = performance.now();
  // Taken before the step: what changes while it runs is seen by the next set-up.
  const fingerprint = step.fingerprint();
  if (step.name === 'dependencies' && step.present()) return record(step, fingerprint);
  // Said before: over a slow line nothing else is seen for minutes.
  console.log(`setup: ${step.name} ...`);
  await step.run({ before: readStamp().done[step.name], holding });
  if (!step.present()) throw new ScriptError(step.absent());
  record(step, fingerprint);
  console.log(`setup: ${step.name} (${((performance.now() - before) / 1000).toFixed(1)} s)`);
}

function readStamp() {
  try {
    const stamp = JSON.parse(readFileSync(stampFile, 'utf8'));
    if (typeof stamp.done === 'object' && stamp.done !== null) return stamp;
  } catch {
    // No stamp yet, or one that was cut short: everything is checked anew.
  }
  return { done: {} };
}

function record(step, fingerprint) {
  const stamp = readStamp();
  stamp.done[step.name] = fingerprint;
  mkdirSync(path.dirname(stampFile), { recursive: true });
  const temporary = `${stampFile}.${process.pid}`;
  writeFileSync(temporary, JSON.stringify(stamp, null, 1));
  renameSync(temporary, stampFile);
}

function checkNode() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (process.platform !== 'linux') throw new ScriptError(`tlspool runs on Linux only, this is ${process.platform}.`);
  if (major < 20 || (major === 20 && minor < 19)) throw new ScriptError(`tlspool needs Node 20.19 or later, this is ${process.version}.`);
}

// ---- dependencies

function lockFingerprint() {
  return createHash('sha256').update(readFileSync(path.join(root, 'package-lock.json'))).digest('hex');
}

/** Where npm's own record of node_modules does not agree with package-lock.json, if anywhere. Without such a place there is nothing to install. */
function notInstalled() {
  const installedFile = path.join(root, 'node_modules/.package-lock.json');
  if (!existsSync(installedFile)) return 'node_modules';
  const wanted = JSON.parse(readFileSync(path.join(root, 'package-lock.json'), 'utf8')).packages;
  const installed = JSON.parse(readFileSync(installedFile, 'utf8')).packages;
  const isInstalled = ([where, entry]) => {
    const found = installed[where];
    if (found === undefined) return entry.optional === true; // Made for another platform.
    return found.version === entry.version && found.integrity === entry.integrity && existsSync(path.join(root, where));
  };
  return Object.entries(wanted).filter(([where]) => where.startsWith('node_modules/')).find((entry) => !isInstalled(entry))?.[0];
}

async function installDependencies({ holding }) {
  // --ignore-scripts: no dependency of ours needs its install script, and npm 11 would hold them back until somebody approves.
  await run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund', ...asLocked], { quiet: true, holding });
}

// ---- TypeScript

/** Names, sizes and times of all TypeScript sources and configuration; tsc itself compares contents. */
function sourceFingerprint() {
  const hash = createHash('sha256').update(process.version);
  const add = (file) => {
    const { size, mtimeMs } = statSync(file);
    hash.update(`${file}\0${size}\0${mtimeMs}\0`);
  };
  for (const file of ['tsconfig.json', 'tsconfig.base.json', 'package-lock.json', ...projects.map((project) => `${project}/tsconfig.json`), ...projects.slice(0, -1).map((project) => `${project}/package.json`)]) add(path.join(root, file));
  for (const folder of ['libtlspool/src', 'common/src', 'daemon/src', 'proxy/src', 'test']) {
    const full = path.join(root, folder);
    if (!existsSync(full)) continue;
    for (const file of readdirSync(full, { recursive: true }).sort()) if (file.endsWith('.ts')) add(path.join(full, file));
  }
  return hash.digest('hex');
}

function typescriptBuilt() {
  return ['libtlspool/dist', 'common/dist', 'daemon/dist', 'proxy/dist', 'build/test'].every((folder) => existsSync(path.join(root, folder, '.tsbuildinfo')));
}
