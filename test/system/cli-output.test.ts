/** `tlspool` where its output goes wrong, and what scripts are told. */
import assert from 'node:assert/strict';
import { spawnSync, type SpawnSyncReturns } from 'node:child_process';
import { chmodSync, closeSync, mkdirSync, openSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { sockets } from 'libtlspool/native';
import { tempFolder } from '../support/cleanup.js';
import { repoRoot } from '../support/program.js';

const script = path.join(repoRoot, 'daemon/bin/tlspool.js');

describe('cli: its output', () => {
  let config: string;
  let state: string;
  before(() => {
    const folder = tempFolder();
    state = path.join(folder, 'state');
    config = path.join(folder, 'pool.yaml');
    writeFileSync(config, 'state: state\n', { mode: 0o600 });
  });
  const tlspool = (stdout: number | 'pipe', ...args: string[]): SpawnSyncReturns<string> =>
    spawnSync(process.execPath, [script, ...args], { stdio: ['ignore', stdout, 'pipe'], encoding: 'utf8', timeout: 30_000 });
  const errorOf = ({ stderr }: SpawnSyncReturns<string>) => (JSON.parse(stderr) as { error: { code: string; kind: string; text: string; field?: string } }).error;

  it('a reader that has seen enough is no failure', () => {
    const [ours, theirs] = sockets.socketpair('stream');
    sockets.close(theirs);
    const { status, stderr } = tlspool(ours, 'check', config);
    sockets.close(ours);
    assert.deepEqual([status, stderr], [0, '']);
  });

  it('a disk that is full is one: it ends with 1 and says why, as JSON too', () => {
    const full = openSync('/dev/full', 'w');
    try {
      const { status, stderr } = tlspool(full, 'check', config);
      assert.deepEqual([status, stderr], [1, 'tlspool: the answer could not be written to standard output: ENOSPC (SYSTEM)\n']);
      const json = tlspool(full, '--json', 'check', config);
      assert.deepEqual([json.status, errorOf(json).code], [1, 'SYSTEM']);
    } finally {
      closeSync(full);
    }
  });

  for (const [args, text] of [[['frobnicate'], /unknown command 'frobnicate'/], [['--timeout', 'x', 'ping'], /--timeout <seconds>' argument 'x'/], [['pki'], /a command is missing/], [['ping', '--what'], /unknown option '--what'/]] as const) {
    it(`with --json a usage error is JSON, too: ${args.join(' ')}`, () => {
      const result = tlspool('pipe', '--json', ...args);
      const { code, kind, text: said } = errorOf(result);
      assert.deepEqual([result.status, result.stdout, code, kind], [2, '', 'BAD_ARGUMENT', 'usage']);
      assert.match(said, text);
    });
  }

  it('an identity whose name cannot be a folder asks for --out, and nothing is written elsewhere', () => {
    for (const name of ['../up', 'a/b', '.hidden']) {
      const result = tlspool('pipe', '--json', 'pki', 'issue', name, '--dns', 'a.example', '--ca', 'nowhere');
      assert.deepEqual([result.status, errorOf(result).field], [2, 'name']);
      assert.match(errorOf(result).text, /--out/);
    }
    assert.match(errorOf(tlspool('pipe', '--json', 'pki', 'issue', 'a/b', '--out', 'x', '--dns', 'a.example', '--ca', 'nowhere')).text, /no certificate authority/);
  });

  it('a check refuses the state folder that a start would refuse, and takes it when it is mended', () => {
    mkdirSync(state);
    chmodSync(state, 0o777);
    const refused = tlspool('pipe', 'check', config);
    assert.equal(refused.status, 2);
    assert.match(refused.stderr, /state has mode 0777.*chmod 0700/);
    chmodSync(state, 0o700);
    assert.equal(tlspool('pipe', 'check', config).status, 0);
  });
});
