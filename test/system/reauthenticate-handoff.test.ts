/** Backends behind a proxy that ask for a certificate: the one whose proxy relays, and the one that controls the session at the pool itself. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { connectPool, listenForHandoff } from 'libtlspool';
import type { HandoffListener, Pool, PoolSocket } from 'libtlspool';
import { TlsPoolError } from 'libtlspool/protocol';
import { issue, PlainClient, sClient, startPool, tempFolder, TestProxy, until, within } from '../support/index.js';
import type { ProxyBaseline, TestLeaf, TestPool, TlsClient } from '../support/index.js';

const code = (wanted: string) => (error: unknown): boolean => {
  assert(error instanceof TlsPoolError, String(error));
  assert.equal(error.code, wanted, error.message);
  return true;
};

describe('reauthenticate behind a proxy', function () {
  this.timeout(30_000);
  let pool: TestPool;
  let link: Pool;
  let proxy: TestProxy;
  let listeners: Record<'relay' | 'direct', HandoffListener>;
  let alice: TestLeaf;
  let baseline: ProxyBaseline;
  let open: { destroy(): unknown }[];

  before(async () => {
    pool = await startPool({ identities: [{ localid: 'localhost', policy: 'intermediate', default: true, trust: true }] });
    alice = await issue(pool.ca, path.join(tempFolder(), 'alice'), { commonName: 'alice', sans: ['email:alice@example.org'], usage: 'clientAuth' });
    link = await connectPool({ path: pool.socket });
    const folder = tempFolder();
    const file = (name: string): string => path.join(folder, `${name}.sock`);
    listeners = { relay: await listenForHandoff({ path: file('relay'), reattach: false }), direct: await listenForHandoff({ path: file('direct'), reattach: link }) };
    proxy = await TestProxy.start(pool, [
      { name: 'relay', protocol: 'none', backend: { fd: file('relay'), relay: true } }, { name: 'direct', protocol: 'none', backend: { fd: file('direct') } },
    ]);
  });
  after(async () => {
    await proxy.stop();
    for (const listener of Object.values(listeners)) await listener.close();
    link.close();
    await pool.stop();
  });
  beforeEach(() => {
    open = [];
    baseline = proxy.baseline();
  });
  afterEach(async () => {
    for (const one of open) one.destroy();
    await proxy.expectBaseline(baseline);
  });

  async function session(way: 'relay' | 'direct', client?: TestLeaf): Promise<{ client: TlsClient; server: PoolSocket }> {
    const plain = await PlainClient.connect(proxy.port(way), proxy.host(way));
    const secure = await plain.secure({ caFile: pool.caFile, maxVersion: 'TLSv1.2', ...(client !== undefined && { client }) });
    const server = await within(listeners[way].accept(), 'the connection');
    server.on('error', () => undefined);
    open.push(secure.socket, server);
    return { client: secure, server };
  }

  for (const way of ['relay', 'direct'] as const) {
    it(`${way}: the backend is told the certificate, keeps the client's address, and the session goes on`, async () => {
      const { client, server } = await session(way, alice);
      const { remoteAddress, remotePort } = server;
      assert.equal((await within(server.reauthenticate({ require: true }), 'the outcome')).outcome, 'authenticated');
      assert.deepEqual([server.authorized, server.getPeerCertificate().subject.CN, server.remoteAddress, server.remotePort], [true, 'alice', remoteAddress, remotePort]);
      server.write('hello alice\n');
      await client.hears(/hello alice/u);
    });

    it(`${way}: with require, a client without a certificate loses the session, and the backend is told why`, async () => {
      const { client, server } = await session(way);
      await assert.rejects(within(server.reauthenticate({ require: true }), 'the outcome'), code('REAUTH_REFUSED'));
      await until(() => client.state === 'error', { what: 'the end at the client' });
    });
  }

  it('relay: the backend can ask other things, and hang up, while its client is silent', async () => {
    const accepted = listeners.relay.accept();
    const program = sClient({ port: proxy.port('relay'), caFile: pool.caFile, client: alice }, ['-tls1_3', '-enable_pha', '-connect', `${proxy.host('relay')}:${proxy.port('relay')}`]);
    try {
      const server = await within(accepted, 'the connection');
      server.on('error', () => undefined);
      await program.output(/Verify return code: 0/u);
      program.kill('SIGSTOP');
      const outcome = server.reauthenticate({ timeoutMs: 3_600_000 });
      outcome.catch(() => undefined);
      assert.equal((await within(server.channelBindings(), 'the channel bindings')).tlsExporter?.length, 32);
      server.destroy(new Error('enough'));
      await assert.rejects(within(outcome, 'the end of it'));
      await proxy.settled();
    } finally {
      program.kill('SIGKILL');
      await program.ended;
    }
  });
});
