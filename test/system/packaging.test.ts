/** An installed libtlspool works where there is no compiler, no make and no Python. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs';
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

/** Packs a package folder, as `npm publish` would; the tarball's path. */
async function pack(folder: string, destination: string): Promise<string> {
  const { stdout } = await run(process.execPath, [findProgram('npm'), 'pack', '--json', '--ignore-scripts', '--pack-destination', destination, folder], { cwd: root });
  const [packed] = JSON.parse(stdout) as { filename: string; files: { path: string }[] }[];
  assert(packed !== undefined);
  return path.join(destination, packed.filename);
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
  it('libtlspool installs from its tarball and passes a descriptor with a PATH that has no compiler, make or Python', async function () {
    this.timeout(120_000);
    await run(process.execPath, ['scripts/prebuild.mjs'], { cwd: root });
    const folder = tempFolder();
    const tarballs = path.join(folder, 'tarballs');
    const bin = path.join(folder, 'bin');
    const app = path.join(folder, 'app');
    for (const name of [tarballs, bin, app]) mkdirSync(name);
    // Its dependencies come from the checkout, so that nothing needs the network.
    const packages = await Promise.all(['libtlspool', 'node_modules/msgpackr', 'node_modules/node-gyp-build'].map((name) => pack(`./${name}`, tarballs)));
    for (const [name, target] of [['node', process.execPath], ['sh', findProgram('sh')]] as const) symlinkSync(target, path.join(bin, name));
    const env = { PATH: bin, HOME: folder, npm_config_cache: path.join(folder, 'cache') };
    for (const tool of ['g++', 'c++', 'cc', 'make', 'python3']) await assert.rejects(run('sh', ['-c', `command -v ${tool}`], { env }), `${tool} is on the PATH of the test`);

    writeFileSync(path.join(app, 'package.json'), '{"private":true,"type":"module"}');
    writeFileSync(path.join(app, 'program.js'), program);
    // Install scripts run: node-gyp-build must be content with the prebuilt binary.
    await run(process.execPath, [findProgram('npm'), 'install', '--offline', '--omit=optional', '--no-audit', '--no-fund', ...packages], { cwd: app, env });
    const { stdout } = await run('node', ['program.js'], { cwd: app, env });
    const [data, through, addon] = stdout.trim().split('\n');
    assert.deepEqual([data, through], ['take this', 'through the passed descriptor']);
    assert.equal(addon, realpathSync(path.join(app, `node_modules/libtlspool/prebuilds/linux-${process.arch}/node.napi.glibc.node`)));
  });
});
