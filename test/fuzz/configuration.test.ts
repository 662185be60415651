/** Configuration files against everything: one is read, or refused with places that are in the file; nothing else happens. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { TlsPoolError } from 'libtlspool/protocol';
import { loadConfig } from 'tlspool/dist/config/index.js';
import type { Surroundings } from 'tlspool/dist/config/defaults.js';
import { parseYaml } from 'tlspool-common/config';
import type { ConfigError } from 'tlspool-common/config';
import { loadProxyConfig } from 'tlspool-proxy/dist/config/load.js';
import { parseDocument } from 'yaml';
import { repoRoot } from '../support/index.js';

const numRuns = Number(process.env['TLSPOOL_FUZZ_RUNS'] ?? '400');
const host: Surroundings = { uid: 0, env: {}, home: '/root', cwd: '/', workers: 2, tlspoolGid: 77, systemRoots: '/roots.pem' };

const fragment = fc.constantFrom(
  ': ', '- ', '? ', '{', '}', '[', ']', ',', '&a ', '*a', '!!int ', '!x ', '"', "'", '|\n', '>-\n', '\n', '\n  ', '\n- ', '\t', '\0', '\r', '#', '---\n', '...\n', '%YAML 9\n', '<<: ', '=', '\u2028', '\ud800', '\ufeff',
  '0', '-1', '0x10', '0o77', '1e400', '.inf', '.nan', '9007199254740993', 'null', '~', 'true', 'on', '2026-11-21', 'constructor: ', '__proto__: ', 'toString', 'localid: www', 'socket', '*.example', 'ä.example', '.', '/', '[::1]:443', '65536',
);
/** A file with some places cut out, doubled, or with fragments between. */
const edited = (text: string): fc.Arbitrary<string> => fc.array(fc.record({ at: fc.nat(text.length), cut: fc.oneof(fc.constant(0), fc.nat(40)), put: fc.oneof(fragment, fc.constant(''), fc.nat(text.length).map((at) => text.slice(at, at + 60))) }), { minLength: 1, maxLength: 6 })
  .map((edits) => edits.reduce((now, { at, cut, put }) => now.slice(0, at) + put + now.slice(at + cut), text));
const fromFragments = fc.array(fc.oneof(fragment, fc.constantFrom('a', 'b', ' ')), { maxLength: 40 }).map((parts) => parts.join(''));

describe('configuration files against everything', function () {
  this.timeout(120_000);
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tlspool-fuzz-'));
  const file = path.join(folder, 'file.yaml');
  after(() => { fs.rmSync(folder, { recursive: true }); });

  for (const [example, load] of [['tlspool.yaml', (name: string): unknown => loadConfig(name, {}, host)], ['proxy.yaml', (name: string): unknown => loadProxyConfig(name)]] as const) {
    it(`${example} with changes is read, or each mistake has a place in it`, () => {
      const text = fs.readFileSync(path.join(repoRoot, 'examples', example), 'utf8');
      const outcomes = { read: 0, refused: 0 };
      fc.assert(fc.property(edited(text), (changed) => {
        fs.writeFileSync(file, changed, { mode: 0o600 });
        try {
          load(file);
          outcomes.read++;
        } catch (error) {
          assert.ok(error instanceof TlsPoolError && error.code === 'CONFIG_BAD', String(error));
          outcomes.refused++;
          const lines = changed.split('\n').length;
          for (const { line, column, text: said } of (error as ConfigError).problems) {
            assert.ok(line >= 1 && line <= lines && column >= 1 && column <= changed.length + 1, `${line}:${column} of ${lines} lines`);
            assert.match(said, /^[^\n\r\0]+$/u);
          }
        }
      }), { numRuns: numRuns * 3 });
      assert.ok(outcomes.read > numRuns / 20 && outcomes.refused > numRuns / 2, JSON.stringify(outcomes));
    });
  }

  it('the same documents are refused as by the parser that compares each key with all others, and the rest means the same', () => {
    fc.assert(fc.property(fromFragments, (text) => {
      const ours = parseYaml(text);
      const theirs = parseDocument(text, { prettyErrors: false, strict: true, stringKeys: true });
      const aliases = ours.problems.filter(({ text: said }) => said.includes('alias of nothing'));
      assert.equal(ours.problems.length - aliases.length, theirs.errors.length + theirs.warnings.length, JSON.stringify([ours.problems, theirs.errors]));
      if (ours.problems.length === 0) assert.deepEqual(ours.data, theirs.toJS() ?? {});
      else if (theirs.errors.length === 0 && aliases.length > 0) assert.throws(() => { theirs.toJS(); }, ReferenceError);
    }), { numRuns: numRuns * 10 });
  });
});
