import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout } from 'node:timers/promises';
import tls from 'node:tls';
import { connectTls, failure, makeCertificates, manyRoots, Rig } from './engine-support.js';
import type { Certificates, EventOf } from './engine-support.js';
import { sockets } from 'libtlspool/native';
import { run, until } from '../support/index.js';

describe('engine: client authentication and resumption', () => {
  let certificates: Certificates;
  let rig: Rig;
  before(() => { certificates = makeCertificates(); });
  beforeEach(() => { rig = new Rig(certificates); });
  afterEach(() => { rig.close(); });

  const withCertificate = (pair: { chain: Buffer; key: Buffer }): tls.ConnectionOptions => ({ cert: pair.chain, key: pair.key });

  /** One connection that says something and is answered, so that tickets have arrived. */
  async function visit(port: number, options: tls.ConnectionOptions = {}): Promise<{ event: EventOf<'established'>; ticket: Buffer | undefined; keyName: string | undefined }> {
    let ticket: Buffer | undefined;
    const client = await connectTls(port, certificates.ca, options);
    client.on('session', (session) => { ticket = session; });
    const event = await rig.event('established');
    const received = new Promise<void>((resolve) => client.once('data', () => { resolve(); }));
    sockets.send(event.plainfd as never, Buffer.from('x'));
    await received;
    ticket ??= client.getSession(); // TLS 1.2 sends it before the handshake ends
    const keyName = client.getTLSTicket()?.toString('hex', 0, 16); // RFC 5077 section 4
    client.destroy();
    sockets.close(event.plainfd as never);
    await rig.event('closed');
    return { event, ticket, keyName };
  }

  it('require: refuses a client without a certificate and one of a stranger, and takes a good one', async () => {
    const { port } = rig.listen(rig.selector(rig.context({ clientAuth: 'require' })));
    const none = await connectTls(port, certificates.ca, { maxVersion: 'TLSv1.2' }).then(() => undefined, (error: unknown) => error as Error);
    assert.match(none?.message ?? '', /handshake failure/i);
    assert.equal((await rig.event('failed')).code, 'HANDSHAKE_FAILED');
    await failure(connectTls(port, certificates.ca, { maxVersion: 'TLSv1.2', ...withCertificate(certificates.stranger) }));
    assert.equal((await rig.event('failed')).code, 'CERT_REJECTED');
    const { event } = await visit(port, withCertificate(certificates.client));
    assert.equal(event.authorized, true);
    assert.deepEqual(event.peerCertificates[0], new X509Certificate(certificates.client.chain).raw);
  });

  it('request: takes a client without a certificate, and refuses a bad one unless told otherwise', async () => {
    const selector = rig.selector(rig.context({ clientAuth: 'request' }));
    const strict = rig.listen(selector);
    assert.equal((await visit(strict.port)).event.authorized, false);
    await failure(connectTls(strict.port, certificates.ca, { maxVersion: 'TLSv1.2', ...withCertificate(certificates.stranger) }));
    assert.equal((await rig.event('failed')).code, 'CERT_REJECTED');
    const lenient = rig.listen(selector, { rejectUnauthorized: false });
    const { event } = await visit(lenient.port, withCertificate(certificates.stranger));
    assert.equal(event.authorized, false);
    assert.equal(event.authorizationError, 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY');
  });

  it('a listener cannot lower what its identity requires', async () => {
    const { port } = rig.listen(rig.selector(rig.context({ clientAuth: 'require' })), { clientAuth: 'none', rejectUnauthorized: false });
    await failure(connectTls(port, certificates.ca, { maxVersion: 'TLSv1.2', ...withCertificate(certificates.stranger) }));
    assert.equal((await rig.event('failed')).code, 'CERT_REJECTED');
  });

  it('names 32 roots to clients that are asked for a certificate, and none where there are more (RFC 8446 section 4.2.4)', async () => {
    const roots = manyRoots(33);
    for (const [count, told] of [[32, /CN ?= ?root 1\n[^]*CN ?= ?root 32\n/u], [33, /No client certificate CA names sent/u]] as const) {
      const { port } = rig.listen(rig.selector(rig.context({ clientAuth: 'request', trust: Buffer.concat(roots.slice(0, count)) })));
      const { stdout } = await run('openssl', ['s_client', '-connect', `127.0.0.1:${String(port)}`, '-servername', 'server.test'], { input: '', check: false, env: { LD_PRELOAD: '' } });
      assert.match(stdout, told);
    }
  });

  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    it(`resumes ${version} under the same ticket tag, also over a reload, and not under another`, async () => {
      const { port, listener } = rig.listen(rig.selector(rig.context()));
      const { ticket } = await visit(port, { maxVersion: version });
      assert.ok(ticket, 'a ticket was issued');
      assert.equal((await visit(port, { maxVersion: version, session: ticket })).event.resumed, true);
      rig.engine.setSelector(listener, rig.selector(rig.context({ revision: 2 })));
      assert.equal((await visit(port, { maxVersion: version, session: ticket })).event.resumed, true);
      rig.engine.setSelector(listener, rig.selector(rig.context({ revision: 3, ticketTag: 'after a change of trust' })));
      const after = await visit(port, { maxVersion: version, session: ticket });
      assert.equal(after.event.resumed, false);
      assert.equal(after.event.revision, 3);
    });
  }

  it('sends the chain that it was given, and does not complete it from what it trusts', async () => {
    const { port } = rig.listen(rig.selector(rig.context({ trust: certificates.ca })));
    const { stdout } = await run('openssl', ['s_client', '-connect', `127.0.0.1:${String(port)}`, '-servername', 'server.test', '-showcerts'], { input: '', check: false, env: { LD_PRELOAD: '' } });
    assert.equal(stdout.match(/BEGIN CERTIFICATE/gu)?.length, 1);
  });

  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    it(`a ticket of ${version} arrives although nobody says anything`, async () => {
      const { port } = rig.listen(rig.selector());
      const client = tls.connect({ host: '127.0.0.1', port, ca: certificates.ca, servername: 'server.test', maxVersion: version });
      const [ticket] = await once(client, 'session') as [Buffer];
      const { plainfd } = await rig.event('established');
      client.destroy();
      sockets.close(plainfd as never);
      await rig.event('closed');
      const { event } = await visit(port, { maxVersion: version, session: ticket });
      assert.equal(event.resumed, true);
    });
  }

  it('ticket keys change each lifetime; the one before opens its tickets for one more, and whoever comes with such a ticket gets a fresh one', async function () {
    this.timeout(40_000);
    const lifetimeS = 6;
    const { port } = rig.listen(rig.selector(rig.context({ ticketLifetimeS: lifetimeS, ticketTag: 'short' })));
    // Keys and tickets are as old as whole seconds say, by a clock that is some milliseconds behind.
    await until(() => Date.now() % 1000 >= 100 && Date.now() % 1000 < 300, { what: 'the begin of a second' });
    const begin = Math.floor(Date.now() / 1000) * 1000;
    const after = (seconds: number): Promise<void> => setTimeout(begin + seconds * 1000 + 400 - Date.now());
    const versions = ['TLSv1.2', 'TLSv1.3'] as const;
    const visits = async (tickets: readonly (Buffer | undefined)[] = []): Promise<Awaited<ReturnType<typeof visit>>[]> => {
      const made = [];
      for (const [index, maxVersion] of versions.entries()) made.push(await visit(port, { maxVersion, session: tickets[index] }));
      return made;
    };
    const [first] = await visits();
    await after(lifetimeS / 2);
    const late = await visits();
    await after(lifetimeS);
    const old = late.map(({ ticket }) => ticket);
    const renewed = await visits(old);
    await after(lifetimeS + 1);
    const again = await visits(old);
    for (const [index, version] of versions.entries()) {
      assert.equal(late[index]?.keyName, first?.keyName, `${version}: one key for a lifetime`);
      assert.equal(renewed[index]?.event.resumed, true, `${version}: a ticket of the key whose time is over`);
      assert.notEqual(renewed[index]?.keyName, first?.keyName, `${version}: the fresh ticket`);
      assert.equal(again[index]?.event.resumed, true, `${version}: a ticket of the key before`);
      assert.equal(again[index]?.keyName, renewed[index]?.keyName, `${version}: again a fresh one`);
    }
    await after(2 * lifetimeS);
    assert.deepEqual((await visits(old)).map(({ event }) => event.resumed), [false, false]);
  });

  it('a resumed session keeps its client certificate', async () => {
    const { port } = rig.listen(rig.selector(rig.context({ clientAuth: 'require' })));
    const { ticket } = await visit(port, withCertificate(certificates.client));
    const { event } = await visit(port, { session: ticket, ...withCertificate(certificates.client) });
    assert.equal(event.resumed, true);
    assert.equal(event.authorized, true);
    assert.deepEqual(event.peerCertificates[0], new X509Certificate(certificates.client.chain).raw);
  });

  it('a ticket from a listener that asks for no certificate does not open one that requires it', async () => {
    const selector = rig.selector(rig.context());
    const open = rig.listen(selector);
    const closed = rig.listen(selector, { clientAuth: 'require' });
    const { ticket } = await visit(open.port, { maxVersion: 'TLSv1.2' });
    await failure(connectTls(closed.port, certificates.ca, { maxVersion: 'TLSv1.2', session: ticket }));
    assert.equal((await rig.event('failed')).code, 'HANDSHAKE_FAILED');
  });

  it('a session whose bad certificate was let through is not resumed as if it had been good', async () => {
    const { port } = rig.listen(rig.selector(rig.context({ clientAuth: 'request' })), { rejectUnauthorized: false });
    const { ticket } = await visit(port, withCertificate(certificates.stranger));
    const { event } = await visit(port, { session: ticket, ...withCertificate(certificates.stranger) });
    assert.equal(event.resumed, false);
    assert.equal(event.authorized, false);
  });
});
