/** `npm run setup`, with which every command begins: in a checkout of a few small files, with a dependency that lies beside it. */
import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Program, repoRoot, run, tempFolder, until } from '../support/index.js';
import type { RunResult } from '../support/index.js';

const projects = ['libtlspool', 'common', 'daemon', 'proxy', 'test'];

/** In the place of TypeScript: it builds by saying so. */
const compiler = `
import { mkdirSync, writeFileSync } from 'node:fs';
for (const folder of ['libtlspool/dist', 'common/dist', 'daemon/dist', 'proxy/dist', 'build/test']) {
  mkdirSync(folder, { recursive: true });
  writeFileSync(\`\${folder}/.tsbuildinfo\`, '');
}
`;

const json = (file: string, value: unknown): void => { writeFileSync(file, JSON.stringify(value)); };

/** A checkout whose one dependency is for development, and says that it wants a Node that there is not. */
async function checkout(): Promise<string> {
  const root = path.join(tempFolder(), 'checkout');
  for (const folder of ['scripts/lib', 'typescript/bin', ...projects]) mkdirSync(path.join(root, folder), { recursive: true });
  for (const file of ['setup.mjs', 'lib/run.mjs', 'lib/lock.mjs', 'lib/native.mjs']) cpSync(path.join(repoRoot, 'scripts', file), path.join(root, 'scripts', file));
  for (const file of ['tsconfig.json', 'tsconfig.base.json', ...projects.map((project) => `${project}/tsconfig.json`)]) json(path.join(root, file), {});
  for (const project of projects) json(path.join(root, project, 'package.json'), { name: project, version: '1.0.0' });
  json(path.join(root, 'typescript/package.json'), { name: 'typescript', version: '1.0.0', type: 'module', engines: { node: '>=1000' } });
  writeFileSync(path.join(root, 'typescript/bin/tsc'), compiler);
  await run('npm', ['pack', '--ignore-scripts', './typescript'], { cwd: root });
  const devDependencies = { typescript: 'file:typescript-1.0.0.tgz' };
  json(path.join(root, 'package.json'), { name: 'checkout', version: '1.0.0', private: true, devDependencies });
  await run('npm', ['install', '--package-lock-only', '--offline', '--no-audit', '--no-fund'], { cwd: root });
  return root;
}

const setup = (root: string, env: Readonly<Record<string, string>> = {}): Promise<RunResult> => run(process.execPath, ['scripts/setup.mjs'], { cwd: root, check: false, env });

/** An npm of a few lines of shell, in front of PATH. */
function fakeNpm(lines: string): Record<string, string> {
  const folder = tempFolder();
  writeFileSync(path.join(folder, 'npm'), `#!/bin/sh\n${lines}\n`, { mode: 0o755 });
  return { PATH: `${folder}:${process.env['PATH'] ?? ''}` };
}

describe('npm run setup', function () {
  this.timeout(60_000);
  let made: string;
  let root: string;
  before(async () => { made = await checkout(); });
  beforeEach(() => {
    root = path.join(tempFolder(), 'with a blank');
    cpSync(made, root, { recursive: true });
  });

  it('does each step once, and nothing the second time', async () => {
    const first = await setup(root);
    assert.equal(first.code, 0, first.stderr);
    assert.match(first.stdout, /^setup: dependencies \.\.\.\nsetup: dependencies \(\d+\.\d s\)\nsetup: TypeScript \.\.\.\nsetup: TypeScript \(\d+\.\d s\)\n$/u);
    assert.deepEqual(await setup(root), { code: 0, signal: null, stdout: '', stderr: '' });
  });

  for (const [name, value] of [
    ['NODE_ENV', 'production'], ['npm_config_omit', 'dev'], ['npm_config_engine_strict', 'true'], ['npm_config_global', 'true'], ['npm_config_dry_run', 'true'],
    ['npm_config_package_lock_only', 'true'],
  ] as const) {
    it(`${name}=${value} in the environment keeps nothing from being installed`, async () => {
      const { code, stderr } = await setup(root, { [name]: value });
      assert.equal(code, 0, stderr);
      assert.equal(existsSync(path.join(root, 'node_modules/typescript/bin/tsc')), true);
    });
  }

  it('an npm that installs nothing and says it is well is a failure that names what is missing, and is tried again', async () => {
    const { code, stderr } = await setup(root, fakeNpm('mkdir -p node_modules && printf \'{"packages":{}}\' > node_modules/.package-lock.json'));
    assert.equal(code, 1);
    assert.match(stderr, /^setup: dependencies failed\nnpm ci ended well, and yet node_modules\/typescript is not as package-lock\.json wants it\..*npm config ls\n$/u);
    assert.equal((await setup(root)).code, 0);
  });

  it('one that is killed leaves an npm behind, for whose end the next one waits', async () => {
    const log = path.join(root, 'npm.log');
    const gate = path.join(root, 'gate');
    await run('mkfifo', [gate]);
    // The npm of the first reads from the gate, and so ends when we say; the second has the real one.
    const env = fakeNpm(`echo begins >> '${log}'; read -r word < '${gate}'; echo ends >> '${log}'`);
    const killed = new Program(process.execPath, ['scripts/setup.mjs'], { cwd: root, env });
    await until(() => existsSync(log), { what: 'npm to run' });
    killed.kill('SIGKILL');
    await killed.ended;
    const next = new Program(process.execPath, ['scripts/setup.mjs'], { cwd: root });
    await next.output(/^setup: waiting for another set-up to finish\n/u);
    assert.equal(readFileSync(log, 'utf8'), 'begins\n');
    writeFileSync(gate, 'go\n');
    assert.equal((await next.ended).code, 0, next.tail());
    assert.equal(readFileSync(log, 'utf8'), 'begins\nends\n');
  });
});
