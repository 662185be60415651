/** Identities whose key is encrypted: what is read of them, what is published, and what a PIN does. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createPrivateKey } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TlsPoolError } from 'libtlspool/protocol';
import type { Context } from 'tlspool/dist/engine.js';
import { checkCredentials, directorySource, pemFilesSource, pkcs12Source, Reloader, Store, WrongPinError, type IdentitySettings, type IdentitySource } from 'tlspool/dist/identity/index.js';
import { pemBlocks, toPem } from 'tlspool/dist/identity/pem.js';
import type { DefaultTrust } from 'tlspool/dist/identity/settings.js';
import { loadConfig } from 'tlspool/dist/config/index.js';
import { RuleAccess, type Client } from 'tlspool/dist/policy/index.js';
import { defined, FakeEngine, makeCert, writeFolder, type Cert, type MadeContext, type MadeSelector } from './identity-support.js';

const client = (uid: number): Client => ({ pid: 1, uid, gid: uid, groups: [] });
const pin = (text = 'correct horse') => Buffer.from(text);
const seal = (cert: Cert, passphrase = 'correct horse'): string => cert.key.export({ format: 'pem', type: 'pkcs8', cipher: 'aes-256-cbc', passphrase }).toString();
const specOf = (context: Context | undefined) => (defined(context) as MadeContext).spec;
const namesOf = (selector: unknown) => (selector as MadeSelector).spec.names.map(([name, context]) => `${name}=${specOf(context).localid}`);

describe('locked identities', () => {
  let folder: string;
  let root: Cert;
  let leaf: Cert;
  let other: Cert;
  let rsa: Cert;
  let serverOnly: Cert;
  before(async () => {
    root = await makeCert('root', { ca: true });
    leaf = await makeCert('leaf', { issuer: root, dns: ['leaf.example', 'both.example'] });
    other = await makeCert('other', { issuer: root, dns: ['other.example', 'both.example'] });
    rsa = await makeCert('rsa', { issuer: root, dns: ['leaf.example'], rsaBits: 2048 });
    serverOnly = await makeCert('server', { issuer: root, dns: ['server.example'], usages: ['1.3.6.1.5.5.7.3.1'] });
  });
  beforeEach(() => { folder = mkdtempSync(path.join(tmpdir(), 'lock-')); });
  afterEach(() => { rmSync(folder, { recursive: true, force: true }); });

  const sealed = (cert = leaf, passphrase?: string) => ({ 'tls.crt': cert.pem, 'tls.key': seal(cert, passphrase) });
  const sourceOf = (files: Readonly<Record<string, string | Buffer>>): IdentitySource => {
    writeFolder(folder, files);
    return directorySource(folder);
  };

  describe('sources', () => {
    it('an encrypted key in a folder is locked: the chain is read, and no octet of a key', async () => {
      const { isLocked, keyPairs } = await sourceOf(sealed()).load();
      assert.equal(isLocked, true);
      assert.deepEqual(keyPairs.map(({ key }) => key.length), [0]);
      assert.match(String(keyPairs[0]?.chain), /BEGIN CERTIFICATE/);
    });
    it('the PIN opens it, and nothing but the keys differs', async () => {
      const source = sourceOf({ ...sealed(), 'ca.crt': root.pem });
      const [shut, open] = [await source.load(), await source.load(pin())];
      assert.equal(open.isLocked, undefined);
      assert.equal(String(open.keyPairs[0]?.key), leaf.keyPem);
      assert.equal(open.digest, shut.digest);
    });
    it('a wrong PIN is told from everything else, in a text without the PIN', async () => {
      const source = sourceOf(sealed());
      for (const wrong of ['wrong horse', '', 'correct hors', 'correct horse ']) {
        await assert.rejects(source.load(pin(wrong)), (error) => {
          assert.ok(error instanceof WrongPinError);
          assert.equal(error.message, `${path.join(folder, 'tls.key')}: the PIN does not open the key`);
          assert.equal(error.cause, undefined);
          return true;
        });
      }
    });
    it('the PIN stays the caller\'s', async () => {
      const mine = pin();
      await sourceOf(sealed()).load(mine);
      assert.equal(String(mine), 'correct horse');
    });
    it('one encrypted key of two locks the identity, and the PIN must open all that are encrypted', async () => {
      const source = sourceOf({ ...sealed(), 'rsa.crt': rsa.pem, 'rsa.key': rsa.keyPem });
      const shut = await source.load();
      assert.deepEqual([shut.isLocked, shut.keyPairs.map(({ key }) => key.length > 0)], [true, [true, false]]);
      assert.deepEqual((await source.load(pin())).keyPairs.map(({ key }) => createPrivateKey(key).asymmetricKeyType), ['rsa', 'ec']);
      await assert.rejects(sourceOf({ 'rsa.key': seal(rsa, 'another') }).load(pin()), WrongPinError);
    });
    it('the same key under another PIN is a change', async () => {
      const before = (await sourceOf(sealed()).load()).digest;
      assert.notEqual((await sourceOf(sealed(leaf, 'another')).load()).digest, before);
    });
    it('an encrypted key whose file is damaged is refused at once: nobody is to be asked in vain', async () => {
      const whole = seal(leaf);
      const lines = whole.split('\n');
      const cut = [lines[0], ...lines.slice(2)].join('\n');
      const empty = '-----BEGIN ENCRYPTED PRIVATE KEY-----\n-----END ENCRYPTED PRIVATE KEY-----\n';
      for (const damaged of [cut, empty, whole.replace(/\n(.{4})/, '\nAAAA')]) {
        await assert.rejects(sourceOf({ ...sealed(), 'tls.key': damaged }).load(), { code: 'IDENTITY_BAD', message: /tls\.key:1: not an encrypted private key/ });
      }
    });
    it('a certificate that could not be used is refused while its key is locked', async () => {
      const bare = await makeCert('bare', { issuer: root });
      await assert.rejects(sourceOf(sealed(bare)).load(), { code: 'IDENTITY_BAD', message: /has no subjectAltName/ });
    });
    it('a key that belongs to another certificate is found when it is opened', async () => {
      const source = sourceOf({ 'tls.crt': leaf.pem, 'tls.key': seal(other) });
      assert.equal((await source.load()).isLocked, true);
      await assert.rejects(source.load(pin()), { code: 'IDENTITY_BAD', message: /is not the key of/ });
    });
    it('PEM files are like a folder', async () => {
      writeFolder(folder, sealed());
      const source = pemFilesSource({ certificate: path.join(folder, 'tls.crt'), key: path.join(folder, 'tls.key') });
      assert.equal((await source.load()).isLocked, true);
      assert.equal(String((await source.load(pin())).keyPairs[0]?.key), leaf.keyPem);
    });
    it('PKCS#12 without a password file is locked as a whole, and the password opens it', async () => {
      writeFolder(folder, { 'k.pem': leaf.keyPem, 'c.pem': leaf.pem });
      execFileSync('openssl', ['pkcs12', '-export', '-inkey', 'k.pem', '-in', 'c.pem', '-out', 'id.p12', '-passout', 'pass:correct horse'], { cwd: folder });
      const source = pkcs12Source({ file: path.join(folder, 'id.p12') });
      const shut = await source.load();
      assert.deepEqual([shut.isLocked, shut.keyPairs.length], [true, 0]);
      const open = await source.load(pin());
      assert.deepEqual([open.isLocked, String(open.keyPairs[0]?.key), open.digest], [undefined, leaf.keyPem, shut.digest]);
      for (const wrong of ['wrong', 'c\u00f6rrect horse']) await assert.rejects(source.load(pin(wrong)), WrongPinError);
      writeFolder(folder, { 'id.p12': 'something else' });
      await assert.rejects(source.load(), { code: 'IDENTITY_BAD', message: /not a PKCS#12 file/ });
    });
    it('keys become PEM without a string, as Node would write them', () => {
      for (let octets = 0; octets <= 100; octets++) {
        const der = Buffer.from(Array.from({ length: octets }, (_, index) => (index * 37 + octets) & 0xff));
        const body = der.toString('base64').replace(/.{64}/gu, '$&\n');
        const expected = `-----BEGIN PRIVATE KEY-----\n${body === '' || body.endsWith('\n') ? body : `${body}\n`}-----END PRIVATE KEY-----\n`;
        assert.equal(String(toPem('PRIVATE KEY', der)), expected, `${String(octets)} octets`);
      }
      assert.equal(pemBlocks(toPem('PRIVATE KEY', Buffer.alloc(48)), '').length, 1);
    });
  });

  describe('store', () => {
    let engine: FakeEngine;
    let access: RuleAccess;
    let store: Store;
    let roots: DefaultTrust;
    let news: (readonly string[])[];
    const rules = [{ uids: [7], identities: ['sealed'], permissions: ['server', 'client'] }] as const;
    beforeEach(() => {
      engine = new FakeEngine();
      access = new RuleAccess({ rules, sessionsPerClient: 1 }, 500);
      store = new Store({ engine, access });
      roots = { pem: Buffer.from(root.pem), digest: 'roots-1' };
      news = [];
      store.onPublished((changed) => { news.push(changed); });
    });

    const settings = (localid: string, files: Readonly<Record<string, string>>, rest: Partial<IdentitySettings> = {}): IdentitySettings => {
      const place = path.join(folder, localid);
      writeFolder(place, files);
      return { localid, source: directorySource(place), policy: 'intermediate', clientAuth: 'none', names: [], isDefault: false, ticketLifetimeS: 3600, ...rest };
    };
    const publish = async (all: IdentitySettings[], trust: DefaultTrust | undefined = roots) => store.publish(await store.prepare(all, trust));
    const unlock = async (localid: string, given = pin()) => {
      const draft = await store.prepareUnlocked(localid, given);
      if (draft !== undefined) store.publish(draft);
      return draft !== undefined;
    };
    const plain = (cert: Cert) => ({ 'tls.crt': cert.pem, 'tls.key': cert.keyPem });
    const summary = (localid: string) => defined(store.list().find((one) => one.settings.localid === localid)).summary;
    const contexts = (localid: string) => engine.contexts.filter(({ spec }) => spec.localid === localid);

    it('a locked identity does not stop the others; it is listed as locked, without a context, and no engine has seen it', async () => {
      assert.deepEqual(await publish([settings('plain', plain(other)), settings('sealed', sealed())]), { changed: ['plain', 'sealed'], unchanged: 0 });
      assert.deepEqual([summary('sealed').locked, summary('sealed').revision, summary('sealed').certificates[0]?.subject], [true, 0, 'CN=leaf']);
      assert.equal(summary('plain').locked, undefined);
      assert.deepEqual(store.list().map(({ context }) => context !== undefined), [true, false]);
      assert.equal(contexts('sealed').length, 0);
      assert.deepEqual(store.locked(), [{ localid: 'sealed', source: path.join(folder, 'sealed') }]);
    });
    it('those who may use it hear that it is locked, in both roles; those who may not hear what they hear of names that do not exist', async () => {
      await publish([settings('sealed', sealed(), { clientAuth: 'none' }), settings('plain', plain(other))]);
      for (const ask of [() => store.serverSelector(client(7), 'sealed'), () => store.clientContext(client(7), 'sealed')]) {
        assert.throws(ask, { code: 'IDENTITY_LOCKED', message: /"sealed" is locked.*tlspool unlock/ });
      }
      const told = (localid: string, ask: (localid: string) => unknown): string => {
        try { ask(localid); } catch (error) { return `${(error as TlsPoolError).code} ${(error as Error).message.replace(localid, 'X')}`; }
        return 'nothing';
      };
      for (const ask of [(localid: string) => store.serverSelector(client(8), localid), (localid: string) => store.clientContext(client(8), localid)]) {
        assert.match(told('sealed', ask), /^IDENTITY_UNKNOWN/);
        assert.equal(told('sealed', ask), told('nowhere', ask));
      }
      assert.deepEqual([store.isLocked(client(7), 'sealed', 'server'), store.isLocked(client(8), 'sealed', 'server'), store.isLocked(client(0), 'plain', 'server')], [true, false, false]);
    });
    it('it is in no table of names, and its names are served by nobody else meanwhile', async () => {
      await publish([settings('sealed', sealed(), { names: ['both.example', 'leaf.example'], isDefault: true }), settings('plain', plain(other))]);
      const selector = store.serverSelector(client(0), undefined) as MadeSelector;
      assert.deepEqual(namesOf(selector), ['other.example=plain']);
      assert.deepEqual([selector.spec.noName, selector.spec.unknownName], [undefined, undefined]);
      await unlock('sealed');
      assert.deepEqual(namesOf(store.serverSelector(client(0), undefined)).sort(), ['both.example=sealed', 'leaf.example=sealed', 'other.example=plain']);
    });
    it('a client that may serve nothing but what is locked is told so', async () => {
      await publish([settings('sealed', sealed()), settings('plain', plain(other))]);
      assert.throws(() => store.serverSelector(client(7), undefined), { code: 'IDENTITY_LOCKED' });
      assert.throws(() => store.serverSelector(client(8), undefined), { code: 'IDENTITY_UNKNOWN' });
    });
    it('the PIN publishes it as a reload would: a revision, the key for the engine, news for the listeners; the key is wiped', async () => {
      await publish([settings('sealed', sealed()), settings('plain', plain(other))]);
      assert.equal(await unlock('sealed'), true);
      assert.deepEqual([summary('sealed').locked, summary('sealed').revision, summary('plain').revision], [undefined, 1, 1]);
      const [made] = contexts('sealed');
      assert.deepEqual(defined(made).keysAtCall, [leaf.keyPem]);
      assert.ok(defined(made).keys.every((key) => key.every((octet) => octet === 0)));
      assert.deepEqual(news.at(-1), ['sealed']);
      assert.equal(store.serverSelector(client(7), 'sealed') instanceof Object, true);
      assert.deepEqual(store.locked(), []);
      assert.equal(await unlock('sealed'), false, 'there is nothing to unlock any more');
    });
    it('a wrong PIN changes nothing', async () => {
      await publish([settings('sealed', sealed())]);
      await assert.rejects(unlock('sealed', pin('wrong')), WrongPinError);
      assert.deepEqual([news.length, summary('sealed').locked], [1, true]);
    });
    it('what was unlocked stays so as long as its files are the same, and no PIN is needed for that', async () => {
      const all = [settings('sealed', sealed()), settings('plain', plain(other))];
      await publish(all);
      await unlock('sealed');
      const [context] = store.list().map((one) => one.context);
      assert.deepEqual(await publish(all), { changed: [], unchanged: 2 });
      assert.equal(store.list()[0]?.context, context);
      writeFolder(path.join(folder, 'plain'), plain(serverOnly));
      assert.deepEqual((await publish(all)).changed, ['plain']);
      assert.equal(store.list()[0]?.context, context);
    });
    it('changed files, and changed settings, lock it again; the revision counts on with the next PIN', async () => {
      const one = settings('sealed', sealed());
      await publish([one]);
      await unlock('sealed');
      writeFolder(path.join(folder, 'sealed'), sealed(leaf, 'another'));
      assert.deepEqual((await publish([one])).changed, ['sealed']);
      assert.deepEqual([summary('sealed').locked, summary('sealed').revision], [true, 1]);
      await assert.rejects(unlock('sealed'), WrongPinError);
      await unlock('sealed', pin('another'));
      assert.deepEqual([summary('sealed').locked, summary('sealed').revision], [undefined, 2]);
      await publish([{ ...one, policy: 'modern' }]);
      assert.equal(summary('sealed').locked, true);
    });
    it('a key that is no longer encrypted is used without a PIN', async () => {
      const one = settings('sealed', sealed());
      await publish([one]);
      writeFolder(path.join(folder, 'sealed'), plain(leaf));
      assert.deepEqual((await publish([one])).changed, ['sealed']);
      assert.deepEqual([summary('sealed').locked, summary('sealed').revision], [undefined, 1]);
    });
    it('other trust of the pool locks it for TLS clients alone: what serves goes on, and the old trust is not used', async () => {
      const one = settings('sealed', sealed());
      await publish([one]);
      await unlock('sealed');
      const { context } = defined(store.list()[0]);
      await publish([one], { ...roots, digest: 'roots-2' });
      assert.equal(store.list()[0]?.context, context);
      assert.throws(() => store.clientContext(client(7), 'sealed'), { code: 'IDENTITY_LOCKED' });
      assert.deepEqual([store.isLocked(client(7), 'sealed', 'client'), store.isLocked(client(7), 'sealed', 'server'), store.locked().length, summary('sealed').locked], [true, false, 1, true]);
      await unlock('sealed');
      assert.deepEqual([specOf(store.clientContext(client(7), 'sealed')).localid, store.locked().length], ['sealed', 0]);
    });
    it('other trust of the pool leaves a key for servers only, and one with trust of its own, as they are', async () => {
      const all = [settings('server', sealed(serverOnly)), settings('own', { ...sealed(), 'ca.crt': root.pem })];
      await publish(all);
      for (const localid of ['server', 'own']) await unlock(localid);
      await publish(all, { ...roots, digest: 'roots-2' });
      assert.deepEqual(store.locked(), []);
      assert.equal(specOf(store.clientContext(client(0), 'own')).localid, 'own');
    });
    it('names that are configured for two identities are refused while one of them is locked', async () => {
      await assert.rejects(publish([settings('a', sealed(), { names: ['x.example'] }), settings('b', plain(other), { names: ['x.example'] })]), { code: 'CONFIG_BAD' });
    });
    it('client authentication without roots is refused while the key is locked', async () => {
      await assert.rejects(publish([settings('sealed', sealed(), { clientAuth: 'require' })]), { code: 'IDENTITY_BAD', message: /needs roots/ });
    });
    it('a chooser may show what can be used; what is locked is told apart', async () => {
      await publish([settings('sealed', sealed()), settings('plain', plain(other)), settings('server', plain(serverOnly))]);
      const shown = (uid: number) => store.clientIdentities(client(uid)).map(({ summary: { localid }, locked }) => `${localid} ${locked ?? 'open'}`);
      assert.deepEqual([shown(0), shown(7), shown(8)], [['sealed all', 'plain open'], ['sealed all'], []]);
    });
  });

  describe('reload and check', () => {
    const write = (files: Readonly<Record<string, string>>): string => {
      writeFolder(path.join(folder, 'sealed'), files);
      const file = path.join(folder, 'tlspoold.yaml');
      writeFolder(folder, { 'tlspoold.yaml': JSON.stringify({ socket: { path: path.join(folder, 's') }, state: folder, identities: [{ localid: 'sealed', directory: path.join(folder, 'sealed') }] }) });
      return file;
    };
    const lines: string[] = [];
    const log = { info: (text: string) => { lines.push(text); }, warn: (text: string) => { lines.push(text); }, error: (text: string) => { lines.push(text); } };
    function reloader(file: string): { reloader: Reloader; store: Store } {
      const config = loadConfig(file);
      const access = new RuleAccess({ rules: [], sessionsPerClient: 1 });
      const store = new Store({ engine: new FakeEngine(), access });
      return { store, reloader: new Reloader({ config, overrides: {}, store, access, log, pollMs: 0 }) };
    }

    it('a PIN is tried between reloads, however many of both are asked for at once', async () => {
      const made = reloader(write(sealed()));
      await made.reloader.start();
      const outcomes = await Promise.all([
        made.reloader.reload(), made.reloader.unlock('sealed', pin('wrong')), made.reloader.unlock('sealed', pin()), made.reloader.reload(), made.reloader.unlock('sealed', pin()), made.reloader.unlock('nowhere', pin()),
      ]);
      made.reloader.stop();
      assert.deepEqual([outcomes[1], outcomes[2], outcomes[4], outcomes[5]], ['wrong', 'unlocked', 'gone', 'gone']);
      assert.deepEqual(made.store.list().map(({ revision, locked }) => [revision, locked]), [[1, undefined]]);
      assert.doesNotMatch(lines.join('\n'), /horse|wrong/);
    });
    it('the log warns of each key that is locked, when it is read and not at every look', async () => {
      const made = reloader(write(sealed()));
      lines.length = 0;
      await made.reloader.start();
      await made.reloader.reload();
      made.reloader.stop();
      assert.equal(lines.filter((line) => /is locked.*tlspool unlock/.test(line)).length, 1);
    });
    it('what is wrong apart from the PIN is thrown, and nothing has changed', async () => {
      const made = reloader(write({ 'tls.crt': leaf.pem, 'tls.key': seal(other) }));
      await made.reloader.start();
      await assert.rejects(made.reloader.unlock('sealed', pin()), { code: 'IDENTITY_BAD', message: /is not the key of/ });
      made.reloader.stop();
      assert.equal(made.store.locked().length, 1);
    });
    it('a configuration with a locked key is good, and the check says that a PIN will be needed', async () => {
      const { problems, warnings } = await checkCredentials(loadConfig(write(sealed())));
      assert.deepEqual(problems, []);
      assert.match(warnings.join('\n'), /identity sealed: its key is locked.*tlspool unlock/);
    });
  });
});
