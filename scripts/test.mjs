// `node scripts/test.mjs {unit|contract|system|interop|fuzz|native|all}... [-- mocha options]`: one mocha run over the compiled
// tests of the groups. Leaves the counts in build/test-results.json, which .ci/run reads; a run that did not end leaves none.
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { root, run, script, ScriptError } from './lib/run.mjs';

const groups = ['unit', 'contract', 'system', 'interop', 'fuzz', 'native'];
const resultsFile = path.join(root, 'build/test-results.json');

await script(async () => {
  const { files, options } = parseArguments(process.argv.slice(2));
  mkdirSync(path.dirname(resultsFile), { recursive: true });
  rmSync(resultsFile, { force: true });
  const mocha = path.join(root, 'node_modules/mocha/bin/mocha.js');
  const reporter = path.join(root, 'scripts/lib/reporter.cjs');
  await run(process.execPath, [mocha, '--reporter', reporter, '--reporter-option', `results=${resultsFile}`, ...options, ...files]);
});

function parseArguments(words) {
  const end = words.indexOf('--');
  const names = end < 0 ? words : words.slice(0, end);
  const unknown = names.filter((name) => name !== 'all' && !groups.includes(name));
  if (names.length === 0 || unknown.length > 0) {
    throw new ScriptError(`usage: node scripts/test.mjs {${groups.join('|')}|all}... [-- mocha options]${unknown.length > 0 ? `; there is no group ${unknown.join(', ')}` : ''}`);
  }
  const chosen = names.includes('all') ? groups : groups.filter((group) => names.includes(group));
  const files = chosen.flatMap(testFiles);
  // An empty run would look like success.
  if (files.length === 0) throw new ScriptError(`There is no test in build/test of: ${chosen.join(', ')}. Has \`npm run build\` been run?`);
  return { files, options: end < 0 ? [] : words.slice(end + 1) };
}

/** Compiled tests whose source still exists: tsc leaves the output of deleted files behind. */
function testFiles(group) {
  const folder = path.join(root, 'build/test', group);
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true }).filter((file) => file.endsWith('.test.js'))
    .filter((file) => existsSync(path.join(root, 'test', group, file.replace(/\.js$/, '.ts')))).sort().map((file) => path.join(folder, file));
}
