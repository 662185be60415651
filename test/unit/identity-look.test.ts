/** What a reload goes by when the host changes under the pool, and certificates at the edge of what is shown. */
import assert from 'node:assert/strict';
import childProcess from 'node:child_process';
import { once, EventEmitter } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import os, { tmpdir } from 'node:os';
import path from 'node:path';
import { loadConfig } from 'tlspool/dist/config/index.js';
import { checkCredentials, Reloader, Store } from 'tlspool/dist/identity/index.js';
import { parseCertificates, summarize } from 'tlspool/dist/identity/inspect.js';
import { servedNames } from 'tlspool/dist/identity/names.js';
import { RuleAccess } from 'tlspool/dist/policy/index.js';
import { FakeEngine, makeCert, writeFolder, type Cert } from './identity-support.js';

const serverAuth = '1.3.6.1.5.5.7.3.1';
const clientAuth = '1.3.6.1.5.5.7.3.2';
const plain = 'trust: {roots: [roots.pem]}\nidentitiesDirectory: ids\n';

/** The part of a module of Node that a test puts its own in place of. */
function replaced<T extends object, K extends keyof T>(module: T, name: K, value: T[K]): () => void {
  const original = module[name];
  module[name] = value;
  syncBuiltinESMExports();
  return () => {
    module[name] = original;
    syncBuiltinESMExports();
  };
}

describe('reload on a host that changes', () => {
  let folder: string;
  let one: Cert;
  let two: Cert;
  let reloader: Reloader | undefined;
  let news: EventEmitter;
  let restore: () => void = () => undefined;

  before(async () => { [one, two] = [await makeCert('one', { dns: ['a.example'] }), await makeCert('two', { dns: ['a.example'] })]; });
  beforeEach(() => { folder = mkdtempSync(path.join(tmpdir(), 'look-')); });
  afterEach(() => {
    restore();
    restore = () => undefined;
    reloader?.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  const at = (...parts: string[]) => path.join(folder, ...parts);
  const pair = (cert: Cert) => ({ 'tls.crt': cert.pem, 'tls.key': cert.keyPem });

  async function start(text: string): Promise<Reloader> {
    writeFolder(folder, { 'roots.pem': one.pem, 'pool.yaml': text });
    writeFolder(at('ids/a'), pair(one));
    const config = loadConfig(at('pool.yaml'));
    news = new EventEmitter();
    const access = new RuleAccess({ rules: config.access, sessionsPerClient: 1 }, 500);
    const store = new Store({ engine: new FakeEngine(), access });
    const silent = () => undefined;
    reloader = new Reloader({ config, overrides: {}, store, access, log: { info: silent, warn: silent, error: (text) => news.emit('failed', text) }, debounceMs: 20, pollMs: 0 });
    await reloader.start();
    store.onPublished((changed) => { news.emit('published', changed); });
    return reloader;
  }

  it('fewer processors than at the start are no reason to refuse it', async () => {
    const running = await start(plain);
    const { workers } = running.config;
    restore = replaced(os, 'availableParallelism', () => (workers === 1 ? 2 : 1));
    assert.deepEqual(await running.reload(), { changed: [], unchanged: 1 });
    assert.equal(running.config.workers, workers);
  });

  it('workers that are configured otherwise still are', async () => {
    const running = await start(`${plain}workers: 2\n`);
    writeFolder(folder, { 'pool.yaml': `${plain}workers: 1\n` });
    await assert.rejects(running.reload(), { code: 'CONFIG_BAD', message: /workers \(2, now 1\)/ });
  });

  it('permissions of the socket are told in octal', async () => {
    const running = await start(plain);
    writeFolder(folder, { 'pool.yaml': `${plain}socket: {mode: 0600}\n` });
    await assert.rejects(running.reload(), { code: 'CONFIG_BAD', message: /socket\.mode \(0660, now 0600\)/ });
  });

  it('users are looked up when somebody asks for it and when the configuration changes, and not because a certificate does', async () => {
    let asked = 0;
    restore = replaced(childProcess, 'execFileSync', ((_file: string, [, name]: string[]) => {
      if (name === 'far-away') asked += 1;
      return name === 'far-away' ? 'far-away:x:77777:77777::/:/bin/sh\n' : '';
    }) as typeof childProcess.execFileSync);
    const text = `${plain}access: [{uid: far-away, identities: [a]}]\n`;
    const running = await start(text);
    assert.deepEqual(running.config.access[0]?.uids, [77_777]);
    let before = asked;
    const published = once(news, 'published');
    writeFolder(at('ids/a'), pair(two));
    await published;
    assert.equal(asked, before);
    await running.reload();
    assert.equal(asked, before + 1);
    before = asked;
    const again = once(news, 'published');
    writeFolder(folder, { 'pool.yaml': `${text}identities: [{localid: a, policy: modern}]\n` });
    await again;
    assert.ok(asked > before);
  });
});

describe('certificates at the edge', () => {
  let folder: string;
  beforeEach(() => { folder = mkdtempSync(path.join(tmpdir(), 'edge-')); });
  afterEach(() => { rmSync(folder, { recursive: true, force: true }); });

  it('one from before 1970 is shown as from 1970, which is where the moments of the protocol begin', async () => {
    const old = await makeCert('old', { dns: ['a.example'], notBefore: new Date('1955-01-01'), notAfter: new Date('9999-12-31T23:59:59Z') });
    const { notBeforeMs, notAfterMs } = summarize(old.certificate);
    assert.deepEqual([notBeforeMs, notAfterMs], [0, Date.parse('9999-12-31T23:59:59Z')]);
  });

  it('one for clients only gives no server name, and so takes none from the server that has the same', async () => {
    const [client, server, both] = await Promise.all([[clientAuth], [serverAuth], [serverAuth, clientAuth]].map((usages) => makeCert('x', { dns: ['a.example'], usages })));
    assert.deepEqual([client, server, both].map((cert) => servedNames([], cert === undefined ? [] : [cert.certificate], 'x')), [[], ['a.example'], ['a.example']]);
    assert.deepEqual(servedNames(['b.example'], client === undefined ? [] : [client.certificate], 'x'), ['b.example']);
  });

  it('a check has no quarrel about a name with an identity that serves nobody, as a start has none', async () => {
    const [server, client] = [await makeCert('s', { dns: ['a.example'] }), await makeCert('c', { dns: ['c.example'], usages: [clientAuth] })];
    for (const [name, cert] of [['s', server], ['c', client]] as const) writeFolder(path.join(folder, name), { 'tls.crt': cert.pem, 'tls.key': cert.keyPem });
    const problems = async (peers: string) => {
      writeFolder(folder, { 'pool.yaml': `trust: {roots: [s/tls.crt]}\nidentities:\n  - {localid: s, directory: s, names: [a.example]}\n  - {localid: c, directory: c, names: [a.example]${peers}}\n` });
      return (await checkCredentials(loadConfig(path.join(folder, 'pool.yaml')))).problems;
    };
    assert.deepEqual(await problems(', peers: {allow: {dns: [x.example]}}'), []);
    assert.match((await problems('')).join('\n'), /a\.example is configured for the identities s and c/);
  });

  it('a mark of the byte order before the first line is passed over', async () => {
    const { pem } = await makeCert('x', { dns: ['a.example'] });
    const mark = Buffer.from([0xef, 0xbb, 0xbf]);
    assert.equal(parseCertificates(Buffer.concat([mark, Buffer.from(pem)]), 'f').certificates.length, 1);
    assert.throws(() => parseCertificates(Buffer.concat([mark, mark, Buffer.from(pem)]), 'f'), { code: 'IDENTITY_BAD' });
  });
});
