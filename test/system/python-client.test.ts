import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { Program, curl, nodeGet, repoRoot, run, startPool, until } from '../support/index.js';
import type { TestPool } from '../support/index.js';

const script = path.join(repoRoot, 'examples/python/tlspool_client.py');
// Debian's own interpreter: python3-msgpack belongs to that one, whatever else is on PATH.
const python = '/usr/bin/python3';

describe('examples/python: another language speaks the protocol', function () {
  this.timeout(60_000);
  let pool: TestPool;
  let client: Program;
  let target: { port: number; caFile: string };

  before(async () => {
    pool = await startPool();
    client = new Program(python, [script, '--localid', 'localhost'], { env: { TLSPOOL_SOCKET: pool.socket } });
    const [, port] = await client.output(/listening on port (\d+)/);
    target = { port: Number(port), caFile: pool.caFile };
  });
  after(async () => {
    client.kill('SIGKILL');
    await client.ended;
    await pool.stop();
  });

  it('curl gets the page over TLS 1.3', async () => {
    assert.match((await curl(target)).stdout, /Hello from Python over TLSv1\.3 with TLS_/);
  });

  it('curl gets the page over TLS 1.2', async () => {
    assert.match((await curl(target, '/', ['--tlsv1.2', '--tls-max', '1.2'])).stdout, /Hello from Python over TLSv1\.2 with TLS_/);
  });

  it('Node gets the page, 20 times at once', async () => {
    const answers = await Promise.all(Array.from({ length: 20 }, () => nodeGet(target)));
    for (const { status, body } of answers) {
      assert.equal(status, 200);
      assert.match(body, /^Hello from Python/);
    }
  });

  it('60 connections that came while it was stopped, in fewer packets, are each served', async () => {
    client.kill('SIGSTOP');
    const answers = Promise.all(Array.from({ length: 60 }, () => nodeGet(target)));
    await until(() => pool.status()['sessions'] === 60, { what: 'the handshakes to be done' });
    client.kill('SIGCONT');
    for (const { status, body } of await answers) {
      assert.equal(status, 200);
      assert.match(body, /^Hello from Python/);
    }
  });

  it('each of its sessions ends complete, and the client is told so once', async () => {
    const closed = (): number => client.stdout.match(/^closed: closed$/gm)?.length ?? 0;
    await until(() => pool.status()['sessions'] === 0, { what: 'all sessions to end', context: () => client.tail() });
    const before = pool.status()['handshakesDone'] as number;
    await curl(target);
    await until(() => closed() >= before + 1, { what: 'an event for each session', context: () => client.tail() });
    assert.equal(client.stdout.match(/^closed: /gm)?.length, before + 1);
  });

  it('a refusal of the pool reaches it with its code', async () => {
    const { code, stderr } = await run(python, [script, '--localid', 'nobody', '--socket', pool.socket], { check: false });
    assert.equal(code, 1);
    assert.match(stderr, /PoolError: IDENTITY_UNKNOWN: /);
  });
});

describe('test/vectors: octets of another implementation', () => {
  it('protocol.json is what python3-msgpack makes of the messages in make-vectors.py', async () => {
    const folder = path.join(repoRoot, 'test/vectors');
    const { stdout } = await run(python, [path.join(folder, 'make-vectors.py')]);
    assert.equal(stdout, readFileSync(path.join(folder, 'protocol.json'), 'utf8'));
  });
});
