/** A real tlspool-proxy process, and what it says of its connections. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { atEnd, tempFolder } from './cleanup.js';
import type { TestPool } from './pool.js';
import { expectBaseline } from './pool.js';
import { descriptors } from './process-info.js';
import { Program, repoRoot } from './program.js';
import { until, within } from './wait.js';

const script = path.join(repoRoot, 'proxy/bin/tlspool-proxy.js');
const startDeadlineMs = 15_000;

/** One line of the log about a connection. */
export interface ConnectionLine {
  readonly service: string;
  readonly listener: string;
  readonly peer?: string;
  readonly servername?: string;
  readonly protocol?: string;
  readonly cipher?: string;
  readonly localid?: string;
  readonly alpn?: string;
  readonly authorized?: boolean;
  readonly clientSubject?: string;
  readonly backend?: string;
  readonly octetsIn: number;
  readonly octetsOut: number;
  readonly durationMs: number;
  readonly ended: string;
  readonly code?: string;
  readonly error?: string;
}

/** Keys of a service, as in the configuration file. `listen` is a loopback address that the kernel chooses the port of, unless it is given. */
export type ServiceYaml = Readonly<Record<string, unknown>> & { readonly name: string; readonly protocol: string };

export interface ProxyOptions {
  /** Keys beside `services` and `pool`. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Descriptors that the process may have, by prlimit(1). */
  readonly maxFds?: number;
  readonly env?: Readonly<Record<string, string>>;
}

export interface ProxyBaseline { readonly proxy: readonly string[]; readonly pool: ReturnType<TestPool['baseline']> }

type LogLine = Readonly<Record<string, unknown>> & { readonly msg: string };

/** Of any process of the kernel's making; timers and the like come and go with what Node does. */
const linksOf = (pid: number): string[] => [...descriptors(pid).values()].map((link) => link.replace(/\d+/gu, '')).sort();

export class TestProxy {
  readonly configFile: string;
  readonly #pool: TestPool;
  readonly #options: ProxyOptions;
  #program: Program;
  /** What was printed before the last look is not looked at again. */
  #seen = 0;
  #lines: LogLine[] = [];

  private constructor(pool: TestPool, configFile: string, options: ProxyOptions) {
    this.#pool = pool;
    this.#options = options;
    this.configFile = configFile;
    this.#program = this.#spawn();
    atEnd(() => this.kill());
  }

  /** Resolves when it serves. It is killed at the end of the run when the test does not stop it. */
  static async start(pool: TestPool, services: readonly ServiceYaml[], options: ProxyOptions = {}): Promise<TestProxy> {
    const configFile = path.join(tempFolder(), 'proxy.yaml');
    writeConfig(configFile, pool, services, options);
    const proxy = new TestProxy(pool, configFile, options);
    await proxy.said('ready', startDeadlineMs);
    return proxy;
  }

  get pid(): number { return this.#program.pid; }
  get program(): Program { return this.#program; }

  /** Where a service listens, by its first listener or the one with this name. */
  port(service: string, listener?: string): number {
    const line = this.log().findLast((one) => one.msg === 'listening' && one['service'] === service && (listener === undefined || one['listener'] === listener));
    assert(line !== undefined, `${service} does not listen\n${this.#program.tail()}`);
    return Number(line['port']);
  }

  /** Host of a service's first listener. */
  host(service: string, listener?: string): string {
    const line = this.log().findLast((one) => one.msg === 'listening' && one['service'] === service && (listener === undefined || one['listener'] === listener));
    return String(line?.['address']).replace(/:\d+$/u, '');
  }

  /** All lines of the log so far. */
  log(): readonly LogLine[] {
    const end = this.#program.stdout.lastIndexOf('\n') + 1;
    for (const text of this.#program.stdout.slice(this.#seen, end).split('\n')) if (text !== '') this.#lines.push(JSON.parse(text) as LogLine);
    this.#seen = end;
    return this.#lines;
  }

  connections(): ConnectionLine[] { return this.log().filter(({ msg }) => msg === 'connection') as unknown as ConnectionLine[]; }

  /** Waits for a message of the log. */
  async said(msg: string, deadlineMs = 10_000, after = 0): Promise<LogLine> {
    return until(() => {
      const found = this.log().slice(after).find((line) => line.msg === msg);
      if (found === undefined && !this.#program.running) throw new Error(`tlspool-proxy ended before it said ${msg}\n${this.#program.tail()}`);
      return found;
    }, { what: `tlspool-proxy to say ${msg}`, deadlineMs, context: () => this.#program.tail() });
  }

  /** Waits until so many connections of the service were logged, and gives the last of them. */
  async record(service: string, count = 1): Promise<ConnectionLine> {
    return until(() => this.connections().filter((line) => line.service === service)[count - 1], { what: `record ${count} of ${service}`, context: () => this.#program.tail() });
  }

  /** Waits for what was logged of the client of a service with this port: on its way to another address a client may have the same one. */
  async recordOf(name: string, port: number | undefined): Promise<ConnectionLine> {
    return until(() => this.connections().find(({ service, peer }) => service === name && peer?.endsWith(`:${port}`) === true), { what: `the record of port ${port}`, context: () => this.#program.tail() });
  }

  /** Waits until the pool has no session of anybody. */
  async settled(): Promise<void> {
    await until(() => this.#pool.status()['sessions'] === 0, { what: 'all sessions to end' });
  }

  /** Writes another configuration and has it read. Resolves with the line that tells of it. */
  async reload(services: readonly ServiceYaml[], expected = 'configuration reloaded'): Promise<LogLine> {
    const after = this.log().length;
    writeConfig(this.configFile, this.#pool, services, this.#options);
    this.#program.kill('SIGHUP');
    return this.said(expected, 10_000, after);
  }

  baseline(): ProxyBaseline { return { proxy: linksOf(this.pid), pool: this.#pool.baseline() }; }

  /** Waits until the proxy and the pool have no descriptor and no session more than then. */
  async expectBaseline(before: ProxyBaseline): Promise<void> {
    await expectBaseline(this.#pool, before.pool);
    await until(() => linksOf(this.pid).length <= before.proxy.length, {
      what: 'the descriptors of the proxy to be back at the baseline', context: () => `${before.proxy.join(' ')}\n->\n${linksOf(this.pid).join(' ')}`,
    });
  }

  /** SIGTERM and the end, which must be in order and without a word on standard error. Harmless when it has ended. */
  async stop(): Promise<void> {
    if (this.#program.running) this.#program.kill('SIGTERM');
    const { code, signal } = await within(this.#program.ended, 'tlspool-proxy to stop', startDeadlineMs, () => this.#program.tail());
    assert.equal(signal ?? code, 0, this.#program.tail());
    assert.equal(this.#program.stderr, '');
  }

  async kill(): Promise<void> {
    if (!this.#program.running) return;
    this.#program.kill('SIGKILL');
    await within(this.#program.ended, 'tlspool-proxy to end');
  }

  /** A new process with the configuration as it is. */
  async restart(): Promise<void> {
    await this.kill();
    this.#seen = 0;
    this.#lines = [];
    this.#program = this.#spawn();
    await this.said('ready', startDeadlineMs);
  }

  #spawn(): Program {
    const { maxFds, env } = this.#options;
    const args = [process.execPath, script, '--config', this.configFile];
    const [command = '', ...rest] = maxFds === undefined ? args : ['prlimit', `--nofile=${maxFds}`, ...args];
    return new Program(command, rest, { cwd: '/', ...(env !== undefined && { env }) });
  }
}

/** JSON is YAML. Each service gets an address of its own: the kernel may choose the port of each, but the texts must differ. */
function writeConfig(file: string, pool: TestPool, services: readonly ServiceYaml[], { config }: ProxyOptions): void {
  const listening = services.map((service, index) => ({ listen: `127.0.1.${index + 1}:0`, ...service }));
  writeFileSync(file, JSON.stringify({ pool: pool.socket, drainMs: 2000, ...config, services: listening }, undefined, 1), { mode: 0o600 });
}
