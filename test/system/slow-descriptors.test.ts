/** Descriptors whose close(2) takes as long as whoever handed them over likes: nobody else waits for them, and the pool survives what close(2) says. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { connectPool } from 'libtlspool';
import type { Pool } from 'libtlspool';
import { expectBaseline, nodeConnect, Program, repoRoot, startPool, within } from '../support/index.js';
import type { Baseline, TestPool } from '../support/index.js';

const script = path.join(repoRoot, 'test/support/apps/slow_descriptors.py');
// Debian's own interpreter: python3-msgpack belongs to that one, whatever else is on PATH.
const python = '/usr/bin/python3';

describe('descriptors that are slow to close', function () {
  this.timeout(40_000);
  let daemon: TestPool;
  let pool: Pool;
  let hostile: Program;
  let baseline: Baseline;
  // One worker: whoever makes it wait is noticed by everybody.
  beforeEach(async () => {
    daemon = await startPool({ config: { workers: 1, limits: { lingerMs: 50 } } });
    pool = await connectPool({ path: daemon.socket });
    baseline = daemon.baseline();
  });
  afterEach(async () => {
    hostile.end();
    await hostile.ended;
    pool.close();
    await daemon.kill();
  });

  async function hand(what: string): Promise<void> {
    hostile = new Program(python, [script, daemon.socket, what, daemon.caFile]);
    await hostile.output(/sent/, 'stdout');
  }

  /** The front and the engine's worker both do their work. */
  async function isServed(): Promise<void> {
    await within(pool.request('ping', {}), 'an answer of the pool');
    const listener = await pool.listen({ port: 0, host: '127.0.0.1' });
    const { port } = listener.address() as { port: number };
    const [accepted, client] = await within(Promise.all([listener.accept(), nodeConnect({ port, caFile: daemon.caFile })]), 'a handshake');
    accepted.destroy();
    client.destroy();
    await listener.close();
  }

  for (const [what, name] of [
    ['packet', 'a socket that waits for its peer, in a packet that is refused'], ['queue', 'such sockets in packets that nobody reads'],
    ['nested', 'such a socket in the queue of another, in a packet that is refused'],
    ['starttls', 'such a socket as the crypt side of a session'], ['listen', 'a socket that has it from the listening socket'],
  ] as const) {
    it(`${name}: everybody else is served, and nothing is left of it`, async () => {
      await hand(what);
      // The pool has no descriptor of it any more: the close(2) has begun.
      await expectBaseline(daemon, baseline);
      await isServed();
      await expectBaseline(daemon, baseline);
    });
  }

  for (const [what, name] of [
    ['read', 'such a socket between the octets of the application'], ['urgent', 'such a socket with octets that it sends out of band'],
    ['unread', 'such a socket behind octets that nobody has read when the session ends'],
  ] as const) {
    it(`${name}: everybody else is served, and nothing is left of it`, async () => {
      await hand(what);
      await isServed();
      hostile.end();
      await hostile.ended;
      await expectBaseline(daemon, baseline);
    });
  }

  it('a listening socket that its owner makes blocking again and again: everybody else is served, and the owner hears that it is closed', async () => {
    await hand('blocks');
    await hostile.output(/closed/, 'stdout');
    await isServed();
    hostile.end();
    await hostile.ended;
    await expectBaseline(daemon, baseline);
  });

  it('a file whose file system never lets go of it: everybody else is served, and it costs no descriptor', async () => {
    await hand('waits');
    await hostile.output(/flush/, 'stdout');
    await isServed();
    await expectBaseline(daemon, baseline);
  });

  for (const [what, place] of [['crypt', 'the connected socket'], ['plain', 'the plain-text side'], ['listening', 'the listening socket']] as const) {
    it(`a file whose file system answers nothing, in the place of ${place}: it is refused, and everybody else is served`, async () => {
      await hand(what);
      await hostile.output(/^FD_KIND$/mu, 'stdout');
      await isServed();
      await expectBaseline(daemon, baseline);
    });
  }

  it('a file that cannot be closed without an error: the pool does not mind', async () => {
    await hand('fails');
    await hostile.output(/flush/, 'stdout');
    await isServed();
    await expectBaseline(daemon, baseline);
    assert.equal(daemon.process.running, true);
  });
});
