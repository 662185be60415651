import assert from 'node:assert/strict';
import { fdCount, acceptLoop, event, expectBaseline, MiniTls, nodeConnect, RawTcp, rssKiB, startPool, until } from '../support/index.js';
import type { Baseline, Served, Target, TestPool } from '../support/index.js';

const connections = 10_000;
const warmUp = 1_500;
const atATime = 8;
/** 16 MiB over 10,000 connections is 1.6 KiB each: less than anything that one session allocates. */
const growthKiB = 16 * 1024;

describe('ten thousand connections in succession', function () {
  this.timeout(180_000);
  let pool: TestPool;
  let served: Served;
  let target: Target;
  let baseline: Baseline;
  let ownFds = 0;
  let accepted = 0;
  let open = 0;

  before(async () => {
    pool = await startPool({ config: { log: { level: 'error' } } });
    served = await acceptLoop(pool, (socket) => {
      accepted++;
      open++;
      socket.on('error', () => undefined);
      socket.once('close', () => { open--; });
      socket.resume();
    });
    target = { port: served.port, caFile: pool.caFile };
    baseline = pool.baseline();
    ownFds = fdCount(process.pid);
  });

  after(async () => {
    await served.close();
    await pool.stop();
  });

  /** The ways in which a connection ends, from best to worst; each is a path on which something could be left over. */
  const endings: readonly (() => Promise<void>)[] = [
    async () => {
      const socket = await nodeConnect(target);
      const closed = event(socket, 'close');
      socket.resume();
      socket.end('bye');
      await closed;
    },
    async () => {
      const mini = await MiniTls.connect(target.port);
      mini.closeNotify();
      await mini.tcp.ended();
      mini.close();
    },
    async () => {
      const mini = await MiniTls.connect(target.port);
      mini.tcp.finish();
      await mini.tcp.ended();
      mini.close();
    },
    async () => {
      const mini = await MiniTls.connect(target.port);
      mini.tcp.reset();
    },
    async () => {
      const mini = await MiniTls.start(target.port);
      mini.close();
    },
    async () => {
      const raw = await RawTcp.connect(target.port);
      raw.send(Buffer.from('GET / HTTP/1.0\r\n\r\n'));
      await raw.ended();
      raw.close();
    },
    async () => {
      const raw = await RawTcp.connect(target.port);
      raw.close();
    },
  ];

  async function run(count: number): Promise<void> {
    let next = 0;
    const worker = async (): Promise<void> => {
      for (let number = next++; number < count; number = next++) await endings[number % endings.length]?.();
    };
    await Promise.all(Array.from({ length: atATime }, worker));
  }

  it('leave descriptors, sessions and memory at the baseline, whatever way they end', async () => {
    await run(warmUp);
    await expectBaseline(pool, baseline, 30_000);
    const before = pool.rssKiB();
    const beforeHere = rssKiB(process.pid);
    accepted = 0;
    await run(connections);
    await expectBaseline(pool, baseline, 30_000);
    await until(() => open === 0 && fdCount(process.pid) <= ownFds, {
      what: 'the application\'s descriptors to be closed', context: () => `${String(open)} sockets open, descriptors ${String(ownFds)} -> ${String(fdCount(process.pid))}`,
    });
    assert.ok(accepted >= connections / endings.length * 3, `the application got only ${String(accepted)} connections`);
    // The engine gives memory back to the system when it has been quiet for 2 s; a leak does not go away by waiting.
    await until(() => pool.rssKiB() - before < growthKiB, {
      what: 'the daemon to be of its size again', deadlineMs: 10_000,
      context: () => `it grew from ${String(before)} to ${String(pool.rssKiB())} KiB (this process: ${String(beforeHere)} to ${String(rssKiB(process.pid))})`,
    });
    assert.equal(pool.status()['handshakes'], 0);
  });
});
