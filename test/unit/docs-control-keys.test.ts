/** docs/control-keys.md names tests for what it says of sessions whose owner dies, and tests for the rest. They are there. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { repoRoot } from '../support/program.js';

const read = (file: string): string => readFileSync(path.join(repoRoot, file), 'utf8');

describe('documentation: docs/control-keys.md', () => {
  const page = read('docs/control-keys.md');
  const proofs = [...page.matchAll(/\| (test\/\S+\.ts): "(.+)" \|$/gmu)].map(([, file = '', title = '']) => ({ file, title }));

  it('has a test for each row about the death of an owner', () => {
    const table = page.split('## When the owner dies')[1]?.split('\n## ')[0] ?? '';
    assert.equal(proofs.length, table.split('\n').filter((line) => line.startsWith('| ')).length - 1);
    assert.ok(proofs.length >= 12);
  });

  for (const { file, title } of proofs) {
    it(`${file} has the test "${title}"`, () => { assert.ok(read(file).includes(title), 'the title has changed: change it in the page too'); });
  }

  it('names no test file that is not there', () => {
    for (const [file] of page.matchAll(/test\/[\w./-]+\.ts/gu)) assert.ok(existsSync(path.join(repoRoot, file)), file);
  });
});
