import 'reflect-metadata';
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import * as x509 from '@peculiar/x509';
import { firstSignedRevision } from 'tlspool/dist/identity/onthefly.js';
import { defined, type MadeContext, type MadeSelector } from './identity-support.js';
import { generalName, makeAuthority, nameConstraints, SigningBench, userA, userB, type CaOptions, type TestAuthority } from './signing-support.js';
import { der, derAttribute, derName } from '../support/der.js';

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

describe('on-the-fly identities', () => {
  let folder: string;
  let ca: TestAuthority;
  let other: TestAuthority;
  let bench: SigningBench;
  before(async () => {
    ca = await makeAuthority('signing CA');
    other = await makeAuthority('another CA');
  });
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'otf-'));
    bench = new SigningBench(folder);
  });
  afterEach(() => { rmSync(folder, { recursive: true, force: true }); });

  const serve = (name: string, client = userA) => bench.signer.serverSelector(client, name);
  const dial = (localid: string, client = userA) => bench.signer.clientContext(client, localid);
  const refused = (promise: Promise<unknown>, message: RegExp, code = 'SIGNING_UNAVAILABLE') => assert.rejects(promise, { code, message });
  const san = (certificate: x509.X509Certificate) => defined(certificate.getExtension(x509.SubjectAlternativeNameExtension) ?? undefined);

  describe('a certificate', () => {
    beforeEach(() => bench.use(ca));

    it('for a host name is signed by the CA, for servers, a day long, with the extensions of RFC 5280', async () => {
      await serve('WWW.example.org.');
      const [leaf, issuer] = bench.chain as [x509.X509Certificate, x509.X509Certificate];
      assert.equal(issuer.equal(ca.certificate), true);
      assert.equal(new X509Certificate(leaf.toString('pem')).verify(ca.node.publicKey), true);
      assert.deepEqual([leaf.subject, leaf.issuer], ['CN=www.example.org', 'CN=signing CA']);
      assert.deepEqual([san(leaf).names.toJSON(), san(leaf).critical], [[{ type: 'dns', value: 'www.example.org' }], false]);
      assert.deepEqual([...leaf.getExtension(x509.ExtendedKeyUsageExtension)?.usages ?? []], [x509.ExtendedKeyUsage.serverAuth]);
      assert.deepEqual([leaf.getExtension(x509.BasicConstraintsExtension)?.ca, leaf.getExtension(x509.KeyUsagesExtension)?.usages], [false, x509.KeyUsageFlags.digitalSignature]);
      assert.equal(leaf.getExtension(x509.AuthorityKeyIdentifierExtension)?.keyId, ca.certificate.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId);
      assert.deepEqual([leaf.notBefore.getTime() - bench.nowMs, leaf.notAfter.getTime() - bench.nowMs], [-300_000, dayMs]);
      assert.deepEqual(leaf.publicKey.algorithm, { name: 'ECDSA', namedCurve: 'P-256' });
    });
    it('has a random serial number of 127 bits', async () => {
      const serials = new Set<string>();
      for (const name of ['a', 'b', 'c']) {
        await serve(name);
        serials.add(defined(bench.chain[0]).serialNumber);
      }
      assert.equal(serials.size, 3);
      for (const serial of serials) assert.match(serial, /^[4-7][0-9a-f]{31}$/);
    });
    it('for an address has an iPAddress, and an empty subject, which no name constraint can be held against', async () => {
      await serve('2001:db8::1');
      const [leaf] = bench.chain as [x509.X509Certificate];
      assert.deepEqual([leaf.subject, san(leaf).critical, san(leaf).names.toJSON()], ['', true, [{ type: 'ip', value: '2001:db8::1' }]]);
    });
    it('for a name that is too long for a common name has none', async () => {
      const [fits, long] = [`${'a'.repeat(56)}.example`, `${'a'.repeat(57)}.example`];
      await serve(fits);
      assert.equal(bench.chain[0]?.subject, `CN=${fits}`);
      await serve(long);
      const [leaf] = bench.chain as [x509.X509Certificate];
      assert.deepEqual([leaf.subject, san(leaf).critical, san(leaf).names.toJSON()], ['', true, [{ type: 'dns', value: long }]]);
    });
    it('of a client is for clients, and may have an e-mail address', async () => {
      for (const [localid, type] of [['user@example.org', 'email'], ['host.example.org', 'dns']] as const) {
        await dial(localid);
        const [leaf] = bench.chain as [x509.X509Certificate];
        assert.deepEqual([...leaf.getExtension(x509.ExtendedKeyUsageExtension)?.usages ?? []], [x509.ExtendedKeyUsage.clientAuth]);
        assert.deepEqual([leaf.subject, san(leaf).names.toJSON()], [`CN=${localid}`, [{ type, value: localid }]]);
      }
    });
    it('is logged with name, role, serial number and the client that it was made for', async () => {
      await serve('a.example', userB);
      assert.deepEqual(bench.lines, [{
        text: 'a certificate was made on the fly',
        fields: { name: 'a.example', role: 'server', serial: bench.chain[0]?.serialNumber, notAfter: new Date(bench.nowMs + dayMs).toISOString(), uid: 1001, clientPid: 11, unit: 'proxy.service' },
      }]);
    });
    it('its key is there when the context is made, and wiped afterwards', async () => {
      await serve('a.example');
      const { keys, keysAtCall } = defined<MadeContext>(bench.engine.contexts.at(-1));
      assert.match(defined(keysAtCall[0]), /^-----BEGIN PRIVATE KEY-----\n[^]*\n-----END PRIVATE KEY-----\n$/);
      assert.ok(defined(keys[0]).every((octet) => octet === 0));
    });
  });

  describe('a context', () => {
    it('has the name as its localid, the preset, a revision of its own, and ticket keys of its own', async () => {
      await bench.use(ca, { policy: 'modern' });
      await serve('a.example');
      await serve('b.example');
      const [a, b] = bench.specs;
      assert.deepEqual([a?.localid, a?.minVersion, a?.clientAuth, a?.trust], ['a.example', 'TLSv1.3', 'none', undefined]);
      assert.deepEqual([a?.revision, b?.revision], [firstSignedRevision + 1, firstSignedRevision + 2]);
      assert.notEqual(a?.ticketTag, b?.ticketTag);
    });
    it('of a server asks for client certificates as configured, by the configured roots; those of the pool are for servers', async () => {
      writeFileSync(path.join(folder, 'roots.pem'), other.pem);
      await bench.use(ca, { clientAuth: 'require', trust: path.join(folder, 'roots.pem') }, { trust: { pem: Buffer.from('the pool'), digest: 'p' } });
      await serve('a.example');
      assert.deepEqual([bench.specs[0]?.clientAuth, bench.specs[0]?.trust?.toString().trim()], ['require', other.node.toString().trim()]);
      await bench.use(ca, {}, { trust: { pem: Buffer.from('the pool'), digest: 'p' } });
      await serve('b.example');
      assert.equal(bench.specs[1]?.trust, undefined);
    });
    it('of a client has the configured roots, else those of the pool', async () => {
      await bench.use(ca, {}, { trust: { pem: Buffer.from('the pool'), digest: 'p' } });
      await dial('a.example');
      assert.deepEqual([bench.specs[0]?.trust?.toString(), bench.specs[0]?.clientAuth], ['the pool', 'none']);
      writeFileSync(path.join(folder, 'roots.pem'), other.pem);
      await bench.use(ca, { clientAuth: 'require', trust: path.join(folder, 'roots.pem') }, { trust: { pem: Buffer.from('the pool'), digest: 'p' } });
      await dial('a.example');
      assert.deepEqual([bench.specs[1]?.trust?.toString().trim(), bench.specs[1]?.clientAuth], [other.node.toString().trim(), 'none'], 'who connects asks no client for a certificate');
    });
    it('is in a table for the name and for clients that send none, and for nobody else', async () => {
      await bench.use(ca);
      const { spec } = await serve('a.example') as MadeSelector;
      assert.deepEqual([spec.names.map(([name]) => name), spec.noName === spec.names[0]?.[1], spec.unknownName], [['a.example'], true, undefined]);
    });
    it('sessions that wait for a decision have a table that serves nobody, always the same', async () => {
      const before = bench.signer.undecided as MadeSelector;
      await bench.use(ca);
      assert.equal(bench.signer.undecided, before);
      assert.deepEqual([before.spec.noName, before.spec.unknownName, bench.specs[0]?.keyPairs], [undefined, undefined, []]);
    });
  });

  describe('a name is refused', () => {
    it('when nobody allows it, and the next one is served', async () => {
      await bench.use(ca, { names: ['*.example.org', 'exact.example'] });
      await refused(serve('www.example.net'), /certificates for "www\.example\.net" are not made here.*onTheFly\.names/);
      await serve('www.example.org');
      await serve('exact.example');
      assert.deepEqual(bench.made, ['www.example.org', 'exact.example']);
    });
    it('when it is none, without showing what could steer a terminal', async () => {
      await bench.use(ca);
      await refused(serve('*.example.org'), /is no name for a certificate of a TLS server/);
      await refused(serve('user@example.org'), /is no name/);
      await refused(serve('a\u001b[2J\u202e'), /^SIGNING_UNAVAILABLE: "a\\u\{1b\}\[2J\\u\{202e\}" is no name|^"a\\u\{1b\}\[2J\\u\{202e\}" is no name/);
      assert.deepEqual(bench.made, []);
    });
    it('when the CA, or one above it, may not sign it', async () => {
      const constrained = await makeAuthority('constrained', { nameConstraints: nameConstraints({ permitted: [generalName.dns('example.org')] }) });
      await bench.use(constrained);
      await serve('a.example.org');
      await refused(serve('a.example.net'), /name constraints of the signing CA do not allow "a\.example\.net"/);
      const above = await makeAuthority('above', { nameConstraints: nameConstraints({ excluded: [generalName.dns('secret.example.org')] }) });
      const below = await makeAuthority('below', { issuer: above, pathLength: 0 });
      await bench.use(below, {}, { chain: [above] });
      await serve('a.example.org');
      await refused(serve('a.secret.example.org'), /name constraints/);
      assert.equal(bench.chain.length, 3, 'the whole chain is sent');
    });
    it('a CA that is limited in distinguished names signs with an empty subject', async () => {
      await bench.use(await makeAuthority('limited', { nameConstraints: nameConstraints({ permitted: [generalName.directory(derName([derAttribute('2.5.4.10', 'Example')]))] }) }));
      await serve('a.example');
      assert.deepEqual([bench.chain[0]?.subject, san(defined(bench.chain[0])).critical], ['', true]);
    });
    it('for a role that the CA is not for', async () => {
      await bench.use(await makeAuthority('servers only', { usages: [x509.ExtendedKeyUsage.serverAuth] }));
      await serve('a.example');
      await refused(dial('a.example'), /not for certificates of TLS clients/);
    });
  });

  describe('who may', () => {
    beforeEach(() => bench.use(ca));
    it('a client needs the permission to sign, and that of the role', async () => {
      for (const lacking of ['sign', 'server']) {
        bench.permissions = (client, permission) => client.uid === 1001 || permission !== lacking;
        await refused(serve('a.example'), /user 1000 may not have certificates made on the fly in the server role.*"sign"/, 'NOT_PERMITTED');
        assert.throws(() => { bench.signer.ensure(userA, 'server'); }, { code: 'NOT_PERMITTED' });
        await serve(`${lacking}.example`, userB);
      }
    });
    it('one that may not is not served from what was made for others', async () => {
      await serve('a.example', userB);
      bench.permissions = (client) => client.uid === 1001;
      await refused(serve('a.example'), /user 1000/, 'NOT_PERMITTED');
    });
    it('without a CA nobody may, and that is said', async () => {
      bench.signer.publish(undefined, undefined);
      await refused(serve('a.example'), /has no signing CA.*onTheFly/);
      assert.throws(() => { bench.signer.ensure(userA, 'client'); }, { code: 'SIGNING_UNAVAILABLE' });
    });
  });

  describe('the same name again', () => {
    beforeEach(() => bench.use(ca));
    it('is served from the cache, to other clients too, and roles do not mix', async () => {
      const first = await serve('a.example');
      assert.equal(await serve('A.example.', userB), first);
      await dial('a.example');
      assert.deepEqual(bench.made, ['a.example', 'a.example']);
    });
    it('fifty at a time make one certificate', async () => {
      const selectors = await Promise.all(Array.from({ length: 50 }, () => serve('a.example')));
      assert.equal(new Set(selectors).size, 1);
      assert.deepEqual(bench.made, ['a.example']);
    });
    it('is made anew when half of its time has passed', async () => {
      const first = await serve('a.example');
      bench.nowMs += dayMs / 2 - 1000;
      assert.equal(await serve('a.example'), first);
      assert.equal(bench.made.length, 1);
      bench.nowMs += 1000;
      assert.equal(await serve('a.example'), first, 'the old one serves meanwhile');
      while (bench.made.length < 2) await new Promise((resolve) => { setImmediate(resolve); });
      assert.notEqual(await serve('a.example'), first);
    });
    it('a cache of one keeps the last', async () => {
      await bench.use(ca, { cache: 1 });
      for (const name of ['a', 'b', 'b', 'a']) await serve(name);
      assert.deepEqual(bench.made, ['a', 'b', 'a']);
    });
  });

  describe('too many', () => {
    beforeEach(() => bench.use(ca));
    it('one user has 32 certificates being made, another one its own', async () => {
      const many = (client: typeof userA, count: number) => Promise.allSettled(Array.from({ length: count }, (_, n) => serve(`n${n}-${client.uid}.example`, client)));
      const [a, b] = await Promise.all([many(userA, 40), many(userB, 32)]);
      assert.deepEqual([a, b].map((all) => all.filter(({ status }) => status === 'fulfilled').length), [32, 32]);
      const [lost] = a.filter((one) => one.status === 'rejected');
      assert.match(String(lost?.reason), /too many certificates are being made/);
      await serve('later.example', userB);
    });
    it('a name that is there already is served all the same', async () => {
      const there = await serve('there.example');
      const busy = Array.from({ length: 40 }, (_, n) => serve(`n${n}.example`).catch(() => undefined));
      assert.equal(await serve('there.example'), there);
      await Promise.all(busy);
    });
  });

  describe('the end of the CA', () => {
    it('cuts the certificate: no leaf outlives its CA, nor one above it', async () => {
      const notAfter = new Date(bench.nowMs + 2 * hourMs);
      await bench.use(await makeAuthority('ends soon', { notAfter }));
      await serve('a.example');
      assert.equal(bench.chain[0]?.notAfter.getTime(), notAfter.getTime());
      const above = await makeAuthority('above ends soon', { notAfter });
      await bench.use(await makeAuthority('below', { issuer: above, notAfter: new Date(bench.nowMs + 20 * dayMs) }), {}, { chain: [above] });
      await serve('b.example');
      assert.equal(bench.chain[0]?.notAfter.getTime(), notAfter.getTime());
    });
    it('a certificate begins no earlier than its CA', async () => {
      const notBefore = new Date(bench.nowMs - 60_000);
      await bench.use(await makeAuthority('young', { notBefore }));
      await serve('a.example');
      assert.equal(bench.chain[0]?.notBefore.getTime(), notBefore.getTime());
    });
    it('what is cut is used to its end, and not made again and again', async () => {
      await bench.use(await makeAuthority('ends soon', { notAfter: new Date(bench.nowMs + 2 * hourMs) }));
      await serve('a.example');
      bench.nowMs += 2 * hourMs - 1000;
      await serve('a.example');
      assert.deepEqual(bench.made, ['a.example']);
      bench.nowMs += 1000;
      await refused(serve('a.example'), /the signing CA has expired/);
    });
    it('is announced like that of any certificate', async () => {
      await bench.use(await makeAuthority('ends soon', { notAfter: new Date(bench.nowMs + 2 * hourMs) }));
      assert.deepEqual(bench.signer.expiring(hourMs), []);
      assert.deepEqual(bench.signer.expiring(3 * hourMs).map(({ localid, subject }) => [localid, subject]), [['onTheFly', 'CN=ends soon']]);
    });
    it('one that is in use already stays, and a new one that has ended is refused', async () => {
      const ending = await makeAuthority('ends', { notAfter: new Date(bench.nowMs + hourMs) });
      await bench.use(ending);
      bench.nowMs += 2 * hourMs;
      await bench.use(ending, { names: ['a.example'] });
      await assert.rejects(bench.use(await makeAuthority('ended', { notAfter: new Date(bench.nowMs - 1000) })), { code: 'IDENTITY_BAD', message: /CN=ended expired/ });
    });
  });

  describe('reload', () => {
    beforeEach(() => bench.use(ca));
    it('of the same CA keeps what was made', async () => {
      const first = await serve('a.example');
      await bench.use(ca);
      assert.equal(await serve('a.example'), first);
    });
    for (const [what, changed] of [['another lifetime', { lifetimeS: 7200 }], ['another policy', { policy: 'modern' }]] as const) {
      it(`with ${what} makes all anew`, async () => {
        const first = await serve('a.example');
        await bench.use(ca, changed);
        assert.notEqual(await serve('a.example'), first);
      });
    }
    it('another CA makes all anew, also what is being made at that moment', async () => {
      const issuerOf = (selector: unknown) => {
        const context = defined((selector as MadeSelector).spec.names[0])[1] as MadeContext;
        return new X509Certificate(defined(context.spec.keyPairs[0]).chain).issuer;
      };
      assert.equal(issuerOf(await serve('a.example')), 'CN=signing CA');
      const publish = await bench.ready(other);
      const pending = serve('b.example');
      publish();
      assert.equal(issuerOf(await serve('a.example')), 'CN=another CA');
      assert.equal(issuerOf(await pending), 'CN=another CA');
      assert.deepEqual(bench.made.filter((name) => name === 'b.example').length, 2, 'it was under way when the CA changed');
    });
    it('names that are no longer allowed are refused although they are there', async () => {
      await serve('a.example');
      await bench.use(ca, { names: ['b.example'] });
      await refused(serve('a.example'), /not made here/);
      await serve('b.example');
    });
    it('other roots of the pool change clients and not servers', async () => {
      const trust = (digest: string) => ({ trust: { pem: Buffer.from(digest), digest } });
      await bench.use(ca, {}, trust('1'));
      const [server, client] = [await serve('a.example'), await dial('a.example')];
      await bench.use(ca, {}, trust('2'));
      assert.equal(await serve('a.example'), server);
      assert.notEqual(await dial('a.example'), client);
    });
    it('a CA that is bad leaves the one in use', async () => {
      await assert.rejects(bench.use(ca, {}, { keyPem: other.keyPem }), { code: 'IDENTITY_BAD' });
      await serve('a.example');
      assert.equal(bench.chain[0]?.issuer, 'CN=signing CA');
    });
  });

  describe('what is no signing CA', () => {
    const bad: [string, CaOptions, RegExp][] = [
      ['an end entity', { ca: false }, /basicConstraints without CA:TRUE/],
      ['one that may not sign certificates', { keyUsage: x509.KeyUsageFlags.cRLSign }, /keyUsage without keyCertSign/],
      ['one that does not say what its key is for', { keyUsage: null }, /keyUsage without keyCertSign/],
      ['one whose time has not come', { notBefore: new Date(Date.now() + dayMs) }, /not valid before/],
      ['one with an Ed25519 key, which browsers do not take', { key: 'ed25519' }, /ED25519 key.*ECDSA/],
      ['one with a weak key', { key: 'rsa1024' }, /RSA 1024/],
      ['one whose name constraints cannot be read', { nameConstraints: Buffer.from([1]) }, /name constraints of CN=test cannot be read/],
    ];
    for (const [what, options, message] of bad) {
      it(`${what} is refused`, async () => {
        await assert.rejects(async () => bench.use(await makeAuthority('test', options)), (error: Error & { code: string }) => {
          assert.deepEqual([error.code, message.test(error.message)], ['IDENTITY_BAD', true], error.message);
          return true;
        });
      });
    }
    for (const key of ['P-256', 'P-384', 'P-521', 'rsa'] as const) {
      it(`one with a key of type ${key} signs what verifies`, async () => {
        const authority = await makeAuthority('test', { key });
        await bench.use(authority);
        await serve('a.example');
        assert.equal(new X509Certificate(defined(bench.chain[0]).toString('pem')).verify(authority.node.publicKey), true);
      });
    }
    it('a chain that is out of order, has an end entity in it, or is longer than it may be, is refused', async () => {
      const root = await makeAuthority('root', { pathLength: 0 });
      const below = await makeAuthority('below', { issuer: root });
      await assert.rejects(bench.use(below, {}, { chain: [root] }), { message: /CN=root allows 0 authorities below it, and 1 are/ });
      await assert.rejects(bench.use(below, {}, { chain: [ca] }), { message: /the chain is broken/ });
      const loose = await makeAuthority('root', { pathLength: 1 });
      await bench.use(await makeAuthority('below', { issuer: loose }), {}, { chain: [loose] });
    });
    it('the identifier of the CA\'s key is taken as it is, and made where it has none', async () => {
      await bench.use(await makeAuthority('own id', { keyId: '0102030405' }));
      await serve('a.example');
      assert.equal(bench.chain[0]?.getExtension(x509.AuthorityKeyIdentifierExtension)?.keyId, '0102030405');
      await bench.use(await makeAuthority('no id', { keyId: null }));
      await serve('a.example');
      assert.match(bench.chain[0]?.getExtension(x509.AuthorityKeyIdentifierExtension)?.keyId ?? '', /^[0-9a-f]{40}$/);
    });
    it('the issuer is the subject of the CA to the octet', async () => {
      const subject = derName([derAttribute('2.5.4.6', der(0x13, 'NL'))], [derAttribute('2.5.4.10', 'Größe')], [derAttribute('2.5.4.3', der(0x14, 'old')), derAttribute('2.5.4.3', der(0x1e, Buffer.from([0, 0x61])))]);
      const authority = await makeAuthority('x', { subject: new x509.Name(subject) });
      await bench.use(authority);
      await serve('a.example');
      assert.deepEqual(Buffer.from(defined(bench.chain[0]).issuerName.toArrayBuffer()), subject);
    });
    it('files that are missing, and a key that others can read, are refused by name', async () => {
      await bench.use(ca);
      chmodSync(path.join(folder, 'ca.key'), 0o644);
      await assert.rejects(bench.signer.prepare({ onTheFly: bench.settings() } as never), { code: 'IDENTITY_BAD', message: /ca\.key has mode 0644/ });
      unlinkSync(path.join(folder, 'ca.crt'));
      await assert.rejects(bench.signer.prepare({ onTheFly: bench.settings() } as never), { code: 'IDENTITY_BAD', message: /ca\.crt: the file does not exist/ });
    });
    it('an engine that refuses the certificate leaves an error in the log and a refusal', async () => {
      await bench.use(ca);
      bench.engine.refuse.add('bad.example');
      await refused(serve('bad.example'), /could not be made; the log of the pool says why/);
      assert.match(bench.errors.join('\n'), /could not be made on the fly.*the engine says no/);
      await serve('good.example');
    });
  });
});
