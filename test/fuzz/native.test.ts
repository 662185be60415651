import assert from 'node:assert/strict';
import process from 'node:process';
import { repoRoot, run } from '../support/index.js';

/** Seconds for each fuzzer; `npm run fuzz` gives them more. */
const seconds = 10;

describe('fuzzers of native code', function () {
  this.timeout(600_000);

  it('handshakes, records and name tables stand a short run of each, under the address and undefined sanitizers', async () => {
    const { stdout } = await run(process.execPath, ['scripts/fuzz.mjs', '--seconds', String(seconds)], { cwd: repoRoot, deadlineMs: 590_000 });
    for (const name of ['handshake', 'records', 'models']) assert.match(stdout, new RegExp(`fuzz ${name}: [1-9]\\d+ runs .*nothing found`, 'u'));
  });
});
