/** tlspool-proxy from start to end: its command line, its configuration, its sockets, reload, drain. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { tempFolder } from '../support/cleanup.js';
import { startPool } from '../support/pool.js';
import type { TestPool } from '../support/pool.js';
import { descriptors } from '../support/process-info.js';
import { Program, run } from '../support/program.js';
import type { RunResult } from '../support/program.js';
import { ProxyProcess, proxyScript } from '../support/proxy-process.js';
import { RawTcp } from '../support/raw-tcp.js';
import { startTls } from '../support/starttls-client.js';
import { until, within } from '../support/wait.js';

const cli = (...args: string[]): Promise<RunResult> => run(process.execPath, [proxyScript, ...args], { check: false });
/** An IMAP service whose connections go to `cat`. */
const imap = (listen: unknown, more: object = {}) => ({ name: 'imap', protocol: 'imap', hostname: 'mail.example', listen, backend: { exec: ['/bin/cat'] }, ...more });
const file = (text: string): string => {
  const name = path.join(tempFolder(), 'proxy.yaml');
  writeFileSync(name, text, { mode: 0o600 });
  return name;
};
const greets = (raw: RawTcp): Promise<unknown> => until(() => raw.received.includes('* OK '), { what: 'the greeting', context: () => raw.received.toString() });
const greeted = async (port: number): Promise<RawTcp> => {
  const raw = await RawTcp.connect(port);
  await greets(raw);
  return raw;
};

describe('proxy: its command line', () => {
  it('--version and --help end with 0, an unknown option and an argument too many with 2', async () => {
    assert.match((await cli('--version')).stdout, /^\d+\.\d+\.\d+\n$/);
    const help = await cli('--help');
    assert.equal(help.code, 0);
    for (const word of ['--config', '--check', 'SIGHUP', 'Exit codes', '/etc/tlspool/proxy.yaml']) assert.ok(help.stdout.includes(word), word);
    assert.equal((await cli('--frobnicate')).code, 2);
    assert.equal((await cli('something')).code, 2);
  });
  it('--check says what is there and ends with 0, without a pool and without listening', async () => {
    const good = file(JSON.stringify({ pool: '/nowhere/pool.sock', services: [imap([143, 'unix:/nowhere/x'])] }));
    const { code, stdout, stderr } = await cli('--check', '--config', good);
    assert.deepEqual([code, stdout, stderr], [0, `${good}: good, 1 service on 2 addresses\n`, '']);
  });
  it('mistakes are printed with file, line and column, all at once, with and without --check, and the exit code is 2', async () => {
    const bad = file('services:\n  - name: a\n    protocol: imapp\n    listen: localhost:143\n    backend: {fd: /b}\n');
    for (const more of [[], ['--check']]) {
      const { code, stderr, stdout } = await cli('--config', bad, ...more);
      assert.deepEqual([code, stdout], [2, '']);
      assert.match(stderr, /proxy\.yaml:3:15: .*imapp.*did you mean "imap"/);
      assert.match(stderr, /proxy\.yaml:4:13: .*localhost:143/);
    }
    const missing = await cli('--config', '/nowhere/proxy.yaml');
    assert.deepEqual([missing.code, /\/nowhere\/proxy\.yaml: the file does not exist/.test(missing.stderr)], [2, true]);
  });
  it('without a pool it ends with 1 and says where it looked', async () => {
    const { code, stderr } = await cli('--config', file(JSON.stringify({ pool: '/nowhere/pool.sock', services: [imap('127.0.0.1:0')] })));
    assert.equal(code, 1);
    assert.match(stderr, /no pool answers; tried \/nowhere\/pool\.sock/);
  });
});

describe('proxy: as a process', () => {
  let pool: TestPool;
  before(async () => { pool = await startPool(); });
  after(() => pool.stop());

  async function withProxy(services: readonly object[], use: (proxy: ProxyProcess) => Promise<void>, config: Readonly<Record<string, unknown>> = {}): Promise<void> {
    const proxy = await ProxyProcess.start({ pool, services: services as Record<string, unknown>[], config });
    try {
      await use(proxy);
    } finally {
      await proxy.kill('SIGKILL');
    }
  }
  const connections = (proxy: ProxyProcess) => proxy.log().filter(({ msg }) => msg === 'connection');
  const failed = (proxy: ProxyProcess): number => proxy.log().filter(({ level, msg }) => level === 'error' && String(msg).startsWith('reload failed')).length;

  describe('addresses', () => {
    it('a second proxy on the same address says so, ends with 1, and leaves the first alone', () => withProxy([imap('127.0.0.1:0')], async (first) => {
      const port = first.port('127.0.0.1:0');
      const second = await cli('--config', file(JSON.stringify({ pool: pool.socket, services: [imap(`127.0.0.1:${port}`)] })));
      assert.equal(second.code, 1);
      assert.match(second.stderr, new RegExp(`cannot listen on 127\\.0\\.0\\.1:${port}: .*EADDRINUSE`));
      (await greeted(port)).socket.destroy();
    }));
    it('a UNIX socket that was left over is replaced, one that is served is not, and it is removed at the end', async () => {
      const place = path.join(tempFolder(), 'in.sock');
      const stale = sockets.unixListen({ path: place, kind: 'stream' });
      sockets.close(stale);
      assert.equal(existsSync(place), true);
      await withProxy([imap(`unix:${place}`)], async (first) => {
        const client = net.connect(place);
        const greeting = await within(new Promise<Buffer>((resolve, reject) => { client.once('data', resolve); client.once('error', reject); }), 'the greeting');
        assert.match(greeting.toString(), /^\* OK /);
        client.destroy();
        const second = await cli('--config', file(JSON.stringify({ pool: pool.socket, services: [imap(`unix:${place}`)] })));
        assert.equal(second.code, 1);
        assert.equal(existsSync(place), true);
        assert.deepEqual(await first.kill('SIGTERM'), { code: 0, signal: null });
      });
      assert.equal(existsSync(place), false);
    });
    it('a UNIX socket whose path somebody else has taken meanwhile is left to them', async () => {
      const place = path.join(tempFolder(), 'in.sock');
      await withProxy([imap(`unix:${place}`)], async (proxy) => {
        rmSync(place);
        const others = sockets.unixListen({ path: place, kind: 'stream' });
        assert.deepEqual(await proxy.kill('SIGTERM'), { code: 0, signal: null });
        assert.equal(existsSync(place), true);
        sockets.close(others);
      });
    });
  });

  it('a limit on descriptors of less than two for each connection is told in the log, one of just as many is not', async () => {
    for (const connections of [500, 501]) {
      const proxy = await ProxyProcess.start({ pool, services: [imap('127.0.0.1:0')], config: { connections }, command: ['prlimit', '--nofile=1000', process.execPath, proxyScript] });
      assert.deepEqual(proxy.log().filter(({ level }) => level === 'warn').map(({ descriptors: most, needed }) => [most, needed]), connections === 500 ? [] : [[1000, 1002]]);
      await proxy.kill('SIGKILL');
    }
  });

  describe('sockets from systemd', () => {
    /** As systemd starts it; only the process itself knows its id, so a shell says it and becomes the proxy. */
    const asSystemd: [string, ...string[]] = ['/bin/sh', '-c', 'LISTEN_PID=$$ exec "$0" "$@"', process.execPath, proxyScript];
    const listening = (): OwnedFd => sockets.tcpListen({ host: '127.0.0.1', port: 0 });
    const portOf = (fd: OwnedFd): number => sockets.socketInfo(fd).local?.port ?? 0;
    /** FD_CLOEXEC, as the kernel shows it; true for one that is closed by now. */
    function isCloexec(pid: number, fd: number): boolean {
      const info = `/proc/${pid}/fdinfo/${fd}`;
      try {
        return (Number.parseInt(/^flags:\s*(\d+)$/mu.exec(readFileSync(info, 'utf8'))?.[1] ?? '', 8) & 0o2000000) !== 0;
      } catch (error) {
        assert.equal((error as NodeJS.ErrnoException).code, 'ENOENT');
        return true;
      }
    }

    it('the one that is named is served and passed on to no program; one that nobody names is an error in the log, and a reload takes it up', async () => {
      const passed = [listening(), listening()];
      const proxy = await ProxyProcess.start({
        pool, services: [imap('systemd:imap')], command: asSystemd, passed, env: { LISTEN_FDS: '2', LISTEN_FDNAMES: 'imap:spare' },
      });
      try {
        (await greeted(portOf(passed[0]!))).socket.destroy();
        assert.equal(proxy.port('systemd:imap'), portOf(passed[0]!));
        const unused = proxy.log().filter(({ msg }) => String(msg).startsWith('systemd passed a socket that no service listens on'));
        assert.deepEqual(unused.map(({ level, name }) => [level, name]), [['error', 'spare']]);
        const held = [...descriptors(proxy.pid)].filter(([, link]) => link.startsWith('socket:')).map(([fd]) => fd).filter((fd) => fd > 2);
        assert.ok(held.length >= 3, 'two listening sockets and the pool');
        assert.deepEqual(held.filter((fd) => !isCloexec(proxy.pid, fd)), []);
        proxy.configure([imap('systemd:spare')]);
        await proxy.process.output(/"name":"imap","msg":"systemd passed a socket that no service listens on/);
        (await greeted(portOf(passed[1]!))).socket.destroy();
        proxy.configure([imap(['systemd:spare', 'systemd:imap'])]);
        await until(() => proxy.log().filter(({ msg }) => msg === 'configuration reloaded').length === 2, { what: 'the second reload' });
        (await greeted(portOf(passed[0]!))).socket.destroy();
        assert.deepEqual(await proxy.kill('SIGTERM'), { code: 0, signal: null });
      } finally {
        for (const fd of passed) sockets.close(fd);
        await proxy.kill('SIGKILL');
      }
    });
    it('a name that was not passed, and a descriptor that is no listening socket, end it with 2', async () => {
      const fd = listening();
      const [one, other] = sockets.socketpair('stream');
      try {
        const start = async (socket: number, names: string): Promise<{ code: number | null; stderr: string }> => {
          const program = new Program(asSystemd[0], [...asSystemd.slice(1), '--config', file(JSON.stringify({ pool: pool.socket, services: [imap('systemd:imap')] }))], {
            passed: [socket], env: { LISTEN_FDS: '1', LISTEN_FDNAMES: names },
          });
          const { code } = await within(program.ended, 'the end');
          return { code, stderr: program.stderr };
        };
        const unnamed = await start(fd, 'smtp');
        assert.equal(unnamed.code, 2);
        assert.match(unnamed.stderr, /cannot listen on systemd:imap: systemd passed no socket of this name; it passed smtp/);
        const wrong = await start(one, 'imap');
        assert.equal(wrong.code, 2);
        assert.match(wrong.stderr, /the socket imap \(descriptor 3\) .* does not listen/);
      } finally {
        for (const each of [fd, one, other]) sockets.close(each);
      }
    });
    it('what whoever started it has left open reaches no program, wherever there is a gap in the numbers; it stays open for the proxy', async () => {
      const lock = file('');
      const proxy = await ProxyProcess.start({
        pool, command: ['/bin/bash', '-c', 'exec 9<"$0" 40<"$0" 200<"$0"; exec "$@"', lock, process.execPath, proxyScript],
        services: [{ name: 'fds', protocol: 'none', listen: '127.0.0.1:0', backend: { exec: ['/bin/sh', '-c', 'ls /proc/$$/fd'] } }],
      });
      try {
        const client = await startTls({ port: proxy.port('127.0.0.1:0'), protocol: 'none' }, pool);
        await client.over();
        assert.deepEqual(client.text.split('\n').filter((fd) => fd !== ''), ['0', '1', '2', '3']);
        await client.finish();
        assert.equal([...descriptors(proxy.pid).values()].filter((link) => link === lock).length, 3);
        assert.deepEqual(await proxy.kill('SIGTERM'), { code: 0, signal: null });
      } finally {
        await proxy.kill('SIGKILL');
      }
    });
    it('variables that were meant for another process are nothing to it', async () => {
      const fd = listening();
      const proxy = await ProxyProcess.start({ pool, services: [imap('127.0.0.1:0')], passed: [fd], env: { LISTEN_PID: '1', LISTEN_FDS: '1', LISTEN_FDNAMES: 'x' } });
      sockets.close(fd);
      assert.deepEqual(proxy.log().filter(({ level }) => level === 'error'), []);
      assert.deepEqual(await proxy.kill('SIGTERM'), { code: 0, signal: null });
    });
  });

  describe('reload', () => {
    it('a mistake changes nothing; what is right is taken up whole, and sockets that stay are kept with those who wait', () => withProxy([imap('127.0.0.1:0')], async (proxy) => {
      const port = proxy.port('127.0.0.1:0');
      const open = await greeted(port);
      proxy.configure([{ ...imap('127.0.0.1:0'), protocol: 'imapp' }]);
      await until(() => failed(proxy) === 1, { what: 'the error in the log' });
      assert.match(String(proxy.log().find(({ level }) => level === 'error')?.['reason']), /proxy\.yaml:\d+:\d+: services\[0\]\.protocol: "imapp" is not one of/);
      (await greeted(port)).socket.destroy();

      proxy.configure([imap(['127.0.0.1:0', { address: '127.0.0.2:0', name: 'more' }])]);
      await until(() => proxy.log().some(({ msg }) => msg === 'configuration reloaded'), { what: 'the reload' });
      assert.equal(proxy.port('127.0.0.1:0'), port);
      const more = await RawTcp.connect(proxy.port('more'), '127.0.0.2');
      await greets(more);
      more.socket.destroy();
      open.socket.write('a1 NOOP\r\n');
      await until(() => open.received.includes('a1 OK'), { what: 'a connection from before to go on' });
      open.socket.destroy();
    }));
    it('an address that is taken keeps all of the old configuration, also services before it in the file', () => withProxy([imap('127.0.0.1:0')], async (proxy) => {
      const port = proxy.port('127.0.0.1:0');
      const taken = sockets.tcpListen({ host: '127.0.0.1', port: 0 });
      const fds = proxy.fdCount();
      try {
        proxy.configure([{ ...imap('127.0.0.3:0'), name: 'new' }, imap(`127.0.0.1:${sockets.socketInfo(taken).local?.port ?? 0}`)]);
        proxy.process.kill('SIGHUP');
        await until(() => failed(proxy) > 0, { what: 'the error in the log' });
        assert.equal(proxy.log().some(({ listener }) => listener === '127.0.0.3:0'), false);
        (await greeted(port)).socket.destroy();
        await until(() => proxy.fdCount() <= fds, { what: 'no descriptor to be left of the attempt' });
      } finally {
        sockets.close(taken);
      }
      proxy.process.kill('SIGHUP');
      await until(() => proxy.log().some(({ msg }) => msg === 'configuration reloaded'), { what: 'the reload' });
      const gone = net.connect(port, '127.0.0.1');
      const error = await within(new Promise<NodeJS.ErrnoException>((resolve) => { gone.once('error', resolve); }), 'the old address to be refused');
      assert.equal(error.code, 'ECONNREFUSED');
    }));
    it('SIGHUP is answered in the log although nothing has changed', () => withProxy([imap('127.0.0.1:0')], async (proxy) => {
      proxy.process.kill('SIGHUP');
      await proxy.process.output(/configuration read again: it is what is in force/);
    }));
  });

  describe('drain', () => {
    it('SIGTERM closes the listening sockets, waits for who is there until drainMs, and ends with 0', () => withProxy([imap('127.0.0.1:0')], async (proxy) => {
      const port = proxy.port('127.0.0.1:0');
      const client = await greeted(port);
      proxy.process.kill('SIGTERM');
      await proxy.process.output(/"msg":"draining"/);
      const late = net.connect(port, '127.0.0.1');
      assert.equal((await within(new Promise<NodeJS.ErrnoException>((resolve) => { late.once('error', resolve); }), 'a new client to be refused')).code, 'ECONNREFUSED');
      client.socket.write('a1 LOGOUT\r\n');
      await until(() => client.received.includes('a1 OK'), { what: 'who was there to be served' });
      assert.deepEqual(await within(proxy.process.ended, 'the end'), { code: 0, signal: null });
      client.socket.destroy();
      assert.deepEqual(connections(proxy).map(({ ended }) => ended), ['left']);
    }));
    it('after the deadline those who are left are ended', () => withProxy([imap('127.0.0.1:0')], async (proxy) => {
      const client = await greeted(proxy.port('127.0.0.1:0'));
      proxy.process.kill('SIGTERM');
      assert.deepEqual(await within(proxy.process.ended, 'the end', 5000), { code: 0, signal: null });
      await until(() => client.ending !== null, { what: 'the client to be disconnected' });
      client.socket.destroy();
    }, { drainMs: 100 }));
    it('a second signal ends it at once', () => withProxy([imap('127.0.0.1:0')], async (proxy) => {
      const client = await greeted(proxy.port('127.0.0.1:0'));
      proxy.process.kill('SIGTERM');
      await proxy.process.output(/"msg":"draining"/);
      proxy.process.kill('SIGINT');
      assert.deepEqual(await within(proxy.process.ended, 'the end', 5000), { code: 0, signal: null });
      client.socket.destroy();
    }, { drainMs: 3_600_000 }));
    it('a signal while it still looks for the pool ends it with 0', async () => {
      // It is connected, and gets no answer.
      const place = path.join(tempFolder(), 'pool.sock');
      const mute = sockets.unixListen({ path: place, kind: 'seqpacket' });
      try {
        const program = new Program(process.execPath, [proxyScript, '--config', file(JSON.stringify({ pool: place, services: [imap('127.0.0.1:0')] }))]);
        const fd = await until(() => sockets.accept(mute) ?? undefined, { what: 'the proxy to connect' });
        program.kill('SIGTERM');
        assert.deepEqual(await within(program.ended, 'the end', 5000), { code: 0, signal: null });
        sockets.close(fd);
      } finally {
        sockets.close(mute);
      }
    });
  });

  it('one connection is one line of the log', () => withProxy([imap('127.0.0.1:0')], async (proxy) => {
    const client = await greeted(proxy.port('127.0.0.1:0'));
    client.socket.write('a1 LOGOUT\r\n');
    await until(() => connections(proxy).length > 0, { what: 'the line' });
    client.socket.destroy();
    const [line, ...more] = connections(proxy);
    assert.deepEqual(more, []);
    assert.deepEqual([line?.['service'], line?.['listener'], line?.['ended'], line?.['octetsIn']], ['imap', '127.0.0.1:0', 'left', 0]);
    assert.match(String(line?.['peer']), /^127\.0\.0\.1:\d+$/);
  }));
});
