/** What README.md shows is what happens: its blocks are run as they are printed, against a pool. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { curl, Program, repoRoot, run, sClient, startPool } from '../support/index.js';
import type { Target, TestPool } from '../support/index.js';

const page = readFileSync(path.join(repoRoot, 'README.md'), 'utf8');

/** Name of the marker in front of it -> the block. */
const blocks = new Map([...page.matchAll(/<!-- run: (\w+) -->\n```\w+\n([^]*?)```\n/gu)].map(([, name = '', code = '']) => [name, code]));

function block(name: string): string {
  const code = blocks.get(name);
  assert.ok(code !== undefined, `README.md has no block marked "run: ${name}"`);
  return code;
}

describe('README.md', () => {
  let pool: TestPool;
  let program: Program | undefined;
  // Inside the checkout, so that `libtlspool` is found as it is by a program that installed it.
  const folder = path.join(repoRoot, 'build/readme');

  before(async () => {
    mkdirSync(folder, { recursive: true });
    pool = await startPool({ identities: [{ localid: 'localhost', default: true, trust: true, usage: 'serverAuth' }] });
  });
  after(() => pool.stop());
  afterEach(async () => {
    program?.kill('SIGKILL');
    await program?.ended;
    program = undefined;
  });

  function start(name: string, code: string): Program {
    const file = path.join(folder, `${name}-${process.pid}.mjs`);
    writeFileSync(file, code);
    program = new Program(process.execPath, [file], { env: { TLSPOOL_SOCKET: pool.socket } });
    return program;
  }

  it('every block of code is run here', () => {
    assert.equal([...page.matchAll(/^```(?:js|sh|ts|python|yaml)$/gmu)].length, blocks.size);
    assert.deepEqual([...blocks.keys()].sort(), ['accept', 'commands', 'proxy', 'server']);
  });

  it('the server has ten lines at most, and answers curl', async () => {
    const code = block('server');
    assert.ok(code.trimEnd().split('\n').length <= 10);
    // Port 8443 may be taken where the tests run.
    const server = start('server', code.replace('port: 8443', 'port: 0'));
    const [, port] = await server.output(/listening on port (\d+)/u);
    const { stdout } = await curl({ port: Number(port), caFile: pool.caFile });
    assert.equal(stdout, 'hello over TLSv1.3, from a process without a key\n');
  });

  it('the accept loop answers openssl s_client', async () => {
    // A free port instead, and a word when it listens.
    const code = block('accept').replace('for await (const socket of await listen({ port: 8443, ', 'const listener = await listen({ port: 0, ')
      .replace(' })) {', ' });\nconsole.log("listening on port", listener.address().port);\nfor await (const socket of listener) {');
    const server = start('accept', code);
    const [, port] = await server.output(/listening on port (\d+)/u);
    const target: Target = { port: Number(port), caFile: pool.caFile };
    const client = sClient(target, ['-quiet']);
    await client.output(/^TLSv1\.3, you are nobody in particular$/mu, 'stdout');
    client.end();
    await client.ended;
  });

  it('the configuration of the proxy has eight lines at most, and is good', async () => {
    const text = block('proxy');
    assert.ok(text.trimEnd().split('\n').length <= 8);
    const file = path.join(folder, `proxy-${process.pid}.yaml`);
    writeFileSync(file, text, { mode: 0o600 });
    const { stdout } = await run(process.execPath, [path.join(repoRoot, 'proxy/bin/tlspool-proxy.js'), '--check', '--config', file]);
    assert.match(stdout, /: good, 2 services on 2 addresses\n$/u);
  });

  for (const line of block('commands').trim().split('\n')) {
    it(`\`${line}\` works`, async () => {
      const command = line.replace('npx tlspool', `"${process.execPath}" daemon/bin/tlspool.js`).replace('.state/pool.sock', pool.socket);
      assert.notEqual(command, line);
      assert.match((await run('sh', ['-c', command], { cwd: repoRoot })).stdout, /\S/u);
    });
  }
});
