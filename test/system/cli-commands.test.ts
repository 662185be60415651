/** `tlspool` against a real pool: what people and scripts see. */
import assert from 'node:assert/strict';
import { existsSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { startPool } from '../support/index.js';
import type { TestPool } from '../support/index.js';
import { tempFolder } from '../support/cleanup.js';
import { repoRoot, run } from '../support/program.js';
import type { RunResult } from '../support/program.js';
import { acceptLoop } from '../support/serve.js';
import { nodeConnect } from '../support/tls-clients.js';
import { event } from '../support/wait.js';

const script = path.join(repoRoot, 'daemon/bin/tlspool.js');

describe('cli: commands', () => {
  let pool: TestPool;
  before(async () => { pool = await startPool(); });
  after(() => pool.stop());
  const tlspool = (...args: string[]): Promise<RunResult> => run(process.execPath, [script, '--socket', pool.socket, ...args], { check: false });
  const json = async (...args: string[]): Promise<Record<string, unknown>> => JSON.parse((await tlspool('--json', ...args)).stdout) as Record<string, unknown>;

  it('ping says who answered', async () => {
    const { code, stdout } = await tlspool('ping');
    assert.equal(code, 0);
    assert.match(stdout, new RegExp(`^tlspool/.* \\(process ${pool.pid}, up .*\\) answered in .* ms\\n$`));
    assert.equal((await json('ping'))['pid'], pool.pid);
  });

  it('the socket is found by TLSPOOL_SOCKET', async () => {
    assert.equal((await run(process.execPath, [script, 'ping'], { env: { TLSPOOL_SOCKET: pool.socket } })).code, 0);
  });

  it('status shows the state', async () => {
    assert.match((await tlspool('status')).stdout, /^state +running$/m);
    assert.equal((await json('status'))['state'], 'running');
  });

  it('identities shows names, keys and dates', async () => {
    assert.match((await tlspool('identities')).stdout, /^IDENTITY.*\nlocalhost \(default\) .*EC P-256/);
    const { identities } = await json('identities') as { identities: { localid: string }[] };
    assert.deepEqual(identities.map(({ localid }) => localid), ['localhost']);
  });

  it('sessions shows who talks to whom', async () => {
    assert.equal((await tlspool('sessions')).stdout, 'no sessions\n');
    const served = await acceptLoop(pool, (socket) => { socket.on('error', () => undefined).pipe(socket); });
    const client = await nodeConnect({ port: served.port, caFile: pool.caFile });
    client.write('x');
    await event(client, 'data');
    assert.match((await tlspool('sessions')).stdout, new RegExp(`server +localhost .*TLSv1\\.3 .*127\\.0\\.0\\.1:${client.localPort ?? 0}.*${process.pid}/`));
    assert.equal((await json('sessions') as { sessions: unknown[] }).sessions.length, 1);
    client.destroy();
    await served.close();
  });

  it('reload says what changed, and a refusal ends with 2', async () => {
    assert.match((await tlspool('reload')).stdout, /nothing has changed; unchanged: 1/);
    const certificate = path.join(pool.identityDir('localhost'), 'extra.key');
    writeFileSync(certificate, 'garbage', { mode: 0o600 });
    const { code, stderr } = await tlspool('reload');
    assert.equal(code, 2);
    assert.match(stderr, /extra\.key without extra\.crt.*IDENTITY_BAD/);
  });

  it('check judges a file without a pool', async () => {
    const file = path.join(tempFolder(), 'bad.yaml');
    writeFileSync(file, 'workers: many\n', { mode: 0o600 });
    const { code, stderr } = await tlspool('check', file);
    assert.equal(code, 2);
    assert.match(stderr, /bad\.yaml:1:10: workers/);
  });

  it('pki makes an authority and identities that the pool accepts', async () => {
    const folder = tempFolder();
    const ca = path.join(folder, 'ca');
    assert.match((await tlspool('pki', 'init', '--ca', ca)).stdout, /authority +made/);
    assert.match((await tlspool('pki', 'init', '--ca', ca)).stdout, /was there already/);
    const out = path.join(folder, 'identities', 'example');
    for (const more of [[], ['--key-type', 'rsa', '--pair', 'tls-rsa']]) {
      const { code, stderr } = await tlspool('pki', 'issue', 'example.org', '--ca', ca, '--out', out, '--dns', 'example.org', '--dns', 'www.example.org', '--ip', '127.0.0.1', ...more);
      assert.equal(code, 0, stderr);
    }
    assert.equal(statSync(path.join(out, 'tls-rsa.key')).mode & 0o777, 0o600);
    const config = path.join(folder, 'tlspoold.yaml');
    writeFileSync(config, JSON.stringify({ identitiesDirectory: path.join(folder, 'identities'), state: path.join(folder, 'state') }), { mode: 0o600 });
    const { code, stdout, stderr } = await tlspool('check', config);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /good, 1 identity/);
    assert.equal(existsSync(path.join(folder, 'state')), false, 'a check makes nothing');
  });

  it('issuing without an authority ends with 2 and says what to do', async () => {
    const { code, stderr } = await tlspool('pki', 'issue', 'x', '--ca', path.join(tempFolder(), 'none'));
    assert.equal(code, 2);
    assert.match(stderr, /tlspool pki init/);
  });
});
