import assert from 'node:assert/strict';
import process from 'node:process';
import { repoRoot, run } from '../support/index.js';

const files = ['native/engine-data', 'native/engine-handshake', 'native/engine-trust', 'unit/native-sockets'].map((name) => `build/test/${name}.test.js`);

describe('native code under sanitizers', function () {
  this.timeout(900_000);

  for (const [kind, what] of [['address', 'address and undefined'], ['thread', 'thread']] as const) {
    it(`the tests of the engine and of passing descriptors give no report: ${what}`, async () => {
      const { stdout } = await run(process.execPath, ['scripts/sanitizers.mjs', kind, '--', ...files], { cwd: repoRoot, deadlineMs: 890_000 });
      assert.match(stdout, /[1-9]\d+ passing/u);
      assert.doesNotMatch(stdout, /failing/u);
    });
  }
});
