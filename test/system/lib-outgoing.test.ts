import assert from 'node:assert/strict';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import path from 'node:path';
import tls from 'node:tls';
import { Agent, connectPool, TlsPoolError } from 'libtlspool';
import type { Pool, PoolSocket } from 'libtlspool';
import { event, expectBaseline, issue, makeCa, startPool, tempFolder, within } from '../support/index.js';
import type { Baseline, TestCa, TestPool } from '../support/index.js';

const code = (wanted: string) => (error: unknown): boolean => {
  assert(error instanceof TlsPoolError, String(error));
  assert.equal(error.code, wanted, error.message);
  return true;
};

describe('libtlspool with a pool: starttls and outgoing connections', () => {
  let daemon: TestPool;
  let pool: Pool;
  let baseline: Baseline;
  let strange: TestCa;
  let credentials: (name: string) => tls.TlsOptions;
  before(async () => {
    daemon = await startPool({
      identities: [{ localid: 'localhost', default: true }, { localid: 'client.example', usage: 'clientAuth', trust: true }],
    });
    const folder = tempFolder();
    strange = await makeCa(path.join(folder, 'strange'));
    await issue(daemon.ca, path.join(folder, 'good'), { commonName: 'localhost', sans: ['DNS:localhost', 'IP:127.0.0.1'] });
    await issue(strange, path.join(folder, 'strange-leaf'), { commonName: 'localhost', sans: ['DNS:localhost', 'IP:127.0.0.1'] });
    credentials = (name) => ({ cert: fs.readFileSync(path.join(folder, name, 'tls.crt')), key: fs.readFileSync(path.join(folder, name, 'tls.key')) });
  });
  after(() => daemon.stop());
  beforeEach(async () => {
    baseline = daemon.baseline();
    pool = await connectPool({ path: daemon.socket });
  });
  afterEach(async () => {
    pool.close();
    await expectBaseline(daemon, baseline);
  });

  const serve = async <S extends net.Server>(server: S): Promise<{ server: S; port: number }> => {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return { server, port: (server.address() as net.AddressInfo).port };
  };
  const echo = (name: string, options: tls.TlsOptions = {}): Promise<{ server: tls.Server; port: number }> =>
    serve(tls.createServer({ ...credentials(name), ...options }, (socket) => { socket.on('error', () => undefined); socket.pipe(socket); }));

  it('server: what follows the go-ahead is TLS to the last octet, and what was before is not', async () => {
    const { server, port } = await serve(net.createServer());
    const upgraded = new Promise<PoolSocket>((resolve, reject) => {
      server.once('connection', (socket) => {
        socket.once('data', (chunk) => {
          assert.equal(chunk.toString(), 'STARTTLS\r\n');
          pool.starttls(socket, { role: 'server', goAhead: '220 ready\r\n' }).then(resolve, reject);
        });
      });
    });
    const plain = net.connect(port, '127.0.0.1');
    plain.write('STARTTLS\r\n');
    const [goAhead] = await once(plain, 'data') as [Buffer];
    assert.equal(goAhead.toString(), '220 ready\r\n');
    const client = tls.connect({ socket: plain, ca: fs.readFileSync(daemon.caFile), servername: 'localhost' });
    client.write('protected');
    const socket = await within(upgraded, 'the handshake');
    const [chunk] = await once(socket, 'data') as [Buffer];
    assert.equal(chunk.toString(), 'protected');
    client.end();
    await event(socket, 'close');
    server.close();
  });

  it('server: octets injected before the go-ahead never come out as protected', async () => {
    const { server, port } = await serve(net.createServer());
    const upgraded = new Promise<PoolSocket>((resolve, reject) => {
      server.once('connection', (socket) => {
        socket.once('data', () => { pool.starttls(socket, { role: 'server', goAhead: '220 ready\r\n' }).then(resolve, reject); });
      });
    });
    const plain = net.connect(port, '127.0.0.1').on('error', () => undefined);
    plain.write('STARTTLS\r\n');
    await once(plain, 'data');
    plain.write('MAIL FROM:<attacker@example.org>\r\n');
    await assert.rejects(within(upgraded, 'the handshake'), code('HANDSHAKE_FAILED'));
    plain.destroy();
    server.close();
  });

  it('connect() verifies the server, talks, and ends cleanly', async () => {
    const { server, port } = await echo('good', { ALPNProtocols: ['x'] });
    const socket = await pool.connect({ host: 'localhost', port, family: 4, localid: 'client.example', alpn: ['x'] });
    assert.equal(socket.authorized, true);
    assert.equal(socket.alpnProtocol, 'x');
    assert.equal(socket.remotePort, port);
    assert.equal(socket.getPeerCertificate().subject.CN, 'localhost');
    assert.equal(socket.getEphemeralKeyInfo() === null, false);
    socket.end('echo');
    const [chunk] = await once(socket, 'data') as [Buffer];
    assert.equal(chunk.toString(), 'echo');
    await event(socket, 'close');
    server.close();
  });

  it('a server of a strange CA is CERT_REJECTED; with rejectUnauthorized false it is reported', async () => {
    const { server, port } = await echo('strange-leaf');
    await assert.rejects(pool.connect({ host: '127.0.0.1', port, localid: 'client.example' }), code('CERT_REJECTED'));
    const socket = await pool.connect({ host: '127.0.0.1', port, localid: 'client.example', rejectUnauthorized: false });
    assert.equal(socket.authorized, false);
    assert.equal(typeof socket.authorizationError, 'string');
    socket.end();
    await event(socket.resume(), 'close');
    server.close();
  });

  it('a certificate of another name is CERT_REJECTED; its own name is accepted', async () => {
    const { server, port } = await echo('good');
    await assert.rejects(pool.connect({ host: '127.0.0.1', port, localid: 'client.example', servername: 'other.example' }), code('CERT_REJECTED'));
    const socket = await pool.connect({ host: '127.0.0.1', port, localid: 'client.example', servername: 'localhost' });
    socket.end();
    await event(socket.resume(), 'close');
    server.close();
  });

  describe('Agent', () => {
    const get = (request: typeof https.get, url: string, options: https.RequestOptions & { localid?: string }): Promise<{ body: string; socket: net.Socket }> =>
      within(new Promise((resolve, reject) => {
        request(url, options, (response) => {
          const { socket } = response;
          let body = '';
          response.setEncoding('utf8').on('data', (chunk: string) => { body += chunk; });
          response.on('end', () => { resolve({ body, socket }); });
          response.on('error', reject);
        }).on('error', reject);
      }), 'an answer', 20_000);

    const answering = (options: tls.TlsOptions = {}): Promise<{ server: https.Server; port: number }> =>
      serve(https.createServer({ ...credentials('good'), ca: fs.readFileSync(daemon.caFile), ...options }, (request, response) => {
        const subject = (request.socket as tls.TLSSocket).getPeerCertificate().subject as { CN?: string } | undefined;
        response.end(`hello ${subject?.CN ?? 'stranger'}`);
      }));

    it('works with https.request and http.request, with the client certificate of its identity, and keeps connections alive', async () => {
      const { server, port } = await answering({ requestCert: true, rejectUnauthorized: true });
      const agent = new Agent({ pool, localid: 'client.example', keepAlive: true });
      const first = await get(https.get, `https://localhost:${port}/`, { agent, family: 4 });
      assert.equal(first.body, 'hello client.example');
      assert.equal((first.socket as PoolSocket).encrypted, true);
      const second = await get(http.get, `https://localhost:${port}/`, { agent, family: 4 });
      assert.equal(second.socket, first.socket, 'the connection is used again');
      agent.destroy();
      server.close();
    });

    it('a rejected certificate and a refused connection reach the request', async () => {
      const { server, port } = await answering(credentials('strange-leaf'));
      const agent = new Agent({ pool, localid: 'client.example' });
      await assert.rejects(get(https.get, `https://127.0.0.1:${port}/`, { agent }), code('CERT_REJECTED'));
      server.close();
      await once(server, 'close');
      await assert.rejects(get(https.get, `https://127.0.0.1:${port}/`, { agent }), { code: 'ECONNREFUSED' });
    });

    it('a connection of one identity is never used for another', async () => {
      const { server, port } = await answering({ requestCert: true, rejectUnauthorized: false });
      const agent = new Agent({ pool, keepAlive: true, rejectUnauthorized: false });
      const named = await get(https.get, `https://127.0.0.1:${port}/`, { agent, localid: 'client.example' });
      assert.equal(named.body, 'hello client.example');
      const nameless = await get(https.get, `https://127.0.0.1:${port}/`, { agent });
      assert.equal(nameless.body, 'hello stranger');
      agent.destroy();
      server.close();
    });

    it('a request that brings its own trust or key is BAD_ARGUMENT', async () => {
      const agent = new Agent({ pool });
      await assert.rejects(get(https.get, 'https://127.0.0.1:1/', { agent, ca: 'x' }), code('BAD_ARGUMENT'));
      assert.throws(() => new Agent({ pool, ...{ cert: 'x' } }), code('BAD_ARGUMENT'));
    });
  });
});
