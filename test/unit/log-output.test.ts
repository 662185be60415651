/** Where log lines go. */
import assert from 'node:assert/strict';
import { closeSync, openSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { sockets } from 'libtlspool/native';
import { Log, Output } from 'tlspool-common/log';
import { tempFolder } from '../support/cleanup.js';
import { countDescriptors } from '../support/native-fds.js';
import { until } from '../support/wait.js';

describe('log: output', () => {
  countDescriptors();

  it('a disk that is full loses nothing as long as it fits in memory: what was said is written when there is room', async () => {
    const full = openSync('/dev/full', 'w');
    const output = new Output(full);
    output.write('one\n');
    output.write('two\n');
    // The same descriptor, with room behind it.
    closeSync(full);
    const file = path.join(tempFolder(), 'log');
    const roomy = openSync(file, 'a');
    assert.equal(roomy, full, 'the lowest number that is free');
    await until(() => readFileSync(file, 'utf8') === 'one\ntwo\n', { what: 'both lines to be written' });
    output.write('three\n');
    assert.equal(readFileSync(file, 'utf8'), 'one\ntwo\nthree\n');
    closeSync(roomy);
  });

  it('a disk that stays full does not hold up the end', async () => {
    const full = openSync('/dev/full', 'w');
    const output = new Output(full);
    output.write('one\n');
    await output.drain(50);
    closeSync(full);
  });

  it('a reader that has gone ends it: nothing is kept for nobody', async () => {
    const [ours, theirs] = sockets.socketpair('stream');
    sockets.close(theirs);
    const output = new Output(ours);
    output.write('one\n');
    await output.drain(60_000);
    sockets.close(ours);
  });
});

describe('log: length of what is said', () => {
  it('an error keeps up to 4096 characters of a reason, so that the cure at its end is there; other lines keep 256', () => {
    const lines: string[] = [];
    const log = new Log('info', { destination: { write: (line) => { lines.push(line); } } });
    for (const length of [4096, 4097]) log.error('x', { reason: 'r'.repeat(length) });
    for (const length of [256, 257]) log.warn('x', { reason: 'r'.repeat(length) });
    const kept = lines.map((line) => (JSON.parse(line) as { reason: string }).reason).map((reason) => [/^r*/.exec(reason)?.[0].length, reason.endsWith(' characters)')]);
    assert.deepEqual(kept, [[4096, false], [4096, true], [256, false], [256, true]]);
  });
});
