import assert from 'node:assert/strict';
import process from 'node:process';
import { repoRoot, run } from '../support/index.js';

/** Of the stress driver, which follows them. */
const stressSeconds = 15;

describe('native code under sanitizers', function () {
  this.timeout(900_000);

  for (const [kind, what] of [['address', 'address and undefined'], ['thread', 'thread']] as const) {
    it(`the tests of both addons, and an engine under stress, give no report: ${what}`, async () => {
      const { stdout } = await run(process.execPath, ['scripts/sanitizers.mjs', kind], { cwd: repoRoot, deadlineMs: 890_000, env: { STRESS_SECONDS: String(stressSeconds) } });
      assert.match(stdout, /[1-9]\d+ passing/u);
      assert.doesNotMatch(stdout, /failing/u);
      assert.match(stdout, /stress: [1-9]\d+ handshakes/u);
    });
  }
});
