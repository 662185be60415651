/** Where log lines go. */
import assert from 'node:assert/strict';
import { closeSync, openSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { sockets } from 'libtlspool/native';
import { Output } from 'tlspool-common/log';
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
