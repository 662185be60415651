import assert from 'node:assert/strict';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { App, keyNeedles, nodeGet, Program, run, scanMemory, startPool, tempFolder } from '../support/index.js';
import type { Needle, TestPool } from '../support/index.js';

const identities = [
  { localid: 'localhost', policy: 'intermediate', default: true, trust: true }, { localid: 'rsa.test', policy: 'intermediate', keyType: 'rsa' },
] as const;

function needlesOf(pool: TestPool): Needle[] {
  return identities.flatMap(({ localid }) => keyNeedles(readFileSync(path.join(pool.identityDir(localid), 'tls.key'), 'utf8'), localid));
}

/** Handshakes of all kinds, so that the process has had every reason to hold whatever it will ever hold. */
async function exercise(pool: TestPool, port: number): Promise<void> {
  for (let count = 0; count < 20; count++) {
    for (const servername of ['localhost', 'rsa.test']) {
      for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
        await nodeGet({ port, caFile: pool.caFile, servername }, '/', { minVersion: version, maxVersion: version });
      }
    }
  }
}

describe('promise 1: no private-key octet is in any process but tlspoold', function () {
  this.timeout(60_000);
  let pool: TestPool;

  before(async () => { pool = await startPool({ identities }); });
  after(async () => { await pool.stop(); });

  it('the application\'s memory holds no part of the keys that it is served with', async () => {
    const app = new App('web-app', pool);
    await exercise(pool, await app.told<number>('port'));
    assert.deepEqual(scanMemory(app.pid, needlesOf(pool)), []);
    await app.stop();
  });

  it('the same scan finds both keys in an application that does TLS itself', async () => {
    const app = new App('web-app', undefined, identities.map(({ localid }) => pool.identityDir(localid)));
    const port = await app.told<number>('port');
    await nodeGet({ port, caFile: pool.caFile });
    const found = scanMemory(app.pid, needlesOf(pool));
    for (const { localid } of identities) assert.ok(found.some((name) => name.startsWith(`${localid} d `)), `${localid}: ${found.join(', ')}`);
    assert.ok(found.some((name) => name.includes('PEM line')), found.join(', '));
    await app.stop();
  });

  it('tlspoold holds the numbers, but no longer the text of the key files', async () => {
    const found = scanMemory(pool.pid, needlesOf(pool));
    for (const { localid } of identities) assert.ok(found.some((name) => name.startsWith(`${localid} `)), `${localid}: ${found.join(', ')}`);
    assert.deepEqual(found.filter((name) => name.includes('PEM line')), []);
  });

  it('no key octet and no PEM is in what tlspoold prints', () => {
    const printed = Buffer.from(pool.logLines().join('\n'));
    assert.ok(printed.length > 0);
    assert.deepEqual(needlesOf(pool).filter(({ octets }) => printed.includes(octets)).map(({ name }) => name), []);
    assert.doesNotMatch(printed.toString(), /PRIVATE KEY/u);
  });
});

describe('promise 1: tlspoold cannot be read by its own user, and writes no core', function () {
  this.timeout(60_000);
  const nobody = 65_534;
  let pool: TestPool;
  let folder: string;

  before(async () => {
    folder = tempFolder();
    pool = await startPool({ uid: nobody, gid: nobody, cwd: folder });
  });
  after(async () => { await pool.kill(); });

  /** What opening /proc/PID/<file> gives another process of the same user. */
  async function readAsNobody(pid: number, file: string): Promise<string> {
    const program = `const fs = require('fs'); try { const fd = fs.openSync('/proc/${String(pid)}/${file}'); fs.readSync(fd, Buffer.alloc(1), 0, 1, ${file === 'mem' ? firstAddress(pid) : 'null'}); console.log('read'); } catch (e) { console.log(e.code); }`;
    return (await run(process.execPath, ['-e', program], { uid: nobody, gid: nobody, cwd: '/' })).stdout.trim();
  }

  const firstAddress = (pid: number): string => `0x${readFileSync(`/proc/${String(pid)}/maps`, 'utf8').split('-')[0] ?? '0'}n`;

  for (const file of ['mem', 'maps', 'environ'] as const) {
    it(`another process of the same user cannot open its /proc/PID/${file}`, async () => {
      assert.equal(await readAsNobody(pool.pid, file), 'EACCES');
    });
  }

  it('the same user can open those of a process that is not hardened', async () => {
    const other = new Program(process.execPath, ['-e', 'console.log("up"); process.stdin.resume()'], { uid: nobody, gid: nobody, cwd: '/' });
    await other.output(/up/u);
    for (const file of ['mem', 'maps', 'environ']) assert.equal(await readAsNobody(other.pid, file), 'read', file);
    other.end();
    await other.ended;
  });

  it('its files in /proc belong to root, which is how the kernel shows a process that is not dumpable', () => {
    assert.equal(statSync(`/proc/${String(pool.pid)}/mem`).uid, 0);
  });

  it('its limit on core files is zero and cannot be raised again', () => {
    assert.match(readFileSync(`/proc/${String(pool.pid)}/limits`, 'utf8'), /^Max core file size +0 +0 /mu);
  });

  it('it leaves no core file when it is killed by SIGABRT', async () => {
    await pool.kill('SIGABRT');
    assert.deepEqual(readdirSync(folder), []);
  });
});
