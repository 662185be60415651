import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { until } from '../support/index.js';
import { connectPool } from 'libtlspool';

const program = path.join(path.dirname(fileURLToPath(import.meta.url)), '..', '..', '..', 'daemon', 'bin', 'tlspoold.js');

describe('daemon: the reader of the log', () => {
  let folder: string;
  beforeEach(() => { folder = mkdtempSync(path.join(os.tmpdir(), 'tlspool-log-')); });
  afterEach(() => { rmSync(folder, { recursive: true }); });

  const start = async (): Promise<{ child: ReturnType<typeof spawn>; socket: string }> => {
    const socket = path.join(folder, 'p.sock');
    const child = spawn(process.execPath, [program, '--state', path.join(folder, 'state'), '--socket', socket], { stdio: ['ignore', 'pipe', 'inherit'] });
    await until(async () => {
      const pool = await connectPool({ path: socket, reconnect: false }).catch(() => undefined);
      pool?.close();
      return pool !== undefined;
    }, { what: 'the pool to answer' });
    return { child, socket };
  };

  it('may go away: SIGTERM still ends the pool with 0', async () => {
    const { child } = await start();
    child.stdout?.destroy();
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    assert.deepEqual(await ended, [0, null]);
  });

  it('may stop reading: SIGTERM still ends the pool with 0', async () => {
    const { child } = await start();
    child.stdout?.pause();
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    assert.deepEqual(await ended, [0, null]);
  });
});
