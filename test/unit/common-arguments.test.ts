/** The command lines of tlspoold and tlspool-proxy, whichever copy of commander they were installed with. */
import assert from 'node:assert/strict';
import { cpSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { Command } from 'commander';
import { parseOptions } from 'tlspool-common/process';
import { tempFolder } from '../support/cleanup.js';
import { repoRoot } from '../support/program.js';

/** Another copy, as `npm install --global` of several packages gives each of them. */
async function otherCommand(): Promise<typeof Command> {
  const copy = path.join(tempFolder(), 'commander');
  cpSync(path.join(repoRoot, 'node_modules/commander'), copy, { recursive: true });
  return (await import(pathToFileURL(path.join(copy, 'esm.mjs')).href) as { Command: typeof Command }).Command;
}

for (const [whose, load] of [['the same commander', () => Promise.resolve(Command)], ['a commander of its own', otherCommand]] as const) {
  describe(`command line of a program with ${whose}`, () => {
    let output = '';
    const parse = async (...words: readonly string[]): Promise<unknown> => {
      output = '';
      const write = (text: string): void => { output += text; };
      const program = new (await load())('program').version('1.2.3').option('--check', 'only check').configureOutput({ writeOut: write, writeErr: write });
      return parseOptions(program, ['node', 'program', ...words]);
    };

    it('options are returned', async () => { assert.deepEqual(await parse('--check'), { check: true }); });
    it('--version and --help are printed, exit code 0', async () => {
      assert.equal(await parse('--version'), 0);
      assert.equal(output, '1.2.3\n');
      assert.equal(await parse('--help'), 0);
      assert.match(output, /^Usage: program/u);
    });
    it('an unknown option and a word too many are named, exit code 2', async () => {
      assert.equal(await parse('--chekc'), 2);
      assert.match(output, /unknown option '--chekc'/u);
      assert.equal(await parse('word'), 2);
      assert.match(output, /too many arguments/u);
    });
  });
}
