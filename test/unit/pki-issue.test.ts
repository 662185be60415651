import 'reflect-metadata';
import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import * as x509 from '@peculiar/x509';
import { initCa, issue, maxLeafDays, type IssueOptions } from 'tlspool/dist/pki/index.js';

const dayMs = 86_400_000;

describe('development PKI', () => {
  let folder: string;
  let ca: string;
  let out: string;
  beforeEach(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'pki-'));
    ca = path.join(folder, 'ca');
    out = path.join(folder, 'id');
    await initCa(ca);
  });
  afterEach(() => { rmSync(folder, { recursive: true, force: true }); });

  const leafOf = (file: string) => new x509.X509Certificate(readFileSync(file, 'utf8'));
  const issued = async (options: Partial<IssueOptions> = {}) => leafOf((await issue(ca, { name: 'www.example.org', out, ...options })).certificateFile);
  const rejected = (options: Partial<IssueOptions>, expected: object) => assert.rejects(issue(ca, { name: 'www.example.org', out, ...options }), expected);

  describe('the authority', () => {
    it('is a P-256 root with the extensions of RFC 5280 that mark a certificate authority', () => {
      const root = leafOf(path.join(ca, 'ca.crt'));
      const basic = root.getExtension(x509.BasicConstraintsExtension)!;
      assert.deepEqual([basic.ca, basic.pathLength, basic.critical], [true, 0, true]);
      const usages = root.getExtension(x509.KeyUsagesExtension)!;
      assert.deepEqual([usages.usages, usages.critical], [x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true]);
      assert.ok(root.getExtension(x509.SubjectKeyIdentifierExtension));
      assert.equal(root.getExtension('2.5.29.30'), null, 'no name constraints');
      assert.equal(root.notAfter.getTime() - root.notBefore.getTime(), 3650 * dayMs);
    });
    it('is written for its owner alone, and nothing else is left in the folder', () => {
      assert.deepEqual(readdirSync(ca).sort(), ['ca.crt', 'ca.key']);
      assert.deepEqual(['', 'ca.crt', 'ca.key'].map((name) => statSync(path.join(ca, name)).mode & 0o777), [0o700, 0o600, 0o600]);
    });
    it('is kept when it is there', async () => {
      const before = readFileSync(path.join(ca, 'ca.crt'));
      assert.equal((await initCa(ca)).created, false);
      assert.deepEqual(readFileSync(path.join(ca, 'ca.crt')), before);
    });
    it('is not made anew over half of an old one', async () => {
      unlinkSync(path.join(ca, 'ca.crt'));
      await assert.rejects(initCa(ca), { code: 'BAD_ARGUMENT', message: /ca\.key exists without .*ca\.crt/ });
    });
    it('takes a name of 64 octets and refuses one of 65, an empty one, control characters and a leading #', async () => {
      const made = await initCa(path.join(folder, 'ca2'), { name: 'n'.repeat(64) });
      assert.equal(leafOf(made.certificateFile).subject, `CN=${'n'.repeat(64)}`);
      for (const name of ['n'.repeat(65), '', 'a\nb', '#04']) await assert.rejects(initCa(path.join(folder, 'ca3'), { name }), { code: 'BAD_ARGUMENT', field: 'name' });
    });
  });

  describe('a certificate', () => {
    for (const keyType of ['ecdsa', 'rsa'] as const) {
      it(`for an ${keyType} key is signed by the authority and belongs to its key`, async () => {
        const made = await issue(ca, { name: 'www.example.org', out, keyType });
        const leaf = new X509Certificate(readFileSync(made.certificateFile));
        const root = new X509Certificate(readFileSync(made.trustFile));
        assert.ok(leaf.checkIssued(root) && leaf.verify(root.publicKey) && leaf.checkPrivateKey(createPrivateKey(readFileSync(made.keyFile))));
        const { namedCurve, modulusLength } = leaf.publicKey.asymmetricKeyDetails!;
        assert.deepEqual([namedCurve, modulusLength], keyType === 'ecdsa' ? ['prime256v1', undefined] : [undefined, 2048]);
      });
    }
    it('has the extensions that OpenSSL, GnuTLS and browsers ask for', async () => {
      const leaf = await issued();
      const root = leafOf(path.join(ca, 'ca.crt'));
      assert.deepEqual([leaf.getExtension(x509.BasicConstraintsExtension)?.ca, leaf.getExtension(x509.BasicConstraintsExtension)?.critical], [false, true]);
      assert.equal(leaf.getExtension(x509.KeyUsagesExtension)?.usages, x509.KeyUsageFlags.digitalSignature);
      assert.equal(leaf.getExtension(x509.AuthorityKeyIdentifierExtension)?.keyId, root.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId);
      assert.ok(leaf.getExtension(x509.SubjectKeyIdentifierExtension));
      assert.match(leaf.serialNumber, /^[4-7][0-9a-f]{31}$/);
    });
    it('is for servers, for clients, or for both, as asked', async () => {
      const usages = async (options: Partial<IssueOptions>) => [...((await issued(options)).getExtension(x509.ExtendedKeyUsageExtension)?.usages ?? [])] as string[];
      const { serverAuth, clientAuth }: Record<string, string> = x509.ExtendedKeyUsage;
      assert.deepEqual(await usages({}), [serverAuth]);
      assert.deepEqual(await usages({ client: true }), [clientAuth]);
      assert.deepEqual(await usages({ client: true, server: true }), [serverAuth, clientAuth]);
      await rejected({ server: false }, { code: 'BAD_ARGUMENT', field: 'server' });
    });
    it('carries each kind of name, host names in A-label form', async () => {
      await issued({ dns: ['*.Bücher.example.'], ip: ['127.0.0.1', '2001:db8::1'], uri: ['spiffe://example.org/web'], email: ['a@example.org'] });
      const leaf = new X509Certificate(readFileSync(path.join(out, 'tls.crt')));
      assert.equal(leaf.subjectAltName, 'DNS:*.xn--bcher-kva.example, IP Address:127.0.0.1, IP Address:2001:DB8:0:0:0:0:0:1, URI:spiffe://example.org/web, email:a@example.org');
    });
    it('without other names carries its own, as DNS name or as address', async () => {
      const names = async (name: string) => { await issued({ name }); return new X509Certificate(readFileSync(path.join(out, 'tls.crt'))).subjectAltName; };
      assert.equal(await names('localhost'), 'DNS:localhost');
      assert.equal(await names('::1'), 'IP Address:0:0:0:0:0:0:0:1');
    });
    it('is refused for names that are none', async () => {
      await rejected({ name: 'two words' }, { code: 'BAD_ARGUMENT', field: 'dns' });
      for (const dns of ['', 'a b', '*.*.x', 'a..b', '-x.org']) await rejected({ dns: [dns] }, { code: 'BAD_ARGUMENT', field: 'dns' });
      for (const ip of ['', '1.2.3', 'fe80::1%eth0', 'localhost']) await rejected({ ip: [ip] }, { code: 'BAD_ARGUMENT', field: 'ip' });
      for (const uri of ['', 'relative/path', 'spiffe://exämple.org', 'a b:c']) await rejected({ uri: [uri] }, { code: 'BAD_ARGUMENT', field: 'uri' });
      for (const email of ['', 'a', '@b', 'a@', 'a@b@c', 'a b@c']) await rejected({ email: [email] }, { code: 'BAD_ARGUMENT', field: 'email' });
    });
    it('lives 1 to 397 days and not longer, which is what browsers take', async () => {
      for (const days of [1, maxLeafDays]) {
        const leaf = await issued({ days });
        assert.equal(leaf.notAfter.getTime() - leaf.notBefore.getTime(), days * dayMs);
      }
      for (const days of [0, maxLeafDays + 1, 1.5, NaN]) await rejected({ days }, { code: 'BAD_ARGUMENT', field: 'days' });
    });
    it('is valid on a clock that is a little behind, and never outlives the authority', async () => {
      assert.ok((await issued()).notBefore.getTime() <= Date.now() - 290_000);
      const root = leafOf(path.join(ca, 'ca.crt'));
      assert.deepEqual((await issued({ notBefore: new Date(root.notAfter.getTime() - 5 * dayMs) })).notAfter, root.notAfter);
      await rejected({ notBefore: root.notAfter }, { code: 'BAD_ARGUMENT', message: /expires on/ });
    });
    it('is written for its owner alone, replaces an older one, and a second pair stands beside it', async () => {
      const first = await issued();
      const second = await issued();
      assert.notEqual(first.serialNumber, second.serialNumber);
      await issued({ pair: 'tls-rsa', keyType: 'rsa' });
      assert.deepEqual(readdirSync(out).sort(), ['ca.crt', 'tls-rsa.crt', 'tls-rsa.key', 'tls.crt', 'tls.key']);
      for (const file of readdirSync(out)) assert.equal(statSync(path.join(out, file)).mode & 0o777, 0o600, file);
      for (const pair of ['ca', '../x', '', '.x']) await rejected({ pair }, { code: 'BAD_ARGUMENT', field: 'pair' });
    });
    it('is not made without an authority, nor with one whose key others can read, nor with a damaged one', async () => {
      await assert.rejects(issue(path.join(folder, 'none'), { name: 'a', out }), { code: 'BAD_ARGUMENT', message: /tlspool pki init/ });
      chmodSync(path.join(ca, 'ca.key'), 0o604);
      await rejected({}, { code: 'IDENTITY_BAD', message: /mode 0604/ });
      chmodSync(path.join(ca, 'ca.key'), 0o600);
      writeFileSync(path.join(ca, 'ca.crt'), 'garbage');
      await rejected({}, { code: 'IDENTITY_BAD' });
      assert.equal(statSync(out, { throwIfNoEntry: false }), undefined);
    });
  });
});
