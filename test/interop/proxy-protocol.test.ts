/** HAProxy, which the PROXY protocol comes from, at both ends: what it sends is read, and what is sent it believes. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import tls from 'node:tls';
import type { Endpoint, SessionInfo } from 'libtlspool/protocol';
import { encodeV1, encodeV2, parse, tlsFactsOf } from 'tlspool-proxy/dist/proxyprotocol/index.js';
import type { Header, TlsFacts } from 'tlspool-proxy/dist/proxyprotocol/index.js';
import { event, freePort, issue, makeCa, needProgram, Program, tempFolder, until, within } from '../support/index.js';
import type { TestCa, TestLeaf } from '../support/index.js';

const end = (address: string, port: number): Endpoint => ({ family: address.includes(':') ? 'IPv6' : 'IPv4', address, port });
const source = end('192.0.2.1', 49_152);
const destination = end('198.51.100.2', 993);

/** HAProxy with frontends of this text; ended by stop(). Resolves when all the ports take connections. */
async function haproxy(text: string, ports: readonly number[]): Promise<Program> {
  const file = path.join(tempFolder(), 'haproxy.cfg');
  writeFileSync(file, `global\n  nbthread 1\n  maxconn 100\n  log stderr local0\ndefaults\n  timeout connect 10s\n  timeout client 30s\n  timeout server 30s\n  maxconn 100\n${text}`);
  const program = new Program(needProgram('haproxy', 'haproxy'), ['-db', '-f', file]);
  const open = (port: number): Promise<boolean> => new Promise((resolve) => {
    const probe = net.connect(port, '127.0.0.1', () => { probe.destroy(); resolve(true); });
    probe.once('error', () => { resolve(false); });
  });
  await until(async () => {
    if (!program.running) throw new Error(`HAProxy ended\n${program.tail()}`);
    return (await Promise.all(ports.map(open))).every(Boolean);
  }, { what: 'HAProxy to listen', context: () => program.tail() });
  return program;
}

async function stop(program: Program): Promise<void> {
  program.kill();
  await within(program.ended, 'HAProxy to end');
}

/** A server whose clients begin with a header; each header that came, with what followed it. */
class Backend {
  readonly #server = net.createServer((socket) => { this.#serve(socket); });
  readonly received: { readonly header: Header; readonly after: string }[] = [];
  readonly failed: unknown[] = [];

  async listen(): Promise<number> {
    await new Promise<void>((resolve) => { this.#server.listen(0, '127.0.0.1', resolve); });
    return (this.#server.address() as net.AddressInfo).port;
  }

  #serve(socket: net.Socket): void {
    let octets = Buffer.alloc(0);
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => { octets = Buffer.concat([octets, chunk]); });
    socket.on('end', () => {
      // HAProxy's own end of a probe that said nothing.
      try {
        const parsed = parse(octets);
        if (parsed.kind === 'header') this.received.push({ header: parsed.header, after: octets.toString('latin1', parsed.length) });
        else if (octets.length > 0) this.failed.push(octets);
      } catch (error) {
        this.failed.push(error);
      }
      socket.end();
    });
  }

  /** The header of the connection that carried this text. */
  async headerBefore(text: string): Promise<Header> {
    const found = await until(() => this.received.find(({ after }) => after === text), { what: `a header before ${text}`, context: () => JSON.stringify([this.received, this.failed.map(String)]) });
    assert.deepEqual(this.failed, []);
    return found.header;
  }

  close(): void { this.#server.close(); }
}

describe('HAProxy sends PROXY headers', () => {
  const ports: Record<'v1' | 'v2' | 'v2v6' | 'tls', number> = { v1: 0, v2: 0, v2v6: 0, tls: 0 };
  let backend: Backend;
  let program: Program;
  let ca: TestCa;
  let server: TestLeaf;
  let client: TestLeaf;

  before(async () => {
    const folder = tempFolder();
    ca = await makeCa(path.join(folder, 'ca'));
    server = await issue(ca, path.join(folder, 'server'), { commonName: 'mail.example', sans: ['DNS:mail.example'], keyType: 'rsa' });
    client = await issue(ca, path.join(folder, 'client'), { commonName: 'alice', sans: [], usage: 'clientAuth' });
    const both = path.join(folder, 'both.pem');
    writeFileSync(both, readFileSync(server.certFile, 'utf8') + readFileSync(server.keyFile, 'utf8'));
    backend = new Backend();
    const to = await backend.listen();
    for (const name of Object.keys(ports) as (keyof typeof ports)[]) ports[name] = await freePort();
    const front = (name: keyof typeof ports, bind: string, send: string): string =>
      `listen ${name}\n  mode tcp\n  ${name === 'tls' ? 'unique-id-format id-%[src_port]\n  ' : ''}bind ${bind}\n  server s 127.0.0.1:${String(to)} ${send}\n`;
    program = await haproxy([
      front('v1', `127.0.0.1:${String(ports.v1)}`, 'send-proxy'),
      front('v2', `127.0.0.1:${String(ports.v2)}`, 'send-proxy-v2'),
      front('v2v6', `127.0.0.1:${String(ports.v2v6)} accept-proxy`, 'send-proxy-v2'),
      front('tls', `127.0.0.1:${String(ports.tls)} ssl crt ${both} alpn imap ca-file ${ca.certFile} verify optional crt-ignore-err all`,
        'send-proxy-v2-ssl-cn proxy-v2-options ssl,cert-cn,ssl-cipher,cert-key,cert-sig,authority,crc32c,unique-id'),
    ].join(''), [ports.v1, ports.v2, ports.v2v6]);
  });
  after(async () => {
    await stop(program);
    backend.close();
  });

  /** Sends it and ends; the port that it came from. */
  async function say(port: number, text: string | Buffer): Promise<number> {
    const socket = net.connect(port, '127.0.0.1');
    await event(socket, 'connect');
    const from = socket.localPort ?? 0;
    socket.resume().end(text);
    await event(socket, 'close');
    return from;
  }

  async function sayTls(text: string, options: tls.ConnectionOptions = {}): Promise<{ from: number; cipher: string; protocol: string | null; session: Buffer | undefined; resumed: boolean }> {
    const socket = tls.connect({ host: '127.0.0.1', port: ports.tls, servername: 'mail.example', ca: readFileSync(ca.certFile), ALPNProtocols: ['imap'], maxVersion: 'TLSv1.2', ...options });
    await event(socket, 'secureConnect');
    const seen = { from: socket.localPort ?? 0, cipher: socket.getCipher().name, protocol: socket.getProtocol(), session: socket.getSession(), resumed: socket.isSessionReused() };
    socket.resume().end(text);
    await event(socket, 'close');
    return seen;
  }
  const pem = (leaf: TestLeaf) => ({ cert: readFileSync(leaf.certFile), key: readFileSync(leaf.keyFile) });

  for (const [name, version] of [['v1', 1], ['v2', 2]] as const) {
    it(`send-proxy${version === 2 ? '-v2' : ''}: the addresses of the client's connection`, async () => {
      const from = await say(ports[name], `hello ${name}`);
      assert.deepEqual(await backend.headerBefore(`hello ${name}`), {
        version, command: 'PROXY', addresses: { source: end('127.0.0.1', from), destination: end('127.0.0.1', ports[name]) },
      });
    });
  }

  it('accept-proxy to send-proxy-v2: IPv6 addresses go through HAProxy and come out as they went in', async () => {
    const addresses = { source: end('2001:db8::1', 1), destination: end('2001:db8:0:1::2', 65_535) };
    await say(ports.v2v6, Buffer.concat([encodeV1(addresses), Buffer.from('first')]));
    assert.deepEqual((await backend.headerBefore('first')).addresses, addresses);
    await say(ports.v2v6, Buffer.concat([encodeV2({ command: 'PROXY', addresses }), Buffer.from('second')]));
    assert.deepEqual((await backend.headerBefore('second')).addresses, addresses);
  });

  it('send-proxy-v2-ssl-cn: every TLV, its checksum, and our own algorithms as tlsFactsOf() names them', async () => {
    const { from, cipher, protocol } = await sayTls('with certificate', pem(client));
    const header = await backend.headerBefore('with certificate');
    const ours = tlsFactsOf({
      role: 'server', protocol: 'TLSv1.2', cipher, cipherName: cipher, resumed: false, authorized: true, alpn: 'imap', servername: 'mail.example',
      peerCertificates: [new X509Certificate(readFileSync(client.certFile)).raw], localCertificate: new X509Certificate(readFileSync(server.certFile)).raw,
    });
    assert.equal(header.addresses?.source.port, from);
    assert.equal(header.uniqueId?.toString(), `id-${String(from)}`);
    assert.deepEqual([header.alpn, header.authority], [ours.alpn, ours.servername]);
    assert.deepEqual(header.ssl, {
      tls: true, certConn: true, certSess: true, verify: 0, protocol: protocol ?? '', cipher, commonName: ours.certificate?.commonName,
      keyAlgorithm: ours.keyAlgorithm, signatureAlgorithm: ours.signatureAlgorithm,
    });
    assert.deepEqual([ours.keyAlgorithm, ours.signatureAlgorithm, ours.certificate], ['RSA2048', 'ecdsa-with-SHA256', { shown: 'connection', verify: 0, commonName: 'alice' }]);
  });

  it('a resumed session has its certificate in the session, not on the connection, for HAProxy as for us', async () => {
    const { session } = await sayTls('full handshake', pem(client));
    const { resumed } = await sayTls('resumed', { ...pem(client), ...(session !== undefined && { session }) });
    assert.equal(resumed, true);
    const { ssl } = await backend.headerBefore('resumed');
    assert.deepEqual([ssl?.certConn, ssl?.certSess, ssl?.verify], [false, true, 0]);
  });

  it('a certificate that does not verify has the number that tlsFactsOf() gives it', async () => {
    const folder = tempFolder();
    const other = await issue(await makeCa(path.join(folder, 'other'), 'another CA'), path.join(folder, 'mallory'), { commonName: 'mallory', sans: [], usage: 'clientAuth' });
    const expired = await issue(ca, path.join(folder, 'expired'), { commonName: 'late', sans: [], usage: 'clientAuth', notBefore: '20200101000000Z', notAfter: '20200201000000Z' });
    for (const [leaf, name, reason] of [[other, 'mallory', 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY'], [expired, 'late', 'CERT_HAS_EXPIRED']] as const) {
      await sayTls(name, pem(leaf));
      const { ssl } = await backend.headerBefore(name);
      const { certificate } = tlsFactsOf({
        role: 'server', protocol: 'TLSv1.2', cipher: '', cipherName: '', resumed: false, authorized: false, authorizationError: reason,
        peerCertificates: [new X509Certificate(readFileSync(leaf.certFile)).raw],
      } satisfies SessionInfo);
      assert.deepEqual([ssl?.certConn, ssl?.commonName], [true, name]);
      // Of a chain that is too short OpenSSL goes on to say that the leaf cannot be verified (21); either says that it was not.
      assert(ssl?.verify === certificate?.verify || (name === 'mallory' && ssl?.verify === 21), `${name}: ${String(ssl?.verify)}`);
      assert.notEqual(certificate?.verify, 0);
    }
  });
});

describe('HAProxy believes our PROXY headers', () => {
  let port: number;
  let program: Program;

  before(async () => {
    port = await freePort();
    const plain = await freePort();
    program = await haproxy([
      'frontend f', '  mode http', `  bind 127.0.0.1:${String(port)} accept-proxy`, `  bind 127.0.0.1:${String(plain)}`, '  log global',
      '  http-request return status 200 content-type text/plain lf-string "%[src]|%[src_port]|%[dst]|%[dst_port]|%[fc_rcvd_proxy]|%[fc_pp_authority]|%[fc_pp_unique_id]"', '',
    ].join('\n'), [plain]);
  });
  after(async () => { await stop(program); });

  /** What HAProxy understood; empty when it closed the connection instead. */
  async function told(header: Buffer): Promise<string> {
    const socket = net.connect(port, '127.0.0.1');
    let answer = '';
    socket.setEncoding('latin1').on('data', (text: string) => { answer += text; }).on('error', () => undefined);
    socket.end(Buffer.concat([header, Buffer.from('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')]));
    await event(socket, 'close');
    return answer.split('\r\n\r\n')[1] ?? '';
  }

  const facts: TlsFacts = {
    protocol: 'TLSv1.3', cipher: 'TLS_AES_128_GCM_SHA256', alpn: 'imap', servername: 'mail.example.org', signatureAlgorithm: 'RSA-SHA256', keyAlgorithm: 'EC256',
    certificate: { shown: 'connection', verify: 0, commonName: 'alice' },
  };
  const v6 = { source: end('2001:db8::1', 1), destination: end('2001:db8::2', 65_535) };

  it('version 1', async () => {
    assert.equal(await told(encodeV1({ source, destination })), '192.0.2.1|49152|198.51.100.2|993|1||');
    assert.equal(await told(encodeV1(v6)), '2001:db8::1|1|2001:db8::2|65535|1||');
    assert.match(await told(encodeV1()), /^127\.0\.0\.1\|/u);
  });

  it('version 1 with one end of each family', async () => {
    assert.equal(await told(encodeV1({ source, destination: end('2001:db8::2', 143) })), '::ffff:192.0.2.1|49152|2001:db8::2|143|1||');
  });

  it('version 2 with everything: server name and unique ID arrive', async () => {
    for (const [addresses, text] of [[{ source, destination }, '192.0.2.1|49152|198.51.100.2|993'], [v6, '2001:db8::1|1|2001:db8::2|65535']] as const) {
      assert.equal(await told(encodeV2({ command: 'PROXY', addresses, tls: facts, uniqueId: Buffer.from('id-1') })), `${text}|1|mail.example.org|id-1`);
      assert.equal(await told(encodeV2({ command: 'PROXY', addresses })), `${text}|1||`);
    }
  });

  it('version 2 with the longest of everything', async () => {
    const name = 'n'.repeat(255);
    const tls_: TlsFacts = { ...facts, alpn: 'a'.repeat(255), servername: name, cipher: 'c'.repeat(64), certificate: { shown: 'session', verify: 1, commonName: 'c'.repeat(256) } };
    assert.equal(await told(encodeV2({ command: 'PROXY', addresses: { source, destination }, tls: tls_, uniqueId: Buffer.alloc(128, 'i') })), `192.0.2.1|49152|198.51.100.2|993|1|${name}|${'i'.repeat(128)}`);
  });

  it('LOCAL leaves the addresses of the connection', async () => {
    assert.match(await told(encodeV2({ command: 'LOCAL' })), /^127\.0\.0\.1\|\d+\|127\.0\.0\.1\|/u);
  });

  it('HAProxy checks our checksum: with another one it closes the connection', async () => {
    const header = encodeV2({ command: 'PROXY', addresses: { source, destination }, tls: facts });
    header[header.length - 1] = (header.at(-1) as number) ^ 1;
    assert.equal(await told(header), '');
  });
});
