import assert from 'node:assert/strict';
import { Store, type IdentitySettings } from 'tlspool/dist/identity/index.js';
import { RuleAccess } from 'tlspool/dist/policy/index.js';
import { RevisionFloors, SessionTable } from 'tlspool/dist/session/index.js';
import type { Session } from 'tlspool/dist/session/index.js';
import { established, userA } from './api-support.js';
import { defined, FakeEngine, makeCert, type Cert } from './identity-support.js';

const allow = { allow: { ou: ['Blue'] } };

describe('identities with rules on peers and a floor of revisions', () => {
  let root: Cert;
  let both: Cert;
  let clientOnly: Cert;
  let engine: FakeEngine;
  let store: Store;
  before(async () => {
    root = await makeCert('root', { ca: true });
    both = await makeCert('both', { issuer: root, dns: ['both.example'] });
    clientOnly = await makeCert('client', { issuer: root, usages: ['1.3.6.1.5.5.7.3.2'] });
  });
  beforeEach(() => {
    engine = new FakeEngine();
    store = new Store({ engine, access: new RuleAccess({ rules: [], sessionsPerClient: 1 }, 0) });
  });

  const identity = (cert: Cert | undefined, more: Partial<IdentitySettings> = {}): IdentitySettings => ({
    localid: 'a', policy: 'intermediate', clientAuth: 'none', names: [], isDefault: false, ticketLifetimeS: 3600,
    source: {
      description: '/a', watch: () => ({ close: () => undefined }),
      load: () => Promise.resolve({
        keyPairs: cert === undefined ? [] : [{ chain: Buffer.from(cert.pem), key: Buffer.from(cert.keyPem) }], certificateFiles: ['/a/tls.crt'], trust: Buffer.from(root.pem), digest: cert?.name ?? '',
      }),
    },
    ...more,
  });
  const publish = async (settings: IdentitySettings) => store.publish(await store.prepare([settings], undefined));
  const lastSpec = () => defined(engine.contexts.at(-1)).spec;

  it('the engine gets the rules, and a change of them makes a new revision with other ticket keys', async () => {
    const tags: string[] = [];
    for (const peers of [undefined, allow, { ...allow, deny: { ou: ['Red'] } }]) {
      assert.deepEqual((await publish(identity(both, { clientAuth: 'require', ...(peers && { peers }) }))).changed, ['a']);
      assert.deepEqual(lastSpec().peers, peers);
      tags.push(lastSpec().ticketTag);
    }
    assert.equal(new Set(tags).size, 3);
    assert.deepEqual((await publish(identity(both, { clientAuth: 'require', peers: { ...allow, deny: { ou: ['Red'] } } }))).changed, []);
  });

  it('an allow list that no client is asked for is refused; with a request, a deny list, or a certificate for clients it is not', async () => {
    await assert.rejects(publish(identity(both, { peers: allow })), { code: 'IDENTITY_BAD', message: /peers\.allow says which certificates are accepted, and clientAuth none asks no client for one; set clientAuth/ });
    await publish(identity(both, { peers: allow, clientAuth: 'request' }));
    await publish(identity(both, { peers: { deny: { ou: ['Red'] } } }));
    await publish(identity(clientOnly, { peers: allow }));
    await publish(identity(undefined, { peers: allow }));
  });

  it('an identity whose allow list is for servers cannot be listened with, and connects', async () => {
    const client = { pid: 1, uid: 0, gid: 0, groups: [] };
    await publish(identity(clientOnly, { peers: allow }));
    assert.throws(() => store.serverSelector(client, 'a'), { code: 'IDENTITY_UNKNOWN' });
    assert.throws(() => store.serverSelector(client, undefined), { code: 'IDENTITY_UNKNOWN' });
    assert.deepEqual((store.clientContext(client, 'a') as unknown as { spec: { peers: unknown } }).spec.peers, allow);
    await publish(identity(clientOnly, { peers: allow, clientAuth: 'require' }));
    store.serverSelector(client, 'a');
  });

  it('another priorRevisions alone is published without a new revision, and the engine makes nothing for it', async () => {
    await publish(identity(both));
    const made = engine.contexts.length;
    assert.deepEqual((await publish(identity(both, { priorRevisions: 0 }))).changed, ['a']);
    const [published] = store.list();
    assert.deepEqual([published?.revision, published?.settings.priorRevisions, engine.contexts.length], [1, 0, made]);
    assert.deepEqual((await publish(identity(both, { priorRevisions: 0 }))).changed, []);
    assert.deepEqual((await publish(identity(both))).changed, ['a']);
    assert.equal(store.list()[0]?.settings.priorRevisions, undefined);
  });

  describe('the floor', () => {
    const floorsOf = (revision: number, priorRevisions?: number) => {
      const floors = new RevisionFloors();
      floors.update([{ revision, settings: { localid: 'a', ...(priorRevisions !== undefined && { priorRevisions }) } }]);
      return floors;
    };
    it('keeps the current revision and as many before it as the identity says', () => {
      const alive = (floors: RevisionFloors) => [1, 2, 3, 4, 5].filter((revision) => !floors.isBelow({ localid: 'a', revision }));
      assert.deepEqual(alive(floorsOf(5, 0)), [5]);
      assert.deepEqual(alive(floorsOf(5, 1)), [4, 5]);
      assert.deepEqual(alive(floorsOf(5, 4)), [1, 2, 3, 4, 5]);
      assert.deepEqual(alive(floorsOf(5)), [1, 2, 3, 4, 5]);
      assert.equal(floorsOf(5, 0).isBelow({ localid: 'b', revision: 1 }), false);
    });
    it('goes with the setting: an identity that is gone, or says nothing any more, has none', () => {
      const floors = floorsOf(5, 0);
      floors.update([]);
      assert.equal(floors.isBelow({ localid: 'a', revision: 1 }), false);
    });
    it('picks sessions that are open or detached, and leaves those that are in their handshake or closing', () => {
      const table = new SessionTable();
      const owner = { client: userA, sessions: new Set<Session>() };
      const at = (session: number, revision: number) => table.accept(established(session, { localid: 'a', revision }), owner);
      const [open, detached, closing] = [at(1, 1), at(2, 1), at(3, 1)];
      at(4, 2);
      table.detach(detached);
      table.closing(closing);
      table.begin(5, owner, false);
      assert.deepEqual(floorsOf(2, 0).below(table.all()), [open, detached]);
      assert.deepEqual(floorsOf(2, 1).below(table.all()), []);
    });
  });
});
