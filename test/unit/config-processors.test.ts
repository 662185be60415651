import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type Config, type ConfigError, loadConfig } from 'tlspool/dist/config/index.js';
import type { Surroundings } from 'tlspool/dist/config/defaults.js';
import { parseProcessorList, usableProcessors } from 'tlspool/dist/config/processors.js';
import { changedKeys } from 'tlspool/dist/config/restart.js';

const host: Surroundings = { uid: 1000, env: { XDG_RUNTIME_DIR: '/run/user/1000' }, home: '/home/u', cwd: '/', workers: 3 };
const usable = [...usableProcessors()];
const first = usable[0]!;
/** None of a machine that these tests run on: the highest number that the key takes. */
const absent = 1023;

describe('configuration: workerCpus', () => {
  let folder: string;
  beforeEach(() => { folder = mkdtempSync(path.join(tmpdir(), 'cfg-')); });
  afterEach(() => { rmSync(folder, { recursive: true, force: true }); });

  function load(text: string): Config {
    const file = path.join(folder, 'pool.yaml');
    writeFileSync(file, text, { mode: 0o600 });
    return loadConfig(file, {}, host);
  }
  function problem(text: string): string {
    try {
      load(text);
    } catch (error) {
      return (error as ConfigError).message.replace(`${folder}/pool.yaml:`, '');
    }
    throw new assert.AssertionError({ message: `accepted: ${text}` });
  }

  it('a processor of this process is taken, and there are as many threads as processors', () => {
    const { workers, workerCpus } = load(`workerCpus: [${usable.join(', ')}]\n`);
    assert.deepEqual(workerCpus, usable);
    assert.equal(workers, usable.length);
  });
  it('the number of threads may be another one', () => {
    assert.equal(load(`workerCpus: [${first}]\nworkers: 5\n`).workers, 5);
  });
  it('without the key the threads are bound to nothing', () => {
    assert.equal('workerCpus' in load('workers: 1\n'), false);
  });
  it('a processor that this process may not use is refused at its place, with those it may use', () => {
    assert.equal(problem(`workerCpus:\n  - ${first}\n  - ${absent}\n`), `3:5: workerCpus[1]: processor ${absent} is not one that the pool may use; those are ${usable.join(', ')}`);
  });
  it('a processor named twice is refused at the second', () => {
    assert.equal(problem(`workerCpus: [${first}, ${first}]\n`), `1:17: workerCpus[1]: ${first} is workerCpus[0] already; name each processor once`);
  });
  it('an empty list and a number out of range are refused', () => {
    for (const list of ['[]', '[-1]', '[1024]', '[0.5]']) assert.match(problem(`workerCpus: ${list}\n`), /^1:\d+: workerCpus/, list);
  });
  it('a change needs a restart, and says from what to what', () => {
    assert.deepEqual(changedKeys(load('workers: 1\n'), load(`workers: 1\nworkerCpus: [${first}]\n`)), [`workerCpus (none, now ${first})`]);
    assert.deepEqual(changedKeys(load(`workerCpus: [${first}]\n`), load(`workerCpus: [${first}]\n`)), []);
  });
  it('the kernel\'s list format is read: ranges, single numbers, and one number', () => {
    assert.deepEqual([...parseProcessorList('0-3,8,10-11\n')], [0, 1, 2, 3, 8, 10, 11]);
    assert.deepEqual([...parseProcessorList('5')], [5]);
  });
});
