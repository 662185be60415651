/** Remembered choices: whose they are, how long they hold, and the file that they are kept in. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Choices, maxChoices } from 'tlspool/dist/identity/choices.js';

describe('remembered choices', () => {
  let folder: string;
  let file: string;
  let nowMs: number;
  let errors: string[];
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'choices-'));
    file = path.join(folder, 'choices.json');
    nowMs = 1_700_000_000_000;
    errors = [];
  });
  afterEach(async () => {
    for (const choices of opened.splice(0)) await choices.flushed();
    rmSync(folder, { recursive: true, force: true });
  });
  const opened: Choices[] = [];
  const log = { error: (text: string, fields: object = {}) => { errors.push(`${text} ${JSON.stringify(fields)}`); } };
  const open = async (name = file): Promise<Choices> => {
    const choices = await Choices.open({ file: name, log, now: () => nowMs });
    opened.push(choices);
    return choices;
  };

  it('hold for one user and one remote, in any case of its name, and for as long as was said', async () => {
    const choices = await open();
    choices.remember(1000, 'WWW.example.org', { localid: 'work' }, 60);
    assert.deepEqual(choices.find(1000, 'www.Example.org'), { localid: 'work' });
    assert.equal(choices.find(1001, 'www.example.org'), undefined);
    assert.equal(choices.find(1000, 'example.org'), undefined);
    nowMs += 59_999;
    assert.deepEqual(choices.find(1000, 'www.example.org'), { localid: 'work' });
    nowMs += 1;
    assert.equal(choices.find(1000, 'www.example.org'), undefined);
  });
  it('of no identity are choices, too', async () => {
    const choices = await open();
    choices.remember(1000, 'a', {}, 60);
    assert.deepEqual(choices.find(1000, 'a'), {});
  });
  it('outlive the pool, except for those whose time is over', async () => {
    const before = await open();
    before.remember(1000, 'long', { localid: 'work' }, 3600);
    before.remember(1000, 'short', { localid: 'work' }, 60);
    before.remember(0, 'long', {}, 3600);
    await before.flushed();
    nowMs += 60_000;
    const after = await open();
    assert.deepEqual([after.find(1000, 'long'), after.find(1000, 'short'), after.find(0, 'long'), after.size], [{ localid: 'work' }, undefined, {}, 2]);
    assert.deepEqual(errors, []);
  });
  it('are in a file of mode 0600 that is replaced as a whole, and of which no half-written one is left', async () => {
    const choices = await open();
    choices.remember(1000, 'a', { localid: 'work' }, 60);
    await choices.flushed();
    const { ino, mode } = statSync(file);
    assert.equal(mode & 0o777, 0o600);
    choices.remember(1000, 'b', { localid: 'work' }, 60);
    await choices.flushed();
    assert.notEqual(statSync(file).ino, ino);
    assert.deepEqual(readdirSync(folder), ['choices.json']);
  });
  it('are forgotten for one remote or for all of a user; the count is of those in force', async () => {
    const choices = await open();
    for (const remote of ['a', 'b', 'c']) choices.remember(1000, remote, { localid: 'work' }, 60);
    choices.remember(1000, 'old', { localid: 'work' }, 10);
    choices.remember(1001, 'a', { localid: 'work' }, 60);
    nowMs += 10_000;
    assert.deepEqual([choices.forget(1000, 'A'), choices.forget(1000, 'a'), choices.forget(1000), choices.forget(1000), choices.forget(2)], [1, 0, 2, 0, 0]);
    assert.deepEqual(choices.find(1001, 'a'), { localid: 'work' });
    await choices.flushed();
    assert.equal((await open()).size, 1);
  });
  it(`number at most ${String(maxChoices)}: beyond, the user who has the most loses the one that ends first`, async () => {
    const choices = await open();
    choices.remember(1, 'mine', { localid: 'work' }, 1);
    for (let count = 1; count < maxChoices; count++) choices.remember(2, `r${String(count)}`, { localid: 'work' }, 10_000 - count);
    assert.equal(choices.size, maxChoices);
    choices.remember(1, 'mine too', { localid: 'work' }, 60);
    assert.equal(choices.size, maxChoices);
    assert.equal(choices.find(2, `r${String(maxChoices - 1)}`), undefined);
    assert.deepEqual([choices.find(1, 'mine'), choices.find(2, 'r1')], [{ localid: 'work' }, { localid: 'work' }]);
    choices.remember(2, 'r1', {}, 60);
    assert.deepEqual([choices.size, choices.find(2, 'r2')], [maxChoices, { localid: 'work' }], 'one that is there already takes no room');
    await choices.flushed();
    assert.equal((await open()).size, maxChoices);
  });
  it('those whose time is over make room first', async () => {
    const choices = await open();
    for (let count = 0; count < maxChoices; count++) choices.remember(2, `r${String(count)}`, { localid: 'work' }, count === 7 ? 1 : 100);
    nowMs += 1000;
    choices.remember(1, 'mine', { localid: 'work' }, 60);
    assert.deepEqual([choices.size, choices.find(2, 'r0'), choices.find(1, 'mine')], [maxChoices, { localid: 'work' }, { localid: 'work' }]);
  });

  describe('a file that is not as it should be', () => {
    const good = () => ({ version: 1, choices: [{ uid: 1000, remoteid: 'a', localid: 'work', untilMs: nowMs + 1000 }] });
    const write = (content: string, mode = 0o600): void => {
      writeFileSync(file, content, { mode });
      chmodSync(file, mode);
    };
    it('is read when it is as the pool writes it', async () => {
      write(JSON.stringify(good()));
      assert.deepEqual((await open()).find(1000, 'a'), { localid: 'work' });
    });
    const corrupt: readonly (readonly [string, string])[] = [
      ['is cut short', '{"version":1,"choices":[{"uid":10'], ['is empty', ''], ['is of another version', '{"version":2,"choices":[]}'], ['has a field of another kind', '{"version":1,"choices":[{"uid":"root","remoteid":"a","untilMs":1}]}'],
      ['has a field too many', '{"version":1,"choices":[{"uid":1,"remoteid":"a","untilMs":99999999999999,"x":1}]}'], ['is something else', '\u001b[2J<html>'],
    ];
    for (const [what, content] of corrupt) {
      it(`that ${what} is an error in the log, without its content, and nothing is remembered; the next choice replaces it`, async () => {
        write(content);
        const choices = await open();
        assert.equal(choices.size, 0);
        assert.deepEqual(errors, [`remembered choices cannot be read; none is remembered ${JSON.stringify({ file, reason: 'not what the pool has written' })}`]);
        choices.remember(1000, 'a', { localid: 'work' }, 60);
        await choices.flushed();
        assert.deepEqual((await open()).find(1000, 'a'), { localid: 'work' });
      });
    }
    it('that others could have written is not believed', async () => {
      write(JSON.stringify(good()), 0o606);
      assert.equal((await open()).size, 0);
      assert.match(errors.join(), /has mode 0606/);
    });
    it('with more choices than there may be is not read', async () => {
      const one = good().choices[0];
      write(JSON.stringify({ version: 1, choices: Array.from({ length: maxChoices + 1 }, (_, index) => ({ ...one, remoteid: `r${String(index)}` })) }));
      assert.equal((await open()).size, 0);
    });
    it('that does not exist is no error', async () => {
      assert.equal((await open()).size, 0);
      assert.deepEqual(errors, []);
      assert.equal(existsSync(file), false);
    });
  });

  describe('a disk that takes no more', () => {
    /** As much of the pool as writes choices, in a process that may write so many blocks of 512 octets to a file (setrlimit(2): EFBIG). */
    function writeWith(blocks: string, count: number): { readonly errors: string[]; readonly size: number } {
      const program = `
        import { Choices } from ${JSON.stringify(import.meta.resolve('tlspool/dist/identity/choices.js'))};
        const errors = [];
        const choices = await Choices.open({ file: process.argv[1], log: { error: (text, { reason }) => { errors.push(text + ': ' + reason); } } });
        for (let index = 0; index < ${String(count)}; index++) {
          choices.remember(1000, 'remote' + index, { localid: 'work' }, 3600);
          await choices.flushed();
        }
        console.log(JSON.stringify({ errors, size: choices.size }));`;
      const shell = `ulimit -f ${blocks}; exec "$0" --input-type=module -e "$PROGRAM" "$FILE"`;
      return JSON.parse(execFileSync('/bin/sh', ['-c', shell, process.execPath], { env: { ...process.env, PROGRAM: program, FILE: file }, encoding: 'utf8' })) as { errors: string[]; size: number };
    }

    it('costs the file and nothing else: the error is logged once, choices hold, what is there stays whole, and nothing half-written is left', async () => {
      assert.deepEqual(writeWith('unlimited', 5), { errors: [], size: 5 });
      const whole = readFileSync(file, 'utf8');
      const { errors: seen, size } = writeWith('1', 15);
      assert.equal(size, 15);
      assert.equal(seen.length, 1);
      assert.match(seen[0] ?? '', /^remembered choices cannot be written; they end with the pool: .*EFBIG/);
      assert.deepEqual(readdirSync(folder), ['choices.json']);
      assert.equal((JSON.parse(whole) as { choices: unknown[] }).choices.length, 5);
      const kept = (await Choices.open({ file, log })).size;
      assert.ok(kept >= 5 && kept < 15, String(kept));
    });
    it('that has room again is written to again, and a later failure is logged anew', async () => {
      const place = path.join(folder, 'later');
      const choices = await open(path.join(place, 'choices.json'));
      const remember = async (remote: string): Promise<void> => {
        choices.remember(1000, remote, { localid: 'work' }, 60);
        await choices.flushed();
      };
      await remember('a');
      mkdirSync(place);
      await remember('b');
      assert.equal((await open(path.join(place, 'choices.json'))).size, 2);
      rmSync(place, { recursive: true });
      await remember('c');
      assert.equal(errors.length, 2);
    });
  });
});
