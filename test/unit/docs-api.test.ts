/** `npm run docs` fails on an export that nobody described. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { repoRoot, run } from '../support/program.js';
import { tempFolder } from '../support/cleanup.js';

const documented = `/**
 * A module.
 *
 * @packageDocumentation
 */

/** A type. */
export interface Thing {
  /** A property. */
  readonly size: number;
}

/** A class. */
export class Tool {
  /** A method. */
  work(thing: Thing): number { return thing.size; }
}
`;

async function typedoc(source: string): Promise<{ code: number | null; output: string }> {
  const folder = tempFolder();
  writeFileSync(path.join(folder, 'index.ts'), source);
  writeFileSync(path.join(folder, 'tsconfig.json'), '{"compilerOptions":{"strict":true,"types":[],"module":"NodeNext"},"files":["index.ts"]}');
  // The project's own options, with another entry point.
  const options = { extends: [path.join(repoRoot, 'typedoc.json')], entryPoints: ['index.ts'], tsconfig: 'tsconfig.json', readme: 'none', emit: 'none', intentionallyNotExported: [] };
  writeFileSync(path.join(folder, 'typedoc.json'), JSON.stringify(options));
  const { code, stdout, stderr } = await run(process.execPath, [path.join(repoRoot, 'node_modules/typedoc/bin/typedoc'), '--options', folder], {
    check: false, cwd: folder, deadlineMs: 30_000,
  });
  return { code, output: `${stdout}${stderr}` };
}

describe('documentation: API reference', function () {
  this.timeout(40_000);

  it('builds when everything has a text', async () => {
    const { code, output } = await typedoc(documented);
    assert.equal(code, 0, output);
  });
  it('fails without texts, and names everything that lacks one', async () => {
    const { code, output } = await typedoc(documented.replaceAll(/ *\/\*\* .* \*\/\n/gu, ''));
    assert.notEqual(code, 0);
    for (const name of ['Thing', 'Thing.size', 'Tool', 'Tool.work']) assert.match(output, new RegExp(`${name.replace('.', '\\.')} \\(\\w+\\).*does not have any documentation`, 'u'));
  });
});
