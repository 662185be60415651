/** Access rules that a reload narrows hold for listeners that are open, and leave established sessions alone. */
import assert from 'node:assert/strict';
import { chmodSync, copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Program, PoolWire, event, nodeConnect, nodeGet, repoRoot, startPool, tempFolder, until } from '../support/index.js';
import type { TestPool } from '../support/index.js';

/** The user `nobody` of Debian. */
const uid = 65_534;

describe('access rules narrowed by a reload', function () {
  this.timeout(30_000);
  let pool: TestPool;
  let client: Program;
  let port: number;

  before(async () => {
    pool = await startPool({ config: { access: [{ uid, identities: ['localhost'] }] } });
    // The folder is the tests' own; the client of another user must be able to reach the socket in it.
    chmodSync(path.dirname(pool.socket), 0o711);
    chmodSync(pool.socket, 0o666);
    const folder = tempFolder();
    chmodSync(folder, 0o755);
    const script = path.join(folder, 'client.py');
    copyFileSync(path.join(repoRoot, 'examples/python/tlspool_client.py'), script);
    client = new Program('/usr/bin/python3', [script, '--localid', 'localhost'], { env: { TLSPOOL_SOCKET: pool.socket }, uid, gid: uid, cwd: folder });
    port = Number((await client.output(/listening on port (\d+)/))[1]);
  });
  after(async () => {
    client.kill('SIGKILL');
    await client.ended;
    await pool.stop();
  });

  function reloadWith(change: Record<string, unknown>): void {
    writeFileSync(pool.configFile, JSON.stringify({ ...JSON.parse(readFileSync(pool.configFile, 'utf8')) as object, ...change }));
    const wire = new PoolWire(pool.socket);
    try { wire.request('reload'); } finally { wire.close(); }
  }

  it('a reload that leaves it the identity changes nothing', async () => {
    reloadWith({ access: [{ uid, identities: ['local*', 'other'] }] });
    assert.equal((await nodeGet({ port, caFile: pool.caFile })).status, 200);
    assert.doesNotMatch(client.stdout, /listenerClosed/);
  });

  it('a listener whose client may no longer use its identity is closed, and its established session goes on', async () => {
    const sessions = (): unknown[] => {
      const wire = new PoolWire(pool.socket);
      try { return wire.request('sessions').body['sessions'] as unknown[]; } finally { wire.close(); }
    };
    await until(() => sessions().length === 0, { what: 'earlier sessions to end' });
    const before = await nodeConnect({ port, caFile: pool.caFile });
    await until(() => sessions().length === 1, { what: 'the session to be established' });
    reloadWith({ access: [{ uid, identities: ['other'] }] });
    await client.output(/the pool says listenerClosed/);
    await assert.rejects(nodeGet({ port, caFile: pool.caFile }), { code: 'ECONNREFUSED' });
    const answer = event<Buffer>(before, 'data');
    before.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
    assert.match((await answer).toString(), /^HTTP\/1\.1 200 OK/);
    before.destroy();
    assert.ok(pool.logLines().some((line) => line.includes('may no longer have it') && line.includes(`"uid":${uid}`)));
  });
});
