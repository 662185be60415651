/** Services in whatever dialect they are offered: no question hangs, whatever the one who offers does, and no PIN outlives its use. */
import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import { TlsPoolError } from 'libtlspool/protocol';
import { Offer } from 'tlspool/dist/api/offer.js';
import { Services } from 'tlspool/dist/api/services.js';
import type { Choice, Chooser, PinEntry } from 'tlspool/dist/api/services.js';
import { Choices } from 'tlspool/dist/identity/choices.js';
import type { Published, UnlockOutcome } from 'tlspool/dist/identity/types.js';
import { userA } from './api-support.js';
import { summary } from './api-services-support.js';
import { until } from '../support/wait.js';

const refused = (text: RegExp) => ({ name: 'TlsPoolError', code: 'CHOICE_REFUSED', message: text });
const never = (): Promise<never> => new Promise(() => undefined);

describe('services in any dialect', () => {
  const log = { info: () => undefined, warn: () => undefined, error: () => undefined };
  const identities = ['home', 'work'].map((localid) => ({ summary: summary(localid) }) as unknown as Published);
  const locked = new Set<string>();
  let pins: Buffer[];
  let unlocking: (pin: string) => Promise<UnlockOutcome>;
  let services: Services;
  beforeEach(() => {
    locked.clear();
    pins = [];
    unlocking = () => Promise.resolve('wrong');
    services = new Services({
      log, choices: Choices.inMemory({ log }),
      unlock: (_localid, pin) => { pins.push(pin); return unlocking(pin.toString()); },
      store: { clientIdentities: () => identities, locked: () => [...locked].map((localid) => ({ localid, source: 'there' })), isLocked: (_client, localid) => locked.has(localid) },
    });
  });
  const choose = (deadlineMs = 5000, signal?: AbortSignal): Promise<Choice | undefined> => services.choose(userA, 'www.example.org', deadlineMs, signal);
  const offer = (chooser: Chooser['choose'], timeoutMs = 5000): () => void => services.offerChooser(userA.uid, { choose: chooser }, timeoutMs);

  it('without a chooser the answer is that nothing has changed', async () => {
    assert.equal(await choose(), undefined);
    assert.equal(services.mustSettle(userA, { role: 'client' }), false);
  });
  it('the choice is what the chooser says', async () => {
    offer(({ candidates, remoteid, pid }) => Promise.resolve({ localid: `${candidates[1]?.localid ?? ''}`, ...(remoteid === 'www.example.org' && pid === userA.pid && { rememberS: 9 }) }));
    assert.deepEqual(await choose(), { localid: 'work', rememberS: 9 });
  });

  const failures: readonly (readonly [what: string, chooser: Chooser['choose'], text: RegExp])[] = [
    ['rejects', () => Promise.reject(new Error('secret reasons')), /^the chooser refused$/],
    ['throws', () => { throw new Error('secret reasons'); }, /^the chooser refused$/],
    ['never answers and does not look at its signal', never, /did not answer in time/],
    ['names an identity that is no candidate', () => Promise.resolve({ localid: 'theirs' }), /not among the candidates/],
  ];
  for (const [what, chooser, text] of failures) {
    it(`a chooser that ${what} refuses`, async () => {
      offer(chooser, 20);
      await assert.rejects(choose(), refused(text));
    });
  }
  it('its signal is aborted when its time is over, when nobody waits any more, and when the offer is withdrawn', async () => {
    const reasons: unknown[] = [];
    const withdraw = offer((_question, signal) => new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => { reasons.push((signal.reason as TlsPoolError).code); reject(signal.reason as Error); });
    }));
    await assert.rejects(choose(10), refused(/in time/));
    const controller = new AbortController();
    const waiting = choose(5000, controller.signal);
    controller.abort(new TlsPoolError('POOL_DRAINING'));
    await assert.rejects(waiting, { code: 'POOL_DRAINING' });
    const last = choose();
    await turn();
    withdraw();
    await assert.rejects(last, refused(/has gone/));
    assert.deepEqual(reasons, ['CHOICE_REFUSED', 'POOL_DRAINING', 'CHOICE_REFUSED']);
  });
  it('whoever has gone before it asks is not waited for', async () => {
    offer(never);
    await assert.rejects(choose(5000, AbortSignal.abort(new TlsPoolError('ABORTED'))), { code: 'ABORTED' });
  });
  it('an answer that comes too late is not remembered', async () => {
    let late: (choice: Choice) => void = () => undefined;
    offer(() => new Promise((resolve) => { late = resolve; }), 10);
    await assert.rejects(choose(), refused(/in time/));
    late({ localid: 'work', rememberS: 60 });
    await turn();
    assert.equal(services.forget(userA.uid), 0);
  });
  it('a year is remembered at most', async () => {
    offer(() => Promise.resolve({ localid: 'work', rememberS: 1e12 }));
    assert.equal((await choose())?.localid, 'work');
    assert.equal(services.forget(userA.uid, 'www.example.org'), 1);
  });
  it('an offer that was withdrawn can be withdrawn again without ending the next one', async () => {
    const withdraw = offer(never);
    withdraw();
    offer(() => Promise.resolve({}));
    withdraw();
    assert.deepEqual(await choose(), {});
    assert.throws(() => offer(never), { code: 'SERVICE_TAKEN' });
  });

  describe('a place in the line', () => {
    const settings = { what: 'service', refusal: 'CHOICE_REFUSED', timeoutMs: 5000, atOnce: 1 } as const;
    it('is left at the deadline, and what stands behind moves up', async () => {
      const one = new Offer((answer: string) => answer, settings);
      const controller = new AbortController();
      const first = one.ask({ ask: never, deadlineMs: 5000, signal: controller.signal });
      const second = one.ask({ ask: () => Promise.resolve('second'), deadlineMs: 10 });
      const third = one.ask({ ask: (service) => Promise.resolve(service('third')), deadlineMs: 5000 });
      await assert.rejects(second, refused(/in time/));
      controller.abort(new TlsPoolError('ABORTED'));
      await assert.rejects(first, { code: 'ABORTED' });
      assert.equal(await third, 'third');
    });
    it('counts: the offer\'s own time begins when the question is put', async () => {
      const one = new Offer(undefined, { ...settings, timeoutMs: 60 });
      let putAt = 0;
      const first = one.ask({ ask: never, deadlineMs: 40 });
      const second = one.ask({ ask: () => { putAt = performance.now(); return never(); }, deadlineMs: 5000 });
      await assert.rejects(first, refused(/in time/));
      await assert.rejects(second, refused(/in time/));
      assert.ok(putAt > 0 && performance.now() - putAt >= 55, String(performance.now() - putAt));
    });
    it('is left by thousands at once when one answer is that of all', async () => {
      const one = new Offer(undefined, settings);
      let known: string | undefined;
      const answers = [one.ask({ ask: () => { known = 'the same'; return Promise.resolve('first'); }, deadlineMs: 5000 })];
      for (let count = 0; count < 20_000; count++) answers.push(one.ask({ known: () => known, ask: never, deadlineMs: 5000 }));
      assert.deepEqual([...new Set(await Promise.all(answers))], ['first', 'the same']);
    });
    it('is free again when what is asked throws at once', async () => {
      const one = new Offer(undefined, settings);
      await assert.rejects(one.ask({ ask: () => { throw new Error('no'); }, deadlineMs: 5000 }), refused(/refused/));
      assert.equal(await one.ask({ ask: () => Promise.resolve('next'), deadlineMs: 5000 }), 'next');
    });
    it('and every other is given up when the offer is withdrawn', async () => {
      const one = new Offer(undefined, settings);
      const all = [1, 2, 3].map(() => one.ask({ ask: never, deadlineMs: 5000 }));
      one.withdraw();
      for (const waiting of [...all, one.ask({ ask: never, deadlineMs: 5000 })]) await assert.rejects(waiting, refused(/has gone/));
    });
  });

  describe('PINs', () => {
    const entry = (enter: PinEntry['enter'], timeoutMs = 5000): () => void => services.offerPinEntry({ enter }, timeoutMs);
    const isWiped = (pin: Buffer): boolean => pin.every((octet) => octet === 0);

    it('are wiped after they were tried, right or wrong', async () => {
      locked.add('shut');
      unlocking = (pin) => {
        if (pin !== 'right') return Promise.resolve('wrong');
        locked.clear();
        return Promise.resolve('unlocked');
      };
      entry(({ attempt }) => Promise.resolve(Buffer.from(attempt === 3 ? 'right' : 'wrong')));
      await services.unlocking.idle();
      assert.equal(pins.length, 3);
      assert.ok(pins.every(isWiped));
    });
    it('that come too late are wiped and not tried', async () => {
      locked.add('shut');
      const late = Buffer.from('right');
      let give: (pin: Buffer) => void = () => undefined;
      entry(() => new Promise((resolve) => { give = resolve; }), 10);
      await services.unlocking.idle();
      give(late);
      await until(() => isWiped(late), { what: 'the PIN to be wiped' });
      assert.equal(pins.length, 0);
    });
    it('a PIN entry that throws, rejects, or never answers ends the question', async () => {
      for (const enter of [() => { throw new Error('no'); }, () => Promise.reject(new Error('no')), never]) {
        locked.clear();
        locked.add('shut');
        const withdraw = entry(enter, 10);
        await services.unlocking.idle();
        withdraw();
        withdraw();
      }
    });
    it('what waits for an identity goes on when somebody else has opened it', async () => {
      locked.add('shut');
      entry(never);
      assert.equal(services.mustSettle(userA, { role: 'server', localid: 'shut' }), true);
      const settled = services.settle(userA, { role: 'server', localid: 'shut' }, { deadlineMs: 5000 });
      locked.clear();
      services.unlocking.published(['shut']);
      assert.equal(await settled, 'shut');
    });
    it('what waits for it ends by its signal', async () => {
      locked.add('shut');
      entry(never);
      const controller = new AbortController();
      const settled = services.settle(userA, { role: 'server', localid: 'shut' }, { deadlineMs: 5000, signal: controller.signal });
      controller.abort();
      await assert.rejects(settled, { code: 'ABORTED' });
    });
  });
});
