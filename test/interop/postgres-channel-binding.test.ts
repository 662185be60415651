/**
 * psql with channel_binding=require and a pool on the way, in either role: why that cannot be, shown on the real programs. libpq and PostgreSQL each take the octets of the binding (tls-server-end-point) from a TLS
 * connection of their own, and have no way to be given them by somebody else. docs/control-keys.md says what to use instead.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import path from 'node:path';
import { connectPool } from 'libtlspool';
import type { Pool } from 'libtlspool';
import { event, issue, makeCa, needProgram, run, startPool, tempFolder } from '../support/index.js';
import type { RunResult, TestCa, TestPool } from '../support/index.js';
import { account, startPostgres } from '../support/servers/index.js';
import type { PostgresServer } from '../support/servers/index.js';
import { Front } from './proxy-support.js';
import type { FrontService } from './proxy-support.js';

const { user, password } = account;
/** StartupMessage of protocol 3.0. */
const startup = Buffer.concat([Buffer.from('0000002500030000', 'hex'), Buffer.from(`user\0${user}\0database\0postgres\0\0`)]);
startup.writeUInt32BE(startup.length, 0);
const isEncrypted = 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()';

describe('psql with channel_binding=require', function () {
  this.timeout(120_000);
  let ca: TestCa;
  /** PostgreSQL with TLS of its own. */
  let postgres: PostgresServer;
  /** `plain`: TLS ends in a pool, and to PostgreSQL it goes on in plain text. `chain`: it goes on to the forwarder. */
  let front: Front;
  let asking: TestPool;
  let pool: Pool;
  /** In plain text to here; to PostgreSQL it goes on under TLS of another pool. */
  let forwarder: net.Server;

  before(async () => {
    const folder = tempFolder();
    ca = await makeCa(path.join(folder, 'ca'));
    postgres = await startPostgres({ tls: await issue(ca, path.join(folder, 'leaf'), { commonName: 'localhost', sans: ['DNS:localhost', 'IP:127.0.0.1'] }) });
    asking = await startPool({ identities: [], config: { trust: { roots: [ca.certFile] } } });
    pool = await connectPool({ path: asking.socket });
    forwarder = net.createServer((client) => { forward(client).catch(() => client.destroy()); }).listen(0, '127.0.0.1');
    await once(forwarder, 'listening');
    const behindProxy = (port: number): FrontService => ({ protocol: 'postgres', backend: { connect: `127.0.0.1:${String(port)}` } });
    front = await Front.start({ plain: behindProxy(postgres.port), chain: behindProxy(forwarded()) });
  });
  after(async () => {
    forwarder.close();
    pool.close();
    await asking.stop();
    await front.stop();
    await postgres.stop();
  });

  async function forward(client: net.Socket): Promise<void> {
    client.on('error', () => undefined);
    const server = await pool.connect({ host: '127.0.0.1', port: postgres.port, servername: 'localhost', remoteid: 'localhost', preamble: 'postgres' });
    server.on('error', () => client.destroy());
    client.pipe(server).pipe(client);
  }

  const psql = (port: number, parameters: string): Promise<RunResult> => run(needProgram('psql', 'postgresql-client'), [
    '--no-psqlrc', '--tuples-only', '--no-align', `host=localhost hostaddr=127.0.0.1 port=${String(port)} user=${user} dbname=postgres gssencmode=disable ${parameters}`, '--command', isEncrypted,
  ], { check: false, env: { PGPASSWORD: password } });
  const direct = (): number => postgres.port;
  const behind = (service: 'plain' | 'chain'): number => front.target(service).port;
  const forwarded = (): number => (forwarder.address() as net.AddressInfo).port;

  /** Names of the mechanisms in AuthenticationSASL, the first answer to a StartupMessage. */
  async function mechanisms(socket: net.Socket): Promise<string[]> {
    const [answer] = [event<Buffer>(socket, 'data'), socket.write(startup)] as const;
    const octets = await answer;
    assert.deepEqual([octets.subarray(0, 1).toString(), octets.readUInt32BE(5)], ['R', 10]);
    socket.destroy();
    return octets.toString('latin1', 9).split('\0').filter((name) => name !== '');
  }

  it('without a pool on the way works: psql and PostgreSQL share a TLS connection', async () => {
    const { code, stdout, stderr } = await psql(direct(), `sslmode=verify-full sslrootcert=${ca.certFile} channel_binding=require`);
    assert.deepEqual([code, stdout], [0, 't\n'], stderr);
  });

  describe('the pool serves', () => {
    it('is refused by psql: PostgreSQL, which has no TLS on this connection, offers no mechanism with a binding', async () => {
      const { code, stderr } = await psql(behind('plain'), `sslmode=verify-full sslrootcert=${front.pool.caFile} channel_binding=require`);
      assert.equal(code, 2);
      assert.match(stderr, /channel binding is required, but server did not offer an authentication method that supports channel binding/u);
    });

    it('is what PostgreSQL does: over a connection without TLS it offers SCRAM-SHA-256 alone', async () => {
      assert.deepEqual(await mechanisms(net.connect(postgres.port, '127.0.0.1')), ['SCRAM-SHA-256']);
    });

    it('without the requirement psql logs in, behind a server whose certificate it has verified', async () => {
      const { code, stdout, stderr } = await psql(behind('plain'), `sslmode=verify-full sslrootcert=${front.pool.caFile} channel_binding=prefer`);
      assert.deepEqual([code, stdout], [0, 'f\n'], stderr);
    });
  });

  describe('the pool is the client', () => {
    it('is refused by psql, which has no TLS on this connection, although PostgreSQL offers the mechanism', async () => {
      const { code, stderr } = await psql(forwarded(), 'sslmode=disable channel_binding=require');
      assert.equal(code, 2);
      assert.match(stderr, /channel binding required, but SSL not in use/u);
      const socket = await pool.connect({ host: '127.0.0.1', port: postgres.port, servername: 'localhost', remoteid: 'localhost', preamble: 'postgres' });
      assert.deepEqual(await mechanisms(socket), ['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256']);
    });

    for (const requirement of ['prefer', 'disable']) {
      it(`and so it is with channel_binding=${requirement}: to libpq a binding that is offered without TLS is an attack`, async () => {
        const { code, stderr } = await psql(forwarded(), `sslmode=disable channel_binding=${requirement}`);
        assert.equal(code, 2);
        assert.match(stderr, /server offered SCRAM-SHA-256-PLUS authentication over a non-SSL connection/u);
      });
    }
  });

  describe('one pool serves, and another is the client', () => {
    const verified = (): string => `sslmode=verify-full sslrootcert=${front.pool.caFile}`;

    for (const requirement of ['require', 'prefer']) {
      it(`is refused by PostgreSQL (channel_binding=${requirement}): psql has bound to the certificate of the pool`, async () => {
        const { code, stderr } = await psql(behind('chain'), `${verified()} channel_binding=${requirement}`);
        assert.equal(code, 2);
        assert.match(stderr, /FATAL: {2}SCRAM channel binding check failed/u);
      });
    }

    it('with channel_binding=disable psql logs in: each TLS connection is verified by the one who began it', async () => {
      const { code, stdout, stderr } = await psql(behind('chain'), `${verified()} channel_binding=disable`);
      assert.deepEqual([code, stdout], [0, 't\n'], stderr);
    });
  });
});
