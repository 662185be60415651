/** Sessions that wander between processes while octets flow in both directions: none is lost, and nothing is left behind. */
import assert from 'node:assert/strict';
import type net from 'node:net';
import { connectPool } from 'libtlspool';
import type { Listener, Pool } from 'libtlspool';
import type { OwnedFd } from 'libtlspool/native';
import { App, descriptors, expectBaseline, fdCount, Random, startPool, until, within } from '../support/index.js';
import type { TestPool } from '../support/index.js';
import type { LoadResult } from '../support/apps/load-app.js';
import { Echo } from '../support/echo.js';
import { Holder } from '../support/holders.js';
import type { Passed, ToTest } from '../support/holders.js';

const count = 200;
const holders = 4;
/** The one that is killed. */
const victim = 3;
const octets = 1024 * 1024;
/** Clients stop here until told, or up to 64 KiB later, so that the transfer is certainly not over when the second half of the test begins. */
const holdAt = Math.floor(octets * 0.6);
const roundMs = 120_000;

/** One party: this process accepts, and hands each session on. */
class Round {
  readonly taken = new Map<number, number>();
  readonly passedAt: number[] = [];
  readonly ended = new Map<number, string>();
  /** Given back by the victim, and nobody's for now. */
  readonly ownerless: { readonly passed: Passed; readonly fd: OwnedFd }[] = [];
  readonly failures: string[] = [];
  readonly ports = new Map<number, number>();
  /** Turned on for the second half: sessions that holders pass on go to others by way of this process. */
  secondHops = 0;

  constructor(readonly staff: readonly Holder[]) {}

  /** What a holder says. */
  hear(from: number, message: ToTest, fd: OwnedFd | undefined): void {
    if (message.kind === 'taken') this.taken.set(message.n, from);
    else if (message.kind === 'ended') this.ended.set(message.n, message.how);
    else if (message.kind === 'failed') this.failures.push(`session ${message.n} at holder ${from}: ${message.text}`);
    else if (message.kind === 'passed' && fd !== undefined) {
      this.passedAt.push(message.octets);
      const { kind: _kind, to, ...passed } = message;
      if (to === undefined) this.ownerless.push({ passed, fd });
      else this.#forward(to, passed, fd);
    }
  }

  /** Echoes for a while, then lets holder `to` go on. */
  async accepted(n: number, echo: Echo, after: number, to: number, next: Passed['next']): Promise<void> {
    this.ports.set(n, echo.socket.remotePort ?? 0);
    await echo.reaches(after);
    const { fd, ctlkey } = await echo.release();
    this.passedAt.push(echo.octets);
    this.send(to, { n, ctlkey: Buffer.from(ctlkey).toString('hex'), octets: echo.octets, ...(next === undefined ? {} : { next }) }, fd);
  }

  send(to: number, passed: Passed, fd: OwnedFd): void { this.staff[to]?.courier.send({ kind: 'session', ...passed }, fd); }

  #forward(to: number, passed: Passed, fd: OwnedFd): void {
    this.secondHops += 1;
    this.send(to, passed, fd);
  }
}

describe('sessions handed between processes', function () {
  this.timeout(2 * roundMs);
  let daemon: TestPool;
  let pool: Pool;
  let listener: Listener;
  const staff: Holder[] = [];
  let round: Round;

  before(async () => {
    daemon = await startPool({ config: { limits: { handshakes: 1000 } } });
    pool = await connectPool({ path: daemon.socket });
    listener = await pool.listen({ host: '127.0.0.1', port: 0, localid: 'localhost', allowHalfOpen: true, highWaterMark: count });
    const up = Array.from({ length: holders }, (_, index) => new Promise<void>((resolve) => {
      staff.push(new Holder(daemon, (message, fd) => {
        if (message.kind === 'up') resolve();
        else round.hear(index, message, fd);
      }));
    }));
    await within(Promise.all(up), 'the holders to be up');
  });
  after(async () => {
    for (const holder of staff) await holder.stop();
    await listener.close();
    pool.close();
    await daemon.stop();
  });

  /** `many` clients, each of whose sessions goes to a holder mid-transfer; `second` says which of them are passed on once more. */
  async function begin(many: number, seed: number, second: (n: number) => boolean): Promise<App> {
    round = new Round(staff);
    const random = new Random(seed);
    const load = new App('load-app', undefined, [JSON.stringify({ port: (listener.address() as net.AddressInfo).port, caFile: daemon.caFile, count: many, octets, holdAt })]);
    const connected = load.told('connected');
    const handed: Promise<void>[] = [];
    for (let n = 0; n < many; n += 1) {
      const echo = new Echo(await within(listener.accept(), `connection ${n}`, 30_000));
      const to = n % holders;
      // Past where clients stop, so only after they were told to go on; and far enough from the end that what a holder reads at once, and ahead, cannot be all the rest.
      const next = second(n) ? { after: Math.floor(octets * (0.68 + 0.001 * random.below(100))), to: (to + 1) % (holders - 1) } : undefined;
      handed.push(round.accepted(n, echo, Math.floor(octets * (0.05 + 0.0045 * random.below(100))), to, next));
    }
    await connected;
    await within(Promise.all(handed), 'all sessions to be handed on', 60_000, () => round.failures.join('\n'));
    await until(() => round.taken.size === many, { what: 'all sessions to be reattached', deadlineMs: 30_000, context: () => `${round.taken.size} of ${many}\n${round.failures.join('\n')}` });
    return load;
  }

  async function finish(load: App): Promise<readonly LoadResult[]> {
    const results = load.told<readonly LoadResult[]>('results');
    load.program.child.send({ go: true });
    return within(results, 'all transfers to end', roundMs, () => round.failures.join('\n'));
  }

  it(`${count} under load, by ${holders} processes, some twice, one of them killed: no octet and no descriptor is lost, and what nobody controlled lives on`, async () => {
    // A small round first: what programs load at first use stays open.
    const warm = await begin(8, 1, () => false);
    assert.deepEqual((await finish(warm)).filter(({ isSame }) => !isSame), []);
    await warm.stop();
    await until(() => round.ended.size === 8, { what: 'the sessions of the first round to end' });
    const before = daemon.baseline();
    const ours = descriptors(process.pid).size;
    const theirs = staff.map(({ program }) => fdCount(program.pid));

    const load = await begin(count, 2, (n) => n % holders !== victim && n % 5 === 0);
    const atVictim = Array.from({ length: count }, (_, n) => n).filter((n) => n % holders === victim);
    const saved = atVictim.filter((_, index) => index % 5 === 0);
    const lost = new Set(atVictim.filter((n) => !saved.includes(n)));
    assert.deepEqual([atVictim.length, saved.length, lost.size], [50, 10, 40]);

    // Ten of the victim's sessions are detached, and in nobody's hands, when it dies.
    staff[victim]?.courier.send({ kind: 'giveBack', sessions: saved });
    await until(() => round.ownerless.length === saved.length, { what: 'sessions to be given back', context: () => round.failures.join('\n') });
    const [, , , killed] = staff;
    killed?.program.kill('SIGKILL');
    await killed?.program.ended;
    await until(() => daemon.status()['sessions'] === count - lost.size, { what: 'the sessions of the killed process to end', context: () => String(daemon.status()['sessions']) });
    for (const { passed, fd } of round.ownerless.splice(0)) round.send(passed.n % (holders - 1), passed, fd);

    const results = await finish(load);
    const lostPorts = new Set([...lost].map((n) => round.ports.get(n)));
    assert.equal(results.length, count);
    for (const { port, sent, received, isSame, how } of results) {
      if (lostPorts.has(port)) assert.ok(!isSame && received < octets, `a session of the killed process, ${port}, was complete`);
      else assert.deepEqual({ sent, received, isSame, how }, { sent: octets, received: octets, isSame: true, how: 'end' }, `the session of port ${port}`);
    }
    await until(() => round.ended.size === count - lost.size, { what: 'the holders to see the end of every session' });
    assert.deepEqual([...new Set(round.ended.values())], ['end'], 'and each is a complete one');
    assert.deepEqual(round.failures, []);
    assert.ok(round.secondHops >= 25, `${round.secondHops} were handed on twice`);
    assert.equal(round.passedAt.length, count + round.secondHops + saved.length);
    assert.deepEqual(round.passedAt.filter((at) => at <= 0 || at >= octets), [], 'every hand-over was in the middle of a transfer');

    await load.stop();
    await expectBaseline(daemon, { ...before, fds: before.fds - 1 }); // one client of the pool less
    staff[victim]?.courier.close();
    await until(() => descriptors(process.pid).size <= ours - 1, { what: 'our descriptors to be back at the baseline', context: () => [...descriptors(process.pid).values()].join(' ') });
    for (const [index, { program }] of staff.entries()) {
      if (index !== victim) await until(() => fdCount(program.pid) <= (theirs[index] ?? 0), { what: `the descriptors of holder ${index} to be back at the baseline` });
    }
  });
});

