import assert from 'node:assert/strict';
import { Store, type IdentitySettings } from 'tlspool/dist/identity/index.js';
import { RuleAccess, type Client } from 'tlspool/dist/policy/index.js';
import { FakeEngine, makeCert, type Cert, type MadeContext, type MadeSelector } from './identity-support.js';

const root: Client = { pid: 1, uid: 0, gid: 0, groups: [] };
const user: Client = { pid: 2, uid: 1000, gid: 1000, groups: [] };

describe('identity store: who serves a name', () => {
  let a: Cert;
  let b: Cert;
  let wild: Cert;
  let clientOnly: Cert;
  let store: Store;
  before(async () => {
    a = await makeCert('a', { dns: ['a.example', 'both.example', 'x.wild.example'] });
    b = await makeCert('b', { dns: ['b.example', 'both.example'] });
    wild = await makeCert('wild', { dns: ['*.wild.example'] });
    clientOnly = await makeCert('c', { usages: ['1.3.6.1.5.5.7.3.2'] });
  });
  beforeEach(() => {
    store = new Store({ engine: new FakeEngine(), access: new RuleAccess({ rules: [{ uids: [1000], identities: ['a'], permissions: ['server'] }], sessionsPerClient: 1 }, 500) });
  });

  const identity = (localid: string, cert: Cert, more: Partial<IdentitySettings> = {}): IdentitySettings => ({
    localid, policy: 'intermediate', clientAuth: 'none', names: [], isDefault: false, ticketLifetimeS: 3600, ...more,
    source: {
      description: localid, watch: () => ({ close: () => undefined }),
      load: () => Promise.resolve({ keyPairs: [{ chain: Buffer.from(cert.pem), key: Buffer.from(cert.keyPem) }], certificateFiles: [localid], digest: cert.pem }),
    },
  });
  const publish = async (...settings: IdentitySettings[]) => { store.publish(await store.prepare(settings, undefined)); };
  const who = (name: string, client = root, preferred?: string): string | undefined => {
    const selector = store.serving(client, name, preferred) as MadeSelector | undefined;
    return (selector?.spec.noName as MadeContext | undefined)?.spec.localid;
  };

  it('the one that has it, in any case and with a final dot; nobody has others', async () => {
    await publish(identity('a', a), identity('b', b));
    assert.deepEqual(['a.example', 'A.Example.', 'b.example', 'c.example', ''].map((name) => who(name)), ['a', 'a', 'b', undefined, undefined]);
  });
  it('a wildcard covers one label, and the exact name comes first', async () => {
    await publish(identity('a', a), identity('wild', wild));
    assert.deepEqual(['y.wild.example', 'x.wild.example', 'wild.example', 'y.x.wild.example'].map((name) => who(name)), ['wild', 'a', undefined, undefined]);
  });
  it('nobody has a name that stands in two certificates, unless one is preferred or configured', async () => {
    await publish(identity('a', a), identity('b', b));
    assert.deepEqual([who('both.example'), who('both.example', root, 'b'), who('both.example', root, 'gone')], [undefined, 'b', undefined]);
    assert.equal(who('a.example', root, 'b'), 'a', 'a preference for one that has not the name counts for nothing');
    await publish(identity('a', a), identity('b', b, { names: ['both.example'] }));
    assert.equal(who('both.example'), 'b');
  });
  it('a default identity has no more names for that', async () => {
    await publish(identity('a', a, { isDefault: true }));
    assert.deepEqual([who('a.example'), who('other.example')], ['a', undefined]);
  });
  it('what the client may not use is not there for it, and does not make a name ambiguous', async () => {
    await publish(identity('a', a), identity('b', b));
    assert.deepEqual([who('both.example', user), who('b.example', user), who('b.example', user, 'b')], ['a', undefined, undefined]);
  });
  it('one that is locked has it still, and nobody serves it meanwhile', async () => {
    const locked = identity('a', a);
    const shut = { ...locked, source: { ...locked.source, load: async () => ({ ...await locked.source.load(), digest: 'shut', isLocked: true as const }) } };
    await publish(shut, identity('b', b));
    assert.throws(() => who('a.example'), { code: 'IDENTITY_LOCKED' });
    assert.throws(() => who('a.example', user), { code: 'IDENTITY_LOCKED' });
    assert.equal(who('b.example'), 'b');
    await publish(locked, identity('b', b));
    assert.equal(who('a.example'), 'a');
  });
  it('one that cannot serve does not', async () => {
    await publish(identity('a', a), identity('c', clientOnly, { names: ['c.example'], peers: { allow: { cn: ['x'] } } }));
    assert.equal(who('c.example'), undefined);
  });
  it('before anything is published there is nobody', () => { assert.equal(who('a.example'), undefined); });
});
