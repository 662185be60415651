import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import type tls from 'node:tls';
import { connectTls, failure, makeCertificates, Rig } from './engine-support.js';
import type { Certificates, EventOf } from './engine-support.js';
import { sockets } from 'libtlspool/native';

describe('engine: client authentication and resumption', () => {
  let certificates: Certificates;
  let rig: Rig;
  before(() => { certificates = makeCertificates(); });
  beforeEach(() => { rig = new Rig(certificates); });
  afterEach(() => { rig.close(); });

  const withCertificate = (pair: { chain: Buffer; key: Buffer }): tls.ConnectionOptions => ({ cert: pair.chain, key: pair.key });

  /** One connection that says something and is answered, so that tickets have arrived. */
  async function visit(port: number, options: tls.ConnectionOptions = {}): Promise<{ event: EventOf<'established'>; ticket: Buffer | undefined }> {
    let ticket: Buffer | undefined;
    const client = await connectTls(port, certificates.ca, options);
    client.on('session', (session) => { ticket = session; });
    const event = await rig.event('established');
    const received = new Promise<void>((resolve) => client.once('data', () => { resolve(); }));
    sockets.send(event.plainfd as never, Buffer.from('x'));
    await received;
    ticket ??= client.getSession(); // TLS 1.2 sends it before the handshake ends
    client.destroy();
    sockets.close(event.plainfd as never);
    await rig.event('closed');
    return { event, ticket };
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
