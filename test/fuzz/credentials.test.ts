/** Files of credentials against everything: they are used, or refused with the file and a cure. Nothing else happens, and no octet of a key is told. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { TlsPoolError } from 'libtlspool/protocol';
import { engine as addon } from 'tlspool/dist/engine.js';
import type { Engine } from 'tlspool/dist/engine.js';
import { directorySource, pkcs12Source, Store } from 'tlspool/dist/identity/index.js';
import type { IdentitySource } from 'tlspool/dist/identity/index.js';
import { RuleAccess } from 'tlspool/dist/policy/index.js';
import { makeCert } from '../unit/identity-support.js';

const numRuns = Number(process.env['TLSPOOL_FUZZ_RUNS'] ?? '400');
/** Far above what a file takes, and far below what one that goes on for ever takes. */
const slowMs = 5_000;

const label = (word: string): string => `-----${word}-----\n`;
const fragment = fc.constantFrom(
  '', '\n', '\r\n', '\0', ' ', '=', '====', '-----', 'A', 'AAAA', '\u00e4', '\ufeff', label('BEGIN CERTIFICATE'), label('END CERTIFICATE'), label('BEGIN PRIVATE KEY'), label('END PRIVATE KEY'), label('BEGIN EC PRIVATE KEY'),
  label('BEGIN ENCRYPTED PRIVATE KEY'), label('BEGIN RSA PRIVATE KEY'), label('BEGIN X509 CRL'), label('BEGIN TRUSTED CERTIFICATE'), 'Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n', 'Bag Attributes\n',
);
/** Relative to the length, so that the edits are made for files of any length. */
const place = fc.double({ min: 0, max: 1, noNaN: true });
const textEdits = fc.array(fc.record({ at: place, cut: fc.oneof(fc.constant(0), fc.nat(80)), put: fragment }), { minLength: 1, maxLength: 3 });
const octetEdits = fc.array(fc.record({ at: fc.oneof(place, place.map((at) => at / 10)), cut: fc.nat(2), put: fc.uint8Array({ maxLength: 2 }) }), { minLength: 1, maxLength: 3 });
type TextEdits = typeof textEdits extends fc.Arbitrary<infer T> ? T : never;
type OctetEdits = typeof octetEdits extends fc.Arbitrary<infer T> ? T : never;

const editText = (text: string, edits: TextEdits): string => edits.reduce((now, { at, cut, put }) => {
  const from = Math.floor(at * now.length);
  return now.slice(0, from) + put + now.slice(from + cut);
}, text);
const editOctets = (octets: Buffer, edits: OctetEdits): Buffer => edits.reduce((now, { at, cut, put }) => {
  const from = Math.floor(at * now.length);
  return Buffer.concat([now.subarray(0, from), put, now.subarray(from + cut)]);
}, octets);

/** The same PEM around other octets. */
function editDer(pem: string, edits: OctetEdits): string {
  const [, begin = '', body = '', end = ''] = /^(-----BEGIN [^-]+-----\n)([^-]+)(-----END [^-]+-----\n?)/u.exec(pem) ?? [];
  const made = editOctets(Buffer.from(body, 'base64'), edits).toString('base64').replace(/.{64}/gu, '$&\n');
  return `${begin}${made}\n${end}${pem.slice(begin.length + body.length + end.length)}`;
}

describe('files of credentials against everything', function () {
  this.timeout(300_000);
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tlspool-fuzz-'));
  const good: Record<string, string> = {};
  let pkcs12: Buffer;
  let secrets: readonly string[];
  let engine: Engine;
  let store: Store;

  before(async () => {
    const [root, other] = [await makeCert('root', { ca: true }), await makeCert('other', { ca: true })];
    const middle = await makeCert('middle', { ca: true, issuer: root });
    const leaf = await makeCert('leaf', { issuer: middle, dns: ['a.example', '*.b.example'] });
    const rsa = await makeCert('rsa', { issuer: root, dns: ['a.example'], rsaBits: 2048 });
    Object.assign(good, { 'tls.crt': leaf.pem + middle.pem, 'tls.key': leaf.keyPem, 'rsa.crt': rsa.pem, 'rsa.key': rsa.keyPem, 'ca.crt': root.pem + other.pem });
    // Pieces of the private parts, as base64 in the files and as hexadecimal.
    secrets = [leaf, rsa].flatMap(({ key, keyPem }) => {
      const d = Buffer.from(key.export({ format: 'jwk' }).d ?? '', 'base64url').toString('hex');
      return [...keyPem.split('\n').filter((line) => !line.startsWith('-')).flatMap((line) => line.match(/.{12}/gu) ?? []).slice(6), ...d.match(/.{12}/gu) ?? []];
    });
    for (const [name, text] of Object.entries(good)) fs.writeFileSync(path.join(folder, name), text, { mode: 0o600 });
    pkcs12 = execFileSync('openssl', ['pkcs12', '-export', '-inkey', 'tls.key', '-in', 'tls.crt', '-passout', 'pass:sesame'], { cwd: folder });
    fs.mkdirSync(path.join(folder, 'id'), { mode: 0o700 });
    fs.writeFileSync(path.join(folder, 'password'), 'sesame\n', { mode: 0o600 });
    engine = new addon.Engine({ workers: 1, sessionsMax: 1, handshakesMax: 1, handshakeMs: 1000, lingerMs: 100, onEvents: () => undefined });
    store = new Store({ engine, access: new RuleAccess({ rules: [], sessionsPerClient: 1 }, 500) });
  });
  after(() => {
    engine.stop();
    fs.rmSync(folder, { recursive: true });
  });

  const outcomes = { used: 0, refused: 0 };
  beforeEach(() => { outcomes.used = outcomes.refused = 0; });

  async function isUsedOrRefused(source: IdentitySource): Promise<void> {
    const begun = performance.now();
    try {
      await store.prepare([{ localid: 'a', source, policy: 'intermediate', clientAuth: 'none', names: [], isDefault: true, ticketLifetimeS: 3600 }], undefined);
      outcomes.used++;
    } catch (error) {
      assert.ok(error instanceof TlsPoolError && error.code === 'IDENTITY_BAD', String(error));
      outcomes.refused++;
      assert.ok(error.message.includes(folder), error.message);
      assert.ok(Buffer.byteLength(error.message) <= 2048, error.message);
      assert.doesNotMatch(error.message, /[^\P{Cc}\n]/u, 'a control character of the file is told');
      const told = `${error.message} ${String((error.cause as Error | undefined)?.message)}`;
      assert.ok(!secrets.some((piece) => told.includes(piece)), 'a piece of a key is told');
    }
    const took = performance.now() - begun;
    assert.ok(took < slowMs, `took ${took} ms`);
  }

  /** The folder with one file that is not as it was. */
  async function withFile(name: string, content: string): Promise<void> {
    const id = path.join(folder, 'id');
    for (const [one, text] of Object.entries({ ...good, [name]: content })) fs.writeFileSync(path.join(id, one), text, { mode: 0o600 });
    await isUsedOrRefused(directorySource(id));
  }
  const files = fc.constantFrom('tls.crt', 'tls.key', 'rsa.crt', 'rsa.key', 'ca.crt');

  it('PEM with changes', async () => {
    await fc.assert(fc.asyncProperty(files, textEdits, async (name, edits) => { await withFile(name, editText(good[name] ?? '', edits)); }), { numRuns });
    assert.ok(outcomes.used > numRuns / 50 && outcomes.refused > numRuns / 4, JSON.stringify(outcomes));
  });

  it('PEM around DER with changes', async () => {
    await fc.assert(fc.asyncProperty(files, octetEdits, async (name, edits) => { await withFile(name, editDer(good[name] ?? '', edits)); }), { numRuns: numRuns * 2 });
    assert.ok(outcomes.used > 0 && outcomes.refused > numRuns, JSON.stringify(outcomes));
  });

  it('one file in the place of another', async () => {
    await fc.assert(fc.asyncProperty(files, files, async (name, other) => { await withFile(name, good[other] ?? ''); }), { numRuns: 50 });
    assert.ok(outcomes.used > 0 && outcomes.refused > 0, JSON.stringify(outcomes));
  });

  it('PKCS#12 with changes, and such that is nested deeply', async () => {
    const file = path.join(folder, 'id.p12');
    const source = pkcs12Source({ file, passwordFile: path.join(folder, 'password') });
    const load = async (octets: Buffer): Promise<void> => {
      fs.writeFileSync(file, octets, { mode: 0o600 });
      await isUsedOrRefused(source);
    };
    await load(pkcs12);
    assert.equal(outcomes.used, 1);
    // SEQUENCEs of indefinite length (X.690 section 8.1.3.6), as many as a file has room for.
    await load(Buffer.from('3080'.repeat(500_000), 'hex'));
    await fc.assert(fc.asyncProperty(octetEdits, async (edits) => { await load(editOctets(pkcs12, edits)); }), { numRuns });
    assert.ok(outcomes.refused > numRuns / 2, JSON.stringify(outcomes));
  });
});
