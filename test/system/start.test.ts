/** `npm start`, as a new user runs it: two commands on a fresh clone lead here. */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { curl, event, Program, repoRoot, run, sClient, tempFolder, until, within } from '../support/index.js';
import type { ProgramOptions, RunResult, Target } from '../support/index.js';

const script = path.join(repoRoot, 'scripts/start.mjs');

/** A start of its own, with its own state folder. */
class Start {
  readonly program: Program;
  readonly state: string;

  constructor({ state = path.join(tempFolder(), 'state'), port = '0', command = [process.execPath, script], env = {} }: {
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

  /** Processes of the pool and the application, as printed. */
  pids(): { pool: number; app: number } {
    const number = (pattern: RegExp): number => Number(pattern.exec(this.program.stdout)?.[1]);
    return { pool: number(/^ {2}pool +process (\d+), /mu), app: number(/^ {2}application +process (\d+), /mu) };
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

const isAlive = (pid: number): boolean => {
  try {
    // A zombie that nobody has waited for yet is dead as well.
    return !/^State:\s+Z/mu.test(readFileSync(`/proc/${String(pid)}/status`, 'utf8'));
  } catch {
    return false;
  }
};

async function gone(...pids: readonly number[]): Promise<void> {
  for (const pid of pids) {
    assert.ok(pid > 1, `no process number: ${pid}`);
    await until(() => !isAlive(pid), { what: `process ${pid} to be gone`, deadlineMs: 15_000 });
  }
}

const again = (state: string): Promise<RunResult> => run(process.execPath, [script, '--state', state], { check: false, env: { PORT: '0' } });

describe('npm start', function () {
  this.timeout(60_000);
  const starts: Start[] = [];
  const start = (options?: ConstructorParameters<typeof Start>[0]): Start => {
    const started = new Start(options);
    starts.push(started);
    return started;
  };

  afterEach(async () => {
    for (const { program } of starts.splice(0)) if (program.running) { program.kill('SIGTERM'); await program.ended; }
  });

  describe('while it runs', () => {
    let running: Start;
    let target: Target;
    before(async () => {
      running = new Start();
      target = await running.target();
    });
    after(async () => { assert.equal(await running.stop(), 0); });

    it('curl gets the page, which says what was negotiated and which process answered', async () => {
      const { stdout } = await curl(target);
      assert.match(stdout, /^protocol +TLSv1\.3$/mu);
      assert.match(stdout, /^cipher +TLS_[A-Z0-9_]+$/mu);
      assert.match(stdout, /^group +\S+$/mu);
      assert.match(stdout, /^ALPN +http\/1\.1$/mu);
      assert.match(stdout, new RegExp(`^application +process ${running.pids().app}$`, 'mu'));
      assert.match(stdout, /holds no key/u);
    });

    it('a browser gets the same as HTML', async () => {
      const { stdout } = await curl(target, '/', ['--header', 'Accept: text/html']);
      assert.match(stdout, /^<!doctype html>[^]*<td>TLSv1\.3<\/td>[^]*<\/html>\n$/u);
    });

    it('curl without the CA refuses it, and the output says why', async () => {
      const { code } = await run('curl', ['--silent', '--noproxy', '*', `https://localhost:${target.port}/`], { check: false });
      assert.equal(code, 60);
      await running.program.output(/127\.0\.0\.1:\d+ +handshake failed +HANDSHAKE_FAILED +.*unknown CA/u, 'stdout');
    });

    for (const version of ['TLSv1.2', 'TLSv1.3']) {
      it(`openssl s_client gets the page over ${version}`, async () => {
        const client = sClient(target, [`-${version.replace('TLSv1.', 'tls1_')}`, '-quiet']);
        client.write('GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n');
        await client.output(new RegExp(`^protocol +${version.replace('.', '\\.')}$`, 'mu'), 'stdout');
        client.end();
        await client.ended;
      });
    }

    it('each connection gives one line: time, peer, protocol, cipher, group, SNI, ALPN, octets, how it ended', async () => {
      const { stdout } = await curl(target, '/', ['--write-out', '%{local_port} %{size_header}']);
      const [, port] = /(\d+) \d+$/u.exec(stdout) ?? [];
      const [line] = await running.program.output(new RegExp(`^.*127\\.0\\.0\\.1:${String(port)} .*\n`, 'mu'), 'stdout');
      assert.match(line, /^\d\d:\d\d:\d\d {2}127\.0\.0\.1:\d+ +TLSv1\.3 {2}TLS_\w+ {2}\S+ {2}sni=localhost {2}alpn=http\/1\.1 {2}in=[1-9]\d* {2}out=[1-9]\d* {2}closed\n$/u);
    });

    it('a stream that is cut off says so in its line', async () => {
      // s_client killed in the middle of a request sends no close_notify.
      const client = sClient(target, ['-quiet']);
      client.write('POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n');
      await client.output(/^protocol /mu, 'stdout');
      client.write('x'.repeat(100_000));
      client.kill('SIGKILL');
      await client.ended;
      await running.program.output(/ in=\d+ {2}out=\d+ {2}(TRUNCATED|SESSION_LOST)\n/u, 'stdout');
    });

    it('a server name cannot write to the terminal', async () => {
      const client = new Program('openssl', ['s_client', '-connect', `127.0.0.1:${target.port}`, '-servername', 'a\u001b[31m"\u00e4', '-quiet']);
      client.end('GET / HTTP/1.0\r\n\r\n');
      await client.ended;
      await running.program.output(/^.*a\\u001b\[31m.*$/mu, 'stdout');
      assert.doesNotMatch(running.program.stdout, /[^\n -~]/u);
    });

    for (const command of ['status', 'sessions']) {
      it(`the printed command \`tlspool ${command}\` works`, async () => {
        const [, line = ''] = new RegExp(`^ +npx tlspool (.* ${command})$`, 'mu').exec(running.program.stdout) ?? [];
        const { stdout } = await run('sh', ['-c', `"${process.execPath}" daemon/bin/tlspool.js ${line}`], { cwd: repoRoot });
        assert.match(stdout, command === 'status' ? new RegExp(`^process +${running.pids().pool}$`, 'mu') : /\S/u);
      });
    }

    it('the printed commands for curl and openssl work as they are', async () => {
      const commands = [...running.program.stdout.matchAll(/^ {4}((?:curl|openssl) .*)$/gmu)].map(([, command = '']) => command);
      assert.equal(commands.length, 3);
      for (const command of commands) assert.match((await run('sh', ['-c', command])).stdout, /holds no key|Verify return code: 0 \(ok\)/u, command);
    });

    it('state folder and socket are for nobody else', () => {
      assert.equal(statSync(running.state).mode & 0o777, 0o700);
      assert.equal(statSync(path.join(running.state, 'identities/localhost/tls.key')).mode & 0o777, 0o600);
    });

    it('a second start says what is running, exits 1 and does no harm', async () => {
      const { code, stderr } = await again(running.state);
      assert.equal(code, 1);
      assert.match(stderr, new RegExp(`process ${running.program.pid} at https://localhost:${target.port}/\n`, 'u'));
      assert.equal((await curl(target)).code, 0);
    });

    it('a start with another state folder runs beside it', async () => {
      const other = start();
      const otherTarget = await other.target();
      assert.notEqual(otherTarget.port, target.port);
      assert.equal((await curl(otherTarget)).code, 0);
      assert.equal((await curl(target)).code, 0);
    });
  });

  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    it(`${signal} stops all of it in order, with a request in flight too: exit code 0, no process and no socket left`, async () => {
      const started = start();
      const target = await started.target();
      const { pool, app } = started.pids();
      const client = sClient(target, ['-quiet']);
      client.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
      await client.output(/holds no key/u);
      assert.equal(await started.stop(signal), 0);
      await gone(pool, app);
      assert.equal(existsSync(path.join(started.state, 'pool.sock')), false);
      client.end();
      await client.ended;
    });
  }

  it('Ctrl-C in a terminal, which goes to npm as well and is passed on by it, stops all of it in order', async () => {
    const started = start({ command: ['setsid', 'npm', 'start', '--'] });
    await started.target();
    const { pool, app } = started.pids();
    process.kill(-started.program.pid, 'SIGINT');
    await started.ended();
    await gone(pool, app);
    assert.match(started.program.stdout, /\nStopped\.\n$/u);
    // A pool that was killed leaves its socket.
    assert.equal(existsSync(path.join(started.state, 'pool.sock')), false);
  });

  it('SIGTERM to npm itself leaves nothing behind', async () => {
    const started = start({ command: ['npm', 'start', '--'] });
    await started.target();
    const { pool, app } = started.pids();
    await started.stop('SIGTERM');
    await gone(pool, app);
    assert.equal(existsSync(path.join(started.state, 'pool.sock')), false);
  });

  for (const victim of ['pool', 'app'] as const) {
    it(`kill -9 of the ${victim} is reported, and ends the rest with exit code 1`, async () => {
      const started = start();
      await started.target();
      const pids = started.pids();
      process.kill(pids[victim], 'SIGKILL');
      assert.equal(await started.ended(), 1);
      assert.match(started.program.stderr, new RegExp(`\\(process ${pids[victim]}\\) was ended by SIGKILL`, 'u'));
      await gone(pids.pool, pids.app);
    });
  }

  it('kill -9 of the start ends the others, and the next start works', async () => {
    const first = start();
    await first.target();
    const { pool, app } = first.pids();
    assert.equal(await first.stop('SIGKILL'), 'SIGKILL');
    await gone(pool, app);
    const second = start({ state: first.state });
    assert.equal((await curl(await second.target())).code, 0);
  });

  it('kill -9 of everything leaves files that the next start cleans up', async () => {
    const first = start();
    await first.target();
    const { pool, app } = first.pids();
    for (const pid of [first.program.pid, app, pool]) process.kill(pid, 'SIGKILL');
    await first.ended();
    await gone(pool, app);
    assert.equal(existsSync(path.join(first.state, 'pool.sock')), true);
    const second = start({ state: first.state });
    assert.equal((await curl(await second.target())).code, 0);
    assert.equal(await second.stop(), 0);
    assert.equal(existsSync(path.join(first.state, 'pool.sock')), false);
  });

  it('a pool that outlived its start is ended by the next one', async () => {
    const first = start();
    await first.target();
    const { pool, app } = first.pids();
    // Stopped, the application cannot end the pool; and neither can who is gone.
    process.kill(app, 'SIGSTOP');
    for (const pid of [first.program.pid, app]) process.kill(pid, 'SIGKILL');
    await gone(app);
    assert.equal(isAlive(pool), true);
    const second = start({ state: first.state });
    assert.equal((await curl(await second.target())).code, 0);
    assert.match(second.program.stdout, new RegExp(`Ending tlspoold \\(process ${pool}\\)`, 'u'));
    await gone(pool);
  });

  describe('the port', () => {
    let holder: net.Server;
    let taken: number;
    before(async () => {
      holder = net.createServer().listen(0, '127.0.0.1');
      await event(holder, 'listening');
      taken = (holder.address() as net.AddressInfo).port;
    });
    after(() => { holder.close(); });

    it('one that is asked for and taken ends the start, and says who has it and how to choose another', async () => {
      const started = start({ port: String(taken) });
      assert.equal(await started.ended(), 1);
      assert.match(started.program.stdout, new RegExp(`Port ${taken} is taken by process ${process.pid} \\(.*\\); choose another: PORT=NUMBER npm start`, 'u'));
      assert.equal(existsSync(path.join(started.state, 'pool.sock')), false);
    });

    it('one that is asked for and free is used', async () => {
      const free = net.createServer().listen(0, '127.0.0.1');
      await event(free, 'listening');
      const { port } = free.address() as net.AddressInfo;
      free.close();
      await event(free, 'close');
      assert.equal((await start({ port: String(port) }).target()).port, port);
    });

    for (const [port, accepted] of [['65536', false], ['-1', false], ['8443x', false], ['', false], ['0', true]] as const) {
      it(`PORT=${JSON.stringify(port)} is ${accepted ? 'accepted' : 'refused'}`, async () => {
        const started = start({ port });
        if (accepted) { await started.target(); return; }
        assert.equal(await started.ended(), 1);
        assert.match(started.program.stderr, /PORT is .* it must be a number from 0 to 65535/u);
      });
    }
  });

  describe('the state folder', () => {
    it('a path too long for a UNIX socket gets a private folder elsewhere, which is removed at the end', async () => {
      const runtime = tempFolder();
      const state = path.join(tempFolder(), 'long'.repeat(25));
      const started = start({ state, env: { XDG_RUNTIME_DIR: runtime } });
      assert.equal((await curl(await started.target())).code, 0);
      const [folder = ''] = readdirSync(runtime);
      assert.equal(statSync(path.join(runtime, folder)).mode & 0o777, 0o700);
      assert.deepEqual(readdirSync(path.join(runtime, folder)), ['pool.sock']);
      assert.equal(await started.stop(), 0);
      assert.deepEqual(readdirSync(runtime), []);
    });

    it('of 107 octets with the socket is used for it, of 108 not', async () => {
      const parent = tempFolder();
      for (const [octets, isInside] of [[107, true], [108, false]] as const) {
        const runtime = tempFolder();
        const state = path.join(parent, 's'.repeat(octets - Buffer.byteLength(path.join(parent, '/pool.sock')) - 1));
        const started = start({ state, env: { XDG_RUNTIME_DIR: runtime } });
        await started.target();
        assert.equal(Buffer.byteLength(path.join(state, 'pool.sock')), octets);
        assert.equal(existsSync(path.join(state, 'pool.sock')), isInside);
        assert.equal(readdirSync(runtime).length, isInside ? 0 : 1);
        assert.equal(await started.stop(), 0);
      }
    });

    it('a runtime folder that others can write to is not used', async () => {
      const runtime = tempFolder();
      chmodSync(runtime, 0o777);
      const temporary = tempFolder();
      const started = start({ state: path.join(tempFolder(), 'long'.repeat(25)), env: { XDG_RUNTIME_DIR: runtime, TMPDIR: temporary } });
      await started.target();
      assert.deepEqual(readdirSync(runtime), []);
      assert.match(readdirSync(temporary).join(' '), new RegExp(`^tlspool-${os.userInfo().uid}-[0-9a-f]{12}$`, 'u'));
      assert.equal(await started.stop(), 0);
    });

    it('one that others can enter is refused; 0700 is accepted', async () => {
      const state = path.join(tempFolder(), 'state');
      mkdirSync(state);
      chmodSync(state, 0o750);
      const { code, stderr } = await again(state);
      assert.equal(code, 1);
      assert.match(stderr, /is open to other users \(mode 0750\); run: chmod 0700/u);
      chmodSync(state, 0o700);
      await start({ state }).target();
    });
  });
});
