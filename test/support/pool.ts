/** A real tlspoold process in a folder of its own, with a CA and identities made for it. */
import assert from 'node:assert/strict';
import { chownSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { atEnd, tempFolder } from './cleanup.js';
import { issue, makeCa, trust } from './pki.js';
import type { TestCa } from './pki.js';
import { PoolWire } from './pool-wire.js';
import { descriptors, fdCount, peakRssKiB, rssKiB } from './process-info.js';
import { Program, repoRoot } from './program.js';
import { until, within } from './wait.js';

export interface TestIdentity {
  readonly localid: string;
  /** SANs in OpenSSL's spelling; `DNS:<localid>` where absent, and 127.0.0.1 and ::1 too for localhost. */
  readonly sans?: readonly string[];
  readonly keyType?: 'ec' | 'rsa';
  readonly policy?: 'modern' | 'intermediate';
  readonly clientAuth?: 'none' | 'request' | 'require';
  /** Serves clients without SNI or with an unknown one. */
  readonly default?: boolean;
  /** Whose certificates the peers may show: the pool's test CA with `true`. */
  readonly trust?: boolean | readonly TestCa[];
  /** A client identity gets a certificate for client authentication. */
  readonly usage?: 'serverAuth' | 'clientAuth';
  /** Certificate of another CA than the pool's. */
  readonly ca?: TestCa;
}

export interface PoolOptions {
  /** Keys added to the configuration that the test makes, or the whole file as text (`identities` and the socket are then yours to name). */
  readonly config?: Readonly<Record<string, unknown>> | string;
  /** One default identity `localhost` where absent. */
  readonly identities?: readonly TestIdentity[];
  readonly env?: Readonly<Record<string, string>>;
  /** Run as this user; the folder is given to it. */
  readonly uid?: number;
  readonly gid?: number;
  readonly cwd?: string;
  /** For node, before the script. */
  readonly nodeArgs?: readonly string[];
  /** For tlspoold, after --config FILE. */
  readonly args?: readonly string[];
}

export interface Baseline { readonly fds: number; readonly sessions: number; readonly links: readonly string[] }

export interface TestPool {
  readonly socket: string;
  readonly stateDir: string;
  readonly configFile: string;
  readonly ca: TestCa;
  /** The CA's certificate in PEM. */
  readonly caFile: string;
  /** Folder of an identity's credentials. */
  identityDir(localid: string): string;
  readonly process: Program;
  readonly pid: number;
  /** Everything that it printed so far, by line. */
  logLines(): string[];
  fdCount(): number;
  rssKiB(): number;
  peakRssKiB(): number;
  /** The reply of the `status` operation. */
  status(): Record<string, unknown>;
  baseline(): Baseline;
  /** SIGTERM and wait for the exit, which must be 0. Harmless when it has ended. */
  stop(): Promise<void>;
  /** Sends a signal; resolves when the process is gone. */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** Ends it (SIGKILL unless it has ended) and starts a new process on the same socket path, with `meanwhile` done in between. */
  restart(meanwhile?: () => void): Promise<void>;
}

const script = path.join(repoRoot, 'daemon/bin/tlspoold.js');
const localhostSans = ['DNS:localhost', 'IP:127.0.0.1', 'IP:::1'];
const startDeadlineMs = 15_000;

/** Starts a pool and waits until it answers. It is stopped at the end of the run when the test does not do so. */
export async function startPool(options: PoolOptions = {}): Promise<TestPool> {
  const folder = tempFolder();
  const socket = path.join(folder, 'pool.sock');
  const stateDir = path.join(folder, 'state');
  const configFile = path.join(folder, 'tlspoold.yaml');
  mkdirSync(stateDir, { mode: 0o700 });
  const ca = await makeCa(path.join(folder, 'ca'));
  const identities = options.identities ?? [{ localid: 'localhost', sans: localhostSans, default: true }];
  for (const identity of identities) await makeIdentity(ca, path.join(folder, 'identities', identity.localid), identity);
  const made = {
    socket: { path: socket }, state: stateDir, log: { level: 'debug' }, workers: 2,
    identities: identities.map((identity) => ({
      localid: identity.localid, directory: path.join(folder, 'identities', identity.localid),
      ...(identity.policy === undefined ? {} : { policy: identity.policy }), ...(identity.clientAuth === undefined ? {} : { clientAuth: identity.clientAuth }),
      ...(identity.default === undefined ? {} : { default: identity.default }),
    })),
  };
  // JSON is YAML, and is written without a library.
  writeFileSync(configFile, typeof options.config === 'string' ? options.config : JSON.stringify({ ...made, ...options.config }, undefined, 2));
  if (options.uid !== undefined) giveFolder(folder, options.uid, options.gid ?? options.uid);
  const pool = new RunningPool(options, { folder, socket, stateDir, configFile, ca });
  atEnd(() => pool.kill('SIGKILL'));
  await pool.start();
  return pool;
}

async function makeIdentity(ca: TestCa, folder: string, identity: TestIdentity): Promise<void> {
  const sans = identity.sans ?? (identity.localid === 'localhost' ? localhostSans : [`DNS:${identity.localid}`]);
  await issue(identity.ca ?? ca, folder, {
    commonName: identity.localid, sans, ...(identity.keyType === undefined ? {} : { keyType: identity.keyType }),
    ...(identity.usage === undefined ? {} : { usage: identity.usage }),
  });
  if (identity.trust === true) trust(folder, ca);
  else if (identity.trust !== undefined && identity.trust !== false) trust(folder, ...identity.trust);
}

function giveFolder(folder: string, uid: number, gid: number): void {
  chownSync(folder, uid, gid);
  for (const entry of readdirSync(folder, { recursive: true, encoding: 'utf8' })) chownSync(path.join(folder, entry), uid, gid);
}

interface Places { readonly folder: string; readonly socket: string; readonly stateDir: string; readonly configFile: string; readonly ca: TestCa }

class RunningPool implements TestPool {
  readonly socket: string;
  readonly stateDir: string;
  readonly configFile: string;
  readonly ca: TestCa;
  readonly caFile: string;
  readonly #folder: string;
  readonly #options: PoolOptions;
  #program: Program | undefined;

  constructor(options: PoolOptions, places: Places) {
    this.#options = options;
    this.#folder = places.folder;
    this.socket = places.socket;
    this.stateDir = places.stateDir;
    this.configFile = places.configFile;
    this.ca = places.ca;
    this.caFile = places.ca.certFile;
  }

  get process(): Program {
    if (this.#program === undefined) throw new Error('the pool was not started');
    return this.#program;
  }

  get pid(): number { return this.process.pid; }
  identityDir(localid: string): string { return path.join(this.#folder, 'identities', localid); }
  logLines(): string[] { return `${this.process.stdout}${this.process.stderr}`.split('\n').filter((line) => line !== ''); }
  fdCount(): number { return fdCount(this.pid); }
  rssKiB(): number { return rssKiB(this.pid); }
  peakRssKiB(): number { return peakRssKiB(this.pid); }

  status(): Record<string, unknown> {
    const wire = new PoolWire(this.socket);
    try { return wire.request('status').body; } finally { wire.close(); }
  }

  baseline(): Baseline {
    const sessions = Number(this.status()['sessions']);
    const links = [...descriptors(this.pid).values()].sort();
    return { fds: links.length, sessions, links };
  }

  async start(): Promise<void> {
    const { nodeArgs = [], args = [], env, uid, gid, cwd } = this.#options;
    const program = new Program(process.execPath, [...nodeArgs, script, '--config', this.configFile, ...args], {
      ...(env === undefined ? {} : { env }), ...(cwd === undefined ? {} : { cwd }), ...(uid === undefined ? {} : { uid, gid: gid ?? uid }),
    });
    this.#program = program;
    await until(() => {
      if (!program.running) throw new Error(`tlspoold ended before it was ready\n${program.tail()}`);
      return existsSync(this.socket) && answers(this.socket);
    }, { what: 'tlspoold to answer', deadlineMs: startDeadlineMs, context: () => program.tail() });
  }

  async stop(): Promise<void> {
    if (!this.process.running) return;
    this.process.kill('SIGTERM');
    const { code, signal } = await within(this.process.ended, 'tlspoold to stop', startDeadlineMs, () => this.process.tail());
    assert.equal(signal ?? code, 0, `tlspoold ended badly\n${this.process.tail()}`);
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    if (this.#program?.running !== true) return;
    this.#program.kill(signal);
    await within(this.#program.ended, `tlspoold to end by ${signal}`, startDeadlineMs, () => this.process.tail());
  }

  async restart(meanwhile?: () => void): Promise<void> {
    await this.kill('SIGKILL');
    meanwhile?.();
    await this.start();
  }
}

/** A socket file is there before anybody listens, and after a SIGKILL too: only an answer to hello counts. */
function answers(socket: string): boolean {
  try {
    new PoolWire(socket).close();
    return true;
  } catch (error) {
    if ((error as { code?: string }).code === 'SYSTEM') return false;
    throw error;
  }
}

/** Waits until the pool has no more descriptors and sessions than `before`; otherwise says which descriptors are new. */
export async function expectBaseline(pool: TestPool, before: Baseline, deadlineMs = 10_000): Promise<void> {
  let last = pool.baseline();
  await until(() => {
    last = pool.baseline();
    return last.fds <= before.fds && last.sessions <= before.sessions;
  }, {
    what: 'descriptors and sessions to be back at the baseline', deadlineMs,
    context: () => `descriptors ${String(before.fds)} -> ${String(last.fds)}, sessions ${String(before.sessions)} -> ${String(last.sessions)}\n` +
      `new: ${last.links.filter((link) => !before.links.includes(link)).join(' ')}`,
  });
}
