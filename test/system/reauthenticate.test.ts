/** Servers that ask for a certificate while the session runs, against clients that have one or not, in both versions of TLS. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Duplex } from 'node:stream';
import { connectPool } from 'libtlspool';
import type { Pool, PoolSocket } from 'libtlspool';
import { TlsPoolError } from 'libtlspool/protocol';
import {
  acceptLoop, event, expectBaseline, issue, makeCa, nodeConnect, PoolWire, sClient, startPool, tempFolder, trust, until, WireError, within,
} from '../support/index.js';
import type { Baseline, Served, TestCa, TestLeaf, TestPool } from '../support/index.js';

const code = (wanted: string, text = /(?:)/u) => (error: unknown): boolean => {
  assert(error instanceof TlsPoolError, String(error));
  assert.equal(error.code, wanted, error.message);
  assert.match(error.message, text);
  return true;
};
type Who = 'alice' | 'bob' | 'stranger' | 'nobody';
type Version = 'TLSv1.2' | 'TLSv1.3';
const authenticated = { outcome: 'authenticated', authorized: true, authorizationError: null };
const bulkOctets = 8 * 1024 * 1024;

describe('reauthenticate', function () {
  this.timeout(60_000);
  let pool: TestPool;
  let link: Pool;
  let served: Served;
  let accepted: PoolSocket[];
  let open: Duplex[];
  let baseline: Baseline;
  let otherCa: TestCa;
  let leaves: Readonly<Record<Who, TestLeaf | undefined>>;

  before(async () => {
    otherCa = await makeCa(path.join(tempFolder(), 'other'), 'somebody else\'s CA');
    // Clients of TLS 1.3 are sessions of the pool itself: they have their identities there.
    pool = await startPool({ identities: [
      { localid: 'localhost', policy: 'intermediate', default: true, trust: true },
      { localid: 'alice', usage: 'clientAuth', trust: true }, { localid: 'bob', usage: 'clientAuth', trust: true },
      { localid: 'bare', sans: ['DNS:bare.example'] },
    ] });
    const folder = tempFolder();
    const leaf = (name: string, ca: TestCa): Promise<TestLeaf> => issue(ca, path.join(folder, name), { commonName: name, sans: [`email:${name}@example.org`], usage: 'clientAuth' });
    leaves = { alice: await leaf('alice', pool.ca), bob: await leaf('bob', pool.ca), stranger: await leaf('stranger', otherCa), nobody: undefined };
    trust(path.join(folder, 'stranger'), pool.ca);
    mkdirSync(path.join(folder, 'admins'), { mode: 0o700 });
    trust(path.join(folder, 'admins'), pool.ca);
    configure((identities) => {
      identities.push(
        { localid: 'stranger', directory: path.join(folder, 'stranger') },
        // Nothing but roots, and a rule: an identity that decides on clients and serves nobody.
        { localid: 'admins', directory: path.join(folder, 'admins'), peers: { allow: { cn: ['alice'] } } },
      );
    });
    link = await connectPool({ path: pool.socket });
    served = await acceptLoop(pool, (socket) => { accepted.push(socket.on('error', () => undefined)); }, { localid: 'localhost' });
    baseline = pool.baseline();
  });
  after(async () => {
    await served.close();
    link.close();
    await pool.stop();
  });
  beforeEach(() => {
    accepted = [];
    open = [];
  });
  afterEach(async () => {
    for (const one of [...open, ...accepted]) one.destroy();
    await expectBaseline(pool, baseline);
  });

  /** Changes the configuration, or the files that it names, and has both read again. */
  function configure(change: (identities: Record<string, unknown>[]) => void): void {
    const config = JSON.parse(readFileSync(pool.configFile, 'utf8')) as { identities: Record<string, unknown>[] };
    change(config.identities);
    writeFileSync(pool.configFile, JSON.stringify(config));
    const wire = new PoolWire(pool.socket);
    try { wire.request('reload'); } finally { wire.close(); }
  }

  async function clientOf(version: Version, who: Who, port = served.port): Promise<Duplex> {
    const client = leaves[who];
    const made = version === 'TLSv1.2'
      ? await nodeConnect({ port, caFile: pool.caFile, ...(client !== undefined && { client }) }, { maxVersion: 'TLSv1.2' })
      : await link.connect({ host: '127.0.0.1', port, servername: 'localhost', ...(client === undefined ? { rejectUnauthorized: false } : { localid: who, remoteid: 'localhost' }) });
    made.on('error', () => undefined);
    open.push(made);
    return made;
  }
  /** Both ends of a session that the handshake did not ask for a certificate. */
  async function session(version: Version, who: Who): Promise<{ client: Duplex; server: PoolSocket }> {
    const client = await clientOf(version, who);
    const server = await until(() => accepted[0], { what: 'the connection at the application' });
    assert.deepEqual([server.getProtocol(), server.authorized, server.getPeerX509Certificate()], [version, false, undefined]);
    return { client, server };
  }
  /** The session works in both directions. */
  async function expectOpen(client: Duplex, server: PoolSocket): Promise<void> {
    for (const [from, to] of [[client, server], [server, client]] as const) {
      const data = event<Buffer>(to, 'data');
      from.write('still here');
      assert.equal((await data).toString(), 'still here');
    }
  }

  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    describe(version === 'TLSv1.2' ? 'TLS 1.2: renegotiation, a client of Node' : 'TLS 1.3: post-handshake authentication, a client of the pool', () => {
      for (const require of [false, true]) {
        it(`a verified certificate is told, and the session goes on${require ? ', as it was required' : ''}`, async () => {
          const { client, server } = await session(version, 'alice');
          assert.deepEqual(await within(server.reauthenticate({ require }), 'the outcome'), authenticated);
          assert.deepEqual([server.authorized, server.getPeerCertificate().subject.CN, server.getProtocol()], [true, 'alice', version]);
          await expectOpen(client, server);
        });
      }

      it('a client without a certificate is refused, and the session goes on without one', async () => {
        const { client, server } = await session(version, 'nobody');
        assert.deepEqual(await within(server.reauthenticate(), 'the outcome'), { outcome: 'refused', authorized: false, authorizationError: null });
        assert.equal(server.getPeerX509Certificate(), undefined);
        await expectOpen(client, server);
      });

      it('a certificate of an unknown CA is rejected with the reason, and the session goes on without authorization', async () => {
        const { client, server } = await session(version, 'stranger');
        const { outcome, authorized, authorizationError } = await within(server.reauthenticate(), 'the outcome');
        assert.deepEqual([outcome, authorized, server.authorized], ['rejected', false, false]);
        assert.match(authorizationError ?? '', /^[A-Z_]+$/u);
        await expectOpen(client, server);
      });

      for (const who of ['nobody', 'stranger'] as const) {
        it(`with require, ${who === 'nobody' ? 'no certificate' : 'one that is not accepted'} ends the session at both ends`, async () => {
          const { client, server } = await session(version, who);
          const ends = [client, server].map((end) => within(new Promise((resolve) => { end.once('close', resolve).resume(); }), 'the end'));
          await assert.rejects(within(server.reauthenticate({ require: true }), 'the outcome'), code('REAUTH_REFUSED'));
          await Promise.all(ends);
          assert.equal(server.authorized, false);
        });
      }

      it('a client can be asked again, and its latest answer counts', async () => {
        const { client, server } = await session(version, 'alice');
        for (let count = 0; count < 3; count++) assert.deepEqual(await within(server.reauthenticate(), 'the outcome'), authenticated);
        await expectOpen(client, server);
      });

      it('the identity that is named decides: one name is let in, another certificate of the same CA is not', async () => {
        const alice = await session(version, 'alice');
        assert.deepEqual(await within(alice.server.reauthenticate({ localid: 'admins' }), 'the outcome'), authenticated);
        accepted = [];
        const bob = await session(version, 'bob');
        assert.equal((await within(bob.server.reauthenticate({ localid: 'admins' }), 'the outcome')).outcome, 'rejected');
        assert.equal(bob.server.authorized, false);
        assert.deepEqual(await within(bob.server.reauthenticate(), 'the outcome'), authenticated);
      });

      for (const who of ['alice', 'nobody'] as const) {
        it(`8 MiB that are sent and sent back arrive whole and in order while ${who} is asked in the middle of them`, async () => {
          const { client, server } = await session(version, who);
          const sent = randomBytes(bulkOctets);
          const received: Buffer[] = [];
          let octets = 0;
          const back = new Promise<void>((resolve) => {
            client.on('data', (chunk: Buffer) => { received.push(chunk); octets += chunk.length; if (octets >= bulkOctets) resolve(); });
          });
          const middle = new Promise<void>((resolve) => {
            let passed = 0;
            server.on('data', (chunk: Buffer) => { passed += chunk.length; if (passed > bulkOctets / 4) resolve(); });
          });
          server.pipe(server);
          client.write(sent);
          await within(middle, 'some of it at the application');
          assert.ok(octets < bulkOctets, 'not all of it was back when the client was asked');
          assert.equal((await within(server.reauthenticate(), 'the outcome')).outcome, who === 'alice' ? 'authenticated' : 'refused');
          await within(back, 'all of it back', 30_000);
          assert.ok(Buffer.concat(received).equals(sent), 'what came back is what was sent');
        });
      }

      it('an answer behind octets that the application does not read is not seen in time, and is when they are read', async () => {
        const { client, server } = await session(version, 'alice');
        server.pause();
        client.write(Buffer.alloc(bulkOctets));
        await until(() => server.readableLength > 0, { what: 'some of it at the application' });
        await assert.rejects(within(server.reauthenticate({ timeoutMs: 200 }), 'the time-out'), code('TIMEOUT'));
        const outcome = server.reauthenticate();
        server.resume();
        assert.deepEqual(await within(outcome, 'the outcome'), authenticated);
      });
    });
  }

  it('a root that a reload has taken away decides no more, also in sessions of before', async () => {
    const { client, server } = await session('TLSv1.3', 'alice');
    assert.deepEqual(await within(server.reauthenticate(), 'the outcome'), authenticated);
    const roots = path.join(pool.identityDir('localhost'), 'ca.crt');
    const before_ = readFileSync(roots);
    try {
      trust(pool.identityDir('localhost'), otherCa);
      configure(() => undefined);
      assert.equal((await within(server.reauthenticate(), 'the outcome')).outcome, 'rejected');
      await expectOpen(client, server);
    } finally {
      writeFileSync(roots, before_);
      configure(() => undefined);
    }
    assert.deepEqual(await within(server.reauthenticate(), 'the outcome'), authenticated);
  });

  it('a control key that is wrong, of another client or stale is refused as for every other request', async () => {
    const { client, server } = await session('TLSv1.3', 'alice');
    const wire = new PoolWire(pool.socket);
    const refusal = (op: string, ctlkey: Uint8Array): WireError => {
      try {
        wire.request(op, { ctlkey });
      } catch (error) {
        if (error instanceof WireError) return error;
        throw error;
      }
      throw new Error('it was not refused');
    };
    try {
      const expected = refusal('info', Buffer.alloc(16));
      assert.equal(expected.code, 'CTLKEY_UNKNOWN');
      for (const ctlkey of [Buffer.alloc(16), server.ctlkey]) assert.equal(refusal('reauthenticate', ctlkey).message, expected.message);
      server.end();
      client.resume().end();
      await event(server.resume(), 'close');
      assert.equal(refusal('reauthenticate', server.ctlkey).message, expected.message);
    } finally {
      wire.close();
    }
  });

  it('identities without roots, and sessions in the client role, are REAUTH_UNAVAILABLE', async () => {
    const { client, server } = await session('TLSv1.3', 'alice');
    await assert.rejects(server.reauthenticate({ localid: 'bare' }), code('REAUTH_UNAVAILABLE', /ca\.crt/u));
    await assert.rejects(server.reauthenticate({ localid: 'none of the pool' }), code('IDENTITY_UNKNOWN'));
    await assert.rejects((client as PoolSocket).reauthenticate(), code('REAUTH_UNAVAILABLE', /client role/u));
    await expectOpen(client, server);
  });

  it('a client of TLS 1.3 that did not offer it cannot be asked, and goes on', async () => {
    const client = await nodeConnect({ port: served.port, caFile: pool.caFile });
    open.push(client);
    const server = await until(() => accepted[0], { what: 'the connection at the application' });
    await assert.rejects(server.reauthenticate({ require: true }), code('REAUTH_UNAVAILABLE', /post-handshake authentication/u));
    await expectOpen(client, server);
  });

  it('a client that is silent is TIMEOUT, the session goes on, and its late answer is taken by the pool', async () => {
    const program = sClient({ port: served.port, caFile: pool.caFile, client: leaves.alice as TestLeaf }, ['-tls1_3', '-enable_pha']);
    try {
      const server = await until(() => accepted[0], { what: 'the connection at the application' });
      await program.output(/Verify return code: 0/u);
      program.kill('SIGSTOP');
      const before_ = pool.logLines().length;
      await assert.rejects(within(server.reauthenticate({ timeoutMs: 100 }), 'the time-out'), code('TIMEOUT', /did not answer/u));
      program.kill('SIGCONT');
      await until(() => pool.logLines().slice(before_).some((line) => line.includes('session reauthenticated') && line.includes('"isLate":true')), { what: 'the late answer' });
      assert.equal(server.authorized, false, 'what the application knows changes by its own requests only');
      assert.deepEqual(await within(server.reauthenticate(), 'the outcome'), authenticated);
    } finally {
      program.kill('SIGKILL');
      await program.ended;
    }
  });

  it('a late answer is not accepted by roots that a reload has taken away meanwhile: the session ends as revoked', async () => {
    const program = sClient({ port: served.port, caFile: pool.caFile, client: leaves.alice as TestLeaf }, ['-tls1_3', '-enable_pha']);
    const roots = path.join(pool.identityDir('localhost'), 'ca.crt');
    const before_ = readFileSync(roots);
    try {
      const server = await until(() => accepted[0], { what: 'the connection at the application' });
      await program.output(/Verify return code: 0/u);
      program.kill('SIGSTOP');
      await assert.rejects(within(server.reauthenticate({ timeoutMs: 100 }), 'the time-out'), code('TIMEOUT'));
      trust(pool.identityDir('localhost'), otherCa);
      configure(() => undefined);
      const ended = new Promise<Error>((resolve) => { server.once('error', resolve); });
      server.resume();
      program.kill('SIGCONT');
      assert.match((await within(ended, 'the end of the session')).message, /revoked/u);
    } finally {
      writeFileSync(roots, before_);
      configure(() => undefined);
      program.kill('SIGKILL');
      await program.ended;
    }
  });

  it('a renegotiation that the client begins is refused', async () => {
    const program = sClient({ port: served.port, caFile: pool.caFile, client: leaves.alice as TestLeaf }, ['-tls1_2']);
    try {
      const server = await until(() => accepted[0], { what: 'the connection at the application' });
      await program.output(/Verify return code: 0/u);
      program.write('R\n');
      await program.output(/RENEGOTIATING[^]*(?:no renegotiation|handshake failure|unexpected message)/iu);
      assert.equal(server.authorized, false);
    } finally {
      program.kill('SIGKILL');
      await program.ended;
    }
  });
});
