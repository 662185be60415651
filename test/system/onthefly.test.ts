/** Certificates made on the fly by a real tlspoold, held against curl, openssl and the kernel's idea of who we are. */
import assert from 'node:assert/strict';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import tls from 'node:tls';
import { connectPool, TlsPoolError } from 'libtlspool';
import type { Pool, PoolSocket } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import { curl, expectBaseline, makeCa, needProgram, nodeConnect, PoolWire, repoRoot, run, serve, startPool, tempFolder, until, within, WireError } from '../support/index.js';
import type { Baseline, Served, TestCa, TestPool } from '../support/index.js';

/** The user `nobody` of Debian, and another one. */
const [signing, plain] = [65_534, 65_533];
const openssl = (args: readonly string[], input?: string) => run(needProgram('openssl', 'openssl'), args, { deadlineMs: 30_000, ...(input === undefined ? {} : { input }) });
const rejectsWith = (promise: Promise<unknown>, code: string) => assert.rejects(promise, (error: unknown) => {
  assert(error instanceof TlsPoolError, String(error));
  assert.equal(error.code, code, error.message);
  return true;
});

/** Runs as another user up to the end of `work`: a socket that connects meanwhile has that user's credentials. */
function asUser<T>(uid: number, work: () => T): T {
  process.seteuid?.(uid);
  try { return work(); } finally { process.seteuid?.(0); }
}

describe('on-the-fly identities', function () {
  this.timeout(60_000);
  let folder: string;
  let ca: TestCa;
  let daemon: TestPool;
  let pool: Pool;
  let baseline: Baseline;
  let served: Served;
  const server = http.createServer((request, response) => {
    const { sessionInfo } = request.socket as unknown as PoolSocket;
    response.end(JSON.stringify({ localid: sessionInfo.localid, revision: sessionInfo.revision, resumed: sessionInfo.resumed }));
  });
  const settings = (authority: TestCa, more: object = {}) => ({ ca: { certificate: authority.certFile, key: authority.keyFile }, names: ['*.signed.example', 'user@*', '192.0.2.*'], ...more });

  before(async () => {
    folder = tempFolder();
    ca = await makeCa(path.join(folder, 'signing'), 'signing CA');
    daemon = await startPool({
      identities: [{ localid: 'fixed.signed.example' }],
      config: { onTheFly: settings(ca), access: [{ uid: signing, sign: true }, { uid: plain, identities: ['*'] }] },
    });
    // Others must reach the socket.
    chmodSync(path.dirname(daemon.socket), 0o711);
    chmodSync(daemon.socket, 0o666);
    pool = await connectPool({ path: daemon.socket });
    served = await serve(daemon, server, { onTheFly: true });
    // Its first use loads what stays open.
    await curl({ port: served.port, caFile: ca.certFile, servername: 'warm.signed.example' });
    baseline = await until(() => {
      const now = daemon.baseline();
      return now.sessions === 0 && now;
    }, { what: 'sessions to end' });
  });
  after(async () => {
    await expectBaseline(daemon, baseline);
    await served.close();
    pool.close();
    await daemon.stop();
  });

  const target = (servername: string, authority = ca) => ({ port: served.port, caFile: authority.certFile, servername });
  const get = async (servername: string, authority = ca) => JSON.parse((await curl(target(servername, authority))).stdout) as { localid: string; revision: number };
  const madeFor = (name: string) => daemon.logLines().filter((line) => line.includes('a certificate was made on the fly') && line.includes(`"name":"${name}"`)).length;
  function reloadWith(change: Record<string, unknown>): void {
    writeFileSync(daemon.configFile, JSON.stringify({ ...JSON.parse(readFileSync(daemon.configFile, 'utf8')) as object, ...change }));
    const wire = new PoolWire(daemon.socket);
    try { wire.request('reload'); } finally { wire.close(); }
  }
  /** The chain that a TLS client is shown, in PEM. */
  async function chainFor(servername: string): Promise<string[]> {
    const { stdout } = await openssl(['s_client', '-connect', `127.0.0.1:${String(served.port)}`, '-servername', servername, '-showcerts'], '');
    return stdout.match(/-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----\n/gu) ?? [];
  }
  /** The alert that a client gets, by Node's name for it. */
  const alertFor = (servername: string | undefined) => within(new Promise<string>((resolve, reject) => {
    const socket = tls.connect({ host: '127.0.0.1', port: served.port, rejectUnauthorized: false, ...(servername !== undefined && { servername }) });
    socket.once('error', (error: NodeJS.ErrnoException) => { resolve(error.code ?? error.message); });
    socket.once('secureConnect', () => { socket.destroy(); reject(new Error('the handshake was done')); });
  }), 'an alert');

  it('three names over one listener, each with a certificate of its own, which curl accepts by the CA alone', async () => {
    for (const name of ['a.signed.example', 'b.signed.example', 'deep.below.signed.example']) {
      const { localid, revision } = await get(name);
      assert.equal(localid, name);
      assert.ok(revision > 1_000_000_000);
    }
    assert.equal((await get('a.signed.example')).localid, 'a.signed.example');
    assert.deepEqual(['a', 'b', 'deep.below'].map((name) => madeFor(`${name}.signed.example`)), [1, 1, 1], 'the second time it is there');
  });

  it('openssl verify -x509_strict accepts the chain, for the name and for servers', async () => {
    const [leaf = '', ...rest] = await chainFor('strict.signed.example');
    assert.equal(rest.length, 1, 'leaf and CA');
    const file = path.join(folder, 'leaf.pem');
    writeFileSync(file, leaf);
    const verify = (...more: string[]) => openssl(['verify', '-x509_strict', '-CAfile', ca.certFile, '-purpose', 'sslserver', ...more, file]);
    assert.match((await verify('-verify_hostname', 'strict.signed.example')).stdout, /: OK/);
    await assert.rejects(verify('-verify_hostname', 'other.signed.example'), /hostname mismatch/i);
    const { stdout } = await openssl(['x509', '-in', file, '-noout', '-text']);
    assert.match(stdout, /Public-Key: \(256 bit\)[^]*X509v3 Extended Key Usage: *\n *TLS Web Server Authentication\n/);
  });

  it('an identity that has the name is served as it is, and nothing is signed', async () => {
    const { localid, revision } = await get('fixed.signed.example', daemon.ca);
    assert.deepEqual([localid, revision, madeFor('fixed.signed.example')], ['fixed.signed.example', 1, 0]);
  });

  it('a name that is not allowed, and none at all, get unrecognized_name; the log says why', async () => {
    for (const name of ['a.other.example', 'signed.example', undefined]) assert.equal(await alertFor(name), 'ERR_SSL_TLSV1_UNRECOGNIZED_NAME', String(name));
    assert.ok(daemon.logLines().some((line) => line.includes('no certificate for a handshake') && line.includes('a.other.example') && line.includes('onTheFly.names')));
    assert.equal((await get('a.signed.example')).localid, 'a.signed.example');
  });

  it('hostile names get unrecognized_name: wildcards, e-mail addresses, what is no host name', async () => {
    const label = 'a'.repeat(63);
    for (const name of ['*.signed.example', 'user@signed.example', 'a_b.signed.example', '..signed.example', `${label}a.signed.example`, 'a b.signed.example', '-.signed.example', '\u202ea.signed.example', '%00.signed.example',
      `${label}.${label}.${label}.${label}.signed.example`]) {
      assert.match(await alertFor(name), /UNRECOGNIZED_NAME/, name);
    }
    assert.equal((await get(`${label}.signed.example`)).localid, `${label}.signed.example`);
    assert.equal((await get('UPPER.Signed.Example')).localid, 'upper.signed.example');
  });

  it('fifty handshakes at once for one name make one certificate', async () => {
    const all = await Promise.all(Array.from({ length: 50 }, () => nodeConnect(target('herd.signed.example'))));
    for (const socket of all) socket.destroy();
    assert.equal(madeFor('herd.signed.example'), 1);
  });

  describe('who may', () => {
    const listenAs = (uid: number, body: Record<string, unknown>): PoolWire => {
      const wire = asUser(uid, () => new PoolWire(daemon.socket));
      const listening = sockets.tcpListen({ host: '127.0.0.1', port: 0 });
      try {
        wire.request('listen', body, [listening]);
        return wire;
      } catch (error) {
        wire.close();
        throw error;
      } finally {
        sockets.close(listening);
      }
    };
    const refusal = (code: string) => (error: unknown) => error instanceof WireError && error.code === code;

    it('a user with "sign" and no identity may have certificates made', () => { listenAs(signing, { onTheFly: true }).close(); });
    it('a user with all identities and without "sign" is NOT_PERMITTED', () => {
      assert.throws(() => listenAs(plain, { onTheFly: true }), refusal('NOT_PERMITTED'));
      listenAs(plain, {}).close();
    });
    it('a user without identities has nothing to listen with but that', () => { assert.throws(() => listenAs(signing, {}), refusal('IDENTITY_UNKNOWN')); });
  });

  describe('starttls', () => {
    /** A TLS client and our end of its connection. */
    async function incoming(servername: string | undefined): Promise<{ socket: net.Socket; client: tls.TLSSocket; secured: Promise<unknown> }> {
      const listening = net.createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1');
      const connected = new Promise<net.Socket>((resolve) => { listening.once('connection', resolve); });
      await new Promise((resolve) => { listening.once('listening', resolve); });
      const client = tls.connect({ host: '127.0.0.1', port: (listening.address() as net.AddressInfo).port, ca: readFileSync(ca.certFile), ...(servername === undefined ? { checkServerIdentity: () => undefined } : { servername }) });
      const secured = new Promise((resolve, reject) => { client.once('secureConnect', resolve); client.once('error', reject); });
      secured.catch(() => undefined);
      const socket = await within(connected, 'a connection');
      listening.close();
      return { socket, client, secured };
    }

    it('as a server: a certificate for the server name', async () => {
      const { socket, client, secured } = await incoming('start.signed.example');
      const secure = await pool.starttls(socket, { role: 'server', onTheFly: true });
      await secured;
      assert.equal(secure.sessionInfo.localid, 'start.signed.example');
      client.destroy();
      secure.destroy();
    });
    it('as a server: for a client that sends no name, one for the localid, here an address', async () => {
      const { socket, client, secured } = await incoming(undefined);
      const secure = await pool.starttls(socket, { role: 'server', onTheFly: true, localid: '192.0.2.7' });
      await secured;
      assert.equal(client.getPeerCertificate().subjectaltname, 'IP Address:192.0.2.7');
      client.destroy();
      secure.destroy();
    });
    it('as a server: a name that is not allowed is SIGNING_UNAVAILABLE for the program', async () => {
      const { socket, secured } = await incoming('a.other.example');
      await rejectsWith(pool.starttls(socket, { role: 'server', onTheFly: true }), 'SIGNING_UNAVAILABLE');
      await assert.rejects(secured);
    });
    it('as a server: the program is asked first, and its refusal counts', async () => {
      const { socket, secured } = await incoming('refused.signed.example');
      await rejectsWith(pool.starttls(socket, { role: 'server', onTheFly: true, onServername: () => false }), 'NAME_REFUSED');
      await assert.rejects(secured);
      assert.equal(madeFor('refused.signed.example'), 0);
      const yes = await incoming('asked.signed.example');
      const secure = await pool.starttls(yes.socket, { role: 'server', onTheFly: true, onServername: () => true });
      assert.equal(secure.sessionInfo.localid, 'asked.signed.example');
      yes.client.destroy();
      secure.destroy();
    });
    it('as a client: a certificate for the localid, which the server verifies', async () => {
      const peers: tls.PeerCertificate[] = [];
      const { certFile, keyFile } = { certFile: path.join(daemon.identityDir('fixed.signed.example'), 'tls.crt'), keyFile: path.join(daemon.identityDir('fixed.signed.example'), 'tls.key') };
      const there = tls.createServer({ cert: readFileSync(certFile), key: readFileSync(keyFile), ca: readFileSync(ca.certFile), requestCert: true, rejectUnauthorized: true }, (socket) => {
        peers.push(socket.getPeerCertificate());
        socket.end('hello');
      });
      await new Promise<void>((resolve) => { there.listen(0, '127.0.0.1', resolve); });
      const { port } = there.address() as net.AddressInfo;
      try {
        const options = { host: '127.0.0.1', port, remoteid: 'fixed.signed.example', rejectUnauthorized: false, onTheFly: true };
        const socket = await pool.connect({ ...options, localid: 'user@example.org' });
        assert.equal(socket.sessionInfo.localid, 'user@example.org');
        const text = await within(new Promise((resolve) => { socket.once('data', (data: Buffer) => { resolve(data.toString()); }); }), 'what the server says');
        assert.deepEqual([text, peers.map(({ subject, subjectaltname }) => [subject.CN, subjectaltname])], ['hello', [['user@example.org', 'email:user@example.org']]]);
        socket.destroy();
        await rejectsWith(pool.connect({ ...options, localid: 'other@example.org' }), 'SIGNING_UNAVAILABLE');
        await rejectsWith(pool.connect(options), 'BAD_ARGUMENT');
      } finally {
        there.close();
      }
    });
  });

  describe('reload', () => {
    after(() => { reloadWith({ onTheFly: settings(ca) }); });

    it('another CA signs what comes after it, on the same listener, and sessions go on', async () => {
      const session = await nodeConnect(target('kept.signed.example'));
      const other = await makeCa(path.join(folder, 'other'), 'another CA');
      reloadWith({ onTheFly: settings(other) });
      assert.equal((await get('kept.signed.example', other)).localid, 'kept.signed.example');
      await assert.rejects(get('kept.signed.example', ca));
      const answer = within(new Promise<string>((resolve) => { session.once('data', (data: Buffer) => { resolve(data.toString()); }); }), 'an answer');
      session.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
      assert.match(await answer, /^HTTP\/1\.1 200/);
      session.destroy();
    });
    it('a ticket is resumed while nothing changes, and not when what signs has changed', async () => {
      reloadWith({ onTheFly: settings(ca) });
      const first = await nodeConnect(target('ticket.signed.example'), { maxVersion: 'TLSv1.2' });
      const session = first.getSession();
      first.destroy();
      const again = await nodeConnect(target('ticket.signed.example'), { maxVersion: 'TLSv1.2', ...(session !== undefined && { session }) });
      assert.equal(again.isSessionReused(), true, 'the ticket is good while nothing changes');
      again.destroy();
      reloadWith({ onTheFly: settings(ca, { lifetime: '2h' }) });
      const afterwards = await nodeConnect(target('ticket.signed.example'), { maxVersion: 'TLSv1.2', ...(session !== undefined && { session }) });
      assert.equal(afterwards.isSessionReused(), false);
      afterwards.destroy();
    });
    it('names that are no longer allowed get unrecognized_name', async () => {
      reloadWith({ onTheFly: settings(ca, { names: ['b.signed.example'] }) });
      assert.match(await alertFor('a.signed.example'), /UNRECOGNIZED_NAME/);
      assert.equal((await get('b.signed.example')).localid, 'b.signed.example');
    });
    it('a CA that is bad is refused, names the file, and leaves the one in use', async () => {
      const bad = settings(ca, { names: ['*'] });
      assert.throws(() => { reloadWith({ onTheFly: { ...bad, ca: { certificate: path.join(daemon.identityDir('fixed.signed.example'), 'tls.crt'), key: path.join(daemon.identityDir('fixed.signed.example'), 'tls.key') } } }); },
        (error: unknown) => error instanceof WireError && error.code === 'IDENTITY_BAD' && /tls\.crt.*basicConstraints/.test(error.message));
      assert.equal((await get('b.signed.example')).localid, 'b.signed.example');
    });
    it('without a CA nothing is signed: unrecognized_name, and SIGNING_UNAVAILABLE for who asks', async () => {
      const { onTheFly: _gone, ...rest } = JSON.parse(readFileSync(daemon.configFile, 'utf8')) as Record<string, unknown>;
      writeFileSync(daemon.configFile, JSON.stringify(rest));
      reloadWith({});
      assert.match(await alertFor('b.signed.example'), /UNRECOGNIZED_NAME/);
      await rejectsWith(pool.listen({ host: '127.0.0.1', port: 0, onTheFly: true }), 'SIGNING_UNAVAILABLE');
      assert.equal((await get('fixed.signed.example', daemon.ca)).localid, 'fixed.signed.example');
    });
  });

  it('no certificate outlives a CA that ends soon', async () => {
    const short = path.join(folder, 'short');
    const { certFile, keyFile } = await makeCa(short, 'short CA');
    await openssl(['req', '-x509', '-key', keyFile, '-out', certFile, '-days', '1', '-subj', '/CN=short CA', '-addext', 'basicConstraints=critical,CA:true', '-addext', 'keyUsage=critical,keyCertSign']);
    reloadWith({ onTheFly: { ...settings(ca), ca: { certificate: certFile, key: keyFile }, lifetime: '7d' } });
    const end = async (pem: string) => (await openssl(['x509', '-noout', '-enddate'], pem)).stdout;
    const [leaf = '', issuer = ''] = await chainFor('short.signed.example');
    assert.equal(await end(leaf), await end(issuer));
    reloadWith({ onTheFly: settings(ca) });
  });

  it('openssl agrees on what name constraints allow', async () => {
    const limited = path.join(folder, 'limited');
    const { certFile, keyFile } = await makeCa(limited, 'limited CA');
    await openssl(['req', '-x509', '-key', keyFile, '-out', certFile, '-days', '30', '-subj', '/O=Example/CN=limited CA', '-addext', 'basicConstraints=critical,CA:true', '-addext', 'keyUsage=critical,keyCertSign',
      '-addext', 'nameConstraints=critical,permitted;DNS:ok.signed.example,permitted;IP:192.0.2.0/255.255.255.0,excluded;DNS:no.ok.signed.example']);
    reloadWith({ onTheFly: { ...settings(ca), ca: { certificate: certFile, key: keyFile } } });
    for (const name of ['ok.signed.example', 'a.ok.signed.example']) {
      const [leaf = ''] = await chainFor(name);
      const file = path.join(folder, 'limited.pem');
      writeFileSync(file, leaf);
      assert.match((await openssl(['verify', '-x509_strict', '-CAfile', certFile, file])).stdout, /: OK/, name);
    }
    for (const name of ['a.signed.example', 'x.no.ok.signed.example']) assert.match(await alertFor(name), /UNRECOGNIZED_NAME/, name);
    reloadWith({ onTheFly: settings(ca) });
  });

  it('the CA of docs/on-the-fly.md is taken, and signs what it may and nothing else', async () => {
    const page = readFileSync(path.join(repoRoot, 'docs/on-the-fly.md'), 'utf8');
    const [, command = ''] = /```sh\n(openssl req [^]*?)```/.exec(page) ?? [];
    const place = tempFolder();
    await run('/bin/sh', ['-e', '-c', command], { cwd: place, deadlineMs: 30_000 });
    const [certificate, key] = [path.join(place, 'ca.crt'), path.join(place, 'ca.key')];
    reloadWith({ onTheFly: { ca: { certificate, key }, names: ['*'] } });
    const { stdout } = await curl({ port: served.port, caFile: certificate, servername: 'my.test' });
    assert.match(stdout, /"localid":"my\.test"/);
    assert.match(await alertFor('my.example'), /UNRECOGNIZED_NAME/);
    reloadWith({ onTheFly: settings(ca) });
  });

  it('tlspool check reports what is wrong with the CA', async () => {
    const check = async () => run(process.execPath, [path.join(repoRoot, 'daemon/bin/tlspool.js'), 'check', daemon.configFile], { check: false });
    assert.equal((await check()).code, 0, (await check()).stderr);
    chmodSync(ca.keyFile, 0o644);
    const { code, stdout, stderr } = await check();
    chmodSync(ca.keyFile, 0o600);
    assert.notEqual(code, 0);
    assert.match(stdout + stderr, /ca\.key has mode 0644/);
  });

  it('no key that was made is in the log', () => { assert.ok(daemon.logLines().every((line) => !line.includes('PRIVATE KEY'))); });
});
