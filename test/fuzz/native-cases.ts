/** Programs of test/fuzz/native that are made of cases (cases.hh): one test for each. */
import assert from 'node:assert/strict';
import process from 'node:process';
import { repoRoot, run } from '../support/index.js';

/** Registers a suite that builds `program` with the address and undefined sanitizers and runs its cases; `cases` are all that it has, in its order, each with what it claims. */
export function describeCases(title: string, program: string, cases: readonly (readonly [name: string, claim: string])[]): void {
  describe(title, () => {
    let built = '';
    before(async function () {
      this.timeout(300_000);
      built = (await run(process.execPath, ['scripts/lib/harness.mjs', program, 'address'], { cwd: repoRoot, deadlineMs: 290_000 })).stdout.trim();
    });

    it('every case has a test here', async () => {
      const { stderr, code } = await run(built, [], { check: false });
      assert.equal(code, 2);
      assert.deepEqual(stderr.trim().split('\n').slice(1).map((line) => line.trim()), cases.map(([name]) => name));
    });

    for (const [name, claim] of cases) {
      it(claim, async () => { await run(built, [name], { deadlineMs: 19_000 }); });
    }
  });
}
