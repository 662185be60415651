import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { engine as addon, type Engine } from 'tlspool/dist/engine.js';
import { directorySource, Store, type IdentitySettings, type PolicyName } from 'tlspool/dist/identity/index.js';
import { initCa, issue } from 'tlspool/dist/pki/index.js';
import { RuleAccess } from 'tlspool/dist/policy/index.js';

const root = { pid: 1, uid: 0, gid: 0, groups: [] };

describe('identities on the real engine', () => {
  let folder: string;
  let engine: Engine;
  let store: Store;
  before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'ide-'));
    engine = new addon.Engine({ workers: 1, sessionsMax: 10, handshakesMax: 10, handshakeMs: 1000, lingerMs: 100, onEvents: () => undefined });
    store = new Store({ engine, access: new RuleAccess({ rules: [], sessionsPerClient: 1 }) });
    await initCa(path.join(folder, 'ca'));
  });
  after(() => {
    engine.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const identity = (localid: string, policy: PolicyName, clientAuth: IdentitySettings['clientAuth']): IdentitySettings => ({
    localid, source: directorySource(path.join(folder, localid)), policy, clientAuth, names: [], isDefault: localid === 'dual', ticketLifetimeS: 3600,
  });

  it('it takes what the PKI issues, in both presets and roles, with two key types and with trust alone', async () => {
    const [ca, out] = [path.join(folder, 'ca'), (name: string) => path.join(folder, name)];
    await issue(ca, { name: 'dual.example', out: out('dual'), server: true, client: true });
    await issue(ca, { name: 'dual.example', out: out('dual'), keyType: 'rsa', pair: 'tls-rsa' });
    await issue(ca, { name: 'strict.example', dns: ['strict.example', '*.strict.example'], out: out('strict') });
    const { changed } = store.publish(await store.prepare([identity('dual', 'intermediate', 'request'), identity('strict', 'modern', 'require')], undefined));
    assert.deepEqual(changed, ['dual', 'strict']);
    assert.deepEqual(store.list().map(({ names }) => names), [['dual.example'], ['strict.example', '*.strict.example']]);
    for (const localid of ['dual', 'strict', undefined]) assert.ok(store.serverSelector(root, localid) && store.clientContext(root, localid));
    assert.deepEqual(store.list()[0]?.summary.certificates.map(({ keyType }) => keyType).sort(), ['EC P-256', 'RSA 2048']);
  });
});
