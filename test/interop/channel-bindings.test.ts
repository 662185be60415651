/** Channel bindings and exporters of a session, and the names in its certificates, as OpenSSL, GnuTLS, Python and Node see them from the other end. */
import assert from 'node:assert/strict';
import { createHash, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import type net from 'node:net';
import path from 'node:path';
import tls from 'node:tls';
import { connectPool } from 'libtlspool';
import type { ChannelBindings, Listener, Pool, PoolSocket } from 'libtlspool';
import { event, needProgram, Program, run, startPool, tempFolder } from '../support/index.js';
import type { TestPool } from '../support/index.js';

const hex = (octets: Uint8Array | undefined): string | undefined => (octets === undefined ? undefined : Buffer.from(octets).toString('hex'));
const versions = ['TLSv1.2', 'TLSv1.3'] as const;
const exporterLabel = 'EXPORTER-Channel-Binding';

describe('channel bindings as others see them', function () {
  this.timeout(60_000);
  let daemon: TestPool;
  let pool: Pool;
  let listener: Listener;
  let port: number;
  let program: Program | undefined;
  const opened: PoolSocket[] = [];

  before(async () => {
    daemon = await startPool({ identities: [{ localid: 'localhost', policy: 'intermediate', default: true, clientAuth: 'request', trust: true }] });
    pool = await connectPool({ path: daemon.socket });
    listener = await pool.listen({ host: '127.0.0.1', port: 0, localid: 'localhost' });
    ({ port } = listener.address() as net.AddressInfo);
  });
  after(async () => {
    await listener.close();
    pool.close();
    await daemon.stop();
  });
  afterEach(async () => {
    program?.kill('SIGKILL');
    await program?.ended;
    program = undefined;
    for (const socket of opened.splice(0)) socket.destroy();
  });

  const own = (): X509Certificate => new X509Certificate(readFileSync(path.join(daemon.identityDir('localhost'), 'tls.crt')));

  async function accepted(): Promise<{ socket: PoolSocket; bindings: ChannelBindings }> {
    const socket = await listener.accept();
    socket.on('error', () => undefined);
    opened.push(socket);
    return { socket, bindings: await socket.channelBindings() };
  }

  for (const [index, version] of versions.entries()) {
    it(`gnutls-cli, ${version}: prints what the pool says`, async () => {
      program = new Program(needProgram('gnutls-cli', 'gnutls-bin'), [
        '--priority', `NORMAL:-VERS-ALL:+VERS-TLS1.${String(index + 2)}`, '--x509cafile', daemon.caFile, '--sni-hostname', 'localhost', '--verify-hostname', 'localhost', '--verbose', '--port', String(port), '127.0.0.1',
      ]);
      const { bindings } = await accepted();
      await program.output(/Simple Client Mode/u);
      const printed = Object.fromEntries([...program.stdout.matchAll(/'(tls-[a-z-]+)': ([0-9a-f]+)/gu)].map(([, type, octets]) => [type, octets]));
      assert.equal(printed['tls-server-end-point'], hex(bindings.tlsServerEndPoint));
      if (version === 'TLSv1.2') assert.equal(printed['tls-unique'], hex(bindings.tlsUnique));
      else assert.equal(printed['tls-exporter'], hex(bindings.tlsExporter));
    });
  }

  it('openssl s_client, TLSv1.3: exports what the pool exports as tls-exporter', async () => {
    program = new Program(needProgram('openssl', 'openssl'), ['s_client', '-tls1_3', '-connect', `127.0.0.1:${String(port)}`, '-servername', 'localhost', '-CAfile', daemon.caFile, '-keymatexport', exporterLabel, '-keymatexportlen', '32']);
    const { bindings } = await accepted();
    const [, octets = ''] = await program.output(/Keying material: ([0-9A-F]{64})/u);
    assert.equal(octets.toLowerCase(), hex(bindings.tlsExporter));
  });

  it('Python, TLSv1.2: get_channel_binding(tls-unique) is that of the pool', async () => {
    program = new Program(needProgram('python3', 'python3'), ['-c', `
import socket, ssl
context = ssl.create_default_context(cafile='${daemon.caFile}')
context.maximum_version = ssl.TLSVersion.TLSv1_2
connection = context.wrap_socket(socket.create_connection(('127.0.0.1', ${String(port)})), server_hostname='localhost')
print('binding', connection.get_channel_binding('tls-unique').hex(), flush=True)
connection.read(1)
`]);
    const { bindings } = await accepted();
    const [, octets] = await program.output(/binding ([0-9a-f]+)/u);
    assert.equal(octets, hex(bindings.tlsUnique));
  });

  for (const version of versions) {
    it(`Node, ${version}: all of them, on a full handshake and on a resumed one`, async () => {
      let session: Buffer | undefined;
      const connect = async (): Promise<tls.TLSSocket> => {
        const socket = tls.connect({ host: '127.0.0.1', port, ca: readFileSync(daemon.caFile), servername: 'localhost', maxVersion: version, ...(session === undefined ? {} : { session }) });
        socket.on('session', (ticket: Buffer) => { session = ticket; });
        await once(socket, 'secureConnect');
        return socket;
      };
      for (const isResumed of [false, true]) {
        const client = await connect();
        const { socket, bindings } = await accepted();
        assert.deepEqual([client.isSessionReused(), socket.isSessionReused()], [isResumed, isResumed]);
        // RFC 5929 section 3.1: the first Finished is the client's, and the server's where the session was resumed.
        const first = isResumed ? client.getPeerFinished() : client.getFinished();
        assert.equal(hex(bindings.tlsUnique), version === 'TLSv1.2' ? hex(first) : undefined);
        assert.equal(hex(bindings.tlsExporter), hex(client.exportKeyingMaterial(32, exporterLabel, Buffer.alloc(0))));
        assert.equal(hex(bindings.tlsServerEndPoint), createHash('sha256').update(own().raw).digest('hex'));
        socket.write('x');
        await event(client, 'data');
        client.destroy();
      }
    });
  }

  it('names: what openssl x509 prints of both certificates, special characters and all', async () => {
    const folder = tempFolder();
    const file = (name: string): string => path.join(folder, name);
    const openssl = (...args: string[]): Promise<{ stdout: string }> => run(needProgram('openssl', 'openssl'), args, { cwd: folder });
    await openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', 'tls.key', '-out', 'tls.csr', '-utf8', '-subj', '/C=DE/O=Example, "Ltd"; <x>/OU=#1 \\\\ \\+/CN= M\u00fcller /emailAddress=a@example.org');
    await openssl('x509', '-req', '-in', 'tls.csr', '-CA', daemon.caFile, '-CAkey', daemon.ca.keyFile, '-out', 'tls.crt', '-days', '2', '-extfile', extensions(file('ext')));
    const client = tls.connect({ host: '127.0.0.1', port, ca: readFileSync(daemon.caFile), servername: 'localhost', cert: readFileSync(file('tls.crt')), key: readFileSync(file('tls.key')) });
    const { socket } = await accepted();
    const { peerNames, localNames } = await socket.names();
    const printed = async (what: string, of: string): Promise<string> => (await openssl('x509', '-in', of, '-noout', what, '-nameopt', 'RFC2253,-esc_msb,utf8')).stdout.trim().replace(/^[a-z]+=/u, '');
    assert.equal(peerNames?.subject, await printed('-subject', 'tls.crt'));
    assert.equal(peerNames.issuer, await printed('-issuer', 'tls.crt'));
    assert.deepEqual(peerNames.subjectAltNames, ['DNS:a.example.org', 'URI:spiffe://example.org/a', 'IP:192.0.2.1', 'IP:2001:db8::1', 'email:a@example.org']);
    assert.deepEqual(localNames, { subject: own().subject, issuer: own().issuer, subjectAltNames: ['DNS:localhost', 'IP:127.0.0.1', 'IP:::1'] });
    client.destroy();
  });
});

function extensions(file: string): string {
  writeFileSync(file, 'subjectAltName=DNS:a.example.org,URI:spiffe://example.org/a,IP:192.0.2.1,IP:2001:db8::1,email:a@example.org\nextendedKeyUsage=clientAuth\n');
  return file;
}
