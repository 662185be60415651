/** tlspoold from start to end: its place, its configuration, its users, reload, drain. */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { sockets } from 'libtlspool/native';
import { expectBaseline, startPool } from '../support/index.js';
import type { PoolOptions, TestPool } from '../support/index.js';
import { tempFolder } from '../support/cleanup.js';
import { issue } from '../support/pki.js';
import { PoolWire } from '../support/pool-wire.js';
import { Program, repoRoot, run } from '../support/program.js';
import type { RunResult } from '../support/program.js';
import { acceptLoop } from '../support/serve.js';
import { curl, nodeConnect } from '../support/tls-clients.js';
import { event, until, within } from '../support/wait.js';

const script = path.join(repoRoot, 'daemon/bin/tlspoold.js');
const tlspoold = (...args: string[]): Promise<RunResult> => run(process.execPath, [script, ...args], { check: false });
const nobody = 65_534;

async function withPool(options: PoolOptions, use: (pool: TestPool) => Promise<void>): Promise<void> {
  const pool = await startPool(options);
  try {
    await use(pool);
  } finally {
    await pool.kill('SIGKILL');
  }
}

describe('daemon: its place', () => {
  it('a second pool on the same socket says so and leaves the first alone', () => withPool({}, async (pool) => {
    const { code, stderr } = await tlspoold('--config', pool.configFile);
    assert.equal(code, 1);
    assert.match(stderr, /a pool is already running at .*pool\.sock/);
    new PoolWire(pool.socket).close();
  }));

  it('two pools on two sockets do not know of each other', () => withPool({}, (one) => withPool({}, (two) => {
    assert.notEqual(one.status()['pid'], two.status()['pid']);
    return Promise.resolve();
  })));

  it('the socket of a pool that was killed is taken over', () => withPool({}, async (pool) => {
    await pool.kill('SIGKILL');
    assert.equal(existsSync(pool.socket), true);
    await pool.restart();
    new PoolWire(pool.socket).close();
  }));

  it('a file that is no socket, or a link to one, is refused and stays', () => withPool({}, async (pool) => {
    const file = path.join(tempFolder(), 'file');
    writeFileSync(file, 'mine');
    const refused = await tlspoold('--config', pool.configFile, '--socket', file);
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, /is no socket/);
    assert.equal(readFileSync(file, 'utf8'), 'mine');
    const link = path.join(tempFolder(), 'link');
    symlinkSync(pool.socket, link);
    assert.equal((await tlspoold('--config', pool.configFile, '--socket', link)).code, 2);
  }));

  it('the socket has the mode of the configuration', () => withPool({ config: {} }, (pool) => {
    assert.equal(statSync(pool.socket).mode & 0o777, 0o660);
    return Promise.resolve();
  }));
});

describe('daemon: its configuration', () => {
  it('mistakes are printed with file, line and column, all at once, and the exit code is 2', async () => {
    const file = path.join(tempFolder(), 'bad.yaml');
    writeFileSync(file, 'wrokers: 2\nlimits:\n  sessions: -1\n', { mode: 0o600 });
    for (const more of [[], ['--check']]) {
      const { code, stderr } = await tlspoold('--config', file, ...more);
      assert.equal(code, 2);
      assert.match(stderr, /bad\.yaml:1:1: .*wrokers/);
      assert.match(stderr, /bad\.yaml:3:13: .*sessions/);
    }
  });

  it('a configuration file that is not there is named', async () => {
    const { code, stderr } = await tlspoold('--config', '/nowhere/tlspoold.yaml');
    assert.equal(code, 2);
    assert.match(stderr, /\/nowhere\/tlspoold\.yaml/);
  });

  it('an unknown option and an argument too many are usage errors', async () => {
    assert.equal((await tlspoold('--frobnicate')).code, 2);
    assert.equal((await tlspoold('something')).code, 2);
  });

  it('--version and --help end with 0', async () => {
    assert.match((await tlspoold('--version')).stdout, /^\d+\.\d+\.\d+\n$/);
    const help = await tlspoold('--help');
    assert.equal(help.code, 0);
    assert.match(help.stdout, /Exit codes/);
  });

  it('--check accepts what starts, and refuses a key that others can read', () => withPool({}, async (pool) => {
    const good = await tlspoold('--check', '--config', pool.configFile);
    assert.equal(good.code, 0, good.stderr);
    const key = path.join(pool.identityDir('localhost'), 'tls.key');
    chmodSync(key, 0o644);
    const bad = await tlspoold('--check', '--config', pool.configFile);
    assert.equal(bad.code, 2);
    assert.ok(bad.stderr.includes(key), bad.stderr);
  }));

  it('without one it is the development default, and says so', async () => {
    const folder = tempFolder();
    const program = new Program(process.execPath, [script, '--state', path.join(folder, 'state'), '--socket', path.join(folder, 's')]);
    await program.output(/development default/);
    program.kill('SIGINT');
    assert.equal((await within(program.ended, 'the end')).code, 0);
  });
});

describe('daemon: its users', () => {
  it('a user without a rule is told who it is and that it may not, and one with a rule gets what the rule gives', async () => {
    const access = { access: [{ uid: [nobody], identities: ['localhost'], roles: ['server'] }] };
    await withPool({ config: {} }, async (pool) => { await asNobody(pool, /NOT_PERMITTED.*user 65534/); });
    await withPool({ config: access }, async (pool) => {
      await asNobody(pool, /ping ok/);
      await asNobody(pool, /status NOT_PERMITTED/);
    });
  });

  it('a pool that runs as an ordinary user serves', async function () {
    // Root owns the checkout; the unprivileged user only reads it.
    await withPool({ uid: nobody, gid: nobody }, async (pool) => {
      const served = await acceptLoop(pool, (socket) => { socket.on('error', () => undefined).end('HTTP/1.0 200 OK\r\n\r\nhello'); });
      try {
        assert.equal((await curl({ port: served.port, caFile: pool.caFile })).stdout, 'hello');
      } finally {
        await served.close();
      }
    });
  });

  const probe = `
import { PoolWire } from './build/test/support/pool-wire.js';
const say = (text) => { console.log(text); };
try {
  const wire = new PoolWire(process.env.POOL);
  for (const op of ['ping', 'status']) { try { wire.request(op); say(op + ' ok'); } catch (error) { say(op + ' ' + error.message); } }
  wire.close();
} catch (error) { say(error.message); }`;

  async function asNobody(pool: TestPool, expected: RegExp): Promise<void> {
    // The file system is not what is tested here.
    chmodSync(path.dirname(pool.socket), 0o711);
    chmodSync(pool.socket, 0o666);
    const { stdout } = await run(process.execPath, ['--input-type=module', '-e', probe], { cwd: repoRoot, env: { POOL: pool.socket }, uid: nobody, gid: nobody });
    assert.match(stdout, expected);
  }
});

describe('daemon: reload', () => {
  it('a bad certificate changes nothing and is reported; SIGHUP takes the good one, under load', () => withPool({}, async (pool) => {
    const served = await acceptLoop(pool, (socket) => { socket.on('error', () => undefined).end('HTTP/1.0 200 OK\r\n\r\nhello'); });
    const target = { port: served.port, caFile: pool.caFile };
    const folder = pool.identityDir('localhost');
    let isOver = false;
    let served200 = 0;
    const load = (async () => {
      while (!isOver) {
        assert.equal((await curl(target)).stdout, 'hello');
        served200 += 1;
      }
    })();
    try {
      const before = fingerprint(pool);
      const good = readFileSync(path.join(folder, 'tls.crt'));
      writeFileSync(path.join(folder, 'tls.crt'), 'garbage');
      const wire = new PoolWire(pool.socket);
      assert.throws(() => wire.request('reload'), { code: 'IDENTITY_BAD' });
      assert.equal(fingerprint(pool), before);
      assert.match(String(pool.status()['reloadError']), /tls\.crt/);
      writeFileSync(path.join(folder, 'tls.crt'), good);
      await issue(pool.ca, folder, { commonName: 'localhost', sans: ['DNS:localhost', 'IP:127.0.0.1'] });
      process.kill(pool.pid, 'SIGHUP');
      await until(() => fingerprint(pool) !== before, { what: 'the new certificate' });
      const reached = served200 + 3;
      await until(() => served200 >= reached, { what: 'connections after the reload' });
      assert.equal(pool.status()['reloadError'], undefined);
      wire.close();
    } finally {
      isOver = true;
      await load;
      await served.close();
    }
  }));

  function fingerprint(pool: TestPool): string {
    const wire = new PoolWire(pool.socket);
    const { identities } = wire.request('identities').body as { identities: { certificates: { fingerprint: string }[] }[] };
    wire.close();
    return identities[0]?.certificates[0]?.fingerprint ?? '';
  }
});

describe('daemon: drain', () => {
  const echo = (pool: TestPool) => acceptLoop(pool, (socket) => { socket.on('error', () => undefined).pipe(socket); });

  it('SIGTERM tells the clients, lets a session finish, removes the socket and ends with 0', () => withPool({}, async (pool) => {
    const served = await echo(pool);
    const wire = new PoolWire(pool.socket);
    const client = await nodeConnect({ port: served.port, caFile: pool.caFile });
    process.kill(pool.pid, 'SIGTERM');
    const drain = wire.next();
    assert.deepEqual([drain?.type, drain?.op], ['event', 'drain']);
    assert.equal(existsSync(pool.socket), false);
    assert.throws(() => wire.request('starttls', { role: 'server' }, []), { code: 'FD_COUNT' });
    const [pair, other] = sockets.socketpair('stream');
    assert.throws(() => wire.request('starttls', { role: 'server' }, [pair]), { code: 'POOL_DRAINING' });
    for (const fd of [pair, other]) sockets.close(fd);
    client.write('still there');
    assert.equal(String(await event<Buffer>(client, 'data')), 'still there');
    client.end();
    assert.deepEqual(await within(pool.process.ended, 'the pool to end', 5000), { code: 0, signal: null });
    wire.close();
    await served.close();
  }));

  it('after the deadline the sessions that are left are ended, and their owner is told that they were drained', () => withPool({ config: { drainMs: 200 } }, async (pool) => {
    const served = await echo(pool);
    const client = await nodeConnect({ port: served.port, caFile: pool.caFile });
    client.on('error', () => undefined);
    process.kill(pool.pid, 'SIGTERM');
    assert.deepEqual(await within(pool.process.ended, 'the pool to end', 8000), { code: 0, signal: null });
    assert.ok(pool.logLines().some((line) => line.includes('"how":"drained"')), pool.process.tail());
    client.destroy();
    await served.close();
  }));

  it('a second signal ends it at once', () => withPool({}, async (pool) => {
    const served = await echo(pool);
    const client = await nodeConnect({ port: served.port, caFile: pool.caFile });
    client.on('error', () => undefined);
    process.kill(pool.pid, 'SIGTERM');
    await pool.process.output(/draining/);
    process.kill(pool.pid, 'SIGINT');
    assert.deepEqual(await within(pool.process.ended, 'the pool to end', 3000), { code: 0, signal: null });
    client.destroy();
    await served.close();
  }));
});

describe('daemon: sessions', () => {
  it('a session is listed with its peer and its owner, counted, and gone from both when it ends', () => withPool({}, async (pool) => {
    const before = pool.baseline();
    const served = await acceptLoop(pool, (socket) => { socket.on('error', () => undefined).pipe(socket); });
    const client = await nodeConnect({ port: served.port, caFile: pool.caFile });
    client.write('x');
    await event(client, 'data');
    const wire = new PoolWire(pool.socket);
    const { sessions } = wire.request('sessions').body as { sessions: Record<string, unknown>[] };
    wire.close();
    assert.equal(sessions.length, 1);
    assert.deepEqual(sessions.map(({ role, localid, servername, ownerPid, ownerUid }) => [role, localid, servername, ownerPid, ownerUid]), [['server', 'localhost', 'localhost', process.pid, process.getuid?.()]]);
    assert.equal((sessions[0]?.['remote'] as { port: number }).port, client.localPort);
    client.end();
    await event(client, 'close');
    await served.close();
    await expectBaseline(pool, before);
  }));

  it('hundreds of sessions come in pages, each once', () => withPool({}, async (pool) => {
    const served = await acceptLoop(pool, (socket) => { socket.on('error', () => undefined).resume(); });
    const clients = await Promise.all(Array.from({ length: 120 }, () => nodeConnect({ port: served.port, caFile: pool.caFile })));
    await until(() => Number(pool.status()['sessions']) === 120 && pool.status()['handshakes'] === 0, { what: 'all sessions' });
    const wire = new PoolWire(pool.socket);
    const seen: number[] = [];
    let after: number | undefined;
    let pages = 0;
    do {
      const { body } = wire.request('sessions', { limit: 50, ...(after !== undefined && { after }) });
      seen.push(...(body['sessions'] as { session: number }[]).map(({ session }) => session));
      after = body['next'] as number | undefined;
      pages += 1;
    } while (after !== undefined);
    wire.close();
    assert.deepEqual([pages, seen.length, new Set(seen).size], [3, 120, 120]);
    for (const client of clients) client.destroy();
    await served.close();
  }));
});

