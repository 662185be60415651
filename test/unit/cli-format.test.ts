import assert from 'node:assert/strict';
import { poolCommands } from 'tlspool/dist/cli/commands.js';
import type { PoolCommand } from 'tlspool/dist/cli/commands.js';
import { duration, list, moment, octets, printable, table } from 'tlspool/dist/cli/format.js';
import { runCli } from 'tlspool/dist/cli/index.js';
import { TlsPoolError } from 'libtlspool/protocol';
import { RateLimit } from 'tlspool-common/log';
import { exitCodeOf } from 'tlspool-common/process';

async function cli(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  let [out, err] = ['', ''];
  const code = await runCli(['node', 'tlspool', ...args], { out: (text) => { out += text; }, err: (text) => { err += text; } });
  return { code, out, err };
}

describe('cli output', () => {
  it('text of peers cannot steer a terminal', () => {
    assert.equal(printable('a\u001b[2Jb\nc\u202ed\u200be\u0085f'), 'a\\u{1b}[2Jb\\u{a}c\\u{202e}d\\u{200b}e\\u{85}f');
    assert.equal(printable('gr\u00fc\u00dfe \u4e16\u754c'), 'gr\u00fc\u00dfe \u4e16\u754c');
  });

  it('tables line up, numbers to the right, and what is absent is a dash', () => {
    assert.equal(table(['name', 'count', 'none'], [['a', 5, undefined], ['long', 1234, undefined]]), 'NAME  COUNT  NONE\na         5  -\nlong   1234  -');
  });

  it('lists leave out what is absent', () => {
    assert.equal(list([['a', 1], ['long', undefined], ['bb', true]]), 'a   1\nbb  yes');
  });

  it('octets, durations and moments are for people', () => {
    assert.deepEqual([0, 1023, 1024, 1536, 2 ** 50].map(octets), ['0 B', '1023 B', '1.0 KiB', '1.5 KiB', '1.0 PiB']);
    assert.deepEqual([-5, 999, 59_000, 60_000, 93_784_000].map(duration), ['0s', '0s', '59s', '1m 0s', '1d 2h']);
    assert.equal(moment(0), '1970-01-01T00:00:00Z');
  });
});

describe('cli exit codes', () => {
  for (const [code, expected] of [['POOL_UNREACHABLE', 3], ['TIMEOUT', 3], ['POOL_LOST', 3], ['CONFIG_BAD', 2], ['IDENTITY_BAD', 2], ['NOT_PERMITTED', 1], ['INTERNAL', 1]] as const) {
    it(`${code} ends with ${expected}`, () => { assert.equal(exitCodeOf(new TlsPoolError(code)), expected); });
  }

  it('usage errors end with 2 and say what is wrong', async () => {
    for (const args of [['frobnicate'], ['--timeout', '0', 'ping'], ['--timeout', '3601', 'ping'], ['ping', '--what'], ['pki', 'issue'], ['pki', 'issue', 'x', '--days', '398'], ['pki', 'issue', 'x', '--key-type', 'dsa']]) {
      const { code, err } = await cli(...args);
      assert.equal(code, 2, args.join(' '));
      assert.match(err, /error:/);
    }
  });

  it('help and version end with 0, and help lists the exit codes', async () => {
    const help = await cli('--help');
    assert.equal(help.code, 0);
    assert.match(help.out, /3 {2}no pool answers/);
    assert.equal((await cli('--version')).code, 0);
  });

  it('no pool ends with 3 and names the path; as JSON too', async () => {
    const text = await cli('--socket', '/nowhere/pool.sock', 'ping');
    assert.equal(text.code, 3);
    assert.match(text.err, /\/nowhere\/pool\.sock/);
    const json = await cli('--json', '--socket', '/nowhere/pool.sock', 'ping');
    assert.equal(json.code, 3);
    assert.equal((JSON.parse(json.err) as { error: { code: string } }).error.code, 'POOL_UNREACHABLE');
  });
});

describe('cli: lists that come in pages', () => {
  /** A pool that gives `rows` in pages, and says how often it was asked. */
  function paging<Row>(rows: readonly Row[], most: number, keyOf: (row: Row) => string | number, field: string): { pool: Parameters<PoolCommand>[0]; asked: () => number } {
    let asked = 0;
    const request = (_op: string, { after }: { after?: string | number }): object => {
      asked += 1;
      const rest = rows.filter((row) => after === undefined || keyOf(row) > after);
      const page = rest.slice(0, most);
      const last = page.at(-1);
      return { [field]: page, ...(page.length < rest.length && last !== undefined && { next: keyOf(last) }) };
    };
    return { pool: { request } as unknown as Parameters<PoolCommand>[0], asked: () => asked };
  }
  const sessions = Array.from({ length: 5000 }, (_, n) => ({ session: n * 256, role: 'server', protocol: 'TLSv1.3', cipher: 'c', resumed: false, authorized: false, startedAtMs: 0 }));
  const identities = Array.from({ length: 3000 }, (_, n) => ({ localid: `n${String(n).padStart(5, '0')}`, names: [], revision: 1, source: 's', policy: 'modern', clientAuth: 'none', isDefault: false, certificates: [], trustRoots: 0 }));

  it('all sessions are shown, each once and in order', () => {
    const { pool, asked } = paging(sessions, 77, ({ session }) => session, 'sessions');
    const { value, text } = poolCommands.sessions(pool);
    assert.deepEqual(value, { sessions });
    assert.equal(asked(), Math.ceil(5000 / 77));
    assert.equal(text.split('\n').length, 5001);
  });

  it('all identities are shown, each once and in order', () => {
    const { pool, asked } = paging(identities, 99, ({ localid }) => localid, 'identities');
    const { value, text } = poolCommands.identities(pool);
    assert.deepEqual(value, { identities });
    assert.equal(asked(), Math.ceil(3000 / 99));
    assert.equal(text.split('\n').length, 3001);
  });

  it('a page that is exactly the last one ends the list', () => {
    const { pool, asked } = paging(sessions.slice(0, 154), 77, ({ session }) => session, 'sessions');
    assert.deepEqual(poolCommands.sessions(pool).value, { sessions: sessions.slice(0, 154) });
    assert.equal(asked(), 2);
  });

  it('a table of 200,000 rows can be made', () => {
    assert.equal(table(['n'], Array.from({ length: 200_000 }, (_, n) => [n])).length, 200_000 * 7 + 6);
  });
});

describe('rate limit', () => {
  it('lets so many through in a second, counts the rest, and starts anew', () => {
    let nowMs = 0;
    const reports: number[] = [];
    const limit = new RateLimit(3, (count) => { reports.push(count); }, () => nowMs);
    assert.deepEqual(Array.from({ length: 5 }, () => limit.take()), [true, true, true, false, false]);
    nowMs = 999;
    assert.equal(limit.take(), false);
    nowMs = 1000;
    assert.equal(limit.take(), true);
    limit.close();
    limit.close();
    assert.deepEqual(reports, [3]);
  });
});
