/** Installed packages work where there is no compiler, no make and no Python, and bring all that they need. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { tempFolder } from '../support/cleanup.js';

const run = promisify(execFile);
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');

function findProgram(name: string): string {
  const found = (process.env['PATH'] ?? '').split(path.delimiter).map((folder) => path.join(folder, name)).find((file) => existsSync(file));
  assert(found !== undefined, `${name} is not on PATH`);
  return realpathSync(found);
}

/** Packs package folders, as `npm publish` would; the paths of the tarballs. */
async function pack(folders: readonly string[], destination: string): Promise<string[]> {
  const { stdout } = await run(process.execPath, [findProgram('npm'), 'pack', '--json', '--ignore-scripts', '--pack-destination', destination, ...folders], { cwd: root });
  const packed = JSON.parse(stdout) as { filename: string; files: { path: string }[] }[];
  assert.equal(packed.length, folders.length);
  for (const { files } of packed.filter(({ filename }) => /^(lib)?tlspool/u.test(filename))) {
    const names = files.map((file) => file.path);
    for (const name of ['LICENSE', 'README.md', 'package.json']) assert.ok(names.includes(name), name);
    // What only a build or a test needs.
    assert.deepEqual(names.filter((name) => /\.tsbuildinfo$|(?<!\.d)\.ts$|(^|\/)tests?\//u.test(name)), []);
  }
  return packed.map(({ filename }) => path.join(destination, filename));
}

/** Folders of a package of ours and of everything that it needs, by package-lock.json. */
function closure(folder: string): string[] {
  const { packages } = JSON.parse(readFileSync(path.join(root, 'package-lock.json'), 'utf8')) as { packages: Record<string, { dependencies?: Record<string, string>; resolved?: string; link?: boolean }> };
  const found = new Set([folder]);
  for (const place of found) {
    for (const name of Object.keys(packages[place]?.dependencies ?? {})) {
      const nested = `${place}/node_modules/${name}`;
      const where = packages[nested] === undefined ? `node_modules/${name}` : nested;
      const entry = packages[where];
      assert(entry !== undefined, `${name} is not in package-lock.json`);
      found.add(entry.link === true ? entry.resolved ?? '' : where);
    }
  }
  return [...found].map((place) => `./${place}`);
}

const program = `
import { readFileSync } from 'node:fs';
import 'libtlspool';
import { sockets } from 'libtlspool/native';
const [left, right] = sockets.socketpair('seqpacket');
const [here, there] = sockets.socketpair('stream');
sockets.send(left, Buffer.from('take this'), [there]);
sockets.close(there);
const { data, fds } = sockets.receive(right, 100, 1);
sockets.send(fds[0], Buffer.from('through the passed descriptor'));
console.log(data.toString());
console.log(sockets.receive(here, 100, 0).data.toString());
console.log(/\\S+\\.node$/m.exec(readFileSync('/proc/self/maps', 'utf8'))[0]);
`;

describe('packaging', () => {
  before(async function () {
    this.timeout(120_000);
    await run(process.execPath, ['scripts/prebuild.mjs'], { cwd: root });
  });

  /** Installs a package and what it needs where there is no compiler, make or Python. The dependencies come from the checkout, so that nothing needs the network. */
  async function install(name: string): Promise<{ app: string; env: { PATH: string } }> {
    const folder = tempFolder();
    const tarballs = path.join(folder, 'tarballs');
    const bin = path.join(folder, 'bin');
    const app = path.join(folder, 'app');
    for (const place of [tarballs, bin, app]) mkdirSync(place);
    const packages = await pack(closure(name), tarballs);
    for (const [link, target] of [['node', process.execPath], ['sh', findProgram('sh')]] as const) symlinkSync(target, path.join(bin, link));
    const env = { PATH: bin, HOME: folder, npm_config_cache: path.join(folder, 'cache') };
    for (const tool of ['g++', 'c++', 'cc', 'make', 'python3']) await assert.rejects(run('sh', ['-c', `command -v ${tool}`], { env }), `${tool} is on the PATH of the test`);
    writeFileSync(path.join(app, 'package.json'), '{"private":true,"type":"module"}');
    // Install scripts run: node-gyp-build must be content with the prebuilt binary.
    await run(process.execPath, [findProgram('npm'), 'install', '--offline', '--omit=optional', '--no-audit', '--no-fund', ...packages], { cwd: app, env });
    return { app, env };
  }

  it('libtlspool installs from its tarball and passes a descriptor with a PATH that has no compiler, make or Python', async function () {
    this.timeout(120_000);
    const { app, env } = await install('libtlspool');
    writeFileSync(path.join(app, 'program.js'), program);
    const { stdout } = await run('node', ['program.js'], { cwd: app, env });
    const [data, through, addon] = stdout.trim().split('\n');
    assert.deepEqual([data, through], ['take this', 'through the passed descriptor']);
    assert.equal(addon, realpathSync(path.join(app, `node_modules/libtlspool/prebuilds/linux-${process.arch}/node.napi.glibc.node`)));
    assert.equal(existsSync(path.join(app, 'node_modules/tlspool-common')), false);
  });

  it('tlspool-proxy installs from its tarball with all that it needs, without the daemon, and judges a configuration', async function () {
    this.timeout(120_000);
    const { app, env } = await install('proxy');
    const config = path.join(app, 'proxy.yaml');
    writeFileSync(config, '{"services": [{"name": "imap", "protocol": "imap", "listen": 143, "backend": {"connect": "localhost:1143"}}]}', { mode: 0o600 });
    const { stdout } = await run(path.join(app, 'node_modules/.bin/tlspool-proxy'), ['--check', '--config', config], { cwd: app, env });
    assert.equal(stdout, `${config}: good, 1 service on 1 address\n`);
    assert.equal(existsSync(path.join(app, 'node_modules/tlspool')), false);
  });
});
