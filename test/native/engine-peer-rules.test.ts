import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type tls from 'node:tls';
import fc from 'fast-check';
import type { ContextSpec, KeyPairSpec } from 'tlspool/dist/engine.js';
import { peerNameKinds } from 'tlspool/dist/policy/peers.js';
import type { PeerNameKind, PeerRules } from 'tlspool/dist/policy/peers.js';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { connectTls, makeCertificates, Rig } from './engine-support.js';
import type { Certificates, EventOf } from './engine-support.js';

const versions = ['TLSv1.2', 'TLSv1.3'] as const;

/** One authority, and leaves whose names are given as OpenSSL's configuration lines. */
class Authority {
  readonly #folder = mkdtempSync(path.join(os.tmpdir(), 'tlspool-peers-'));
  readonly pem: Buffer;

  constructor() {
    this.#openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', 'ca.key', '-out', 'ca.crt', '-days', '2', '-subj', '/CN=peers');
    this.pem = readFileSync(path.join(this.#folder, 'ca.crt'));
  }

  issue(subject: string, san: string, isSelfSigned = false): KeyPairSpec {
    writeFileSync(path.join(this.#folder, 'ext'), san === '' ? 'basicConstraints=CA:false\n' : `subjectAltName=${san}\n`);
    this.#openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-utf8', '-keyout', 'leaf.key', '-out', 'leaf.csr', '-subj', subject);
    const signer = isSelfSigned ? ['-signkey', 'leaf.key'] : ['-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial'];
    this.#openssl('x509', '-req', '-in', 'leaf.csr', ...signer, '-days', '2', '-extfile', 'ext', '-out', 'leaf.crt');
    return { chain: readFileSync(path.join(this.#folder, 'leaf.crt')), key: readFileSync(path.join(this.#folder, 'leaf.key')) };
  }

  remove(): void { rmSync(this.#folder, { recursive: true }); }
  #openssl(...args: string[]): void { execFileSync('openssl', args, { cwd: this.#folder, stdio: 'pipe' }); }
}

const pinOf = ({ chain }: KeyPairSpec): string =>
  `sha256:${createHash('sha256').update(new X509Certificate(chain).publicKey.export({ format: 'der', type: 'spki' })).digest('base64')}`;

describe('engine: rules on the certificates of peers', () => {
  let certificates: Certificates;
  let authority: Authority;
  let rich: KeyPairSpec;
  let rig: Rig;
  before(() => {
    certificates = makeCertificates();
    authority = new Authority();
    rich = authority.issue('/O=Example/OU=Blue/OU=Second team/CN=Wéb client/CN=other', [
      'DNS:Web.Example.org', 'DNS:deep.sub.example.net', 'DNS:*.wild.example', 'DNS:server.test', 'URI:SPIFFE://Example.ORG/ns/prod/sa/Web', 'URI:urn:example:thing',
      'email:Ann@Example.ORG', 'IP:192.0.2.7', 'IP:2001:db8::7',
    ].join(','));
  });
  after(() => { authority.remove(); });
  beforeEach(() => { rig = new Rig(certificates); });
  afterEach(() => { rig.close(); });

  type Outcome = { readonly accepted: boolean; readonly authorized: boolean; readonly code: string; readonly text: string; readonly alert: number | undefined };
  interface Meeting { readonly peers: PeerRules; readonly shown?: KeyPairSpec; readonly version?: tls.SecureVersion; readonly more?: Partial<ContextSpec>; readonly rejectUnauthorized?: boolean }

  type Verdict = EventOf<'established'> | EventOf<'failed'>;
  const verdictOn = (session: number): Promise<Verdict> => {
    const isOurs = (event: { readonly session: number }): boolean => event.session === session;
    return Promise.race([rig.event('established', isOurs), rig.event('failed', isOurs)]);
  };
  const close = async (event: Verdict): Promise<void> => {
    if (event.kind === 'failed') return;
    sockets.close(event.plainfd as OwnedFd);
    rig.engine.close(event.session, 'abort');
    await rig.event('closed', ({ session }) => session === event.session);
  };
  const outcomeOf = (event: Verdict): Outcome => (event.kind === 'failed'
    ? { accepted: false, authorized: false, code: event.code, text: event.text, alert: event.alert }
    : { accepted: true, authorized: event.authorized, code: '', text: '', alert: undefined });

  /** A handshake in which the server judges the client (`shown` is the client's certificate), or the client the server. */
  async function meet(judge: 'server' | 'client', { peers, shown = rich, version = 'TLSv1.3', more = {}, rejectUnauthorized = true }: Meeting): Promise<Outcome> {
    const [a, b] = sockets.socketpair('stream');
    const limits = { minVersion: version, maxVersion: version } as Pick<ContextSpec, 'minVersion' | 'maxVersion'>;
    const judging = { ...limits, peers, trust: authority.pem, ...more };
    const server = rig.context(judge === 'server' ? { clientAuth: 'require', ...judging } : { ...limits, keyPairs: [shown] });
    const client = rig.context(judge === 'client' ? { ...judging, keyPairs: [] } : { ...limits, keyPairs: [shown] });
    const first = rig.engine.startTls(a, -1, { role: 'server', selector: rig.selector(server), ask: false, ...(judge === 'server' && { rejectUnauthorized }) });
    const second = rig.engine.startTls(b, -1, { role: 'client', context: client, remoteid: 'server.test', servername: 'server.test', ...(judge === 'client' && { rejectUnauthorized }) });
    // Both first: one side is done before the other has judged.
    const events = await Promise.all([verdictOn(first), verdictOn(second)]);
    for (const event of events) await close(event);
    return outcomeOf(events[judge === 'server' ? 0 : 1]);
  }

  const table: readonly (readonly [kind: PeerNameKind, matching: readonly string[], others: readonly string[]])[] = [
    ['dns', ['web.example.org', 'WEB.example.ORG', 'web.example.org.', '*.example.org', '*.sub.example.net', '*.wild.example'],
      ['example.org', 'b.example.org', '*.web.example.org', '*.example.net', 'deep.example.net', 'a.wild.example', 'eb.example.org']],
    ['uri', ['spiffe://example.org/ns/prod/sa/Web', 'spiffe://EXAMPLE.org/ns/*/sa/Web', 'spiffe://example.org/*/*/*/*', 'spiffe://example.org/ns/prod/sa/**', 'spiffe://example.org/**', 'urn:example:thing', 'URN:example:thing'],
      ['spiffe://example.org/ns/prod/sa/web', 'spiffe://example.org/ns/prod/sa', 'spiffe://example.org/ns/prod/sa/Web/**', 'spiffe://example.org/*', 'spiffe://example.org', 'spiffe://example.or/**',
        'spiffe://example.org.evil/**', 'https://example.org/**', 'spiffe://example.org/ns/dev/**', 'urn:example:thin']],
    ['email', ['Ann@example.org', 'Ann@EXAMPLE.org'], ['ann@example.org', 'nn@example.org', 'Ann@example.or', 'Ann@sub.example.org']],
    ['ip', ['192.0.2.7', '192.0.2.0/24', '192.0.2.6/31', '0.0.0.0/0', '::ffff:192.0.2.7', '::ffff:192.0.2.0/120', '2001:db8::7', '2001:DB8::/32', '::/0'],
      ['192.0.2.6', '192.0.2.8/29', '192.0.3.0/24', '2001:db8::8', '2001:db9::/32']],
    ['cn', ['Wéb client', 'other'], ['wéb client', 'Web client', 'Wéb', 'Wéb client ', '*']],
    ['ou', ['Blue', 'Second team'], ['blue', 'Red', 'Blue,Second team', '*']],
  ];

  for (const version of versions) {
    it(`${version}: the server refuses a client by a deny rule and by an allow list without it, with an alert, and takes one that is on the list`, async () => {
      for (const peers of [{ deny: { ou: ['Blue'] } }, { allow: { ou: ['Red'] } }] satisfies PeerRules[]) {
        const { accepted, code, text, alert } = await meet('server', { peers, version });
        assert.deepEqual([accepted, code, alert], [false, 'CERT_REJECTED', 42]);
        assert.match(text, /^an access rule of the identity server refused the certificate of the peer: (peers\.deny\.ou\[0\] matches it|nothing in peers\.allow matches it)$/);
      }
      assert.deepEqual(await meet('server', { peers: { allow: { ou: ['Blue'] }, deny: { ou: ['Red'] } }, version }), { accepted: true, authorized: true, code: '', text: '', alert: undefined });
    });

    it(`${version}: the client refuses a server in the same way, after its name was found good`, async () => {
      assert.equal((await meet('client', { peers: { deny: { dns: ['server.test'] } }, version })).code, 'CERT_REJECTED');
      assert.match((await meet('client', { peers: { allow: { dns: ['elsewhere.test'] } }, version })).text, /nothing in peers\.allow matches it/);
      assert.equal((await meet('client', { peers: { allow: { dns: ['server.test'] } }, version })).accepted, true);
      // The rules come on top of the check of the name, and never replace it.
      const other = await meet('client', { peers: { allow: { dns: ['client.test'] } }, shown: certificates.client, version, more: { trust: certificates.ca } });
      assert.match(other.text, /HOSTNAME_MISMATCH/);
    });
  }

  for (const [kind, matching, others] of table) {
    it(`${kind}: allow takes what lies within an entry and refuses the rest`, async () => {
      for (const rule of matching) assert.deepEqual([rule, (await meet('server', { peers: { allow: { [kind]: [rule] } } })).accepted], [rule, true]);
      for (const rule of others) assert.deepEqual([rule, (await meet('server', { peers: { allow: { [kind]: [rule] } } })).accepted], [rule, false]);
    });
    it(`${kind}: deny refuses what an entry matches, whatever is allowed`, async () => {
      for (const rule of matching) {
        assert.deepEqual([rule, (await meet('server', { peers: { allow: { ou: ['Blue'], [kind]: matching }, deny: { [kind]: [rule] } } })).accepted], [rule, false]);
      }
    });
  }

  it('spki: the pin of the key is taken, and another pin is not; a pinned key without a good chain is not enough', async () => {
    const another = authority.issue('/CN=x', 'DNS:x.test');
    assert.equal((await meet('server', { peers: { allow: { spki: [pinOf(another), pinOf(rich)] } } })).accepted, true);
    assert.equal((await meet('server', { peers: { allow: { spki: [pinOf(another)] } } })).accepted, false);
    assert.match((await meet('server', { peers: { deny: { spki: [pinOf(rich)] } } })).text, /peers\.deny\.spki\[0\] matches it/);
    const alone = authority.issue('/CN=alone', 'DNS:alone.test', true);
    assert.match((await meet('server', { peers: { allow: { spki: [pinOf(alone)] } }, shown: alone })).text, /DEPTH_ZERO_SELF_SIGNED_CERT/);
  });

  it('one matching entry of any kind is enough for allow', async () => {
    assert.equal((await meet('server', { peers: { allow: { dns: ['no.test'], uri: ['urn:no'], email: ['n@o.test'], ip: ['10.0.0.0/8'], cn: ['no'], ou: ['no', 'Blue'] } } })).accepted, true);
    assert.equal((await meet('server', { peers: { allow: { dns: ['no.test'], uri: ['urn:no'], email: ['n@o.test'], ip: ['10.0.0.0/8'], cn: ['no'], ou: ['no'] } } })).accepted, false);
  });

  it('empty lists are no rules', async () => {
    assert.equal((await meet('server', { peers: { allow: { dns: [] }, deny: {} } })).accepted, true);
  });

  it('deny is wide: a wildcard of the certificate that covers the name is refused, and all of a tree with its root', async () => {
    const wild = authority.issue('/CN=w', 'DNS:*.wild.example,URI:spiffe://td/a,URI:https://td/b/');
    for (const deny of [{ dns: ['a.wild.example'] }, { dns: ['*.wild.example'] }, { uri: ['spiffe://td/a/**'] }, { uri: ['https://td/b'] }, { uri: ['spiffe://td/**'] }]) {
      assert.equal((await meet('server', { peers: { deny }, shown: wild })).accepted, false, JSON.stringify(deny));
    }
    for (const deny of [{ dns: ['wild.example', 'a.b.wild.example'] }, { uri: ['spiffe://td/a/*', 'https://td/b/c', 'spiffe://t/**'] }]) {
      assert.equal((await meet('server', { peers: { deny }, shown: wild })).accepted, true, JSON.stringify(deny));
    }
    assert.equal((await meet('server', { peers: { allow: { uri: ['spiffe://td/a/**', 'https://td/b'], dns: ['a.wild.example'] } }, shown: wild })).accepted, false);
  });

  it('names that cannot be read fail closed where there is a rule of their kind, and only there', async () => {
    const unreadable: readonly (readonly [san: string, kind: PeerNameKind, deny: string])[] = [
      ['DER:30:08:82:06:61:00:2e:6f:72:67', 'dns', 'b.org'], ['DNS:a*.example.org', 'dns', 'b.org'], ['DNS:a..example', 'dns', 'b.org'], ['URI:spiffe://td/ns/../x', 'uri', 'urn:x'],
      ['URI:spiffe://td/%61', 'uri', 'urn:x'], ['URI:spiffe://td//a', 'uri', 'urn:x'], ['URI:no-scheme', 'uri', 'urn:x'], ['DER:30:05:87:03:01:02:03', 'ip', '10.0.0.1'], ['DER:30:03:81:01:61', 'email', 'a@b.org'],
    ];
    for (const [san, kind, deny] of unreadable) {
      const shown = authority.issue('/CN=strange', san);
      const refused = await meet('server', { peers: { deny: { [kind]: [deny] } }, shown });
      assert.match(refused.text, new RegExp(`there are rules on ${kind}, and what the certificate has of that kind cannot be read`), san);
      assert.equal((await meet('server', { peers: { deny: { ou: ['x'] } }, shown })).accepted, true, san);
    }
  });

  it('a certificate without names is refused by any allow list and passes a deny list', async () => {
    const bare = authority.issue('/O=nobody', '');
    assert.equal((await meet('server', { peers: { allow: { dns: ['*.test'], cn: ['x'] } }, shown: bare })).accepted, false);
    assert.equal((await meet('server', { peers: { deny: { dns: ['*.test'], cn: ['x'] } }, shown: bare })).accepted, true);
  });

  it('a listener that overlooks bad chains lets neither a denied certificate through, nor an unproven one past an allow list', async () => {
    const alone = authority.issue('/CN=alone/OU=Blue', 'DNS:alone.test', true);
    const lenient = { shown: alone, rejectUnauthorized: false, more: { clientAuth: 'request' } } as const;
    const { accepted, authorized } = await meet('server', { ...lenient, peers: { deny: { ou: ['Red'] } } });
    assert.deepEqual([accepted, authorized], [true, false]);
    assert.equal((await meet('server', { ...lenient, peers: { deny: { ou: ['Blue'] } } })).code, 'CERT_REJECTED');
    assert.equal((await meet('server', { ...lenient, peers: { allow: { ou: ['Blue'] } } })).code, 'CERT_REJECTED');
    assert.equal((await meet('server', { ...lenient, shown: rich, peers: { allow: { ou: ['Blue'] } } })).accepted, true);
    assert.equal((await meet('client', { shown: alone, rejectUnauthorized: false, peers: { deny: { cn: ['alone'] } } })).code, 'CERT_REJECTED');
  });

  for (const version of versions) {
    it(`${version}: a resumed session is checked against the rules of today, under the same ticket keys`, async () => {
      const contextOf = (peers: PeerRules) => rig.selector(rig.context({ clientAuth: 'require', trust: authority.pem, peers }));
      const { port, listener } = rig.listen(contextOf({ allow: { ou: ['Blue'] } }));
      const visit = async (session?: Buffer): Promise<{ resumed: boolean; ticket: Buffer | undefined }> => {
        let ticket: Buffer | undefined;
        const client = await connectTls(port, certificates.ca, { maxVersion: version, cert: rich.chain, key: rich.key, session });
        client.on('session', (fresh) => { ticket = fresh; });
        const event = await rig.event('established');
        const received = new Promise<void>((resolve) => client.once('data', () => { resolve(); }));
        sockets.send(event.plainfd as never, Buffer.from('x'));
        await received;
        ticket ??= client.getSession();
        client.destroy();
        sockets.close(event.plainfd as never);
        await rig.event('closed');
        return { resumed: event.resumed, ticket };
      };
      const { ticket } = await visit();
      assert.ok(ticket);
      assert.equal((await visit(ticket)).resumed, true);
      rig.engine.setSelector(listener, contextOf({ deny: { ou: ['Red'] } }));
      assert.equal((await visit(ticket)).resumed, true);
      rig.engine.setSelector(listener, contextOf({ deny: { ou: ['Blue'] } }));
      const refused = connectTls(port, certificates.ca, { maxVersion: version, cert: rich.chain, key: rich.key, session: ticket });
      // TLS 1.3: the client is done before the server has looked at its certificate.
      const alerted = refused.then((client) => new Promise<Error>((resolve) => client.once('error', resolve)), (error: unknown) => error as Error);
      assert.match((await rig.event('failed')).text, /peers\.deny\.ou\[0\] matches it/);
      assert.match((await alerted).message, /bad certificate/i);
    });
  }

  it('a rule that cannot be parsed makes no context, and the text names it', () => {
    const bad: readonly (readonly [kind: PeerNameKind, rules: readonly string[]])[] = [
      ['dns', ['', '*', '*.', 'a*.b', 'a.*.b', 'a..b', '.a', 'a b', 'ü.org', `${'a'.repeat(254)}`]],
      ['uri', ['', 'x', 'spiffe://*/a', 'spiffe://t*/a', 'spiffe://td/a*', 'spiffe://td/**/a', 'spiffe://td/***', 'spiffe://td/../a', 'spiffe://td/%61', 'spiffe://td/a b', 'urn:*']],
      ['email', ['', 'a', '@b', 'a@', 'a@*.b', 'a@b c']],
      ['ip', ['', '1.2.3', '1.2.3.4/33', '1.2.3.4/24', '1.2.3.4/', '1.2.3.4/x', '::1/129', '::1/64', '01.2.3.4', 'fe80::1%lo', '1.2.3.4/24/1', '1.2.3.4/-1']],
      ['cn', ['', 'x'.repeat(1025)]],
      ['ou', ['', 'x'.repeat(1025)]],
      ['spki', ['', 'sha256:', 'sha1:AAAA', `sha256:${'A'.repeat(44)}`, `sha256:${'A'.repeat(42)}B=`, `sha256:${'A'.repeat(43)}`, `SHA256:${'A'.repeat(43)}=`, `sha256:${'A'.repeat(42)}\n=`]],
    ];
    for (const [kind, rules] of bad) {
      for (const rule of rules) {
        for (const side of ['allow', 'deny'] as const) {
          assert.throws(() => rig.context({ peers: { [side]: { [kind]: [rule] } } }), { code: 'IDENTITY_BAD', field: `peers.${side}.${kind}[0]` }, `${kind} ${JSON.stringify(rule)}`);
        }
      }
    }
    rig.context({ peers: { allow: { cn: ['x'.repeat(1024)], spki: [`sha256:${'A'.repeat(43)}=`], ip: ['1.2.3.4/32', '::1/128'] } } });
  });

  it('what the configuration takes, the engine takes', () => {
    const piece = fc.constantFrom('*', '**', '.', '..', '/', ':', '//', '@', '%', '?', '#', 'a', 'B', 'ü', '-', '_', ' ', '1', '0', '255', '10.0.0.0', '192.0.2.1', '::', '::ffff:', 'fe80::1', '8', '32', 'spiffe://', 'td', 'sha256:', `${'A'.repeat(43)}=`, '\u0000');
    const text = fc.array(piece, { maxLength: 7 }).map((pieces) => pieces.join(''));
    const good: Readonly<Record<PeerNameKind, string>> = { dns: 'a.B', uri: 'spiffe://TD/a', email: 'a@B', ip: '192.0.2.0/24', cn: 'a', ou: 'a', spki: `sha256:${'A'.repeat(43)}=` };
    for (const [kind, { parse }] of Object.entries(peerNameKinds) as [PeerNameKind, { parse: (entry: string) => string | undefined }][]) {
      let taken = 0;
      const near = fc.oneof(fc.constant(good[kind]), fc.constantFrom(...Array.from(good[kind], (_, at) => good[kind].slice(0, at))));
      fc.assert(fc.property(fc.oneof(text, fc.constant(good[kind]), near, fc.tuple(near, text).map((both) => both.join(''))), (entry) => {
        const rule = parse(entry);
        if (rule === undefined) return;
        taken += 1;
        assert.equal(parse(rule), rule, 'the canonical form is canonical');
        rig.context({ keyPairs: [], peers: { deny: { [kind]: [rule] } } });
      }), { numRuns: 1000 });
      assert.ok(taken > 10, `${kind}: hardly anything was tried`);
    }
  });

  it('rules of another shape are refused, so that none is overlooked', () => {
    for (const peers of ['x', 5, true, [], { alow: {} }, { allow: [] }, { allow: 'x' }, { allow: { DNS: ['a.b'] } }, { allow: { dns: 'a.b' } }, { deny: { dns: [5] } }, { deny: null }, { deny: { dns: null } }]) {
      assert.throws(() => rig.context({ peers: peers as never }), { code: 'BAD_ARGUMENT' }, JSON.stringify(peers));
    }
    rig.context({ peers: { allow: { dns: ['a.b'] } } });
  });
});
