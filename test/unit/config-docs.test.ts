import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { restartKeys } from 'tlspool/dist/config/restart.js';
import { configSchema } from 'tlspool/dist/config/schema.js';
import { editDistance, keyRows, keyTable, nearest } from 'tlspool-common/config';

const page = readFileSync(fileURLToPath(new URL('../../../docs/configuration.md', import.meta.url)), 'utf8');

describe('documentation of the configuration', () => {
  it('the table of docs/configuration.md is the one that the schema makes', () => {
    const [, table] = /<!-- keys: made from the schema -->\n([^]*?)\n<!-- end of keys -->/.exec(page) ?? [];
    assert.equal(table, keyTable(configSchema), 'print the table with: node daemon/dist/config/table.js');
  });
  it('every key has a text, and there are as many as there should be', () => {
    const rows = keyRows(configSchema);
    assert.deepEqual(rows.filter(({ text }) => text === '' && !/^(identities|access)\[\]$/.test(text)).map(({ key }) => key), []);
    assert.equal(rows.length, 82);
  });
  it('exactly the keys that a reload refuses say that they need a restart', () => {
    const saying = keyRows(configSchema).filter(({ text }) => text.includes('Change needs a restart')).map(({ key }) => key).sort();
    assert.deepEqual(saying, restartKeys.filter((key) => key !== 'log.format').sort());
  });
});

describe('did you mean', () => {
  it('counts insertions, deletions, replacements and swaps', () => {
    for (const [a, b, edits] of [['', '', 0], ['abc', 'abc', 0], ['abc', 'ab', 1], ['ab', 'abc', 1], ['abc', 'axc', 1], ['abcd', 'acbd', 1], ['kitten', 'sitting', 3]] as const) {
      assert.equal(editDistance(a, b), edits, `${a} ${b}`);
    }
  });
  it('suggests what is near and nothing that is far', () => {
    assert.equal(nearest('wrokers', ['workers', 'state']), 'workers');
    assert.equal(nearest('DrainMS', ['drainMs', 'state']), 'drainMs');
    assert.equal(nearest('colour', ['workers', 'state']), undefined);
    assert.equal(nearest('x'.repeat(65), ['workers']), undefined);
  });
});
