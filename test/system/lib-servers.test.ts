import assert from 'node:assert/strict';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import type net from 'node:net';
import express from 'express';
import fastify from 'fastify';
import { attach, connectPool, createServer } from 'libtlspool';
import type { Attached, Pool, PoolSocket } from 'libtlspool';
import { WebSocket, WebSocketServer } from 'ws';
import { curl, event, expectBaseline, issue, nodeConnect, nodeGet, startPool, tempFolder, within } from '../support/index.js';
import type { Baseline, Target, TestPool } from '../support/index.js';

describe('libtlspool with a pool: servers', () => {
  let daemon: TestPool;
  let pool: Pool;
  let baseline: Baseline;
  let client: { certFile: string; keyFile: string };
  before(async () => {
    daemon = await startPool({ identities: [{ localid: 'localhost', default: true, clientAuth: 'request', trust: true }] });
    client = await issue(daemon.ca, tempFolder(), { commonName: 'alice', sans: ['email:alice@example.org'], usage: 'clientAuth' });
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

  const put = async (server: Parameters<typeof attach>[0]): Promise<{ at: Attached; target: Target }> => {
    const at = await attach(server, { pool, host: '127.0.0.1' });
    return { at, target: { port: (at.address() as net.AddressInfo).port, caFile: daemon.caFile } };
  };

  it('http: curl gets the page over both versions, and a client certificate is reachable from the request', async () => {
    const { at, target } = await put(http.createServer((request, response) => {
      const socket = request.socket as PoolSocket;
      response.end(`${String(socket.getProtocol())} ${String(socket.authorized)} ${String(socket.getPeerCertificate().subject?.CN)}`);
    }));
    assert.equal((await curl(target, '/', ['--tls-max', '1.2'])).stdout, 'TLSv1.2 false undefined');
    assert.equal((await curl({ ...target, client }, '/', ['--tlsv1.3'])).stdout, 'TLSv1.3 true alice');
    await at.close();
  });

  it('http: a thousand requests on kept and on new connections are all answered', async () => {
    const { at, target } = await put(http.createServer((request, response) => { response.end(request.url); }));
    const urls = Array.from({ length: 500 }, (_value, n) => `https://localhost:${target.port}/${n}`);
    const kept = await curl(target, '/first', [...urls, '-w', '\\n']);
    assert.equal(kept.stdout.split('\n').filter((line) => line.startsWith('/')).length, 501);
    for (let round = 0; round < 50; round++) {
      const answers = await Promise.all(Array.from({ length: 10 }, (_value, n) => nodeGet(target, `/${round}/${n}`)));
      answers.forEach(({ body }, n) => { assert.equal(body, `/${round}/${n}`); });
    }
    await at.close();
  });

  it('http2: h2 and http/1.1 on one plain server', async () => {
    const server = http2.createServer((request, response) => { response.end(request.httpVersion); });
    const { at, target } = await put(server);
    assert.equal((await curl(target, '/', ['--http2'])).stdout, '2.0');
    assert.equal((await curl(target, '/', ['--http1.1'])).stdout, '1.1');
    const session = http2.connect(`https://localhost:${target.port}`, { ca: fs.readFileSync(daemon.caFile) });
    const stream = session.request({ ':path': '/' });
    const [headers] = await once(stream, 'response') as [http2.IncomingHttpHeaders];
    assert.equal(headers[':status'], 200);
    stream.resume();
    await event(stream, 'end');
    session.close();
    await event(session, 'close');
    await at.close();
  });

  it('http2: a secure server without http/1.1 refuses those who only speak that', async () => {
    const { at, target } = await put(http2.createSecureServer({}, (request, response) => { response.end(request.httpVersion); }));
    assert.equal((await curl(target, '/', ['--http2'])).stdout, '2.0');
    await assert.rejects(nodeConnect(target, { ALPNProtocols: ['http/1.1'] }));
    await at.close();
  });

  it('ws: messages go both ways', async () => {
    const server = http.createServer();
    const sockets = new WebSocketServer({ server });
    sockets.on('connection', (socket) => socket.on('message', (data: Buffer) => { socket.send(`echo ${data.toString()}`); }));
    const { at, target } = await put(server);
    const socket = new WebSocket(`wss://localhost:${target.port}`, { ca: fs.readFileSync(daemon.caFile), family: 4 });
    await once(socket, 'open');
    socket.send('hello');
    const [data] = await once(socket, 'message') as [Buffer];
    assert.equal(data.toString(), 'echo hello');
    socket.close();
    await once(socket, 'close');
    sockets.close();
    await at.close();
  });

  it('Express: req.secure, req.ip and the client certificate are right', async () => {
    const app = express();
    app.get('/', (request, response) => {
      response.send(`${String(request.secure)} ${String(request.ip)} ${(request.socket as unknown as PoolSocket).getPeerX509Certificate()?.subject ?? 'none'}`);
    });
    const { at, target } = await put(app);
    assert.equal((await curl({ ...target, client })).stdout, 'true 127.0.0.1 CN=alice');
    await at.close();
  });

  it('Fastify: request.protocol and request.ip are right, and close() closes', async () => {
    const app = fastify();
    app.get('/', (request) => `${request.protocol} ${request.ip}`);
    const { target } = await put(app);
    assert.equal((await curl(target)).stdout, 'https 127.0.0.1');
    await app.close();
    await assert.rejects(nodeConnect(target));
  });

  it('createServer: a 10-line echo server', async () => {
    const server = createServer({ pool }, (socket) => { socket.pipe(socket); });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const socket = await nodeConnect({ port: (server.address() as net.AddressInfo).port, caFile: daemon.caFile });
    socket.end('echo');
    const [chunk] = await once(socket, 'data') as [Buffer];
    assert.equal(chunk.toString(), 'echo');
    const closed = once(server, 'close');
    server.close();
    await within(closed, 'the server to close');
  });
});
