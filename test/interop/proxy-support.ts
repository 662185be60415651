/** What the tests of the proxy with real servers behind it share: a pool and a proxy in front of them, and clients that nobody here wrote. */
import path from 'node:path';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { needProgram, Program, run, sClientArgs, startPool, tempFolder, TestProxy, until } from '../support/index.js';
import type { PoolOptions, ProxyBaseline, RunResult, Target, TestPool } from '../support/index.js';
import { account, freePorts } from '../support/servers/index.js';

/** Keys of a service without its name and its address. */
export type FrontService = Readonly<Record<string, unknown>> & { readonly protocol: string };

/** A pool and a proxy; clients connect to `localhost`. */
export class Front {
  readonly pool: TestPool;
  readonly proxy: TestProxy;
  readonly #ports: ReadonlyMap<string, number>;
  #baseline: ProxyBaseline;

  private constructor(pool: TestPool, proxy: TestProxy, ports: ReadonlyMap<string, number>) {
    this.pool = pool;
    this.proxy = proxy;
    this.#ports = ports;
    this.#baseline = proxy.baseline();
  }

  /** Serves these services, by name. */
  static async start(services: Readonly<Record<string, FrontService>>, options: PoolOptions = {}): Promise<Front> {
    const pool = await startPool({ ...options, config: { log: { level: 'warn' } } });
    const names = Object.keys(services);
    const free = await freePorts(names.length);
    const ports = new Map(names.map((name, at) => [name, free[at] ?? 0]));
    const proxy = await TestProxy.start(pool, Object.entries(services).map(([name, service]) => ({ name, listen: `127.0.0.1:${String(ports.get(name))}`, hostname: `mail.${account.domain}`, ...service })));
    return new Front(pool, proxy, ports);
  }

  target(service: string): Target {
    const port = this.#ports.get(service);
    if (port === undefined) throw new Error(`there is no service ${service}`);
    return { port, caFile: this.pool.caFile };
  }

  /** From here on nothing may be left behind: called when the test has its own connections to the pool. */
  settled(): void { this.#baseline = this.proxy.baseline(); }

  /** Nothing of all the connections may be left in the proxy and the pool. */
  async stop(): Promise<void> {
    await this.proxy.expectBaseline(this.#baseline);
    await this.proxy.stop();
    await this.pool.stop();
  }
}

/** `openssl s_client -starttls`, and who types into it. */
export class ByHand {
  readonly #program: Program;
  #seen = 0;

  constructor(target: Target, args: readonly string[]) {
    this.#program = new Program(needProgram('openssl', 'openssl'), sClientArgs(target, [...args, '-quiet']));
  }

  type(text: string | Buffer): void { this.#program.write(text); }

  /** Types this, and gives what is new up to and with the answer. */
  async ask(text: string | Buffer, answer: RegExp): Promise<string> {
    this.type(text);
    return this.hear(answer);
  }

  async hear(pattern: RegExp): Promise<string> {
    const fresh = (): string => this.#program.stdout.slice(this.#seen);
    await until(() => {
      const found = pattern.test(fresh());
      if (!found && !this.#program.running) throw new Error(`openssl ended without ${String(pattern)}\n${this.#program.tail()}`);
      return found;
    }, { what: `an answer like ${String(pattern)}`, context: () => this.#program.tail() });
    const heard = fresh();
    this.#seen += heard.length;
    return heard;
  }

  /** Waits for the server to end it. */
  async over(): Promise<void> { await this.#program.ended; }

  /** Ends it from here; with -quiet it does not do so at the end of its input. */
  async quit(): Promise<void> {
    if (this.#program.running) this.#program.kill();
    await this.#program.ended;
  }
}

/** curl with TLS, which it must get; HOST in the address is the target. */
export function curlTls(target: Target, url: string, args: readonly string[] = [], check = true): Promise<RunResult> {
  const host = `localhost:${String(target.port)}`;
  return run(needProgram('curl', 'curl'), [
    '--silent', '--show-error', '--max-time', '20', '--noproxy', '*', '--cacert', target.caFile, '--resolve', `${host}:127.0.0.1`, ...(args.includes('--ftp-ssl-control') ? [] : ['--ssl-reqd']), ...args, url.replace('HOST', host),
  ], { deadlineMs: 30_000, check });
}

export const login = ['--user', `${account.user}:${account.password}`] as const;

/** swaks with TLS, whose certificate it checks. Gives its transcript. */
export async function swaks(target: Target, message: string, args: readonly string[] = []): Promise<string> {
  const file = path.join(tempFolder(), 'message');
  writeFileSync(file, message);
  const { stdout } = await run(needProgram('swaks', 'swaks'), [
    '--server', '127.0.0.1', '--port', String(target.port), '--tls', '--tls-verify', '--tls-ca-path', target.caFile, '--tls-sni', 'localhost',
    '--from', 'anna@example.net', '--to', account.address, '--data', `@${file}`, ...args,
  ], { deadlineMs: 30_000 });
  return stdout;
}

/** Copies joe's INBOX into a new Maildir, over STARTTLS. Gives all messages, with line ends of UNIX. */
export async function mbsync(target: Target): Promise<string[]> {
  const folder = tempFolder();
  const config = path.join(folder, 'rc');
  // By LOGIN, which needs no plug-ins of SASL.
  writeFileSync(config, `IMAPAccount joe\nHost localhost\nPort ${String(target.port)}\nUser ${account.user}\nPass ${account.password}\nAuthMechs LOGIN\nSSLType STARTTLS\nCertificateFile ${target.caFile}\nSystemCertificates no\n
IMAPStore far\nAccount joe\n\nMaildirStore near\nPath ${folder}/\nInbox ${folder}/INBOX\n\nChannel all\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Near\nSyncState *\nSync Pull\n`);
  mkdirSync(path.join(folder, 'INBOX'));
  for (const name of ['cur', 'new', 'tmp']) mkdirSync(path.join(folder, 'INBOX', name));
  await run(needProgram('mbsync', 'isync'), ['-c', config, '-a'], { deadlineMs: 30_000 });
  return ['cur', 'new'].flatMap((name) => readdirSync(path.join(folder, 'INBOX', name)).map((file) => readFileSync(path.join(folder, 'INBOX', name, file), 'utf8')));
}
