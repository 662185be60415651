import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type ConfigError, loadConfig } from 'tlspool/dist/config/index.js';
import { hasAllow, peerNameKinds, type PeerNameKind } from 'tlspool/dist/policy/peers.js';

const pin = `sha256:${'A'.repeat(43)}=`;

describe('configuration of peers, revisions and PKCS#12', () => {
  let folder: string;
  beforeEach(() => { folder = mkdtempSync(path.join(tmpdir(), 'cfg-')); });
  afterEach(() => { rmSync(folder, { recursive: true, force: true }); });

  const load = (identity: Readonly<Record<string, unknown>>) => {
    const file = path.join(folder, 'pool.yaml');
    writeFileSync(file, JSON.stringify({ identities: [{ localid: 'a', ...('pkcs12' in identity ? {} : { directory: 'd' }), ...identity }] }), { mode: 0o600 });
    return loadConfig(file).identities[0];
  };
  const refusal = (identity: Readonly<Record<string, unknown>>): ConfigError => {
    try {
      load(identity);
    } catch (error) {
      return error as ConfigError;
    }
    throw new assert.AssertionError({ message: `accepted: ${JSON.stringify(identity)}` });
  };

  const table: Readonly<Record<PeerNameKind, { readonly good: readonly (readonly [text: string, canonical: string])[]; readonly bad: readonly string[] }>> = {
    dns: {
      good: [['Web.Example.ORG.', 'web.example.org'], ['*.example.org', '*.example.org'], ['bücher.example', 'xn--bcher-kva.example']],
      bad: ['', '*', '*.', 'a.*.b', 'a*.b', '1.2.3.4', 'a b'],
    },
    uri: {
      good: [['SPIFFE://Example.ORG/ns/Prod', 'spiffe://example.org/ns/Prod'], ['spiffe://td/*/sa/**', 'spiffe://td/*/sa/**'], ['URN:x:Y', 'urn:x:Y'], ['https://h/', 'https://h/'], [`urn:${'x'.repeat(2044)}`, `urn:${'x'.repeat(2044)}`]],
      bad: ['', 'x', '/a', 'spiffe://*/a', 'spiffe://td/a*', 'spiffe://td/**/a', 'spiffe://td/../a', 'spiffe://td/./a', 'spiffe://td//a', 'spiffe://td/%61', 'spiffe://td/ü', 'spiffe://td/a b', 'urn:*', `urn:${'x'.repeat(2045)}`],
    },
    email: { good: [['Ann@Example.ORG', 'Ann@example.org'], ['"a@b"@c.d', '"a@b"@c.d']], bad: ['', 'a', '@b', 'a@', 'a@*.b', 'a b@c', 'ü@c.d'] },
    ip: {
      good: [['192.0.2.7', '192.0.2.7'], ['192.0.2.0/24', '192.0.2.0/24'], ['0.0.0.0/0', '0.0.0.0/0'], ['2001:db8::/32', '2001:db8::/32'], ['::/0', '::/0'], ['::1/128', '::1/128'], ['::ffff:10.0.0.0/104', '::ffff:10.0.0.0/104'], ['fe80::/9', 'fe80::/9']],
      bad: ['', 'localhost', '1.2.3', '1.2.3.4/33', '1.2.3.4/24', '1.2.3.4/x', '1.2.3.4/', '1.2.3.0/24/1', '::1/129', '::1/64', '::ffff:10.0.0.1/104', 'fe80::1%lo', 'ff80::/8'],
    },
    cn: { good: [['Wéb client', 'Wéb client'], ['*', '*'], ['x'.repeat(1024), 'x'.repeat(1024)]], bad: ['', 'a\nb', 'x'.repeat(1025), '\ud800'] },
    ou: { good: [['Blue', 'Blue']], bad: ['', 'a\0b', `${'ü'.repeat(512)}x`] },
    spki: { good: [[pin, pin]], bad: ['', 'sha256:', `sha1:${'A'.repeat(43)}=`, `sha256:${'A'.repeat(43)}`, `sha256:${'A'.repeat(42)}B=`, `${pin} `] },
  };

  it('every kind is in the table', () => { assert.deepEqual(Object.keys(table), Object.keys(peerNameKinds)); });
  for (const [kind, { good, bad }] of Object.entries(table)) {
    it(`peers.${kind}: good entries are brought into one form, and each bad one is refused at its place`, () => {
      for (const [text, canonical] of good) assert.deepEqual(load({ peers: { allow: { [kind]: [text] } } })?.peers, { allow: { [kind]: [canonical] } });
      for (const text of bad) {
        const { problems } = refusal({ peers: { deny: { [kind]: [text] } } });
        assert.deepEqual(problems.map(({ field }) => field), [`identities[0].peers.deny.${kind}[0]`], JSON.stringify(text));
      }
    });
  }

  it('a list takes 1000 entries and not one more', () => {
    assert.equal(load({ peers: { allow: { cn: Array(1000).fill('x') } } })?.peers?.allow?.cn?.length, 1000);
    assert.equal(refusal({ peers: { allow: { cn: Array(1001).fill('x') } } }).problems[0]?.field, 'identities[0].peers.allow.cn');
  });
  it('a misspelt key is refused, so that no rule is overlooked', () => {
    assert.match(refusal({ peers: { alow: {} } }).message, /identities\[0\]\.peers\.alow: unknown key "alow"; did you mean "allow"\?/);
    assert.match(refusal({ peers: { allow: { url: ['x'] } } }).message, /identities\[0\]\.peers\.allow\.url: unknown key "url"; did you mean "uri"\?/);
    assert.match(refusal({ peers: { allow: { dns: 'a.b' } } }).message, /"a\.b" is not a list/);
  });
  it('only entries make an allow list', () => {
    assert.deepEqual([undefined, {}, { allow: {} }, { allow: { dns: [] } }, { deny: { dns: ['a.b'] } }, { allow: { dns: [], ou: ['x'] } }].map((rules) => hasAllow(rules)), [false, false, false, false, false, true]);
  });

  it('priorRevisions goes from 0 to 1000000, and is absent unless it is given', () => {
    assert.deepEqual([0, 1_000_000].map((priorRevisions) => load({ priorRevisions })?.priorRevisions), [0, 1_000_000]);
    for (const priorRevisions of [-1, 1_000_001, 0.5, '1']) assert.equal(refusal({ priorRevisions }).problems[0]?.field, 'identities[0].priorRevisions');
    assert.equal('priorRevisions' in (load({}) ?? {}), false);
  });

  it('PKCS#12 needs a file, and takes a password file and trust', () => {
    assert.deepEqual(load({ pkcs12: { file: 'a.p12', passwordFile: '/p' }, trust: 't.pem' })?.source, { kind: 'pkcs12', file: path.join(folder, 'a.p12'), passwordFile: '/p', trust: path.join(folder, 't.pem') });
    assert.deepEqual(load({ pkcs12: { file: '/a', passwordFile: '/p' } })?.source, { kind: 'pkcs12', file: '/a', passwordFile: '/p' });
    assert.deepEqual(load({ pkcs12: { file: '/a' } })?.source, { kind: 'pkcs12', file: '/a' });
    assert.match(refusal({ pkcs12: { passwordFile: '/p' } }).message, /pkcs12\.file: required key is missing/);
    assert.match(refusal({ pkcs12: { file: 'a', passwordFile: 'p' }, directory: 'd' }).message, /has a directory and also files/);
    assert.match(refusal({ pkcs12: { file: 'a', passwordFile: 'p' }, certificate: 'c', key: 'k' }).message, /has pkcs12 and also certificate or key/);
  });
});
