/** Processes that die at any moment, and a pool that runs out of descriptors. */
import assert from 'node:assert/strict';
import net from 'node:net';
import type { TLSSocket } from 'node:tls';
import { expectBaseline, startPool } from '../support/index.js';
import type { Baseline, TestPool } from '../support/index.js';
import { PoolWire } from '../support/pool-wire.js';
import { Program, needProgram, repoRoot, run } from '../support/program.js';
import { curl, nodeConnect } from '../support/tls-clients.js';
import { freePort } from '../support/raw-tcp.js';
import { acceptLoop } from '../support/serve.js';
import { until } from '../support/wait.js';

/** An application that echoes, as a process of its own. Prints `listening` and a line per connection. */
const app = `
import { connectPool } from 'libtlspool';
const pool = await connectPool({ path: process.env.POOL });
const listener = await pool.listen({ host: '127.0.0.1', port: Number(process.env.PORT) });
console.log('listening');
for await (const socket of listener) { console.log('connection'); socket.on('error', () => {}); socket.pipe(socket); }
`;

/** Waits for an echo or for the end of the connection, whichever comes. */
async function echoOnce(socket: TLSSocket): Promise<void> {
  await new Promise((resolve) => { socket.on('error', () => undefined).once('close', resolve).once('data', resolve).write('x'); });
  socket.destroy();
}

describe('protocol abuse: sudden deaths', () => {
  let pool: TestPool;
  let baseline: Baseline;
  before(async () => { pool = await startPool(); });
  after(() => pool.stop());
  beforeEach(() => { baseline = pool.baseline(); });
  afterEach(() => expectBaseline(pool, baseline));

  const startApp = (port: number): Program => new Program(process.execPath, ['--input-type=module', '-e', app], { cwd: repoRoot, env: { POOL: pool.socket, PORT: String(port) } });
  const target = (port: number) => ({ port, caFile: pool.caFile });

  for (const [moment, kill] of [
    ['before it listens', async (program: Program) => { await Promise.resolve(); program.kill('SIGKILL'); }],
    ['when it listens', async (program: Program) => { await program.output(/listening/); program.kill('SIGKILL'); }],
    ['with open sessions', async (program: Program, port: number) => {
      await program.output(/listening/);
      const clients = await Promise.all(Array.from({ length: 20 }, () => nodeConnect(target(port))));
      for (const client of clients) client.on('error', () => undefined).write('x');
      await program.output(/(connection[^]*){20}/);
      program.kill('SIGKILL');
      await Promise.all(clients.map((client) => new Promise((resolve) => { client.once('close', resolve).resume(); })));
    }],
    ['in the middle of handshakes', async (program: Program, port: number) => {
      await program.output(/listening/);
      const raw = Array.from({ length: 20 }, () => net.connect(port, '127.0.0.1').on('error', () => undefined));
      await Promise.all(raw.map((socket) => new Promise((resolve) => { socket.once('connect', resolve); })));
      for (const socket of raw) socket.write(Buffer.from('160301020001', 'hex'));
      program.kill('SIGKILL');
      await program.ended;
      for (const socket of raw) socket.destroy();
    }],
    ['under a stream of new connections', async (program: Program, port: number) => {
      await program.output(/listening/);
      const loads = Array.from({ length: 40 }, () => nodeConnect(target(port)).then(echoOnce, () => undefined));
      await program.output(/(connection[^]*){3}/);
      program.kill('SIGKILL');
      await Promise.all(loads);
    }],
  ] as const) {
    it(`an application that is killed ${moment} leaves nothing in the pool`, async () => {
      const port = await freePort();
      const program = startApp(port);
      await kill(program, port);
      await program.ended;
    });
  }

  it('a client of the network that vanishes leaves nothing in the pool', async () => {
    const served = await acceptLoop(pool, (socket) => { socket.on('error', () => undefined).resume(); });
    try {
      const sockets = Array.from({ length: 20 }, () => net.connect(served.port, '127.0.0.1'));
      const clients = await Promise.all(sockets.map((socket) => nodeConnect(target(served.port), { socket })));
      for (const client of clients) client.on('error', () => undefined);
      for (const socket of sockets) socket.resetAndDestroy();
      await until(() => Number(pool.status()['sessions']) === 0, { what: 'the sessions to end' });
    } finally {
      await served.close();
    }
  });

  it('a pool without descriptors to spare waits for some, logs it once, and serves again', async () => {
    needProgram('prlimit', 'util-linux');
    const wires = [new PoolWire(pool.socket)];
    await run('prlimit', ['--pid', String(pool.pid), `--nofile=${pool.fdCount() + 4}:`]);
    const starved = Array.from({ length: 12 }, () => new PoolWire(pool.socket, { hello: false }));
    await until(() => pool.logLines().some((line) => line.includes('clients cannot be let in')), { what: 'the shortage to be logged' });
    assert.equal(wires[0]?.request('ping').type, 'reply', 'clients that are in are served');
    for (const wire of starved) wire.close();
    await run('prlimit', ['--pid', String(pool.pid), '--nofile=4096:']);
    await until(() => { new PoolWire(pool.socket).close(); return true; }, { what: 'a new client to be let in' });
    assert.equal(pool.logLines().filter((line) => line.includes('clients cannot be let in')).length, 1);
    for (const wire of wires) wire.close();
  });

  it('a listener that ran out of descriptors serves again when there are some', async () => {
    const served = await acceptLoop(pool, (socket) => { socket.on('error', () => undefined).end('HTTP/1.0 200 OK\r\n\r\nhello'); });
    try {
      const fds = pool.fdCount() + 1;
      await run('prlimit', ['--pid', String(pool.pid), `--nofile=${fds}:`]);
      const attempts = Promise.all(Array.from({ length: 4 }, () => curl(target(served.port), '/', [], false)));
      await until(() => pool.fdCount() >= fds, { what: 'the pool to have used what it had' });
      await run('prlimit', ['--pid', String(pool.pid), '--nofile=4096:']);
      // Each was either kept waiting and served, or ended; none may hang.
      await attempts;
      assert.equal((await curl(target(served.port))).stdout, 'hello');
    } finally {
      await served.close();
    }
  });
});
