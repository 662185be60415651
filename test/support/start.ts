/** `npm start` in a test. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { tempFolder } from './cleanup.js';
import { Program, repoRoot } from './program.js';
import type { ProgramOptions } from './program.js';
import type { Target } from './tls-clients.js';
import { until, within } from './wait.js';

export const startScript = path.join(repoRoot, 'scripts/start.mjs');

/** A start of its own, with its own state folder. */
export class Start {
  readonly program: Program;
  readonly state: string;

  constructor({ state = path.join(tempFolder(), 'state'), port = '0', command = [process.execPath, startScript], env = {} }: {
    readonly state?: string; readonly port?: string; readonly command?: readonly string[]; readonly env?: ProgramOptions['env'];
  } = {}) {
    this.state = state;
    const [program = '', ...args] = command;
    this.program = new Program(program, [...args, '--state', state], { cwd: repoRoot, env: { PORT: port, ...env } });
  }

  async target(): Promise<Target> {
    const [, port] = await this.program.output(/https:\/\/localhost:(\d+)\/\n/u, 'stdout', 15_000);
    return { port: Number(port), caFile: path.join(this.state, 'ca/ca.crt') };
  }

  /** Where a service of the mailbox is, once it is. */
  async mail(service: 'imap' | 'imaps' | 'smtp'): Promise<Target> {
    const { caFile } = await this.target();
    const [, port] = await this.program.output(new RegExp(`\\b${service}://localhost:(\\d+)/`, 'u'), 'stdout');
    return { port: Number(port), caFile };
  }

  /** Processes, as printed. */
  pids(): Record<'pool' | 'app' | 'mailbox' | 'proxy', number> {
    const number = (name: string): number => Number(new RegExp(`^ {2}${name} +process (\\d+), `, 'mu').exec(this.program.stdout)?.[1]);
    return { pool: number('pool'), app: number('application'), mailbox: number('mailbox'), proxy: number('proxy') };
  }

  async ended(): Promise<number | NodeJS.Signals | null> {
    const { code, signal } = await within(this.program.ended, 'npm start to end', 15_000, () => this.program.tail());
    return signal ?? code;
  }

  async stop(signal: NodeJS.Signals = 'SIGINT'): Promise<number | NodeJS.Signals | null> {
    this.program.kill(signal);
    return this.ended();
  }
}

export const isAlive = (pid: number): boolean => {
  try {
    // A zombie that nobody has waited for yet is dead as well.
    return !/^State:\s+Z/mu.test(readFileSync(`/proc/${String(pid)}/status`, 'utf8'));
  } catch {
    return false;
  }
};

export async function gone(...pids: readonly number[]): Promise<void> {
  for (const pid of pids) {
    assert.ok(pid > 1, `no process number: ${pid}`);
    await until(() => !isAlive(pid), { what: `process ${pid} to be gone`, deadlineMs: 15_000 });
  }
}

