import assert from 'node:assert/strict';
import * as x509 from '@peculiar/x509';
import { once, EventEmitter } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { checkCredentials, Reloader, Store } from 'tlspool/dist/identity/index.js';
import { watchedFolders, watchPaths } from 'tlspool-common/files';
import { loadConfig } from 'tlspool/dist/config/index.js';
import { RuleAccess, type Client } from 'tlspool/dist/policy/index.js';
import { FakeEngine, makeCert, writeFolder, type Cert } from './identity-support.js';

const user: Client = { pid: 1, uid: 77_777, gid: 77_777, groups: [] };

describe('reload', () => {
  let folder: string;
  let root: Cert;
  let one: Cert;
  let two: Cert;
  let reloader: Reloader | undefined;
  let store: Store;
  let access: RuleAccess;
  let lines: string[];
  let news: EventEmitter;

  before(async () => {
    root = await makeCert('root', { ca: true });
    one = await makeCert('one', { issuer: root, dns: ['a.example'] });
    two = await makeCert('two', { issuer: root, dns: ['a.example'] });
  });
  beforeEach(() => { folder = mkdtempSync(path.join(tmpdir(), 're-')); });
  afterEach(() => {
    reloader?.stop();
    reloader = undefined;
    rmSync(folder, { recursive: true, force: true });
  });

  const at = (...parts: string[]) => path.join(folder, ...parts);
  const pair = (cert: Cert) => ({ 'tls.crt': cert.pem, 'tls.key': cert.keyPem });
  const configure = (text: string) => { writeFileSync(at('new.yaml'), text, { mode: 0o600 }); renameSync(at('new.yaml'), at('pool.yaml')); };
  const plain = 'trust: {roots: [roots.pem]}\nidentitiesDirectory: ids\n';

  /** A reloader on what is in the folder. `pollMs` 0: only watching and calls make it read. */
  async function start(text = plain, pollMs = 0): Promise<Reloader> {
    writeFolder(folder, { 'roots.pem': root.pem });
    mkdirSync(at('ids'), { recursive: true });
    configure(text);
    const config = loadConfig(at('pool.yaml'));
    lines = [];
    news = new EventEmitter();
    const line = (level: string) => (words: string, fields: object = {}) => {
      lines.push(`${level} ${words} ${JSON.stringify(fields)}`);
      news.emit(`log ${level}`);
    };
    access = new RuleAccess({ rules: config.access, sessionsPerClient: config.limits.sessionsPerClient }, 500);
    store = new Store({ engine: new FakeEngine(), access });
    store.onPublished((changed) => { news.emit('published', changed); });
    reloader = new Reloader({ config, overrides: {}, store, access, log: { info: line('info'), warn: line('warn'), error: line('error') }, debounceMs: 20, pollMs });
    await reloader.start();
    return reloader;
  }
  const subjects = () => store.list().map(({ summary }) => summary.certificates[0]?.subject);

  describe('by watching', () => {
    beforeEach(() => { writeFolder(at('ids/a'), pair(one)); });

    it('files written in place are taken up', async () => {
      await start();
      const published = once(news, 'published');
      writeFolder(at('ids/a'), pair(two));
      await published;
      assert.deepEqual(subjects(), ['CN=two']);
    });
    it('files renamed over the old ones are taken up', async () => {
      await start();
      writeFolder(at('fresh'), pair(two));
      const published = once(news, 'published');
      for (const name of ['tls.key', 'tls.crt']) renameSync(at('fresh', name), at('ids/a', name));
      await published;
      assert.deepEqual(subjects(), ['CN=two']);
    });
    it('the swap of ..data that Kubernetes does is taken up, twice', async () => {
      rmSync(at('ids/a'), { recursive: true });
      writeFolder(at('ids/a/..v1'), pair(one));
      symlinkSync('..v1', at('ids/a/..data'));
      for (const name of ['tls.crt', 'tls.key']) symlinkSync(`..data/${name}`, at('ids/a', name));
      await start();
      for (const [version, cert] of [['..v2', two], ['..v3', one]] as const) {
        writeFolder(at('ids/a', version), pair(cert));
        symlinkSync(version, at('ids/a/..tmp'));
        const published = once(news, 'published');
        renameSync(at('ids/a/..tmp'), at('ids/a/..data'));
        await published;
        assert.deepEqual(subjects(), [`CN=${cert.name}`]);
      }
    });
    it('the swap of a link above the folder is taken up, twice', async () => {
      writeFolder(at('v1'), pair(one));
      symlinkSync('v1', at('current'));
      await start('trust: {roots: [roots.pem]}\nidentities: [{localid: a, directory: current}]\n');
      for (const [version, cert] of [['v2', two], ['v3', one]] as const) {
        writeFolder(at(version), pair(cert));
        symlinkSync(version, at('tmp'));
        const published = once(news, 'published');
        renameSync(at('tmp'), at('current'));
        await published;
        assert.deepEqual(subjects(), [`CN=${cert.name}`]);
      }
    });
    it('a folder replaced by another is taken up, twice', async () => {
      writeFolder(at('live'), pair(one));
      await start('trust: {roots: [roots.pem]}\nidentities: [{localid: a, directory: live}]\n');
      for (const cert of [two, one]) {
        writeFolder(at('fresh'), pair(cert));
        const published = once(news, 'published');
        renameSync(at('live'), at(`old-${cert.name}`));
        renameSync(at('fresh'), at('live'));
        await published;
        assert.deepEqual(subjects(), [`CN=${cert.name}`]);
      }
    });
    it('PEM files replaced by rename are taken up', async () => {
      writeFolder(folder, { 'c.pem': one.pem, 'k.pem': one.keyPem });
      await start('trust: {roots: [roots.pem]}\nidentities: [{localid: a, certificate: c.pem, key: k.pem}]\n');
      writeFolder(folder, { 'c2.pem': two.pem, 'k2.pem': two.keyPem });
      const published = once(news, 'published');
      renameSync(at('k2.pem'), at('k.pem'));
      renameSync(at('c2.pem'), at('c.pem'));
      await published;
      assert.deepEqual(subjects(), ['CN=two']);
    });
    it('a new sub-folder is a new identity, and one that is taken away goes', async () => {
      await start();
      let published = once(news, 'published');
      writeFolder(at('fresh'), pair(two));
      renameSync(at('fresh'), at('ids/b'));
      assert.deepEqual(await published, [['b']]);
      published = once(news, 'published');
      renameSync(at('ids/b'), at('gone'));
      assert.deepEqual(await published, [['b']]);
      assert.deepEqual(store.list().map(({ settings }) => settings.localid), ['a']);
    });
    it('a changed configuration is taken up, rules and settings together', async () => {
      await start();
      assert.equal(access.mayUse(user, 'a', 'server'), false);
      const published = once(news, 'published');
      configure(`${plain}identities: [{localid: a, policy: modern, default: true}]\naccess: [{uid: 77777, identities: [a]}]\nlimits: {sessionsPerClient: 3}\n`);
      await published;
      const { settings } = store.list()[0]!;
      assert.deepEqual([settings.policy, settings.isDefault, access.mayUse(user, 'a', 'server'), access.sessionsPerClient], ['modern', true, true, 3]);
    });
    it('other roots for outgoing connections are taken up', async () => {
      await start();
      const before = store.clientContext({ ...user, uid: 0 }, undefined);
      const published = once(news, 'published');
      writeFolder(folder, { 'roots.pem': one.pem });
      await published;
      assert.notEqual(store.clientContext({ ...user, uid: 0 }, undefined), before);
    });
    it('a failure is logged, remembered, and over when the cause is', async () => {
      const running = await start();
      const failed = once(news, 'log error');
      chmodSync(at('ids/a/tls.key'), 0o644);
      await failed;
      assert.match(running.record.error!, /tls\.key has mode 0644/);
      assert.deepEqual(subjects(), ['CN=one']);
      const well = once(news, 'log info');
      chmodSync(at('ids/a/tls.key'), 0o600);
      await well;
      assert.equal(running.record.error, undefined);
    });
  });

  it('the look that needs no sign finds what watching missed', async () => {
    writeFolder(at('ids/a'), pair(one));
    await start(plain, 10);
    // A folder that does not exist when it is configured, below one that is not watched.
    const failed = once(news, 'log error');
    configure(`${plain}identities: [{localid: far, directory: not/yet/here}]\n`);
    await failed;
    const published = once(news, 'published');
    mkdirSync(at('not/yet'), { recursive: true });
    writeFolder(at('fresh'), pair(two));
    renameSync(at('fresh'), at('not/yet/here'));
    assert.deepEqual(await published, [['far']]);
  });

  describe('on request', () => {
    beforeEach(() => { writeFolder(at('ids/a'), pair(one)); });

    it('says what changed and what did not', async () => {
      const running = await start();
      assert.deepEqual(await running.reload(), { changed: [], unchanged: 1 });
      assert.ok(running.record.atMs! <= Date.now() && running.record.atMs! > Date.now() - 60_000);
    });
    it('is all or nothing: one bad file keeps the good changes out too', async () => {
      writeFolder(at('ids/b'), pair(one));
      const running = await start();
      writeFolder(at('ids/a'), pair(two));
      writeFolder(at('ids/b'), { 'tls.key': two.keyPem });
      configure(`${plain}access: [{uid: 77777, identities: ["*"]}]\n`);
      await assert.rejects(running.reload(), { code: 'IDENTITY_BAD', message: /ids\/b\/tls\.key is not the key of/ });
      assert.deepEqual([subjects(), access.mayConnect(user), running.config.access], [['CN=one', 'CN=one'], false, []]);
    });
    it('a configuration with mistakes is refused with their places, and the old one stays', async () => {
      const running = await start();
      configure(`${plain}wrokers: 2\n`);
      await assert.rejects(running.reload(), { code: 'CONFIG_BAD', message: /pool\.yaml:3:1: wrokers/ });
      assert.match(running.record.error!, /wrokers/);
      unlinkSync(at('pool.yaml'));
      await assert.rejects(running.reload(), { code: 'CONFIG_BAD', message: /does not exist/ });
      configure(plain);
      assert.deepEqual(await running.reload(), { changed: [], unchanged: 1 });
      assert.equal(running.record.error, undefined);
    });
    it('a change that needs a restart is refused, by name and with both values', async () => {
      const running = await start(`${plain}workers: 2\n`);
      configure(`${plain}workers: 3\nlimits: {sessions: 7}\n`);
      await assert.rejects(running.reload(), { code: 'CONFIG_BAD', message: /workers \(2, now 3\), limits\.sessions \(20000, now 7\) changed, which needs a restart/ });
    });
    it('the same failure is logged once, and another one again', async () => {
      const running = await start();
      reloader?.stop();
      for (const text of ['workerz: 2\n', 'workerz: 2\n', 'statte: x\n']) {
        configure(plain + text);
        await assert.rejects(running.reload());
      }
      assert.equal(lines.filter((line) => line.startsWith('error')).length, 2);
    });
    it('calls during a reload share one that comes after it, so that each sees what was there when it was made', async () => {
      const running = await start();
      const first = running.reload();
      await Promise.resolve();
      await Promise.resolve();
      writeFolder(at('ids/a'), pair(two));
      const [second, third] = [running.reload(), running.reload()];
      assert.equal(second, third);
      await first;
      await second;
      assert.deepEqual(subjects(), ['CN=two']);
    });
    it('a name in two certificates is warned of', async () => {
      writeFolder(at('ids/b'), pair(two));
      await start();
      assert.equal(lines.filter((line) => line.startsWith('warn') && line.includes('"name":"a.example","localids":"a b"')).length, 1);
    });
    it('a certificate that ends within a week is warned of, once', async () => {
      const soon = await makeCert('soon', { issuer: root, dns: ['s.example'], notAfter: new Date(Date.now() + 6 * 86_400_000) });
      writeFolder(at('ids/a'), pair(soon));
      const running = await start();
      await running.reload();
      assert.equal(lines.filter((line) => line.startsWith('warn a certificate expires soon')).length, 1);
    });
  });

  it('a pool does not start with credentials that are bad', async () => {
    writeFolder(at('ids/a'), { ...pair(one), 'tls.key': two.keyPem });
    await assert.rejects(start(), { code: 'IDENTITY_BAD' });
  });

  it('a check reports every mistake of every identity at once, and none for good ones', async () => {
    writeFolder(folder, { 'roots.pem': root.pem });
    writeFolder(at('ids/a'), pair(one));
    configure(plain);
    assert.deepEqual(await checkCredentials(loadConfig(at('pool.yaml'))), { identities: 1, problems: [], warnings: [] });
    writeFolder(at('ids/b'), { 'tls.crt': one.pem, 'tls.key': two.keyPem });
    writeFolder(at('ids/c'), { 'tls.crt': 'garbage' });
    writeFolder(at('roots.pem', '..'), { 'roots.pem': 'garbage' });
    const { identities, problems } = await checkCredentials(loadConfig(at('pool.yaml')));
    assert.equal(identities, 3);
    assert.deepEqual([/roots\.pem:1/, /ids\/b/, /ids\/c/].map((pattern) => problems.filter((text) => pattern.test(text)).length), [1, 1, 1]);
  });

  it('a check warns of certificates that peers will refuse, and of roots under which nobody is accepted', async () => {
    writeFolder(folder, { 'roots.pem': root.pem });
    configure(plain);
    const warningsWith = async (options: Parameters<typeof makeCert>[1], trust = root.pem): Promise<readonly string[]> => {
      writeFolder(at('ids/a'), { ...pair(await makeCert('leaf', { issuer: root, dns: ['leaf.example'], ...options })), 'ca.crt': trust });
      const { problems, warnings } = await checkCredentials(loadConfig(at('pool.yaml')));
      assert.deepEqual(problems, []);
      return warnings;
    };
    const matches = (warnings: readonly string[], pattern: RegExp): void => {
      assert.equal(warnings.length, 1, warnings.join('\n'));
      assert.match(warnings[0] ?? '', pattern);
    };
    matches(await warningsWith({ usages: ['1.3.6.1.5.5.7.3.3'] }), /^.*ids\/a\/tls\.crt: its extendedKeyUsage has neither serverAuth nor clientAuth/u);
    matches(await warningsWith({ keyUsage: x509.KeyUsageFlags.keyEncipherment }), /ids\/a\/tls\.crt: its keyUsage has no digitalSignature/u);
    matches(await warningsWith({}, root.pem + (await makeCert('old', { ca: true, rsaBits: 1024 })).pem), /the root CN=old has an RSA key of 1024 bits/u);
    const digitalSignature = x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment;
    assert.deepEqual(await warningsWith({ keyUsage: digitalSignature, usages: ['1.3.6.1.5.5.7.3.1'] }), []);
  });

  describe('watching', () => {
    it('looks at every folder in which a link on the way stands', () => {
      mkdirSync(at('real/deep'), { recursive: true });
      symlinkSync('real', at('link'));
      writeFileSync(at('real/deep/f'), '');
      const folders = watchedFolders([{ file: at('link/deep/f') }]);
      assert.deepEqual(folders, new Map([[folder, new Set(['link'])], [at('real/deep'), new Set(['f'])]]));
    });
    it('survives a loop of links and a path that does not exist', () => {
      symlinkSync('b', at('a'));
      symlinkSync('a', at('b'));
      watchPaths([{ file: at('a/f') }, { folder: at('none/at/all') }], () => undefined).close();
    });
    it('ignores the neighbours of a file', async () => {
      writeFileSync(at('f'), '');
      const seen = new EventEmitter();
      let count = 0;
      const watch = watchPaths([{ file: at('f') }], () => { count++; seen.emit('change'); });
      writeFileSync(at('neighbour'), '');
      const change = once(seen, 'change');
      renameSync(at('neighbour'), at('other'));
      writeFileSync(at('f.new'), '');
      renameSync(at('f.new'), at('f'));
      await change;
      // Events of one folder come in order: had the neighbours counted, they would have come first.
      assert.equal(count, 1);
      watch.close();
    });
  });
});
