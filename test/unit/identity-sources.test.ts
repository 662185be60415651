import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { chmodSync, chownSync, closeSync, mkdirSync, mkdtempSync, openSync, readdirSync, readlinkSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { TlsPoolError } from 'libtlspool/protocol';
import { unsafeReason } from 'tlspool-common/files';
import { maxCredentialOctets, readKeyFile, readPublicFile } from 'tlspool/dist/identity/files.js';
import { checkDates, keyTypeOf, oneLine, parseCertificates, parseKey } from 'tlspool/dist/identity/inspect.js';
import { directorySource, pemFilesSource, type Material } from 'tlspool/dist/identity/index.js';
import { dnsNames, nameTable, servedNames } from 'tlspool/dist/identity/names.js';
import { pemBlocks } from 'tlspool/dist/identity/pem.js';
import { readMaterial } from 'tlspool/dist/identity/read.js';
import { defined, makeCert, writeFolder, type Cert } from './identity-support.js';

const me = defined(process.geteuid?.());

describe('identity sources', () => {
  let folder: string;
  let root: Cert;
  let middle: Cert;
  let leaf: Cert;
  let rsa: Cert;
  before(async () => {
    root = await makeCert('root', { ca: true });
    middle = await makeCert('middle', { ca: true, issuer: root });
    leaf = await makeCert('leaf', { issuer: middle, dns: ['www.example.org', '*.Example.org'] });
    rsa = await makeCert('rsa', { issuer: root, dns: ['www.example.org'], rsaBits: 2048 });
  });
  beforeEach(() => { folder = mkdtempSync(path.join(tmpdir(), 'id-')); });
  afterEach(() => { rmSync(folder, { recursive: true, force: true }); });

  const good = () => ({ 'tls.crt': leaf.pem + middle.pem, 'tls.key': leaf.keyPem });
  const load = (files: Readonly<Record<string, string | Buffer>>): Promise<Material> => {
    writeFolder(folder, files);
    return directorySource(folder).load();
  };
  const refused = (files: Readonly<Record<string, string | Buffer>>, message: RegExp) => assert.rejects(load(files), { name: 'TlsPoolError', code: 'IDENTITY_BAD', message });

  describe('a folder', () => {
    it('gives chain, key and trust', async () => {
      const { keyPairs, trust, certificateFiles } = await load({ ...good(), 'ca.crt': root.pem });
      assert.deepEqual(keyPairs.map(({ chain }) => parseCertificates(chain, '').certificates.map((one) => oneLine(one.subject))), [['CN=leaf', 'CN=middle']]);
      assert.ok(leaf.certificate.checkPrivateKey(createPrivateKey(defined(keyPairs[0]).key)));
      assert.equal(new X509Certificate(defined(trust)).subject, 'CN=root');
      assert.deepEqual(certificateFiles, [path.join(folder, 'tls.crt')]);
    });
    it('gives every pair of another key type, and ignores files of other kinds', async () => {
      const { keyPairs } = await load({ ...good(), 'tls-rsa.crt': rsa.pem, 'tls-rsa.key': rsa.keyPem, 'README': 'x', 'chain.crt': root.pem, '.hidden.key': 'x' });
      assert.deepEqual(keyPairs.map(({ key }) => createPrivateKey(key).asymmetricKeyType).sort(), ['ec', 'rsa']);
    });
    it('with ca.crt alone gives trust alone', async () => {
      const { keyPairs, trust } = await load({ 'ca.crt': root.pem + middle.pem });
      assert.deepEqual([keyPairs.length, parseCertificates(defined(trust), '').certificates.length], [0, 2]);
    });
    it('has another digest when certificate or trust changes, and the same when nothing does', async () => {
      const first = (await load(good())).digest;
      assert.equal((await load(good())).digest, first);
      const other = (await load({ ...good(), 'ca.crt': root.pem })).digest;
      assert.notEqual(other, first);
      assert.notEqual((await load({ 'ca.crt': middle.pem })).digest, other);
      assert.notEqual((await load({ 'tls.crt': leaf.pem, 'ca.crt': root.pem })).digest, other);
    });
    it('with nothing, half a pair, two keys of a type, or an authority\'s key is refused with the cure', async () => {
      await refused({}, /neither tls\.crt and tls\.key nor ca\.crt.*tlspool pki issue/);
      await refused({ 'tls.crt': leaf.pem }, /tls\.crt without tls\.key/);
      await refused({ ...good(), 'b.key': leaf.keyPem }, /b\.key without b\.crt/);
      rmSync(path.join(folder, 'b.key'));
      await refused({ ...good(), 'a.crt': leaf.pem, 'a.key': leaf.keyPem }, /a\.crt and .*tls\.crt both have a key of type ec/);
      rmSync(path.join(folder, 'a.key'));
      await refused({ ...good(), 'ca.key': root.keyPem }, /ca\.key: the key of an authority does not belong/);
    });
    it('that does not exist is named', async () => {
      await assert.rejects(directorySource(path.join(folder, 'none')).load(), { code: 'IDENTITY_BAD', message: /none: the file does not exist.*ENOENT/ });
    });
  });

  describe('PEM files', () => {
    it('give the same as a folder does, wherever they are', async () => {
      writeFolder(folder, { 'c.pem': leaf.pem + middle.pem, 'k.pem': leaf.keyPem, 't.pem': root.pem });
      const files = { certificate: path.join(folder, 'c.pem'), key: path.join(folder, 'k.pem'), trust: path.join(folder, 't.pem') };
      const { digest } = await pemFilesSource(files).load();
      rmSync(folder, { recursive: true });
      assert.equal(digest, (await load({ ...good(), 'ca.crt': root.pem })).digest);
    });
    it('are named when one is missing', async () => {
      writeFolder(folder, { 'c.pem': leaf.pem });
      await assert.rejects(pemFilesSource({ certificate: path.join(folder, 'c.pem'), key: path.join(folder, 'k.pem') }).load(), { code: 'IDENTITY_BAD', message: /k\.pem: the file does not exist/ });
    });
  });

  describe('permissions', () => {
    it('a key that everybody can read or write is refused, with its mode and the cure', async () => {
      for (const mode of [0o604, 0o602, 0o644, 0o666, 0o601 | 0o004]) {
        writeFolder(folder, good());
        chmodSync(path.join(folder, 'tls.key'), mode);
        await assert.rejects(directorySource(folder).load(), { code: 'IDENTITY_BAD', message: new RegExp(`tls\\.key has mode 0${mode.toString(8)}.*chmod 0600`) });
        chmodSync(path.join(folder, 'tls.key'), 0o600);
      }
    });
    it('a key of mode 0600, 0400 and 0640 for the pool\'s own group is taken', async () => {
      for (const mode of [0o600, 0o400, 0o640]) {
        rmSync(folder, { recursive: true });
        writeFolder(folder, good());
        chmodSync(path.join(folder, 'tls.key'), mode);
        assert.equal((await directorySource(folder).load()).keyPairs.length, 1);
      }
    });
    const owner = { uid: 500, gid: 600 };
    const cases: [title: string, stat: { mode: number; uid: number; gid: number }, kind: 'key' | 'public', safe: boolean][] = [
      ['root\'s key', { mode: 0o600, uid: 0, gid: 0 }, 'key', true],
      ['the pool\'s key', { mode: 0o600, uid: 500, gid: 9 }, 'key', true],
      ['somebody else\'s key', { mode: 0o600, uid: 501, gid: 600 }, 'key', false],
      ['a key for root\'s group', { mode: 0o640, uid: 0, gid: 0 }, 'key', true],
      ['a key for the pool\'s group', { mode: 0o660, uid: 0, gid: 600 }, 'key', true],
      ['a key that another group can read', { mode: 0o640, uid: 0, gid: 601 }, 'key', false],
      ['a key that another group can write', { mode: 0o620, uid: 0, gid: 601 }, 'key', false],
      ['a key that another group could execute', { mode: 0o610, uid: 0, gid: 601 }, 'key', true],
      ['a key that others can read', { mode: 0o604, uid: 0, gid: 0 }, 'key', false],
      ['a certificate that all can read', { mode: 0o644, uid: 0, gid: 601 }, 'public', true],
      ['a certificate that all can write', { mode: 0o646, uid: 0, gid: 0 }, 'public', false],
      ['a certificate that another group can write', { mode: 0o664, uid: 0, gid: 601 }, 'public', false],
      ['a certificate that the pool\'s group can write', { mode: 0o664, uid: 0, gid: 600 }, 'public', true],
      ['somebody else\'s certificate', { mode: 0o644, uid: 501, gid: 0 }, 'public', false],
    ];
    for (const [title, stat, kind, safe] of cases) {
      it(`${title} is ${safe ? 'taken' : 'refused'}`, () => { assert.equal(unsafeReason('/f', stat, kind, owner) === undefined, safe); });
    }
    it('the owner is looked at on the file itself, also behind a symbolic link', async function () {
      if (me !== 0) return assert.equal(unsafeReason('/f', { mode: 0o600, uid: me + 1, gid: 0 }, 'key')?.includes('belongs to uid'), true);
      writeFolder(folder, { real: leaf.keyPem });
      symlinkSync('real', path.join(folder, 'link'));
      assert.equal((await readKeyFile(path.join(folder, 'link'))).toString(), leaf.keyPem);
      chownSync(path.join(folder, 'real'), 65_534, 0);
      await assert.rejects(readKeyFile(path.join(folder, 'link')), { code: 'IDENTITY_BAD', message: /belongs to uid 65534.*chown/ });
    });
    it('a folder, a FIFO and a device are refused without waiting', async () => {
      execFileSync('mkfifo', ['-m', '600', path.join(folder, 'fifo')]);
      for (const file of [folder, path.join(folder, 'fifo'), '/dev/zero']) await assert.rejects(readKeyFile(file), { code: 'IDENTITY_BAD', message: /is not a regular file/ });
    });
    it('a file of 1 MiB is read and one octet more is refused', async () => {
      writeFolder(folder, { a: Buffer.alloc(maxCredentialOctets), b: Buffer.alloc(maxCredentialOctets + 1) });
      assert.equal((await readPublicFile(path.join(folder, 'a'))).length, maxCredentialOctets);
      await assert.rejects(readPublicFile(path.join(folder, 'b')), { code: 'IDENTITY_BAD', message: /1048577 octets/ });
    });
    it('no descriptor stays open, whatever happens', async () => {
      const count = () => readdirSync('/proc/self/fd').filter((fd) => { try { return readlinkSync(`/proc/self/fd/${fd}`).startsWith(folder); } catch { return false; } }).length;
      await load(good());
      chmodSync(path.join(folder, 'tls.key'), 0o644);
      await assert.rejects(directorySource(folder).load(), TlsPoolError);
      assert.equal(count(), 0);
      const fd = openSync(path.join(folder, 'tls.crt'), 'r');
      assert.equal(count(), 1, 'the count counts');
      closeSync(fd);
    });
  });

  describe('certificates and keys', () => {
    it('a key that is not the certificate\'s is refused', () => refused({ ...good(), 'tls.key': rsa.keyPem }, /tls\.key is not the key of .*tls\.crt \(CN=leaf\)/));
    it('a chain with the leaf last is refused, with the number of the leaf', () => refused({ ...good(), 'tls.crt': middle.pem + leaf.pem }, /the key belongs to certificate 2 of the chain; put that one first/));
    it('a chain that is out of order is refused, with the two that do not fit', () => refused({ ...good(), 'tls.crt': leaf.pem + root.pem + middle.pem }, /certificate 1 \(CN=leaf\) was not issued by certificate 2 \(CN=root\)/));
    it('a whole chain with its root is taken', async () => { assert.equal((await load({ ...good(), 'tls.crt': leaf.pem + middle.pem + root.pem })).keyPairs.length, 1); });
    it('an issuer of the right name with another key is refused', async () => {
      const impostor = await makeCert('middle', { ca: true, issuer: root });
      await refused({ ...good(), 'tls.crt': leaf.pem + impostor.pem }, /the chain is broken/);
    });
    it('RSA below 2048 bits is refused and of 2048 is taken', async () => {
      const weak = await makeCert('weak', { dns: ['a.example'], rsaBits: 2040 });
      await refused({ 'tls.crt': weak.pem, 'tls.key': weak.keyPem }, /RSA 2040 bit key; at least 2048/);
      assert.equal((await load({ 'tls.crt': rsa.pem, 'tls.key': rsa.keyPem })).keyPairs.length, 1);
    });
    it('P-384 is taken and secp256k1 is refused', async () => {
      const p384 = await makeCert('p384', { issuer: root, dns: ['a.example'], curve: 'P-384' });
      assert.equal((await load({ 'tls.crt': p384.pem, 'tls.key': p384.keyPem })).keyPairs.length, 1);
      const odd = await makeCert('odd', { issuer: root, dns: ['a.example'], curve: 'secp256k1' });
      await refused({ 'tls.crt': odd.pem, 'tls.key': odd.keyPem }, /curve secp256k1; P-256, P-384 and P-521/);
    });
    it('a server certificate without subjectAltName is refused, one for clients only is not', async () => {
      const bare = await makeCert('bare', { issuer: root });
      await refused({ 'tls.crt': bare.pem, 'tls.key': bare.keyPem }, /has no subjectAltName/);
      const client = await makeCert('client', { issuer: root, usages: ['1.3.6.1.5.5.7.3.2'] });
      assert.equal((await load({ 'tls.crt': client.pem, 'tls.key': client.keyPem })).keyPairs.length, 1);
    });
    it('a key that is encrypted in the way of old is refused, and the text says how to bring it into the form that can be unlocked', async () => {
      const sec1 = leaf.key.export({ format: 'pem', type: 'sec1', cipher: 'aes-128-cbc', passphrase: 'x' });
      await refused({ ...good(), 'tls.key': sec1 }, /tls\.key:1: the key is encrypted.*openssl pkcs8 -topk8 -in/);
      const pkcs8 = leaf.key.export({ format: 'pem', type: 'pkcs8', cipher: 'aes-128-cbc', passphrase: 'x' });
      assert.equal((await load({ ...good(), 'tls.key': pkcs8 })).isLocked, true);
    });
    it('an encrypted key is refused where nobody could be asked for its PIN', () => {
      const pkcs8 = leaf.key.export({ format: 'pem', type: 'pkcs8', cipher: 'aes-128-cbc', passphrase: 'x' });
      assert.throws(() => parseKey(Buffer.from(pkcs8), 'f'), { code: 'IDENTITY_BAD', message: /^f:1: the key is encrypted.*openssl pkey -in/ });
    });
    it('keys in SEC 1 and PKCS#1 form are taken, with the parameters that openssl puts before them', async () => {
      const parameters = '-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n';
      assert.equal((await load({ ...good(), 'tls.key': parameters + leaf.key.export({ format: 'pem', type: 'sec1' }).toString() })).keyPairs.length, 1);
      assert.equal((await load({ 'tls.crt': rsa.pem, 'tls.key': rsa.key.export({ format: 'pem', type: 'pkcs1' }) })).keyPairs.length, 1);
    });
    it('two keys in a file, none, and a key among certificates are refused', async () => {
      await refused({ ...good(), 'tls.key': leaf.keyPem + leaf.keyPem }, /tls\.key:6: a second private key/);
      await refused({ ...good(), 'tls.key': leaf.pem }, /tls\.key has no private key/);
      await refused({ ...good(), 'tls.crt': leaf.pem + leaf.keyPem }, /tls\.crt:\d+: a private key in a file of certificates/);
    });
    it('sixteen certificates in a chain file are read and seventeen are refused', () => {
      assert.equal(parseCertificates(Buffer.from(leaf.pem.repeat(16)), 'f').certificates.length, 16);
      assert.throws(() => parseCertificates(Buffer.from(leaf.pem.repeat(17)), 'f'), { code: 'IDENTITY_BAD', message: /17 certificates; at most 16/ });
    });
    it('no error text holds an octet of the key', async () => {
      const secret = defined(leaf.keyPem.split('\n')[1]).slice(0, 20);
      for (const key of [leaf.keyPem.replace('-----END', 'END'), leaf.keyPem.replace(secret, `!${secret}`), leaf.keyPem.slice(0, 100)]) {
        const error = await load({ ...good(), 'tls.key': key }).then(() => undefined, (reason: TlsPoolError) => reason);
        assert.ok(error instanceof TlsPoolError);
        assert.ok(!`${error.message}${error.stack ?? ''}${String(error.cause)}`.includes(secret));
      }
    });
  });

  describe('dates', () => {
    const at = Date.UTC(2030, 0, 1);
    const dated = (fromS: number, toS: number) => makeCert('dated', { dns: ['a.example'], notBefore: new Date(at + fromS * 1000), notAfter: new Date(at + toS * 1000) });
    it('a certificate is good from its first second to its last', async () => {
      for (const [from, to] of [[0, 10], [-10, 0]] as const) checkDates([(await dated(from, to)).certificate], 'f', at);
    });
    it('one second outside it is refused, and the text says which end', async () => {
      const [late, early] = [await dated(-10, -1), await dated(1, 10)];
      assert.throws(() => { checkDates([late.certificate], 'f', at); }, { code: 'IDENTITY_BAD', message: /^f: the certificate of CN=dated expired on .*; renew it$/ });
      assert.throws(() => { checkDates([early.certificate], 'f', at); }, { code: 'IDENTITY_BAD', message: /is not valid before .*clock/ });
    });
    it('an expired intermediate counts too', async () => {
      const late = await dated(-10, -1);
      assert.throws(() => { checkDates([leaf.certificate, late.certificate], 'f', Date.now() + 10 * 365 * 86_400_000); }, { code: 'IDENTITY_BAD' });
    });
  });

  describe('PEM', () => {
    const text = '-----BEGIN X-----\nAAAA\n-----END X-----\n';
    it('line ends may be CRLF, and words between blocks are skipped', async () => {
      const crlf = (pem: string) => pem.replaceAll('\n', '\r\n');
      const { digest } = await load(good());
      assert.equal((await load({ 'tls.crt': `subject=CN = leaf\r\n${crlf(leaf.pem)}issuer\r\n${crlf(middle.pem)}`, 'tls.key': crlf(leaf.keyPem) })).digest, digest);
    });
    it('a last line without its end is read', () => { assert.equal(pemBlocks(Buffer.from(text.trimEnd()), 'f').length, 1); });
    const cases: [title: string, content: string | Buffer, message: RegExp][] = [
      ['an empty file', '', /^f:1: the file is empty$/],
      ['a file without a block', 'hello\n', /^f:1: no PEM block/],
      ['DER', Buffer.from([0x30, 0x82, 0, 0]), /^f:1: the file looks like DER/],
      ['a block that was cut short', `${text}-----BEGIN X-----\nAAAA\n`, /^f:4: BEGIN X without its END/],
      ['garbage inside a block', '-----BEGIN X-----\nAAAA\nA!AA\n-----END X-----\n', /^f:3: not base64/],
      ['a block inside a block', '\n-----BEGIN X-----\nAAAA\n-----BEGIN X-----\n', /^f:4: BEGIN X inside the block that began on line 2/],
      ['the end of another block', '-----BEGIN X-----\nAAAA\n-----END Y-----\n', /^f:3: END Y closes the X that began on line 1/],
      ['an end without begin', '-----END X-----\n', /^f:1: END X without its BEGIN/],
    ];
    for (const [title, content, message] of cases) {
      it(`${title} is refused with the line`, () => { assert.throws(() => pemBlocks(Buffer.from(content), 'f'), { code: 'IDENTITY_BAD', message }); });
    }
    it('a block that is PEM but no certificate, and one that is no key, are refused with their line', () => {
      assert.throws(() => parseCertificates(Buffer.from(leaf.pem + text.replaceAll('X', 'CERTIFICATE')), 'f'), { code: 'IDENTITY_BAD', message: /^f:\d+: not a certificate/ });
      assert.throws(() => parseCertificates(Buffer.from(text), 'f'), { code: 'IDENTITY_BAD', message: /^f:1: X is not CERTIFICATE/ });
      assert.throws(() => parseKey(Buffer.from(text.replaceAll('X', 'PRIVATE KEY')), 'f'), { code: 'IDENTITY_BAD', message: /^f:1: not a private key/ });
    });
  });

  describe('reading while somebody writes', () => {
    it('a folder that is swapped during the read is read again, and is all of one moment', async () => {
      writeFolder(path.join(folder, 'v1'), good());
      writeFolder(path.join(folder, 'v2'), { 'tls.crt': rsa.pem, 'tls.key': rsa.keyPem });
      symlinkSync('v1', path.join(folder, '..data'));
      for (const name of ['tls.crt', 'tls.key']) symlinkSync(`..data/${name}`, path.join(folder, name));
      const files = { pairs: [{ certificate: path.join(folder, 'tls.crt'), key: path.join(folder, 'tls.key') }] };
      let lists = 0;
      const material = await readMaterial(() => {
        // The second list is made after the first read.
        if (++lists === 2) {
          symlinkSync('v2', path.join(folder, '..data_tmp'));
          renameSync(path.join(folder, '..data_tmp'), path.join(folder, '..data'));
        }
        return Promise.resolve(files);
      }, folder);
      assert.equal(lists, 4);
      assert.ok(rsa.certificate.checkPrivateKey(createPrivateKey(defined(material.keyPairs[0]).key)));
      assert.equal(new X509Certificate(defined(material.keyPairs[0]).chain).subject, 'CN=rsa');
    });
    it('one that never comes to rest is refused after five attempts', async () => {
      writeFolder(folder, good());
      let lists = 0;
      const list = () => {
        writeFileSync(path.join(folder, 'tls.crt'), leaf.pem + '\n'.repeat(++lists));
        return Promise.resolve({ pairs: [{ certificate: path.join(folder, 'tls.crt'), key: path.join(folder, 'tls.key') }] });
      };
      await assert.rejects(readMaterial(list, folder), { code: 'IDENTITY_BAD', message: /changed each time it was read/ });
      assert.equal(lists, 10);
    });
  });

  describe('names', () => {
    it('of a certificate are put into the form of SNI', () => { assert.deepEqual(dnsNames(leaf.certificate), ['www.example.org', '*.example.org']); });
    it('with a comma inside cannot smuggle in a second one', async () => {
      const odd = await makeCert('odd', { dns: ['a.example, DNS:victim.example', 'b.example'] });
      assert.deepEqual(dnsNames(odd.certificate), ['b.example']);
    });
    it('that are configured win over those of the certificate', () => {
      assert.deepEqual(servedNames(['x.example'], [leaf.certificate], 'id'), ['x.example']);
      assert.deepEqual(servedNames([], [leaf.certificate, rsa.certificate], 'id'), ['www.example.org', '*.example.org']);
    });
    it('are at most 256', () => {
      const names = (count: number) => Array.from({ length: count }, (_, i) => `n${i}.example`);
      assert.equal(servedNames(names(256), [], 'id').length, 256);
      assert.throws(() => servedNames(names(257), [], 'id'), { code: 'IDENTITY_BAD' });
    });
    const named = (localid: string, names: string[], isConfigured: boolean) => ({ localid, names, isConfigured });
    it('that two configure are an error that says which', () => {
      assert.throws(() => nameTable([named('a', ['n'], true), named('b', ['n'], true)]), { code: 'CONFIG_BAD', message: /n is configured for the identities a and b/ });
    });
    it('go to the one that configures them, and to nobody when they merely stand in two certificates', () => {
      const { owners, ambiguous } = nameTable([named('a', ['n', 'm'], false), named('b', ['n'], true), named('c', ['m'], false)]);
      assert.deepEqual([[...owners], ambiguous], [[['n', 'b']], [{ name: 'm', localids: ['a', 'c'] }]]);
    });
  });

  it('key types are named for people', () => {
    assert.deepEqual([leaf, rsa].map(({ certificate }) => keyTypeOf(certificate.publicKey)), ['EC P-256', 'RSA 2048']);
  });
  it('a subject is one line without control characters and at most 512 octets', () => {
    assert.equal(oneLine('C=DE\nCN=a\tb'), 'C=DE, CN=a?b');
    assert.equal(Buffer.byteLength(oneLine('x'.repeat(512))), 512);
    assert.ok(Buffer.byteLength(oneLine('ü'.repeat(400))) <= 512);
  });
  it('a folder that is a link is read as the folder', async () => {
    mkdirSync(path.join(folder, 'real'));
    writeFolder(path.join(folder, 'real'), good());
    symlinkSync('real', path.join(folder, 'link'));
    assert.equal((await directorySource(path.join(folder, 'link')).load()).keyPairs.length, 1);
  });
});
