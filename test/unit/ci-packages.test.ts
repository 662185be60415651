/** `.ci/run` installs what the tests need: on a machine where nothing of it is there, a test would fail for a forgotten package. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { repoRoot } from '../support/program.js';

/** Essential in Debian: nobody installs them. */
const essential = ['bsdutils', 'util-linux'];

const installed = (text: string): Set<string> => new Set((/^packages=\(\n([^]*?)^\)$/mu.exec(text)?.[1] ?? '').replace(/#.*$/gmu, '').split(/\s+/u).filter((word) => word !== ''));

/** What `needProgram(program, package)` asks for. */
const needed = (text: string): string[] => [...text.matchAll(/\bneedProgram\('[^']+', *'([^']+)'\)/gu)].map(([, name = '']) => name);

describe('.ci/run', () => {
  const packages = installed(readFileSync(path.join(repoRoot, '.ci/run'), 'utf8'));
  const folder = path.join(repoRoot, 'test');
  const sources = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts')).map((name) => readFileSync(path.join(folder, name), 'utf8'));

  it('installs the Debian package of every program that a test needs', () => {
    const names = new Set(sources.flatMap(needed));
    assert.ok(names.size >= 20, [...names].join(' '));
    assert.deepEqual([...names].filter((name) => !essential.includes(name) && !packages.has(name)).sort(), []);
  });
  it('the check sees a program whose package is not there, and not what is a comment', () => {
    assert.deepEqual([...installed('packages=(\n  curl # wget\n  g++\n)\n')], ['curl', 'g++']);
    assert.deepEqual(needed('needProgram(\'psql\', \'postgresql-client\')'), ['postgresql-client']);
  });
});
