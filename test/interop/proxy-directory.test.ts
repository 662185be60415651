/** OpenLDAP, PostgreSQL and MariaDB without TLS behind the proxy, and their own clients. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { connectPool, listenForHandoff } from 'libtlspool';
import type { HandoffListener, Pool } from 'libtlspool';
import { event, makeCa, needProgram, nodeConnect, PlainClient, run, tempFolder, until } from '../support/index.js';
import type { RunResult } from '../support/index.js';
import { proxyScript } from '../support/proxy-process.js';
import { account, startMariadb, startPostgres, startSlapd } from '../support/servers/index.js';
import type { MariadbServer, PostgresServer, SlapdServer } from '../support/servers/index.js';
import { relayToMariadb } from './mariadb-relay.js';
import { ByHand, curlTls, Front } from './proxy-support.js';

const { user, password } = account;

describe('proxy: OpenLDAP, PostgreSQL and MariaDB without TLS behind it', function () {
  this.timeout(120_000);
  let slapd: SlapdServer;
  let postgres: PostgresServer;
  let mariadb: MariadbServer;
  let front: Front;
  let pool: Pool;
  let handoff: HandoffListener;
  let stranger: string;

  before(async () => {
    [slapd, postgres, mariadb] = await Promise.all([startSlapd(), startPostgres(), startMariadb()]);
    const folder = tempFolder();
    const fd = path.join(folder, 'mysql.sock');
    front = await Front.start({
      ldaps: { protocol: 'none', backend: { connect: `127.0.0.1:${String(slapd.port)}` } },
      ldap: { protocol: 'ldap', backend: { connect: `127.0.0.1:${String(slapd.port)}` } },
      postgres: { protocol: 'postgres', backend: { connect: `127.0.0.1:${String(postgres.port)}` } },
      mysql: { protocol: 'mysql', backend: { fd } },
    });
    pool = await connectPool({ path: front.pool.socket });
    handoff = await listenForHandoff({ path: fd, reattach: pool });
    void serveMariadb();
    front.settled();
    stranger = (await makeCa(path.join(folder, 'ca'), 'nobody')).certFile;
  });
  const serveMariadb = async (): Promise<void> => { for await (const socket of handoff) void relayToMariadb(socket, mariadb.port); };
  after(async () => {
    await front.stop();
    await handoff.close();
    pool.close();
    await Promise.all([slapd.stop(), postgres.stop(), mariadb.stop()]);
  });

  describe('OpenLDAP', () => {
    // libldap puts the host's own name in the place of localhost.
    const search = (tls: readonly string[], secret: string, caFile = front.pool.caFile): Promise<RunResult> => run(needProgram('ldapsearch', 'ldap-utils'), [
      ...tls, '-x', '-H', `ldap://127.0.0.1:${String(front.target('ldap').port)}`, '-D', slapd.person, '-w', secret, '-b', slapd.base, '-LLL', `(uid=${user})`, 'mail',
    ], { check: false, env: { LDAPTLS_CACERT: caFile, LDAPTLS_REQCERT: 'hard' } });

    it('ldapsearch -ZZ finds joe, with joe\'s password and no other', async () => {
      const { code, stdout, stderr } = await search(['-ZZ'], password);
      assert.equal(code, 0, stderr);
      assert.match(stdout, new RegExp(`^dn: ${slapd.person}\\nmail: ${account.address}\\n`, 'u'));
      // LDAP_INVALID_CREDENTIALS, by slapd itself.
      assert.equal((await search(['-ZZ'], 'wrong')).code, 49);
    });

    it('ldapsearch -ZZ that trusts somebody else does not go on', async () => {
      const { code, stderr } = await search(['-ZZ'], password, stranger);
      assert.notEqual(code, 0);
      assert.match(stderr, /ldap_start_tls: Connect error \(-11\)/u);
    });

    const curl = (service: 'ldap' | 'ldaps', uid: string, secret: string, caFile = front.pool.caFile): Promise<RunResult> =>
      curlTls({ ...front.target(service), caFile }, `${service}://HOST/${slapd.base}?mail?sub?(uid=${uid})`, ['--user', `${slapd.person}:${secret}`], false);
    const joe = /^DN: uid=joe,dc=example,dc=org\n\tmail: joe@example\.org\n/u;

    it('curl logs in by ldaps, with joe\'s password and no other, and does not go on with a server that it does not trust', async () => {
      // Of somebody who is not there, because curl 7.88 waits for ever for the second of two answers in one record.
      const { code, stderr } = await curl('ldaps', 'nobody', password);
      assert.equal(code, 0, stderr);
      // CURLE_LOGIN_DENIED, CURLE_PEER_FAILED_VERIFICATION.
      assert.equal((await curl('ldaps', 'nobody', 'wrong')).code, 67);
      assert.equal((await curl('ldaps', 'nobody', password, stranger)).code, 60);
    });

    it('curl --ssl-reqd gets StartTLS or nothing: one that sends its password unprotected behind the go-ahead, as 7.88 does to every server, is not heard by slapd', async () => {
      const count = front.proxy.connections().filter(({ service }) => service === 'ldap').length;
      const { code, stdout } = await curl('ldap', user, password);
      const { protocol, code: why, octetsIn } = await front.proxy.record('ldap', count + 1);
      if (code === 0) assert.match(stdout, joe);
      else assert.deepEqual([protocol, why, octetsIn, stdout], [undefined, 'HANDSHAKE_FAILED', 0, '']);
      assert.equal(protocol !== undefined, code === 0);
    });

    it('without StartTLS there is no bind: confidentialityRequired, whatever the password', async () => {
      for (const secret of [password, 'wrong']) assert.equal((await search([], secret)).code, 13);
    });

    it('openssl s_client -starttls ldap: slapd answers a bind behind it', async () => {
      const client = new ByHand(front.target('ldap'), ['-starttls', 'ldap']);
      // Simple bind without name and password, and the answer: success.
      await client.ask(Buffer.from('300c020101600702010304008000', 'hex'), /^0\x0c\x02\x01\x01a\x07\x0a\x01\0\x04\0\x04\0$/u);
      await client.quit();
    });
  });

  describe('PostgreSQL', () => {
    const psql = (parameters: string, query: string): Promise<RunResult> => run(needProgram('psql', 'postgresql-client'), [
      '--no-psqlrc', '--tuples-only', '--no-align', `host=localhost hostaddr=127.0.0.1 port=${String(front.target('postgres').port)} user=${user} dbname=postgres sslrootcert=${front.pool.caFile} ${parameters}`, '--command', query,
    ], { check: false, env: { PGPASSWORD: password } });

    it('psql sslmode=verify-full logs in with SCRAM and asks; PostgreSQL itself sees no TLS', async () => {
      const { code, stdout, stderr } = await psql('sslmode=verify-full', 'SELECT current_user, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()');
      assert.equal(code, 0, stderr);
      assert.equal(stdout, `${user}|f\n`);
      const { ended, servername, protocol } = await front.proxy.record('postgres');
      assert.deepEqual([ended, servername, protocol], ['closed', 'localhost', 'TLSv1.3']);
    });

    it('a long answer arrives as it was sent', async () => {
      const { stdout } = await psql('sslmode=verify-full', 'SELECT repeat(md5(n::text), 32) FROM generate_series(1, 10000) n');
      const md5 = (n: number): string => createHash('md5').update(String(n)).digest('hex').repeat(32);
      assert(stdout === Array.from({ length: 10_000 }, (_, at) => `${md5(at + 1)}\n`).join(''), `${String(stdout.length)} octets`);
    });

    it('psql refuses another name and another CA, and gets no further without TLS', async () => {
      for (const [parameters, why] of [
        ['sslmode=verify-full host=other.example', /server certificate for "localhost".* does not match host name "other\.example"/u], [`sslmode=verify-full sslrootcert=${stranger}`, /certificate verify failed/u],
        ['sslmode=disable', /FATAL: {2}TLS is required/u],
        // As docs/proxy/postgres.md says: the backend has no TLS whose certificate it could bind to.
        ['sslmode=verify-full channel_binding=require', /channel binding (?:is )?required/u],
      ] as const) {
        const { code, stderr } = await psql(parameters, 'SELECT 1');
        assert.equal(code, 2, parameters);
        assert.match(stderr, why);
      }
    });

    it('a wrong password is refused by PostgreSQL, behind TLS', async () => {
      const { code, stderr } = await psql('sslmode=verify-full password=wrong', 'SELECT 1');
      assert.equal(code, 2);
      assert.match(stderr, /FATAL: {2}password authentication failed for user "joe"/u);
    });

    /** StartupMessage, format version 3. */
    const startup = Buffer.concat([Buffer.from('0000002500030000', 'hex'), Buffer.from(`user\0${user}\0database\0postgres\0\0`)]);
    startup.writeUInt32BE(startup.length, 0);

    it('a client that begins TLS at once (sslnegotiation=direct) gets to PostgreSQL with ALPN postgresql, and not without', async () => {
      const target = front.target('postgres');
      const socket = await nodeConnect(target, { ALPNProtocols: ['postgresql'] });
      assert.equal(socket.alpnProtocol, 'postgresql');
      socket.write(startup);
      // AuthenticationSASL.
      assert.match((await event<Buffer>(socket, 'data')).toString('latin1'), /^R\0\0\0.\0\0\0\x0aSCRAM-SHA-256\0\0$/su);
      socket.end();
      await event(socket, 'close');
      await assert.rejects(nodeConnect(target, { ALPNProtocols: ['http/1.1'] }), /alert no application protocol/u);
      // One that offers none has had its handshake by the time that this is known; not an octet comes of it.
      const refused = await nodeConnect(target);
      const { localPort } = refused;
      let heard = 0;
      refused.on('data', (octets: Buffer) => { heard += octets.length; }).on('error', () => undefined);
      refused.write(startup);
      await event(refused, 'close');
      assert.equal(heard, 0);
      await until(() => front.proxy.connections().some(({ peer, code }) => peer === `127.0.0.1:${String(localPort)}` && code === 'NAME_REFUSED'), { what: 'the log to say why' });
    });
  });

  describe('MariaDB', () => {
    const ask = (args: readonly string[], query: string): Promise<RunResult> => run(needProgram('mariadb', 'mariadb-client'), [
      '--no-defaults', '--protocol=tcp', '--host=localhost', `--port=${String(front.target('mysql').port)}`, `--user=${user}`, '--batch', '--skip-column-names', ...args, `--execute=${query}`,
    ], { check: false });
    const tls = (): string[] => ['--ssl', `--ssl-ca=${front.pool.caFile}`, '--ssl-verify-server-cert'];

    it('mariadb logs in and asks through a program that takes descriptors, and MariaDB itself checks the password', async () => {
      const { code, stdout, stderr } = await ask([...tls(), `--password=${password}`, '--database=test'], 'SELECT current_user(), database(); CREATE TABLE t (n INT); INSERT INTO t VALUES (1), (2); SELECT SUM(n) FROM t');
      assert.equal(code, 0, stderr);
      assert.equal(stdout, `${user}@%\ttest\n3\n`);
      const wrong = await ask([...tls(), '--password=wrong'], 'SELECT 1');
      assert.equal(wrong.code, 1);
      assert.match(wrong.stderr, /ERROR 1045 \(28000\).*Access denied for user 'joe'/u);
    });

    it('a client without TLS is told to use it, and MariaDB does not hear of it', async () => {
      const { stderr } = await ask(['--skip-ssl', `--password=${password}`], 'SELECT 1');
      assert.match(stderr, /ERROR 3159 \(HY000\): Connections using insecure transport are prohibited/u);
    });

    it('a plain MariaDB as a backend is refused by the configuration, which says why', async () => {
      const file = path.join(tempFolder(), 'proxy.yaml');
      writeFileSync(file, `services:\n- {name: db, protocol: mysql, listen: 127.0.0.1:0, backend: {connect: '127.0.0.1:${String(mariadb.port)}'}}\n`);
      const { code, stderr } = await run(process.execPath, [proxyScript, '--config', file, '--check'], { check: false });
      assert.equal(code, 2);
      assert.match(stderr, /:2:\d+: services\[0\]\.backend\.connect: does not go with mysql: .*the client's proof of its password is made from the greeting/u);
    });

    it('the greeting is the proxy\'s own: a salt of MariaDB would have to be asked for before TLS', async () => {
      const client = await PlainClient.connect(front.target('mysql').port);
      await client.hears(/mysql_native_password\0$/u);
      assert.doesNotMatch(client.text, /MariaDB/u);
      client.close();
    });
  });
});
