import assert from 'node:assert/strict';
import type { Context } from 'tlspool/dist/engine.js';
import { Store, type IdentitySettings, type Material } from 'tlspool/dist/identity/index.js';
import type { DefaultTrust } from 'tlspool/dist/identity/settings.js';
import { RuleAccess, type Client } from 'tlspool/dist/policy/index.js';
import { defined, FakeEngine, makeCert, type Cert, type MadeContext, type MadeSelector } from './identity-support.js';

const client = (uid: number): Client => ({ pid: 1, uid, gid: uid, groups: [] });
const specOf = (context: Context) => (context as MadeContext).spec;
const namesOf = (selector: unknown) => (selector as MadeSelector).spec.names.map(([name, context]) => `${name}=${specOf(context).localid}`);

describe('identity store', () => {
  let root: Cert;
  let roots: DefaultTrust;
  let one: Cert;
  let two: Cert;
  let clientOnly: Cert;
  let serverOnly: Cert;
  let engine: FakeEngine;
  let access: RuleAccess;
  let store: Store;
  let nowMs: number;

  before(async () => {
    root = await makeCert('root', { ca: true });
    one = await makeCert('one', { issuer: root, dns: ['one.example', 'both.example'] });
    two = await makeCert('two', { issuer: root, dns: ['two.example', 'both.example'] });
    clientOnly = await makeCert('client', { issuer: root, usages: ['1.3.6.1.5.5.7.3.2'] });
    serverOnly = await makeCert('server', { issuer: root, dns: ['s.example'], usages: ['1.3.6.1.5.5.7.3.1'] });
    roots = { pem: Buffer.from(root.pem), digest: 'roots-1' };
  });
  beforeEach(() => {
    engine = new FakeEngine();
    access = new RuleAccess({ rules: [], sessionsPerClient: 1 }, 500);
    nowMs = Date.now();
    store = new Store({ engine, access, now: () => nowMs });
  });

  interface Given extends Partial<Omit<IdentitySettings, 'source' | 'localid'>> { readonly trust?: Cert }
  const loaded: Material[] = [];
  function identity(localid: string, cert: Cert | undefined, { trust, ...rest }: Given = {}): IdentitySettings {
    const load = (): Promise<Material> => {
      const material = {
        keyPairs: cert === undefined ? [] : [{ chain: Buffer.from(cert.pem), key: Buffer.from(cert.keyPem) }], certificateFiles: [`/${localid}/tls.crt`],
        ...(trust === undefined ? {} : { trust: Buffer.from(trust.pem) }), digest: `${cert?.certificate.fingerprint256 ?? ''} ${trust?.name ?? ''}`,
      };
      loaded.push(material);
      return Promise.resolve(material);
    };
    return {
      localid, source: { description: `/${localid}`, load, watch: () => ({ close: () => undefined }) },
      policy: 'intermediate', clientAuth: 'none', names: [], isDefault: false, ticketLifetimeS: 3600, ...rest,
    };
  }
  const publish = async (settings: IdentitySettings[], trust: DefaultTrust | undefined = roots) => store.publish(await store.prepare(settings, trust));
  const specs = (localid: string) => engine.contexts.map(({ spec }) => spec).filter((spec) => spec.localid === localid);

  describe('publication', () => {
    it('counts a revision up for what changed, and leaves the rest as it is', async () => {
      assert.deepEqual(await publish([identity('a', one), identity('b', two)]), { changed: ['a', 'b'], unchanged: 0 });
      const before = store.list();
      assert.deepEqual(await publish([identity('a', two), identity('b', two)]), { changed: ['a'], unchanged: 1 });
      assert.deepEqual(store.list().map(({ settings, revision }) => [settings.localid, revision]), [['a', 2], ['b', 1]]);
      assert.equal(store.list()[1], before[1]);
      assert.deepEqual(await publish([identity('a', two), identity('b', two)]), { changed: [], unchanged: 2 });
    });
    it('every setting that matters makes a new revision', async () => {
      await publish([identity('a', one, { trust: root })]);
      const changes: Given[] = [{ policy: 'modern' }, { clientAuth: 'request' }, { names: ['x.example'] }, { isDefault: true }, { ticketLifetimeS: 60 }];
      for (const change of changes) {
        assert.deepEqual((await publish([identity('a', one, { trust: root, ...change })])).changed, ['a'], JSON.stringify(change));
        assert.deepEqual((await publish([identity('a', one, { trust: root, ...change })])).changed, []);
      }
    });
    it('an identity that comes back goes on with its numbers', async () => {
      await publish([identity('a', one)]);
      assert.deepEqual((await publish([])).changed, ['a']);
      await publish([identity('a', one)]);
      assert.equal(defined(store.list()[0]).revision, 2);
    });
    it('one bad identity of many stops all of it, and what was in use stays', async () => {
      await publish([identity('a', one)]);
      const before = store.list();
      engine.refuse.add('b');
      await assert.rejects(publish([identity('a', two), identity('b', one)]), { code: 'IDENTITY_BAD', message: 'identity b (/b): the engine says no' });
      assert.deepEqual(store.list(), before);
      assert.deepEqual(namesOf(store.serverSelector(client(0), 'a')), ['one.example=a', 'both.example=a']);
    });
    it('keys are wiped when they were used, when nothing changed, and when it failed; the engine saw them whole', async () => {
      loaded.length = 0;
      await publish([identity('a', one)]);
      await publish([identity('a', one)]);
      engine.refuse.add('a');
      await assert.rejects(publish([identity('a', two)]));
      assert.equal(loaded.length, 3);
      for (const { keyPairs } of loaded) assert.ok(keyPairs[0]?.key.every((octet) => octet === 0));
      assert.equal(engine.contexts.find(({ spec }) => spec.localid === 'a')?.keysAtCall[0], one.keyPem);
    });
    it('listeners hear of each publication that changed something, and of changed rules, and of nothing else', async () => {
      const heard: (readonly string[])[] = [];
      store.onPublished((changed) => { heard.push(changed); });
      await publish([identity('a', one, { trust: root })]);
      await publish([identity('a', one, { trust: root })]);
      assert.deepEqual(heard, [['a']]);
      store.publish(await store.prepare([identity('a', one, { trust: root })], roots), true);
      await publish([identity('a', one, { trust: root })], { ...roots, digest: 'roots-2' });
      assert.deepEqual(heard, [['a'], [], []]);
    });
    it('two default identities, and client authentication without roots, are refused', async () => {
      await assert.rejects(publish([identity('a', one, { isDefault: true }), identity('b', two, { isDefault: true })]), { code: 'CONFIG_BAD', message: /a and b are both the default/ });
      for (const clientAuth of ['request', 'require'] as const) {
        await assert.rejects(publish([identity('a', one, { clientAuth })]), { code: 'IDENTITY_BAD', message: /needs roots/ });
        await publish([identity('a', one, { clientAuth, trust: root })]);
        assert.equal(specs('a').at(-1)?.clientAuth, clientAuth);
      }
    });
    it('the summary says what is shown to operators', async () => {
      await publish([identity('a', one, { trust: root, names: ['x.example'] })]);
      const { certificates, ...rest } = defined(store.list()[0]).summary;
      assert.deepEqual(rest, { localid: 'a', names: ['x.example'], revision: 1, source: '/a', policy: 'intermediate', clientAuth: 'none', isDefault: false, trustRoots: 1 });
      assert.deepEqual([certificates[0]?.subject, certificates[0]?.issuer, certificates[0]?.keyType, certificates[0]?.fingerprint.length], ['CN=one', 'CN=root', 'EC P-256', 64]);
    });
  });

  describe('ticket keys', () => {
    const tag = () => defined(specs('a').at(-1)).ticketTag;
    it('change with certificate, policy, client authentication and trust, also when the old value comes back', async () => {
      const steps: IdentitySettings[] = [
        identity('a', one, { trust: root }), identity('a', two, { trust: root }), identity('a', two, { trust: one }), identity('a', two, { trust: one, policy: 'modern' }),
        identity('a', two, { trust: one, policy: 'modern', clientAuth: 'require' }), identity('a', one, { trust: root }),
      ];
      const tags = new Set<string>();
      for (const step of steps) {
        await publish([step]);
        tags.add(tag());
      }
      assert.equal(tags.size, steps.length);
      for (const one of tags) assert.match(one, /^[0-9a-f]{32}$/);
    });
    it('stay when only names, the default or the lifetime change', async () => {
      await publish([identity('a', one, { trust: root })]);
      const before = tag();
      for (const change of [{ names: ['x.example'] }, { isDefault: true }, { ticketLifetimeS: 60 }]) {
        const count = engine.contexts.length;
        await publish([identity('a', one, { trust: root, ...change })]);
        assert.equal(tag(), before);
        assert.ok(engine.contexts.length > count, 'a new context was made');
      }
    });
    it('are not shared by identities with the same files', async () => {
      await publish([identity('a', one, { trust: root }), identity('b', one, { trust: root })]);
      assert.notEqual(specs('a')[0]?.ticketTag, specs('b')[0]?.ticketTag);
    });
  });

  describe('expiry', () => {
    it('an identity that has expired is refused, at start and when it changes', async () => {
      nowMs = Date.parse(one.certificate.validTo) + 1;
      await assert.rejects(publish([identity('a', one)]), { code: 'IDENTITY_BAD', message: /^\/a\/tls\.crt: .*CN=one expired on/ });
      nowMs -= 1;
      await publish([identity('a', one)]);
    });
    it('one that expires while in use stays, does not stop the reload of another, and is reported', async () => {
      await publish([identity('a', one)]);
      nowMs = Date.parse(one.certificate.validTo) - 1000;
      assert.deepEqual(store.expiring(0), []);
      assert.deepEqual(store.expiring(1000).map(({ localid, subject }) => [localid, subject]), [['a', 'CN=one']]);
      nowMs += 2000;
      const fresh = await makeCert('fresh', { dns: ['f.example'], notAfter: new Date(nowMs + 86_400_000) });
      assert.deepEqual(await publish([identity('a', one), identity('b', fresh)]), { changed: ['b'], unchanged: 1 });
      assert.equal(store.expiring(0).length, 1);
    });
  });

  describe('server tables', () => {
    const allow = (uid: number, ...identities: string[]) => { access.replace({ rules: [{ uids: [uid], identities, permissions: ['server'] }], sessionsPerClient: 1 }); };
    const spec = (selector: unknown) => (selector as MadeSelector).spec;

    it('an identity asked for by name serves its names and clients without one, and nothing else', async () => {
      await publish([identity('a', one), identity('b', two)]);
      const { noName, unknownName } = spec(store.serverSelector(client(0), 'a'));
      assert.deepEqual(namesOf(store.serverSelector(client(0), 'a')), ['one.example=a', 'both.example=a']);
      assert.deepEqual([specOf(noName!).localid, unknownName], ['a', undefined]);
    });
    it('without a localid all that the client may serve are in the table, and the default takes the rest', async () => {
      await publish([identity('a', one, { names: ['one.example'] }), identity('b', two, { names: ['two.example', '*.two.example'], isDefault: true })]);
      const selector = store.serverSelector(client(0), undefined);
      assert.deepEqual(namesOf(selector), ['one.example=a', 'two.example=b', '*.two.example=b']);
      assert.deepEqual([specOf(spec(selector).noName!).localid, specOf(spec(selector).unknownName!).localid], ['b', 'b']);
      allow(7, 'a');
      const narrow = store.serverSelector(client(7), undefined);
      assert.deepEqual([namesOf(narrow), spec(narrow).noName, spec(narrow).unknownName], [['one.example=a'], undefined, undefined]);
    });
    it('a name in two certificates is served to nobody by name, unless the client may use only one of them', async () => {
      await publish([identity('a', one), identity('b', two)]);
      assert.deepEqual(namesOf(store.serverSelector(client(0), undefined)), ['one.example=a', 'two.example=b']);
      allow(7, 'b');
      assert.deepEqual(namesOf(store.serverSelector(client(7), undefined)), ['two.example=b', 'both.example=b']);
    });
    it('what does not exist and what is not permitted get the same answer', async () => {
      await publish([identity('a', one)]);
      allow(7, 'other');
      const text = (localid: string) => {
        try {
          store.serverSelector(client(7), localid);
        } catch (error) {
          return `${(error as { code: string }).code} ${(error as Error).message.replace(localid, 'X')}`;
        }
        return 'accepted';
      };
      assert.match(text('a'), /^IDENTITY_UNKNOWN/);
      assert.equal(text('a'), text('zzz'));
      allow(7, 'a');
      assert.equal(text('a'), 'accepted');
    });
    it('a client that may serve nothing is told so', async () => {
      await publish([identity('a', one)]);
      assert.throws(() => store.serverSelector(client(7), undefined), { code: 'IDENTITY_UNKNOWN', message: /user 7 may serve/ });
    });
    it('an identity without a certificate cannot serve', async () => {
      await publish([identity('a', undefined, { trust: root })]);
      assert.throws(() => store.serverSelector(client(0), 'a'), { code: 'IDENTITY_UNKNOWN' });
      assert.throws(() => store.serverSelector(client(0), undefined), { code: 'IDENTITY_UNKNOWN' });
    });
    it('are made once, and anew after a publication that changed something', async () => {
      await publish([identity('a', one)]);
      const first = store.serverSelector(client(0), 'a');
      assert.equal(store.serverSelector(client(500), 'a'), first);
      await publish([identity('a', one)]);
      assert.equal(store.serverSelector(client(0), 'a'), first);
      await publish([identity('a', two)]);
      assert.notEqual(store.serverSelector(client(0), 'a'), first);
      assert.equal(engine.selectors.length, 2);
    });
  });

  describe('verifiers', () => {
    it('are the contexts of identities with roots of their own, also of those without a certificate', async () => {
      await publish([identity('a', one, { trust: root }), identity('admins', undefined, { trust: root, peers: { allow: { cn: ['admin'] } } })]);
      assert.equal(store.verifier(client(0), 'a'), defined(store.list()[0]).context);
      assert.deepEqual(specOf(store.verifier(client(0), 'admins')).peers, { allow: { cn: ['admin'] } });
    });
    it('an identity without roots is REAUTH_UNAVAILABLE: those of the pool are for servers', async () => {
      await publish([identity('a', one)]);
      assert.throws(() => store.verifier(client(0), 'a'), { code: 'REAUTH_UNAVAILABLE', message: /ca\.crt/ });
    });
    it('what is unknown and what is forbidden are refused in the same words', async () => {
      await publish([identity('a', one, { trust: root })]);
      const textOf = (uid: number, localid: string): string => {
        try {
          store.verifier(client(uid), localid);
        } catch (error) {
          assert.equal((error as { code?: string }).code, 'IDENTITY_UNKNOWN');
          return (error as Error).message.replaceAll(JSON.stringify(localid), 'X');
        }
        return 'no error';
      };
      assert.equal(textOf(1000, 'a'), textOf(0, 'b'));
    });
    it('follow a reload, so that a root that was taken away decides no more', async () => {
      await publish([identity('a', one, { trust: root })]);
      const before = store.verifier(client(0), 'a');
      const other = await makeCert('other root', { ca: true });
      await publish([identity('a', one, { trust: other })]);
      assert.notEqual(store.verifier(client(0), 'a'), before);
      assert.equal(String(specOf(store.verifier(client(0), 'a')).trust), other.pem);
    });
  });

  describe('client contexts', () => {
    it('an identity with roots of its own uses those in both roles', async () => {
      await publish([identity('a', one, { trust: root })]);
      assert.equal(store.clientContext(client(0), 'a'), defined(store.list()[0]).context);
    });
    it('one without has the pool\'s roots as a client, and never as a server', async () => {
      await publish([identity('a', clientOnly)]);
      const context = store.clientContext(client(0), 'a');
      assert.deepEqual([String(specOf(context).trust), specOf(context).clientAuth, specOf(defined(defined(store.list()[0]).context)).trust], [root.pem, 'none', undefined]);
      assert.notEqual(specOf(context).ticketTag, specOf(defined(defined(store.list()[0]).context)).ticketTag);
    });
    it('a certificate for servers only is of no use to a client, and the text says so', async () => {
      await publish([identity('a', serverOnly)]);
      assert.throws(() => store.clientContext(client(0), 'a'), { code: 'IDENTITY_UNKNOWN', message: /for servers only/ });
      await publish([identity('a', serverOnly, { trust: root })]);
      assert.ok(store.clientContext(client(0), 'a'));
    });
    it('without an identity there is no certificate, and the pool\'s roots', async () => {
      await publish([]);
      const { keyPairs, trust, localid } = specOf(store.clientContext(client(0), undefined));
      assert.deepEqual([keyPairs, String(trust), localid], [[], root.pem, '']);
    });
    it('other roots make another context, the same ones do not', async () => {
      await publish([identity('a', clientOnly)]);
      const before = [store.clientContext(client(0), undefined), store.clientContext(client(0), 'a')];
      await publish([identity('a', clientOnly)]);
      assert.deepEqual([store.clientContext(client(0), undefined) === before[0], store.clientContext(client(0), 'a') === before[1]], [true, true]);
      assert.deepEqual((await publish([identity('a', clientOnly)], { ...roots, digest: 'roots-2' })).changed, ['a']);
      assert.deepEqual([store.clientContext(client(0), undefined) === before[0], store.clientContext(client(0), 'a') === before[1]], [false, false]);
    });
    it('a client without the role gets none', async () => {
      await publish([identity('a', one, { trust: root })]);
      for (const localid of ['a', undefined]) assert.throws(() => store.clientContext(client(7), localid), { code: 'IDENTITY_UNKNOWN' });
      access.replace({ rules: [{ uids: [7], identities: ['a'], permissions: ['client'] }], sessionsPerClient: 1 });
      for (const localid of ['a', undefined]) assert.ok(store.clientContext(client(7), localid));
    });
  });
});
