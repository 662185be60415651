/** The C program client.c, compiled when first asked for, and talked to a line at a time. */
import path from 'node:path';
import { tempFolder } from '../cleanup.js';
import { needProgram, Program, repoRoot, run } from '../program.js';
import type { ProgramOptions } from '../program.js';
import { within } from '../wait.js';

const source = path.join(repoRoot, 'test/support/v2/client.c');
let compiled: Promise<string> | undefined;

/** Path of the program. */
export function compiledClient(): Promise<string> {
  compiled ??= (async () => {
    const program = path.join(tempFolder(), 'v2-client');
    await run(needProgram('gcc', 'gcc'), ['-O1', '-Wall', '-Wextra', '-Werror', '-o', program, source], { deadlineMs: 60_000 });
    return program;
  })();
  return compiled;
}

/** One running client. */
export class V2Program {
  readonly program: Program;
  #read = 0;

  constructor(file: string, options: ProgramOptions = {}) {
    this.program = new Program(file, [], options);
  }

  static async start(socket: string, options: ProgramOptions = {}): Promise<V2Program> {
    const made = new V2Program(await compiledClient(), options);
    await made.ok(`pool ${socket}`);
    return made;
  }

  say(command: string): void { this.program.write(`${command}\n`); }

  /** The next line that it prints. */
  async line(): Promise<string> {
    const rest = (): string => this.program.stdout.slice(this.#read);
    if (!rest().includes('\n')) {
      const more = new Promise<void>((resolve) => {
        const { stdout } = this.program.child;
        const look = (): void => {
          if (!rest().includes('\n') && this.program.running) return;
          stdout?.off('data', look);
          resolve();
        };
        stdout?.on('data', look);
        this.program.ended.then(look, look);
      });
      await within(more, 'a line of the V2 client', 15_000, () => this.program.tail());
    }
    const end = rest().indexOf('\n');
    if (end < 0) throw new Error(`the V2 client has ended\n${this.program.tail()}`);
    const line = rest().slice(0, end);
    this.#read += end + 1;
    return line;
  }

  async ask(command: string): Promise<string> {
    this.say(command);
    return this.line();
  }

  /** A command that has nothing to tell. */
  async ok(command: string): Promise<void> {
    const line = await this.ask(command);
    if (line !== 'ok') throw new Error(`${command}: ${line}\n${this.program.tail()}`);
  }

  /** A port that it listens on. */
  async listen(): Promise<number> {
    return Number((await this.ask('listen')).replace('port ', ''));
  }

  /** The last line of a STARTTLS, and the callbacks before it. */
  async starttls(command: string): Promise<{ readonly callbacks: readonly string[]; readonly last: string }> {
    this.say(`starttls ${command}`);
    return this.starttlsAnswer();
  }

  /** The same for one that has been said already. */
  async starttlsAnswer(): Promise<{ readonly callbacks: readonly string[]; readonly last: string }> {
    const callbacks: string[] = [];
    for (;;) {
      const line = await this.line();
      if (!line.startsWith('callback ')) return { callbacks, last: line };
      callbacks.push(line);
    }
  }

  async end(): Promise<void> {
    this.program.end();
    await within(this.program.ended, 'the V2 client to end', 15_000, () => this.program.tail());
  }

  async kill(): Promise<void> {
    this.program.kill('SIGKILL');
    await within(this.program.ended, 'the V2 client to die', 15_000);
  }
}
