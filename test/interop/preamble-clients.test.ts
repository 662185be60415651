/** Our server role of each preamble against clients that nobody here wrote. */
import assert from 'node:assert/strict';
import net from 'node:net';
import { connectPool, TlsPoolError } from 'libtlspool';
import type { Pool, PoolSocket, PreambleName } from 'libtlspool';
import { expectBaseline, needProgram, run, sClient, startPool, until, within } from '../support/index.js';
import type { Baseline, RunResult, TestPool } from '../support/index.js';
import { mysqlServe } from '../support/mysql-login.js';

/** Names of `openssl s_client -starttls`, and ours. */
const starttls: readonly (readonly [openssl: string, ours: PreambleName])[] = [
  ['smtp', 'smtp'], ['smtp', 'submission'], ['lmtp', 'lmtp'], ['imap', 'imap'], ['pop3', 'pop3'], ['sieve', 'sieve'], ['nntp', 'nntp'], ['ftp', 'ftp'],
  ['xmpp', 'xmpp-client'], ['xmpp-server', 'xmpp-server'], ['ldap', 'ldap'], ['postgres', 'postgres'], ['mysql', 'mysql'], ['irc', 'irc'],
];

interface Front {
  readonly port: number;
  /** What came of each connection. */
  readonly outcomes: (PoolSocket | TlsPoolError)[];
  close(): Promise<void>;
}

/** A server with one preamble on a port of its own. Not an octet is read before starttls() has the connection. */
async function front(pool: Pool, preamble: PreambleName, use: (socket: PoolSocket) => void): Promise<Front> {
  const outcomes: (PoolSocket | TlsPoolError)[] = [];
  const server = net.createServer({ pauseOnConnect: true }, (socket) => {
    pool.starttls(socket, { role: 'server', preamble, hostname: 'mail.example.org' }).then((secured) => {
      secured.on('error', () => undefined);
      outcomes.push(secured);
      use(secured);
    }, (error: unknown) => {
      assert(error instanceof TlsPoolError, String(error));
      outcomes.push(error);
    });
  });
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  return { port: (server.address() as net.AddressInfo).port, outcomes, close: () => new Promise((resolve) => { server.close(() => { resolve(); }); }) };
}

const echo = (socket: PoolSocket): void => { socket.pipe(socket); };

describe('preambles as a server, with real clients', function () {
  this.timeout(60_000);
  let daemon: TestPool;
  let pool: Pool;
  let baseline: Baseline;

  before(async () => {
    daemon = await startPool({ identities: [{ localid: 'localhost', policy: 'intermediate', default: true }], config: { log: { level: 'warn' } } });
    pool = await connectPool({ path: daemon.socket });
    baseline = daemon.baseline();
  });
  afterEach(() => expectBaseline(daemon, baseline));
  after(async () => {
    pool.close();
    await daemon.stop();
  });

  const withFront = async (preamble: PreambleName, use: (front: Front) => Promise<void>, serve = echo): Promise<void> => {
    const served = await front(pool, preamble, serve);
    try {
      await use(served);
    } finally {
      await served.close();
    }
  };

  /** s_client sends a line and gets it back; then it ends. */
  const talk = ({ port, outcomes }: Front, args: readonly string[], version: string): Promise<PoolSocket> => within((async (): Promise<PoolSocket> => {
    const client = sClient({ port, caFile: daemon.caFile }, [...args, version, '-quiet']);
    client.write('through the pool\n');
    await client.output(/^through the pool$/mu, 'stdout');
    const [socket] = outcomes;
    assert(socket !== undefined && !(socket instanceof TlsPoolError));
    assert.equal(socket.getProtocol(), version === '-tls1_2' ? 'TLSv1.2' : 'TLSv1.3');
    // With -quiet it does not end at the end of its input.
    client.kill();
    await client.ended;
    return socket;
  })(), 's_client', 20_000);

  for (const version of ['-tls1_2', '-tls1_3']) {
    for (const [openssl, preamble] of starttls) {
      it(`openssl s_client -starttls ${openssl} ${version} is served by ${preamble}`, () => withFront(preamble, async (served) => {
        const socket = await talk(served, ['-starttls', openssl], version);
        assert.equal(socket.servername, 'localhost');
        assert.equal(socket.preamble?.protocol, preamble);
      }));
    }

    it(`openssl s_client ${version} without a preamble is served by none`, () => withFront('none', async (served) => { await talk(served, [], version); }));

    it(`openssl s_client ${version} -alpn postgresql without a request is served by postgres: direct TLS`, () => withFront('postgres', async (served) => {
      assert.equal((await talk(served, ['-alpn', 'postgresql'], version)).alpnProtocol, 'postgresql');
    }));
  }

  it('direct TLS without the ALPN name postgresql is no PostgreSQL, and is refused', () => withFront('postgres', async ({ port, outcomes }) => {
    const client = sClient({ port, caFile: daemon.caFile }, ['-quiet']);
    const seen = await until(() => outcomes[0], { what: 'the handshake to be judged' });
    assert(seen instanceof TlsPoolError);
    assert.equal(seen.code, 'HANDSHAKE_FAILED');
    client.kill();
    await client.ended;
  }));

  const mariadb = (port: number, args: readonly string[]): Promise<RunResult> => run(needProgram('mariadb', 'mariadb-client'), [
    '--no-defaults', '--protocol=tcp', '--host=127.0.0.1', `--port=${String(port)}`, '--user=joe', ...args, '--execute=DO 1',
  ], { check: false });

  it('the state of the mysql preamble is enough to check a password behind it: mariadb logs in, and with a wrong one does not', async () => {
    const logins: Promise<boolean>[] = [];
    await withFront('mysql', async ({ port }) => {
      const ssl = ['--ssl', `--ssl-ca=${daemon.caFile}`];
      const { code, stderr } = await mariadb(port, [...ssl, '--password=secret']);
      assert.equal(code, 0, stderr);
      assert.notEqual((await mariadb(port, [...ssl, '--password=wrong'])).code, 0);
    }, (socket) => {
      const state = socket.preamble?.state;
      assert(state !== undefined);
      logins.push(mysqlServe(socket, state, 'joe', 'secret').then((isRight) => {
        if (!isRight) socket.end();
        return isRight;
      }));
    });
    assert.deepEqual(await Promise.all(logins), [true, false]);
  });

  it('mariadb without TLS understands why it is refused', () => withFront('mysql', async ({ port, outcomes }) => {
    assert.match((await mariadb(port, ['--skip-ssl', '--password=secret'])).stderr, /ERROR 3159 \(HY000\): Connections using insecure transport are prohibited/u);
    assert.equal((outcomes[0] as TlsPoolError).code, 'PREAMBLE_REFUSED');
  }));

  it('psql without TLS understands why it is refused', () => withFront('postgres', async ({ port }) => {
    const { stderr } = await run(needProgram('psql', 'postgresql-client'), [`host=127.0.0.1 port=${String(port)} user=joe dbname=x sslmode=disable`, '-c', 'SELECT 1'], { check: false });
    assert.match(stderr, /FATAL: {2}TLS is required: connect with sslmode=require or stronger/u);
  }));

  it('ldapsearch without TLS understands why it is refused', () => withFront('ldap', async ({ port }) => {
    const { code, stderr } = await run(needProgram('ldapsearch', 'ldap-utils'), ['-x', '-H', `ldap://127.0.0.1:${String(port)}`, '-D', 'cn=joe', '-w', 'secret', '-b', ''], { check: false });
    assert.equal(code, 13);
    assert.match(stderr, /Confidentiality required \(13\)\s+additional info: StartTLS first/u);
  }));
});
