/** Rules on the certificates of peers and the floor of revisions, from the configuration file to the peer that is refused. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import type net from 'node:net';
import path from 'node:path';
import type tls from 'node:tls';
import { connectPool, TlsPoolError } from 'libtlspool';
import type { Listener, Pool, PoolSocket } from 'libtlspool';
import { event, expectBaseline, issue, nodeConnect, run, needProgram, startPool, tempFolder, within } from '../support/index.js';
import type { Baseline, TestLeaf, TestPool } from '../support/index.js';

type Settings = Readonly<Record<string, unknown>>;

describe('tlspoold: access rules on peers, and revisions', () => {
  let daemon: TestPool;
  let base: { identities: Settings[] };
  let blue: TestLeaf;
  let red: TestLeaf;
  let pool: Pool;
  let baseline: Baseline;
  before(async () => {
    daemon = await startPool({
      identities: [
        { localid: 'localhost', default: true, trust: true, clientAuth: 'require' },
        { localid: 'caller', usage: 'clientAuth', trust: true },
      ],
    });
    base = JSON.parse(readFileSync(daemon.configFile, 'utf8')) as typeof base;
    const folder = tempFolder();
    blue = await issue(daemon.ca, path.join(folder, 'blue'), { commonName: 'blue', sans: ['URI:spiffe://example.org/ns/prod/sa/blue'], usage: 'clientAuth' });
    red = await issue(daemon.ca, path.join(folder, 'red'), { commonName: 'red', sans: ['URI:spiffe://example.org/ns/prod/sa/red'], usage: 'clientAuth' });
  });
  after(() => daemon.stop());
  beforeEach(async () => {
    await configure({});
    baseline = daemon.baseline();
    pool = await connectPool({ path: daemon.socket });
  });
  afterEach(async () => {
    pool.close();
    await expectBaseline(daemon, baseline);
  });

  const cli = (...args: string[]) => run(process.execPath, [path.join(import.meta.dirname, '../../../daemon/bin/tlspool.js'), '--socket', daemon.socket, ...args], { deadlineMs: 20_000, check: false });

  /** Puts settings of identities into the configuration and reloads. */
  async function configure(changes: Readonly<Record<string, Settings>>): Promise<void> {
    write(changes);
    const { code, stderr } = await cli('reload');
    assert.equal(code, 0, stderr);
  }
  function write(changes: Readonly<Record<string, Settings>>): void {
    const identities = base.identities.map((identity) => ({ ...identity, ...changes[String(identity['localid'])] }));
    writeFileSync(`${daemon.configFile}.new`, JSON.stringify({ ...base, identities }), { mode: 0o600 });
    renameSync(`${daemon.configFile}.new`, daemon.configFile);
  }

  const target = (listener: Listener, client: TestLeaf) => ({ port: (listener.address() as net.AddressInfo).port, caFile: daemon.caFile, client });
  /** A session that the application has and the client too. */
  async function meet(listener: Listener, client: TestLeaf): Promise<{ ours: PoolSocket; theirs: tls.TLSSocket }> {
    const [ours, theirs] = await within(Promise.all([listener.accept(), nodeConnect(target(listener, client))]), 'a session');
    theirs.on('error', () => undefined);
    return { ours, theirs };
  }
  const end = async ({ ours, theirs }: { ours: PoolSocket; theirs: tls.TLSSocket }): Promise<void> => {
    theirs.end();
    ours.resume();
    ours.end();
    await event(ours, 'close');
  };

  it('a client is refused by a rule that a reload brought, without its listener closing, and let in by the next', async () => {
    const listener = await pool.listen({ port: 0, host: '127.0.0.1', localid: 'localhost' });
    await end(await meet(listener, red));
    await configure({ localhost: { peers: { allow: { uri: ['spiffe://example.org/ns/*/sa/*'] }, deny: { cn: ['red'] } } } });
    await assert.rejects(nodeConnect(target(listener, red), { maxVersion: 'TLSv1.2' }), /bad certificate/i);
    await end(await meet(listener, blue));
    assert.ok(daemon.logLines().some((line) => line.includes('an access rule of the identity localhost refused the certificate of the peer: peers.deny.cn[0] matches it')));
    await configure({ localhost: { peers: { allow: { uri: ['spiffe://example.org/ns/*/sa/red'] } } } });
    await end(await meet(listener, red));
    await assert.rejects(nodeConnect(target(listener, blue), { maxVersion: 'TLSv1.2' }), /bad certificate/i);
    await listener.close();
  });

  it('a server is refused by the rules of the identity that connects, in words that name the rule', async () => {
    const listener = await pool.listen({ port: 0, host: '127.0.0.1', localid: 'localhost' });
    const call = () => pool.connect({ host: '127.0.0.1', port: (listener.address() as net.AddressInfo).port, servername: 'localhost', localid: 'caller' });
    await configure({ caller: { peers: { allow: { dns: ['elsewhere.example'] } } } });
    await assert.rejects(call(), (error: unknown) => error instanceof TlsPoolError && error.code === 'CERT_REJECTED'
      && error.message === 'an access rule of the identity caller refused the certificate of the peer: nothing in peers.allow matches it');
    await configure({ caller: { peers: { allow: { dns: ['localhost'] } } } });
    const [outgoing, ours] = await Promise.all([call(), listener.accept()]);
    outgoing.end();
    outgoing.resume();
    ours.resume();
    ours.end();
    await Promise.all([event(ours, 'close'), event(outgoing, 'close')]);
    await listener.close();
  });

  it('rules that no client is asked for, and rules that cannot be read, are refused by reload and by check, and the old ones stay', async () => {
    for (const [settings, words] of [
      [{ clientAuth: 'none', peers: { allow: { ou: ['x'] } } }, /peers\.allow says which certificates are accepted, and clientAuth none asks no client for one/],
      [{ peers: { deny: { uri: ['spiffe://*/x'] } } }, /identities\[0\]\.peers\.deny\.uri\[0\]: "spiffe:\/\/\*\/x" is not an absolute URI/],
    ] as const) {
      write({ localhost: settings });
      const reload = await cli('reload');
      assert.notEqual(reload.code, 0);
      assert.match(reload.stderr, words);
      const check = await run(process.execPath, [path.join(import.meta.dirname, '../../../daemon/bin/tlspoold.js'), '--config', daemon.configFile, '--check'], { deadlineMs: 20_000, check: false });
      assert.notEqual(check.code, 0);
      assert.match(check.stderr + check.stdout, words);
    }
    const listener = await pool.listen({ port: 0, host: '127.0.0.1', localid: 'localhost' });
    await end(await meet(listener, red));
    await listener.close();
  });

  /** Each another revision. */
  const generation = (number: number, more: Settings): Readonly<Record<string, Settings>> => ({ localhost: { ...more, ticketLifetime: `${String(60 + number)}s` } });

  it('priorRevisions 0: a reload closes the sessions of before as revoked, and keeps those of after', async () => {
    const listener = await pool.listen({ port: 0, host: '127.0.0.1', localid: 'localhost' });
    await configure(generation(1, { priorRevisions: 0 }));
    const old = await meet(listener, blue);
    const lost = once(old.ours, 'error');
    await configure(generation(2, { priorRevisions: 0 }));
    const [error] = await within(lost, 'the old session to end') as [TlsPoolError];
    assert.equal(error.code, 'SESSION_LOST');
    assert.match(error.message, /revoked/);
    const fresh = await meet(listener, blue);
    // The same again, nothing changed: nothing is closed.
    await configure(generation(2, { priorRevisions: 0 }));
    fresh.theirs.write('still here');
    assert.equal(String((await once(fresh.ours, 'data'))[0]), 'still here');
    await end(fresh);
    await listener.close();
  });

  it('priorRevisions 1: one generation lives on, the one before it does not; without the setting all do', async () => {
    const listener = await pool.listen({ port: 0, host: '127.0.0.1', localid: 'localhost' });
    await configure(generation(1, {}));
    const oldest = await meet(listener, blue);
    await configure(generation(2, {}));
    const middle = await meet(listener, blue);
    const lost = once(oldest.ours, 'error');
    await configure(generation(3, { priorRevisions: 1 }));
    assert.equal(((await within(lost, 'the oldest session to end')) as [TlsPoolError])[0].code, 'SESSION_LOST');
    middle.theirs.write('still here');
    assert.equal(String((await once(middle.ours, 'data'))[0]), 'still here');
    await end(middle);
    await listener.close();
  });

  it('an identity from PKCS#12 serves, and checks its clients against the roots beside it', async () => {
    const folder = daemon.identityDir('localhost');
    await run(needProgram('openssl', 'openssl'), ['pkcs12', '-export', '-in', path.join(folder, 'tls.crt'), '-inkey', path.join(folder, 'tls.key'), '-out', path.join(folder, 'id.p12'), '-passout', 'pass:sesame'], { deadlineMs: 20_000 });
    writeFileSync(path.join(folder, 'password'), 'sesame\n', { mode: 0o600 });
    await configure({ localhost: { directory: undefined, pkcs12: { file: path.join(folder, 'id.p12'), passwordFile: path.join(folder, 'password') }, trust: path.join(folder, 'ca.crt') } });
    const listener = await pool.listen({ port: 0, host: '127.0.0.1', localid: 'localhost' });
    await end(await meet(listener, blue));
    await assert.rejects(nodeConnect({ port: (listener.address() as net.AddressInfo).port, caFile: daemon.caFile }, { maxVersion: 'TLSv1.2' }), /handshake failure/i);
    await listener.close();
  });
});
