/** What every source of credentials promises, held against each one. A new source gets these tests by one entry in `sources`. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readlinkSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { directorySource, pemFilesSource, pkcs12Source, type IdentitySource, type Material } from 'tlspool/dist/identity/index.js';
import { parseCertificates } from 'tlspool/dist/identity/inspect.js';
import { descriptors, run, until } from '../support/index.js';
import { defined, makeCert, writeFolder, type Cert } from '../unit/identity-support.js';

/** What is to be found: a leaf with its issuers, and perhaps roots. */
interface Credentials { readonly leaf: Cert; readonly issuers: readonly Cert[]; readonly keyOf?: Cert; readonly trust?: Cert }

interface Kind {
  readonly name: string;
  /** Writes (or replaces, each file by a rename) the credentials; a source that is there already finds the new ones. */
  write(folder: string, credentials: Credentials): void;
  make(folder: string): IdentitySource;
  /** Files that are held to the permissions of a key, and those that others may read. */
  readonly secret: readonly string[];
  readonly open: readonly string[];
}

const password = 'correct horse';

function put(folder: string, name: string, content: string | Buffer): void {
  writeFileSync(path.join(folder, 'new'), content, { mode: 0o600 });
  renameSync(path.join(folder, 'new'), path.join(folder, name));
}

/** PKCS#12 as the openssl command makes it. */
function exportPkcs12({ leaf, issuers, keyOf = leaf }: Credentials, ...args: string[]): Buffer {
  const folder = mkdtempSync(path.join(tmpdir(), 'p12-'));
  try {
    writeFolder(folder, { 'k.pem': keyOf.keyPem, 'c.pem': leaf.pem, 'i.pem': issuers.map(({ pem }) => pem).join('') });
    // openssl refuses to export a key that is not the certificate's: that pair is put together without it.
    const key = keyOf === leaf ? ['-inkey', 'k.pem', '-in', 'c.pem'] : ['-nocerts', '-inkey', 'k.pem'];
    return execFileSync('openssl', ['pkcs12', '-export', ...key, ...(issuers.length > 0 && keyOf === leaf ? ['-certfile', 'i.pem'] : []), '-passout', `pass:${password}`, ...args], { cwd: folder, stdio: ['ignore', 'pipe', 'ignore'] });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const pem = (name: string, kind: Pick<Kind, 'make' | 'secret' | 'open'>): Kind => {
  const [certificate, trust] = [defined(kind.open[0]), defined(kind.open[1])];
  return {
    name, ...kind,
    write: (folder, { leaf, issuers, keyOf = leaf, trust: root }) => {
      put(folder, defined(kind.secret[0]), keyOf.keyPem);
      put(folder, certificate, [leaf, ...issuers].map((one) => one.pem).join(''));
      if (root !== undefined) put(folder, trust, root.pem);
    },
  };
};

const pkcs12 = (name: string, ...args: string[]): Kind => ({
  name, secret: ['id.p12', 'password'], open: ['roots.pem'],
  write: (folder, credentials) => {
    put(folder, 'password', `${password}\n`);
    put(folder, 'id.p12', exportPkcs12(credentials, ...args));
    if (credentials.trust !== undefined) put(folder, 'roots.pem', credentials.trust.pem);
  },
  make: (folder) => pkcs12Source({
    file: path.join(folder, 'id.p12'), passwordFile: path.join(folder, 'password'),
    ...(readdirSync(folder).includes('roots.pem') && { trust: path.join(folder, 'roots.pem') }),
  }),
});

const sources: readonly Kind[] = [
  pem('a folder', { make: (folder) => directorySource(folder), secret: ['tls.key'], open: ['tls.crt', 'ca.crt'] }),
  pem('PEM files', {
    make: (folder) => pemFilesSource({ certificate: path.join(folder, 'c.pem'), key: path.join(folder, 'k.pem'), ...(readdirSync(folder).includes('t.pem') && { trust: path.join(folder, 't.pem') }) }),
    secret: ['k.pem'], open: ['c.pem', 't.pem'],
  }),
  pkcs12('PKCS#12 of today (PBES2, AES-256)'),
  pkcs12('PKCS#12 of old (RC2-40, 3DES)', '-legacy'),
];

const bad = (message: RegExp) => ({ name: 'TlsPoolError', code: 'IDENTITY_BAD', message });

describe('sources of credentials', () => {
  let root: Cert;
  let middle: Cert;
  let ec: Cert;
  let rsa: Cert;
  let odd: Cert;
  let folder: string;
  before(async () => {
    root = await makeCert('root', { ca: true });
    middle = await makeCert('middle', { ca: true, issuer: root });
    ec = await makeCert('leaf', { issuer: middle, dns: ['www.example.org'] });
    rsa = await makeCert('rsa', { issuer: middle, dns: ['www.example.org'], rsaBits: 2048 });
    odd = await makeCert('odd', { issuer: middle, dns: ['www.example.org'], curve: 'secp256k1' });
  });
  beforeEach(() => { folder = mkdtempSync(path.join(tmpdir(), 'source-')); });
  afterEach(() => { rmSync(folder, { recursive: true, force: true }); });

  for (const kind of sources) {
    describe(kind.name, () => {
      const written = (credentials: Credentials): IdentitySource => {
        kind.write(folder, credentials);
        return kind.make(folder);
      };
      const good = (): Credentials => ({ leaf: ec, issuers: [middle], trust: root });

      it('gives the chain octet by octet, leaf first, its key, and the roots, for ECDSA and RSA', async () => {
        for (const leaf of [ec, rsa]) {
          const { keyPairs, certificateFiles, trust } = await written({ leaf, issuers: [middle], trust: root }).load();
          const [pair] = keyPairs;
          assert.deepEqual([keyPairs.length, certificateFiles.length], [1, 1]);
          assert.deepEqual(parseCertificates(defined(pair).chain, '').certificates.map(({ raw }) => raw), [leaf.certificate.raw, middle.certificate.raw]);
          assert.ok(leaf.certificate.checkPrivateKey(createPrivateKey(defined(pair).key)));
          assert.deepEqual(new X509Certificate(defined(trust)).raw, root.certificate.raw);
        }
      });
      it('without roots gives none', async () => {
        assert.equal((await written({ leaf: ec, issuers: [middle] }).load()).trust, undefined);
      });
      it('hands the key out in a buffer of its own, so that wiping it wipes nothing else', async () => {
        const { keyPairs } = await written(good()).load();
        const { key } = defined(keyPairs[0]);
        assert.equal(key.buffer.byteLength, key.length);
      });
      it('has the same digest as long as nothing changes, and another when certificate or roots do', async () => {
        const digests = async (credentials: Credentials): Promise<string> => (await written(credentials).load()).digest;
        const first = await digests(good());
        assert.equal(await digests(good()), first);
        assert.equal(new Set([first, await digests({ ...good(), leaf: rsa }), await digests({ ...good(), trust: middle })]).size, 3);
      });
      it('reads anew on every load, and leaves no descriptor open', async () => {
        const source = written(good());
        await source.load();
        const before = readdirSync('/proc/self/fd').length;
        kind.write(folder, { ...good(), leaf: rsa });
        const { keyPairs } = await source.load();
        assert.deepEqual(parseCertificates(defined(keyPairs[0]).chain, '').leaf.raw, rsa.certificate.raw);
        assert.equal(readdirSync('/proc/self/fd').length, before);
      });
      it('refuses a secret file that others can read, with the cure, and takes it at 0600; roots and certificates may be read by all', async () => {
        const source = written(good());
        for (const name of kind.secret) {
          chmodSync(path.join(folder, name), 0o644);
          await assert.rejects(source.load(), bad(new RegExp(`${name} has mode 0644.*chmod 0600`)));
          chmodSync(path.join(folder, name), 0o600);
          await source.load();
        }
        for (const name of kind.open) chmodSync(path.join(folder, name), 0o644);
        await source.load();
        for (const name of kind.open) {
          chmodSync(path.join(folder, name), 0o646);
          await assert.rejects(source.load(), bad(new RegExp(`${name} has mode 0646.*chmod go-w`)));
          chmodSync(path.join(folder, name), 0o644);
        }
      });
      it('names a file that is missing, is a folder, is empty or is garbage', async () => {
        const source = written(good());
        for (const name of [...kind.secret, ...kind.open]) {
          const file = path.join(folder, name);
          renameSync(file, path.join(folder, '.away'));
          // A folder without ca.crt is a folder without roots; a missing certificate is told by its name alone.
          if (name !== 'ca.crt') await assert.rejects(source.load(), bad(new RegExp(name.replace('.', '\\.'))));
          for (const content of name === 'password' ? ['wrong'] : ['', 'garbage', Buffer.alloc(100, 0x30)]) {
            writeFileSync(file, content, { mode: 0o600 });
            await assert.rejects(source.load(), bad(new RegExp(name.replace('.', '\\.'))));
          }
          rmSync(file);
          mkdirSync(file);
          await assert.rejects(source.load(), bad(new RegExp(`${name.replace('.', '\\.')} is not a regular file`)));
          rmSync(file, { recursive: true });
          symlinkSync('.away', file);
          await source.load();
          rmSync(file);
          renameSync(path.join(folder, '.away'), file);
        }
      });
      it('refuses a key that is not the certificate\'s, and a curve that TLS does not use', async () => {
        await assert.rejects(written({ ...good(), keyOf: rsa }).load(), bad(/is not the key of|none belongs to its private key/));
        await assert.rejects(written({ ...good(), leaf: odd }).load(), bad(/on the curve secp256k1; P-256/));
      });
      it('notices each file that is replaced', async () => {
        const source = written(good());
        for (const name of [...kind.secret, ...kind.open]) {
          let watch = { close: (): void => undefined };
          await new Promise<void>((resolve) => {
            watch = source.watch(resolve);
            symlinkSync(readLinkOr(path.join(folder, name), '/nowhere'), path.join(folder, 'new'));
            renameSync(path.join(folder, 'new'), path.join(folder, name));
          });
          watch.close();
        }
      });
    });
  }

  describe('PKCS#12', () => {
    const source = (octets: Buffer, secret: string | Buffer = `${password}\n`): IdentitySource => {
      writeFolder(folder, { 'id.p12': octets, password: secret });
      return pkcs12Source({ file: path.join(folder, 'id.p12'), passwordFile: path.join(folder, 'password') });
    };
    const exported = (...args: string[]): Buffer => exportPkcs12({ leaf: ec, issuers: [middle, root] }, ...args);
    const subjects = ({ keyPairs }: Material): string[] => parseCertificates(defined(keyPairs[0]).chain, '').certificates.map(({ subject }) => subject);

    it('takes every encryption that openssl makes and this can read, and names one that it cannot', async () => {
      for (const args of [['-keypbe', 'aes-128-cbc'], ['-certpbe', 'aes-192-cbc'], ['-keypbe', 'PBE-SHA1-3DES', '-certpbe', 'PBE-SHA1-3DES'], ['-macalg', 'sha512'], ['-macalg', 'sha1'], ['-keypbe', 'NONE', '-certpbe', 'NONE']]) {
        assert.deepEqual(subjects(await source(exported(...args)).load()), ['CN=leaf', 'CN=middle'], args.join(' '));
      }
      await assert.rejects(source(exported('-certpbe', 'camellia-256-cbc')).load(), bad(/id\.p12: not a PKCS#12 file that can be read \(.*Unsupported.*\); convert it with: openssl pkcs12 -export/));
    });
    it('puts the chain into order, and leaves out roots and strangers', async () => {
      const stranger = await makeCert('stranger', { issuer: root, dns: ['s.example'] });
      const low = await makeCert('low', { ca: true, issuer: middle });
      const deep = await makeCert('deep', { issuer: low, dns: ['deep.example'] });
      assert.deepEqual(subjects(await source(exportPkcs12({ leaf: deep, issuers: [stranger, root, middle, low] })).load()), ['CN=deep', 'CN=low', 'CN=middle']);
    });
    it('a certificate that signed itself is a leaf like others', async () => {
      const self = await makeCert('self', { dns: ['self.example'] });
      assert.deepEqual(subjects(await source(exportPkcs12({ leaf: self, issuers: [] })).load()), ['CN=self']);
    });
    it('a wrong password is told from a damaged file, where the file has a checksum', async () => {
      for (const args of [[], ['-legacy']]) {
        await assert.rejects(source(exported(...args), 'wrong\n').load(), bad(/id\.p12: the password in .*\/password does not open it; correct the password/), args.join(' '));
      }
      // Without a checksum, one wrong password in 256 looks right until the content shows it.
      await assert.rejects(source(exported('-nomac'), 'wrong\n').load(), bad(/id\.p12: (the password in .*\/password does not open it|not a PKCS#12 file that can be read)/));
      await assert.rejects(source(exported().subarray(0, 300)).load(), bad(/id\.p12: not a PKCS#12 file that can be read/));
    });
    it('one that takes seconds to open holds up nobody meanwhile, and one that takes too long is given up, with the cure', async () => {
      const slow = exported('-iter', '300000');
      const pauses = monitorEventLoopDelay({ resolution: 5 });
      const patient = source(slow);
      const begun = performance.now();
      pauses.enable();
      await patient.load();
      pauses.disable();
      const took = performance.now() - begun;
      assert.ok(took > 500, `${took} ms: it is not slow`);
      assert.ok(pauses.max / 1e6 < took / 3, `a pause of ${pauses.max / 1e6} ms in ${took} ms`);
      const before = descriptors(process.pid).size;
      const file = path.join(folder, 'id.p12');
      await assert.rejects(pkcs12Source({ file, passwordFile: path.join(folder, 'password'), openMs: 100 }).load(), bad(/id\.p12: not open after 0\.1 s; export it again with fewer iterations: openssl pkcs12 -export -iter 2048/));
      await until(() => descriptors(process.pid).size <= before, { what: 'the thread to end' });
    }).timeout(30_000);
    it('without descriptors for its thread it is refused, with the cause, and no descriptor is lost', async () => {
      const patient = source(exported());
      const { stdout } = await run('/bin/sh', ['-c', 'ulimit -n 512; exec "$0" --input-type=module --eval "$1"', process.execPath, `
        import fs from 'node:fs';
        import { pkcs12Source } from ${JSON.stringify(import.meta.resolve('tlspool/dist/identity/index.js'))};
        const source = pkcs12Source({ file: 'id.p12', passwordFile: 'password' });
        await source.load();
        const count = () => fs.readdirSync('/proc/self/fd').length;
        const before = count();
        const held = [];
        try { for (;;) held.push(fs.openSync('/dev/null')); } catch { /* full */ }
        const said = new Set();
        for (let round = 0; round < 20; round++) {
          // Room for the file, and not for a thread.
          if (round % 4 === 0) fs.closeSync(held.pop());
          await source.load().then(() => said.add('loaded'), ({ code, message }) => said.add(code + ' ' + message));
        }
        for (const fd of held) fs.closeSync(fd);
        console.log(JSON.stringify([[...said], count() - before]));`], { cwd: folder });
      assert.deepEqual(JSON.parse(stdout), [['IDENTITY_BAD id.p12: the thread that opens it failed (EMFILE: too many open files, open \'/dev/null\'); when there are descriptors and memory again: tlspool reload'], 0]);
      await patient.load();
    }).timeout(20_000);
    it('the password is the first line, with LF, CR LF or neither, and may be empty', async () => {
      for (const secret of [password, `${password}\r\n`, `${password}\nand a remark\n`]) await source(exported(), secret).load();
      await assert.rejects(source(exported(), ` ${password}\n`).load(), bad(/does not open it/));
      for (const empty of ['', '\n']) await source(exported('-passout', 'pass:'), empty).load();
    });
    it('a password of 1024 octets is taken, a longer one and one that is no ASCII are refused', async () => {
      const long = 'p'.repeat(1024);
      await source(exported('-passout', `pass:${long}`), long).load();
      await assert.rejects(source(exported(), `${long}p`).load(), bad(/more than 1024 octets/));
      await assert.rejects(source(exported(), 'pässword').load(), bad(/other than printable ASCII/));
    });
    it('no key, no certificate of the key, and several keys are refused with the cure', async () => {
      await assert.rejects(source(exported('-nokeys')).load(), bad(/id\.p12 has no private key; export it together/));
      await assert.rejects(source(exportPkcs12({ leaf: ec, issuers: [], keyOf: rsa })).load(), bad(/has 0 certificates, and none belongs to its private key/));
      await assert.rejects(source(await twoKeys(ec, rsa)).load(), bad(/id\.p12 has 2 private keys, and which is meant cannot be told/));
    });
    it('errors hold neither the password nor what was read', async () => {
      for (const attempt of [source(exported(), 'a secret that is wrong'), source(await twoKeys(ec, rsa))]) {
        const error = await attempt.load().then(() => undefined, (thrown: unknown) => thrown as Error);
        assert.equal(defined(error).cause, undefined);
        assert.doesNotMatch(String(defined(error).stack), /a secret that is wrong|PRIVATE KEY/);
      }
    });
  });
});

/** Where a link leads, so that replacing it changes nothing but the entry. */
function readLinkOr(file: string, fallback: string): string {
  try { return readlinkSync(file); } catch { return fallback; }
}

/** No program makes a file with two keys: this puts the parts of one into another, which has no checksum that would notice. */
async function twoKeys(first: Cert, second: Cert): Promise<Buffer> {
  const { default: forge } = await import('node-forge');
  const { asn1 } = forge;
  type Node = { value: Node[] };
  const parse = (cert: Cert) => asn1.fromDer(exportPkcs12({ leaf: cert, issuers: [] }, '-nomac').toString('latin1'));
  const contentOf = (whole: unknown) => (whole as Node).value[1]?.value[1]?.value[0] as unknown as { value: string };
  const whole = parse(first);
  const parts = asn1.fromDer(contentOf(whole).value);
  (parts.value as unknown[]).push(...asn1.fromDer(contentOf(parse(second)).value).value);
  contentOf(whole).value = asn1.toDer(parts).getBytes();
  return Buffer.from(asn1.toDer(whole).getBytes(), 'latin1');
}
