import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import net from 'node:net';
import express from 'express';
import fastify from 'fastify';
import { attach, createServer } from 'libtlspool';
import type { AttachOptions, Pool, PoolSocket } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import type { SessionInfo } from 'libtlspool/protocol';
import { event, until } from '../support/index.js';
import { FakePool, sessionInfo } from './lib-fake-pool.js';
import type { FakeClient } from './lib-fake-pool.js';

const throwsCode = (wanted: string) => (error: unknown): boolean => error instanceof TlsPoolError && error.code === wanted;

describe('libtlspool: servers', () => {
  let fake: FakePool;
  let pool: Pool;
  FakePool.forEach((...made) => { [fake, pool] = made; });

  /** The peer's view of a connection, as the pool's plain text. */
  const peer = (client: FakeClient, info: SessionInfo = sessionInfo, n = 1): net.Socket => {
    const socket = new net.Socket({ fd: client.connection(1, n, info) });
    socket.on('error', () => undefined);
    return socket;
  };
  const ask = async (socket: net.Socket, request = 'GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n'): Promise<string> => {
    let text = '';
    socket.on('data', (chunk: Buffer) => { text += chunk.toString(); });
    socket.write(request);
    await event(socket, 'end');
    return text;
  };
  const attached = async (server: Parameters<typeof attach>[0], options: AttachOptions = {}) => {
    const asked = fake.next('listen');
    const at = await attach(server, { pool, host: '127.0.0.1', ...options });
    const { client, message } = await asked;
    return { at, client, alpn: (message.body as { alpn?: string[] }).alpn };
  };

  it('an http server answers, sees the socket as encrypted with the client\'s address, and closes like one that listens', async () => {
    const server = http.createServer((request, response) => {
      const { encrypted, remoteAddress } = request.socket as PoolSocket;
      response.end(`${String(encrypted)} ${String(remoteAddress)}`);
    });
    const { at, client, alpn } = await attached(server);
    assert.deepEqual(alpn, ['http/1.1']);
    assert.equal(server.listening, true);
    assert.deepEqual(server.address(), at.address());
    assert.match(await ask(peer(client)), /true 192\.0\.2\.7$/);
    const closed = once(server, 'close');
    server.close();
    await closed;
    assert.equal(server.listening, false);
    await at.close();
  });

  it('server.close() waits for the connections, and idle keep-alive ones are closed', async () => {
    const server = http.createServer((_request, response) => response.end('ok'));
    const { client } = await attached(server);
    const idle = peer(client);
    idle.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    await once(idle, 'data');
    const ended = event(idle, 'close');
    idle.resume();
    const closed = once(server, 'close');
    server.close();
    await closed;
    await ended;
  });

  it('a request cut short by truncation is an error of the request, not a complete one', async () => {
    const server = http.createServer();
    const { client } = await attached(server);
    const request = once(server, 'request') as Promise<[http.IncomingMessage]>;
    const socket = peer(client, sessionInfo, 4);
    socket.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf');
    const [incoming] = await request;
    const failed = event(incoming, 'error');
    incoming.resume();
    client.closed(4, 'truncated');
    socket.destroy();
    await failed;
    assert.equal(incoming.complete, false);
    server.close();
  });

  it('maxConnections refuses the one too many and takes it when there is room', async () => {
    const server = http.createServer((_request, response) => response.end('ok'));
    server.maxConnections = 1;
    const { client } = await attached(server);
    const first = peer(client, sessionInfo, 1);
    await once(server, 'connection');
    const dropped = once(server, 'drop');
    const second = peer(client, sessionInfo, 2);
    second.resume();
    await dropped;
    await event(second, 'close');
    assert.match(await ask(first), /ok$/);
    await event(first, 'close');
    const connections = (): number => (server as unknown as { _connections: number })._connections;
    await until(() => connections() === 0, { what: 'the connection to be counted out' });
    assert.match(await ask(peer(client, sessionInfo, 3)), /ok$/);
    server.close();
  });

  it('a server that listens already is BAD_STATE', async () => {
    const server = http.createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    await assert.rejects(attach(server, { pool }), throwsCode('BAD_STATE'));
    server.close();
  });

  it('Express sees req.secure and req.ip', async () => {
    const app = express();
    app.get('/', (request, response) => { response.send(`${String(request.secure)} ${String(request.ip)} ${request.protocol}`); });
    const { at, client } = await attached(app);
    assert.match(await ask(peer(client)), /true 192\.0\.2\.7 https$/);
    await at.close();
  });

  it('Fastify sees request.protocol and request.ip, and its close() closes the listener', async () => {
    const app = fastify();
    app.get('/', (request) => `${request.protocol} ${request.ip}`);
    const { client } = await attached(app);
    assert.match(await ask(peer(client)), /https 192\.0\.2\.7$/);
    await app.close();
    assert.equal(app.server.listening, false);
  });

  it('an https server gets its connections as secureConnection', async () => {
    const server = https.createServer({}, (_request, response) => response.end('secure'));
    const { at, client, alpn } = await attached(server);
    assert.deepEqual(alpn, ['http/1.1']);
    assert.match(await ask(peer(client)), /secure$/);
    await at.close();
  });

  for (const [kind, make] of [
    ['plain', () => http2.createServer()], ['secure', () => http2.createSecureServer({ allowHTTP1: true })],
  ] as const) {
    it(`a ${kind} http2 server speaks h2 to those who chose it and http/1.1 to the others`, async () => {
      const server = make();
      server.on('request', (request: http2.Http2ServerRequest, response: http2.Http2ServerResponse) => {
        response.end(`${request.httpVersion} ${String((request.socket as PoolSocket).encrypted)}`);
      });
      const { at, client, alpn } = await attached(server);
      assert.deepEqual(alpn, ['h2', 'http/1.1']);
      const session = http2.connect('http://a.example', { createConnection: () => peer(client, { ...sessionInfo, alpn: 'h2' }, 1) });
      const stream = session.request({ ':path': '/' });
      let text = '';
      stream.on('data', (chunk: Buffer) => { text += chunk.toString(); });
      await event(stream, 'end');
      assert.equal(text, '2.0 true');
      client.closed(1, 'closed');
      session.close();
      assert.match(await ask(peer(client, { ...sessionInfo, alpn: 'http/1.1' }, 2)), /1\.1 true$/);
      await at.close();
    });
  }

  it('createServer() has the shape of tls.createServer()', async () => {
    const server = createServer({ pool, ALPNProtocols: ['imap'], requestCert: true }, (socket) => socket.end(`hello ${String(socket.authorized)}`));
    const asked = fake.next('listen');
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { client, message } = await asked;
    assert.deepEqual(message.body, { alpn: ['imap'], clientAuth: 'require' });
    assert.equal((server.address() as net.AddressInfo).address, '127.0.0.1');
    const one = peer(client);
    let text = '';
    one.on('data', (chunk: Buffer) => { text += chunk.toString(); });
    await event(one, 'end');
    assert.equal(text, 'hello false');
    // As the pool does when both sides have said goodbye.
    client.closed(1, 'closed');
    one.end();
    const closed = once(server, 'close');
    server.close();
    assert.equal(server.listening, false);
    await closed;
  });

  it('options that carry keys are refused by name; those that do not are accepted', () => {
    for (const option of ['key', 'cert', 'ca', 'pfx', 'SNICallback']) {
      assert.throws(() => createServer({ [option]: 'x' }), (error: unknown) => throwsCode('BAD_ARGUMENT')(error) && (error as Error).message.includes(option));
    }
    assert.equal(createServer({ localid: 'a.example' }).listening, false);
  });

  it('a listen() that fails is an error event, and the server can listen again', async () => {
    const server = createServer({ pool });
    const taken = sockets.tcpListen({ host: '127.0.0.1', port: 0 });
    const { local } = sockets.socketInfo(taken);
    server.listen(local?.port, '127.0.0.1');
    const error = await event<TlsPoolError>(server, 'error');
    assert.match(error.message, /EADDRINUSE/);
    sockets.close(taken);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    await server[Symbol.asyncDispose]();
  });
});
