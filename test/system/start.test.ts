/** `npm start`, as a new user runs it: two commands on a fresh clone lead here. */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { curl, event, Program, run, sClient, tempFolder } from '../support/index.js';
import type { RunResult, Target } from '../support/index.js';
import { gone, isAlive, Start, startScript } from '../support/start.js';

const again = (state: string): Promise<RunResult> => run(process.execPath, [startScript, '--state', state], { check: false, env: { PORT: '0' } });

/** Names of what ends in .sock. */
const socketsIn = (folder: string): string[] => readdirSync(folder).filter((name) => name.endsWith('.sock')).sort();

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
      await running.program.output(/127\.0\.0\.1:\d+ +tls +handshake failed +HANDSHAKE_FAILED +.*unknown CA/u, 'stdout');
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

    it('each connection gives one line: time, peer, service, protocol, cipher, group, SNI, ALPN, octets, how it ended', async () => {
      const { stdout } = await curl(target, '/', ['--write-out', '%{local_port} %{size_header}']);
      const [, port] = /(\d+) \d+$/u.exec(stdout) ?? [];
      const [line] = await running.program.output(new RegExp(`^.*127\\.0\\.0\\.1:${String(port)} .*\n`, 'mu'), 'stdout');
      assert.match(line, /^\d\d:\d\d:\d\d {2}127\.0\.0\.1:\d+ +https {2}TLSv1\.3 {2}TLS_\w+ {2}\S+ {2}sni=localhost {2}alpn=http\/1\.1 {2}in=[1-9]\d* {2}out=[1-9]\d* {2}closed\n$/u);
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
      it(`the printed command \`tlspool ${command}\` works as it is, in any folder`, async () => {
        const [, line = ''] = new RegExp(`^ {4}(\\S.* --socket .* ${command})$`, 'mu').exec(running.program.stdout) ?? [];
        const { stdout } = await run('sh', ['-c', line], { cwd: tempFolder() });
        assert.match(stdout, command === 'status' ? new RegExp(`^process +${running.pids().pool}$`, 'mu') : /\S/u);
      });
    }

    it('the printed commands for curl and openssl work as they are, in any folder', async () => {
      const commands = [...running.program.stdout.matchAll(/^ {4}((?:curl|openssl|printf) .*)$/gmu)].map(([, command = '']) => command);
      const verified = /Verify return code: 0 \(ok\)/u;
      // A mail that was delivered is no output.
      const outputs = [/holds no key/u, verified, verified, verified, /You read this over TLS/u, /^$/u];
      assert.equal(commands.length, outputs.length);
      for (const [index, command] of commands.entries()) assert.match((await run('sh', ['-c', command], { cwd: tempFolder() })).stdout, outputs[index] ?? /never/u, command);
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
      const pids = started.pids();
      const client = sClient(target, ['-quiet']);
      client.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
      await client.output(/holds no key/u);
      assert.equal(await started.stop(signal), 0);
      await gone(...Object.values(pids));
      assert.deepEqual(socketsIn(started.state), []);
      client.end();
      await client.ended;
    });
  }

  it('Ctrl-C in a terminal, which goes to npm as well and is passed on by it, stops all of it in order', async () => {
    const started = start({ command: ['setsid', 'npm', 'start', '--'] });
    await started.target();
    const pids = started.pids();
    process.kill(-started.program.pid, 'SIGINT');
    await started.ended();
    await gone(...Object.values(pids));
    assert.match(started.program.stdout, /\nStopped\.\n$/u);
    // Who is killed leaves a socket.
    assert.deepEqual(socketsIn(started.state), []);
  });

  it('SIGTERM to npm itself leaves nothing behind', async () => {
    const started = start({ command: ['npm', 'start', '--'] });
    await started.target();
    const pids = started.pids();
    await started.stop('SIGTERM');
    await gone(...Object.values(pids));
    assert.deepEqual(socketsIn(started.state), []);
  });

  for (const victim of ['pool', 'app', 'mailbox', 'proxy'] as const) {
    it(`kill -9 of the ${victim} is reported, and ends the rest with exit code 1`, async () => {
      const started = start();
      await started.target();
      const pids = started.pids();
      process.kill(pids[victim], 'SIGKILL');
      assert.equal(await started.ended(), 1);
      assert.match(started.program.stderr, new RegExp(`\\(process ${pids[victim]}\\) was ended by SIGKILL`, 'u'));
      await gone(...Object.values(pids));
    });
  }

  it('kill -9 of the start ends the others, and the next start works', async () => {
    const first = start();
    await first.target();
    const pids = first.pids();
    assert.equal(await first.stop('SIGKILL'), 'SIGKILL');
    await gone(...Object.values(pids));
    const second = start({ state: first.state });
    assert.equal((await curl(await second.target())).code, 0);
  });

  it('kill -9 of everything leaves files that the next start cleans up', async () => {
    const first = start();
    await first.target();
    const { app, mailbox, pool, proxy } = first.pids();
    const pids = [app, mailbox, pool, proxy];
    // Nobody is to have the time to end somebody else in order.
    first.program.kill('SIGSTOP');
    for (const pid of [...pids, first.program.pid]) process.kill(pid, 'SIGKILL');
    await first.ended();
    await gone(...pids);
    assert.deepEqual(socketsIn(first.state), ['imap.sock', 'pool.sock', 'smtp.sock']);
    const second = start({ state: first.state });
    assert.equal((await curl(await second.target())).code, 0);
    assert.equal(await second.stop(), 0);
    assert.deepEqual(socketsIn(first.state), []);
  });

  it('a pool and a proxy that outlived their start are ended by the next one', async () => {
    const first = start();
    await first.target();
    const { pool, app, mailbox, proxy } = first.pids();
    // Stopped, they cannot end the others; and neither can who is gone.
    for (const pid of [app, mailbox]) process.kill(pid, 'SIGSTOP');
    for (const pid of [first.program.pid, app, mailbox]) process.kill(pid, 'SIGKILL');
    await gone(app, mailbox);
    assert.deepEqual([pool, proxy].map(isAlive), [true, true]);
    const second = start({ state: first.state });
    assert.equal((await curl(await second.target())).code, 0);
    assert.match(second.program.stdout, new RegExp(`Ending tlspool-proxy \\(process ${proxy}\\)`, 'u'));
    assert.match(second.program.stdout, new RegExp(`Ending tlspoold \\(process ${pool}\\)`, 'u'));
    await gone(pool, proxy);
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
      assert.deepEqual(socketsIn(path.join(runtime, folder)), ['imap.sock', 'pool.sock', 'smtp.sock']);
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
