/** The pages that a new user reads: their links lead somewhere, and what they claim of the sources is so. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { version as proxyVersion } from 'tlspool-proxy';
import { repoRoot } from '../support/program.js';

const read = (file: string): string => readFileSync(path.join(repoRoot, file), 'utf8');
const json = (file: string): Record<string, unknown> => JSON.parse(read(file)) as Record<string, unknown>;
const markdownIn = (folder: string): string[] => readdirSync(path.join(repoRoot, folder)).filter((name) => name.endsWith('.md')).map((name) => path.join(folder, name));
const pages = [...markdownIn('.'), ...markdownIn('docs'), ...markdownIn('docs/proxy'), ...['libtlspool', 'common', 'daemon', 'proxy', 'bench'].flatMap(markdownIn)];

/** GitHub's names for the headings of a page. */
const anchors = (page: string): Set<string> => new Set([...page.replace(/^```[^]*?^```/gmu, '').matchAll(/^#+ (.+)$/gmu)]
  .map(([, title = '']) => title.toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, '').replace(/\s/gu, '-')));

/** What is wrong with the relative links of a page, given where it lies. */
function deadLinks(file: string, text: string): string[] {
  const targets = [...text.replace(/^```[^]*?^```/gmu, '').matchAll(/\]\(([^)\s]+)\)/gu)].map(([, target = '']) => target);
  return targets.filter((target) => !/^[a-z]+:/u.test(target)).filter((target) => {
    const [relative = '', anchor] = target.split('#');
    const full = relative === '' ? path.join(repoRoot, file) : path.resolve(repoRoot, path.dirname(file), relative);
    if (!existsSync(full)) return true;
    return anchor !== undefined && !(statSync(full).isFile() && anchors(readFileSync(full, 'utf8')).has(anchor));
  });
}

describe('documentation: links', () => {
  it('there are pages to check', () => { assert.ok(pages.length >= 10, pages.join(' ')); });
  for (const page of pages) {
    it(`every relative link of ${page} leads somewhere`, () => { assert.deepEqual(deadLinks(page, read(page)), []); });
  }
  it('the check sees a file and an anchor that are not there, and takes those that are', () => {
    assert.deepEqual(deadLinks('docs/README.md', '[a](gone.md) [b](../README.md#gone) [c](../README.md#limits) [d](https://example.org/gone)'), ['gone.md', '../README.md#gone']);
  });
  it('docs/README.md leads to every page', () => {
    const index = read('docs/README.md');
    const missing = markdownIn('docs').map((file) => path.basename(file)).filter((name) => name !== 'README.md' && !index.includes(`](${name})`));
    assert.deepEqual(missing, []);
  });
});

describe('documentation: SECURITY.md', () => {
  const text = read('SECURITY.md');
  const proofs = [...text.matchAll(/^ +- (test\/\S+): "(.+)"$/gmu)].map(([, file = '', title = '']) => ({ file, title }));

  it('has ten promises, each with a test', () => {
    const promises = text.split(/^(?=\d+\. \*\*)/mu).slice(1);
    assert.equal(promises.length, 10);
    for (const promise of promises) assert.match(promise, /^ +- test\/\S+: "/mu, promise.slice(0, 60));
  });
  for (const { file, title } of proofs) {
    it(`${file} has the test "${title}"`, () => {
      assert.ok(read(file).replaceAll('\\\'', '\'').includes(title), 'the title has changed: change it in SECURITY.md too');
    });
  }
});

describe('documentation: CONTRIBUTING.md', () => {
  const text = read('CONTRIBUTING.md');
  const scripts = Object.keys(json('package.json')['scripts'] as object);
  /** Same as another one, or run by it. */
  const aliases = ['build'];

  it('names commands that exist, and every command that does', () => {
    const named = [...text.matchAll(/`npm (?:run )?([a-z:]+)`/gu)].map(([, name = '']) => name);
    assert.deepEqual([...new Set(named)].sort(), scripts.filter((name) => !aliases.includes(name)).sort());
  });
  it('names rooms that exist, and every room that does', () => {
    const table = /## Where is what\n([^]*?)\n## /u.exec(`${text}\n## `)?.[1] ?? '';
    const rooms = [...table.matchAll(/^\| (.+?) \|/gmu)].flatMap(([, cell = '']) => [...cell.matchAll(/`([^`]+)`/gu)].map(([, room = '']) => room));
    assert.deepEqual(rooms.filter((room) => !existsSync(path.join(repoRoot, room))), []);
    const there = ['common', 'daemon', 'proxy'].flatMap((room) => readdirSync(path.join(repoRoot, room, 'src'), { withFileTypes: true }).filter((entry) => entry.isDirectory()).map(({ name }) => `${room}/src/${name}`));
    assert.deepEqual(there.filter((room) => !rooms.includes(room)), []);
  });
});

describe('documentation: packages', () => {
  const folders = ['.', 'libtlspool', 'common', 'daemon', 'proxy'];

  it('each carries the Apache License 2.0, unmodified', () => {
    for (const folder of folders) {
      // The digest of https://www.apache.org/licenses/LICENSE-2.0.txt.
      assert.equal(createHash('sha256').update(read(path.join(folder, 'LICENSE'))).digest('hex'), 'cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30', folder);
      assert.equal(json(path.join(folder, 'package.json'))['license'], 'Apache-2.0');
    }
  });
  it('all have one version, which CHANGELOG.md has first', () => {
    const versions = folders.map((folder) => json(path.join(folder, 'package.json'))['version']);
    const [, newest] = /^## (\S+)$/mu.exec(read('CHANGELOG.md')) ?? [];
    assert.deepEqual([...new Set(versions)], [newest]);
    assert.equal(proxyVersion, newest);
  });
});
