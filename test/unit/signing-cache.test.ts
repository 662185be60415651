import assert from 'node:assert/strict';
import { SigningCache, type Made } from 'tlspool/dist/identity/signing-cache.js';
import { Turns } from 'tlspool/dist/identity/turns.js';

/** A promise and how to settle it. */
function pending<T>(): { promise: Promise<T>; resolve: (value: T) => void; reject: (error: Error) => void } {
  let resolve: (value: T) => void = () => undefined;
  let reject: (error: Error) => void = () => undefined;
  const promise = new Promise<T>((yes, no) => { resolve = yes; reject = no; });
  return { promise, resolve, reject };
}
/** All promises that are settled have told. */
const settled = () => new Promise((resolve) => { setImmediate(resolve); });

describe('certificates kept for use again', () => {
  let nowMs: number;
  let cache: SigningCache<string>;
  let made: string[];
  beforeEach(() => {
    nowMs = 0;
    cache = new SigningCache(() => nowMs);
    cache.resize(3);
    made = [];
  });
  const always = (_notAfterMs: number): boolean => true;
  const make = (name: string, lifetimeMs = 1000) => (): Promise<Made<string>> => {
    made.push(name);
    return Promise.resolve({ value: `${name}#${made.length}`, notAfterMs: nowMs + lifetimeMs });
  };
  const get = async (name: string, isBetter = always) => cache.obtain(name, make(name), isBetter);

  it('one is made once', async () => {
    assert.equal(await get('a'), 'a#1');
    assert.equal(await get('a'), 'a#1');
    assert.deepEqual(made, ['a']);
  });
  it('all who ask while one is being made get that one', async () => {
    const slow = pending<Made<string>>();
    const first = cache.obtain('a', () => { made.push('a'); return slow.promise; }, always);
    const others = Array.from({ length: 50 }, () => get('a'));
    slow.resolve({ value: 'the one', notAfterMs: 1000 });
    assert.deepEqual(new Set(await Promise.all([first, ...others])), new Set(['the one']));
    assert.deepEqual(made, ['a']);
  });
  it('what fails is not kept, all who waited hear of it, and the next one tries again', async () => {
    const slow = pending<Made<string>>();
    const waiting: Promise<string>[] = [Promise.resolve(cache.obtain('a', () => slow.promise, always)), get('a')];
    slow.reject(new Error('no'));
    for (const outcome of await Promise.allSettled(waiting)) assert.equal(outcome.status, 'rejected');
    await assert.rejects(async () => cache.obtain('a', () => { throw new Error('at once'); }, always), /at once/);
    assert.equal(await get('a'), 'a#1');
  });
  it('the least recently used goes when there are too many', async () => {
    for (const name of ['a', 'b', 'c', 'a', 'd']) await get(name);
    assert.equal(cache.size, 3);
    for (const name of ['a', 'c', 'd']) await get(name);
    assert.deepEqual(made, ['a', 'b', 'c', 'd']);
    await get('b');
    assert.deepEqual(made, ['a', 'b', 'c', 'd', 'b']);
  });
  it('at half of its time a new one is made, and the old one serves until it is there', async () => {
    await get('a');
    nowMs = 499;
    assert.equal(await get('a'), 'a#1');
    assert.deepEqual(made, ['a']);
    nowMs = 500;
    const slow = pending<Made<string>>();
    assert.equal(cache.obtain('a', () => { made.push('a'); return slow.promise; }, always), 'a#1');
    assert.equal(cache.obtain('a', make('a'), always), 'a#1', 'while it is being made');
    assert.deepEqual(made, ['a', 'a']);
    slow.resolve({ value: 'new', notAfterMs: 1500 });
    await settled();
    assert.equal(await get('a'), 'new');
  });
  it('a renewal that fails leaves the old one in use', async () => {
    await get('a');
    nowMs = 600;
    assert.equal(cache.obtain('a', () => Promise.reject(new Error('no')), always), 'a#1');
    await settled();
    assert.equal(cache.obtain('a', make('a'), always), 'a#1');
    await settled();
    assert.equal(await get('a'), 'a#2');
  });
  it('with a quarter of its time left it is not given out any more', async () => {
    await get('a');
    nowMs = 750;
    assert.equal(await get('a'), 'a#2');
  });
  it('one that no new one would outlive is used up to its end, and not after', async () => {
    await get('a');
    for (nowMs of [500, 750, 999]) assert.equal(await get('a', (notAfterMs) => notAfterMs < 1000), 'a#1');
    assert.deepEqual(made, ['a']);
    nowMs = 1000;
    assert.equal(await get('a', () => false), 'a#2');
  });
  it('clear forgets what is there, and what was being made is not kept', async () => {
    await get('a');
    const slow = pending<Made<string>>();
    const old = cache.obtain('b', () => slow.promise, always);
    cache.clear();
    assert.equal(cache.size, 0);
    const fresh = get('b');
    slow.resolve({ value: 'of before', notAfterMs: 1000 });
    assert.deepEqual(await Promise.all([old, fresh]), ['of before', 'b#2']);
    assert.deepEqual([await get('a'), await get('b')], ['a#3', 'b#2']);
  });
  it('a smaller size drops the oldest', async () => {
    for (const name of ['a', 'b', 'c']) await get(name);
    cache.resize(1);
    assert.equal(cache.size, 1);
    assert.equal(await get('c'), 'c#3');
  });
});

describe('turns', () => {
  let nowMs: number;
  const options = { atOnce: 2, places: 8, perSecond: 10, burst: 100 };
  const turnsOf = (changed: Partial<typeof options> = {}) => new Turns({ ...options, ...changed, now: () => nowMs });
  beforeEach(() => { nowMs = 0; });

  it('so much is done at once, in the order of coming', async () => {
    const turns = turnsOf();
    const works = Array.from({ length: 4 }, () => pending<undefined>());
    const begun: number[] = [];
    const done = works.map((work, index) => Promise.resolve(turns.take(index, () => { begun.push(index); return work.promise; })));
    await settled();
    assert.deepEqual(begun, [0, 1]);
    works[1]?.resolve(undefined);
    await settled();
    assert.deepEqual(begun, [0, 1, 2]);
    for (const { resolve } of works) resolve(undefined);
    await Promise.all(done);
    assert.deepEqual(begun, [0, 1, 2, 3]);
  });
  it('what fails gives its turn and its place back', async () => {
    const turns = turnsOf({ atOnce: 1, places: 2 });
    for (let n = 0; n < 5; n += 1) await assert.rejects(turns.take(1, () => Promise.reject(new Error('no'))) as Promise<unknown>, /no/);
    assert.equal(await turns.take(1, () => Promise.resolve('yes')), 'yes');
  });
  it('there are so many places in all, and one user has half of them', async () => {
    const turns = turnsOf();
    const work = pending<undefined>();
    const take = (uid: number) => turns.take(uid, () => work.promise);
    const taken = [take(1), take(1), take(1), take(1)];
    assert.equal(take(1), undefined, 'the fifth of one user');
    taken.push(take(2), take(2), take(2), take(2));
    assert.ok(taken.every((one) => one !== undefined));
    assert.equal(take(3), undefined, 'the ninth of all');
    work.resolve(undefined);
    await Promise.all(taken);
    assert.notEqual(take(1), undefined);
  });
  it('a user has a burst, and then so much a second; others are not held up by it', async () => {
    const turns = turnsOf({ burst: 3 });
    const take = (uid: number) => turns.take(uid, () => Promise.resolve('yes'));
    for (let n = 0; n < 3; n += 1) assert.equal(await take(1), 'yes');
    assert.equal(take(1), undefined);
    assert.equal(await take(2), 'yes');
    nowMs = 99;
    assert.equal(take(1), undefined);
    nowMs = 100;
    assert.equal(await take(1), 'yes');
    assert.equal(take(1), undefined);
    nowMs = 60_000;
    for (let n = 0; n < 3; n += 1) assert.equal(await take(1), 'yes');
    assert.equal(take(1), undefined, 'a pause gives the burst and no more');
  });
});
