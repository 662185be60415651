import assert from 'node:assert/strict';
import type { TLSSocket } from 'node:tls';
import { App, BulkReader, BulkWriter, expectBaseline, nodeConnect, startPool, until } from '../support/index.js';
import type { Baseline, BulkState, TestPool } from '../support/index.js';

const gibibyte = 1024 ** 3;
const holdEvery = gibibyte / 4;
/** What the daemon may grow by while a gigabyte waits on one side of it: 64 KiB each way, and the workers' scratch buffers. */
const growthKiB = 12 * 1024;
/** Kernel socket buffers on the way, and Node's; far below a hold. */
const inFlight = 64 * 1024 * 1024;

/** One end of a transfer, here or in the application's process. */
interface End { state(): Promise<BulkState>; resume(): Promise<unknown> }

describe('a gibibyte each way arrives intact', function () {
  this.timeout(120_000);
  let pool: TestPool;
  let app: App;
  let port: number;
  let baseline: Baseline;
  let rssKiB = 0;

  before(async () => {
    pool = await startPool({ config: { log: { level: 'warn' } } });
    app = new App('bulk-app', pool);
    port = await app.told<number>('port');
    // The buffers that a worker keeps are made by its first transfers.
    for (const kind of ['send', 'receive'] as const) for (let count = 0; count < 4; count++) await transfer(kind, 64 * 1024 * 1024, 'none');
    baseline = pool.baseline();
    rssKiB = pool.rssKiB();
  });

  afterEach(async () => {
    await expectBaseline(pool, baseline);
    assert.ok(pool.rssKiB() - rssKiB < growthKiB, `the daemon grew by ${String(pool.rssKiB() - rssKiB)} KiB`);
  });

  after(async () => {
    await app.stop();
    await pool.stop();
  });

  const inApp: End = {
    state: () => app.ask<BulkState>({ do: 'state' }, 'state'),
    resume: () => app.ask<BulkState>({ do: 'resume' }, 'state'),
  };

  async function transfer(appDoes: 'send' | 'receive', total: number, slow: 'none' | 'reader' | 'writer'): Promise<void> {
    const hold = { holdEvery };
    const appHolds = (slow === 'writer') === (appDoes === 'send') && slow !== 'none';
    await app.ask({ do: appDoes, total, ...(appHolds ? hold : {}) }, 'ready');
    const socket: TLSSocket = await nodeConnect({ port, caFile: pool.caFile });
    const here = appDoes === 'send' ? new BulkReader(socket, slow === 'reader' ? hold : {}) : new BulkWriter(socket, total, slow === 'writer' ? hold : {});
    if (appDoes === 'receive') socket.resume();
    const local: End = { state: () => Promise.resolve(here.state()), resume: () => { here.resume(); return Promise.resolve(); } };
    const [writer, reader] = appDoes === 'send' ? [inApp, local] : [local, inApp];
    if (slow === 'reader') await holdReader(writer, reader, total);
    if (slow === 'writer') await holdWriter(writer, reader, total);
    const finished = await until(async () => {
      const read = await reader.state();
      if (read.error !== undefined) throw new Error(`the reader got ${read.error} after ${String(read.octets)} octets`);
      return read.sha256 === undefined ? undefined : read;
    }, { what: 'the end of the transfer', deadlineMs: 100_000 });
    assert.equal(finished.octets, total);
    assert.equal(finished.sha256, (await writer.state()).sha256);
    socket.destroy();
  }

  /** At each hold of the reader: the writer comes to a stand, and the daemon holds next to nothing. */
  async function holdReader(writer: End, reader: End, total: number): Promise<void> {
    for (let hold = holdEvery; hold < total; hold += holdEvery) {
      const { octets } = await until(async () => { const state = await reader.state(); return state.held && state; }, { what: 'the reader to hold', deadlineMs: 60_000 });
      let seen = -1;
      let same = 0;
      await until(async () => {
        const state = await writer.state();
        same = state.octets === seen ? same + 1 : 0;
        seen = state.octets;
        return same > 10;
      }, { what: 'the writer to come to a stand' });
      assert.ok(seen - octets < inFlight, `the writer was ${String(seen - octets)} octets ahead of a reader that did not read`);
      assert.ok(pool.rssKiB() - rssKiB < growthKiB, `the daemon grew by ${String(pool.rssKiB() - rssKiB)} KiB while the reader did not read`);
      await reader.resume();
    }
  }

  /** At each hold of the writer: everything written so far arrives without being pushed by what follows. */
  async function holdWriter(writer: End, reader: End, total: number): Promise<void> {
    for (let hold = holdEvery; hold < total; hold += holdEvery) {
      const { octets } = await until(async () => { const state = await writer.state(); return state.held && state; }, { what: 'the writer to hold', deadlineMs: 60_000 });
      await until(async () => (await reader.state()).octets === octets, { what: 'everything written to arrive' });
      await writer.resume();
    }
  }

  for (const [title, appDoes] of [['down: the application sends', 'send'], ['up: the client sends', 'receive']] as const) {
    it(`${title}, both as fast as they can`, async () => { await transfer(appDoes, gibibyte, 'none'); });
    it(`${title}, and the reader stops reading every 256 MiB: the writer stops too, and the daemon's memory does not grow`, async () => { await transfer(appDoes, gibibyte, 'reader'); });
    it(`${title}, and the writer stops every 256 MiB: everything written arrives before it goes on`, async () => { await transfer(appDoes, gibibyte, 'writer'); });
  }
});
