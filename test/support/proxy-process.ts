/** A tlspool-proxy as its service manager sees it, for tests of starting, sockets from outside, reload and signals; proxy.ts is for tests of connections. */
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { atEnd, tempFolder } from './cleanup.js';
import type { TestPool } from './pool.js';
import { fdCount } from './process-info.js';
import { Program, repoRoot } from './program.js';
import type { ProgramOptions } from './program.js';
import { within } from './wait.js';

export const proxyScript = path.join(repoRoot, 'proxy/bin/tlspool-proxy.js');

const startDeadlineMs = 15_000;

type Services = readonly Readonly<Record<string, unknown>>[];

export interface ProxyProcessOptions extends ProgramOptions {
  readonly pool: TestPool;
  /** As in the configuration file. */
  readonly services: Services;
  /** Other keys of the configuration. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Program and arguments that come before those of the proxy. Default: this Node. */
  readonly command?: readonly [string, ...string[]];
}

export class ProxyProcess {
  readonly process: Program;
  readonly configFile: string;
  readonly #pool: TestPool;
  readonly #config: Readonly<Record<string, unknown>>;

  private constructor({ pool, services, config = {}, command = [process.execPath, proxyScript], ...options }: ProxyProcessOptions) {
    this.#pool = pool;
    this.#config = config;
    this.configFile = path.join(tempFolder(), 'proxy.yaml');
    this.configure(services);
    const [program, ...before] = command;
    this.process = new Program(program, [...before, '--config', this.configFile], options);
    atEnd(async () => { await this.kill('SIGKILL'); });
  }

  /** Resolves when it listens. Fails when it ends instead, with what it said. */
  static async start(options: ProxyProcessOptions): Promise<ProxyProcess> {
    const proxy = new ProxyProcess(options);
    await proxy.process.output(/"msg":"ready"/, 'stdout', startDeadlineMs);
    return proxy;
  }

  get pid(): number { return this.process.pid; }
  fdCount(): number { return fdCount(this.pid); }

  /** Writes the configuration file anew, which the proxy notices by itself. */
  configure(services: Services): void {
    // JSON is YAML, and is written without a library.
    writeFileSync(this.configFile, JSON.stringify({ pool: this.#pool.socket, ...this.#config, services }, undefined, 2), { mode: 0o600 });
  }

  /** The log so far. */
  log(): Readonly<Record<string, unknown>>[] {
    return this.process.stdout.split('\n').slice(0, -1).map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  /** Where a listener listens now: what the kernel chose for port 0. */
  port(listener: string): number {
    const found = this.log().findLast((line) => line['msg'] === 'listening' && line['listener'] === listener)?.['port'];
    if (typeof found !== 'number') throw new Error(`the proxy does not listen as ${listener}\n${this.process.tail()}`);
    return found;
  }

  /** Sends a signal and waits for the end. Harmless when it has ended. */
  async kill(signal: NodeJS.Signals = 'SIGTERM'): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    if (this.process.running) this.process.kill(signal);
    return within(this.process.ended, `tlspool-proxy to end by ${signal}`, startDeadlineMs, () => this.process.tail());
  }
}
