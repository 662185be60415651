/** Other programs: run to the end with input and a deadline, or keep running and talk to. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import path from 'node:path';
import { killAtExit } from './cleanup.js';
import { defaultDeadlineMs, within } from './wait.js';

/** Root of the checkout. */
export const repoRoot = path.resolve(import.meta.dirname, '../../..');

export interface ProgramOptions {
  readonly cwd?: string;
  /** Added to the environment of the tests. */
  readonly env?: Readonly<Record<string, string>>;
  readonly uid?: number;
  readonly gid?: number;
  /** Descriptors that the program gets as 3 and up, as copies. Not together with `ipc`. */
  readonly passed?: readonly number[];
}

export interface RunOptions extends ProgramOptions {
  /** Written to standard input, which is then closed. */
  readonly input?: string | Buffer;
  /** The program is killed and the call fails when it takes longer. */
  readonly deadlineMs?: number;
  /** Fail when the program exits with anything but 0; on unless told otherwise. */
  readonly check?: boolean;
}

export interface RunResult { readonly code: number | null; readonly signal: NodeJS.Signals | null; readonly stdout: string; readonly stderr: string }

/** Full path of a program on PATH, or an error that names the Debian package. A test that needs a program fails without it; it never skips. */
export function needProgram(name: string, debianPackage: string): string {
  for (const folder of (process.env['PATH'] ?? '').split(':')) {
    const file = path.join(folder, name);
    try { accessSync(file, constants.X_OK); return file; } catch { /* not in this folder */ }
  }
  throw new Error(`${name} is not installed: apt-get install ${debianPackage}`);
}

/** A program that is running. Its output is kept, and can be waited for. */
export class Program {
  readonly child: ChildProcess;
  readonly pid: number;
  /** Resolves when the program has ended and all of its output was read. */
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  stdout = '';
  stderr = '';
  #watchers = new Set<() => void>();
  #over = false;

  constructor(command: string, args: readonly string[], options: ProgramOptions & { readonly ipc?: boolean } = {}) {
    this.child = spawn(command, args, {
      stdio: options.ipc === true ? ['pipe', 'pipe', 'pipe', 'ipc'] : ['pipe', 'pipe', 'pipe', ...options.passed ?? []],
      env: { ...process.env, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.uid === undefined ? {} : { uid: options.uid }),
      ...(options.gid === undefined ? {} : { gid: options.gid }),
    });
    this.pid = this.child.pid ?? 0;
    const forget = this.pid > 0 ? killAtExit(this.pid) : (): void => undefined;
    this.child.stdout?.setEncoding('utf8').on('data', (chunk: string) => { this.stdout += chunk; this.#tell(); });
    this.child.stderr?.setEncoding('utf8').on('data', (chunk: string) => { this.stderr += chunk; this.#tell(); });
    // A program may end without reading its input; what it does with the input is judged by its output.
    this.child.stdin?.on('error', () => undefined);
    this.ended = new Promise((resolve, reject) => {
      this.child.once('error', (error) => { forget(); reject(error); });
      this.child.once('close', (code, signal) => { forget(); this.#over = true; this.#tell(); resolve({ code, signal }); });
    });
    this.ended.catch(() => undefined);
  }

  get running(): boolean { return !this.#over; }

  write(data: string | Buffer): void { this.child.stdin?.write(data); }
  /** Closes standard input. */
  end(data?: string | Buffer): void { if (data === undefined) this.child.stdin?.end(); else this.child.stdin?.end(data); }
  kill(signal: NodeJS.Signals = 'SIGTERM'): void { this.child.kill(signal); }

  /** Waits until the output (both streams, or one) matches; fails at once when the program ends without it. */
  async output(pattern: RegExp, from: 'stdout' | 'stderr' | 'either' = 'either', deadlineMs = defaultDeadlineMs): Promise<RegExpExecArray> {
    const look = (): RegExpExecArray | null =>
      (from === 'stderr' ? null : pattern.exec(this.stdout)) ?? (from === 'stdout' ? null : pattern.exec(this.stderr));
    const found = new Promise<RegExpExecArray>((resolve, reject) => {
      const check = (): void => {
        const match = look();
        if (match === null && !this.#over) return;
        this.#watchers.delete(check);
        if (match !== null) resolve(match);
        else reject(new Error(`the program ended without printing ${String(pattern)}\n${this.tail()}`));
      };
      this.#watchers.add(check);
      check();
    });
    return within(found, `output like ${String(pattern)}`, deadlineMs, () => this.tail());
  }

  /** The last lines of both streams, for error messages. */
  tail(): string {
    const last = (text: string): string => text.split('\n').slice(-25).join('\n');
    return `--- stdout\n${last(this.stdout)}\n--- stderr\n${last(this.stderr)}`;
  }

  #tell(): void { for (const watcher of [...this.#watchers]) watcher(); }
}

/** Runs a program to its end. Rejects on a deadline and, unless `check` is false, on an exit code other than 0. */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const program = new Program(command, args, options);
  program.end(options.input);
  try {
    const { code, signal } = await within(program.ended, `${command} to end`, options.deadlineMs ?? 15_000, () => program.tail());
    if (options.check !== false && code !== 0) {
      throw new Error(`${command} ${args.join(' ')} ended with ${signal ?? String(code)}\n${program.tail()}`);
    }
    return { code, signal, stdout: program.stdout, stderr: program.stderr };
  } finally {
    if (program.running) program.kill('SIGKILL');
  }
}
