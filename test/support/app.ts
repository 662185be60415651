/** An application in a process of its own, from test/support/apps, that talks to the test by IPC. */
import path from 'node:path';
import type { TestPool } from './pool.js';
import { Program } from './program.js';
import { within } from './wait.js';

export class App {
  readonly program: Program;

  /** Starts apps/<name>.js with TLSPOOL_SOCKET set to the pool. */
  constructor(name: string, pool: TestPool | undefined, args: readonly string[] = [], env: Readonly<Record<string, string>> = {}) {
    this.program = new Program(process.execPath, [path.join(import.meta.dirname, 'apps', `${name}.js`), ...args], {
      ipc: true, env: { ...(pool === undefined ? {} : { TLSPOOL_SOCKET: pool.socket }), ...env },
    });
    this.program.child.on('error', () => undefined);
  }

  get pid(): number { return this.program.pid; }

  /** The next message that has the key, and its value. */
  async told<T>(key: string): Promise<T> {
    const { child } = this.program;
    let listener: (message: unknown) => void = () => undefined;
    const came = new Promise<T>((resolve, reject) => {
      listener = (message) => {
        const seen = message as Record<string, T | undefined>;
        const value = seen[key];
        if (value !== undefined) resolve(value);
      };
      child.on('message', listener);
      this.program.ended.then(() => { reject(new Error(`the application ended instead of saying ${key}\n${this.program.tail()}`)); }, reject);
    });
    try {
      return await within(came, `the application to say ${key}`, 15_000, () => this.program.tail());
    } finally {
      child.removeListener('message', listener);
    }
  }

  /** Sends a command and waits for the message that answers it. */
  async ask<T>(command: object, key: string): Promise<T> {
    const answer = this.told<T>(key);
    this.program.child.send(command);
    return answer;
  }

  /** Ends the process and waits until it is gone. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.program.running) this.program.kill(signal);
    await within(this.program.ended, 'the application to end');
  }
}
