import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import type { TLSSocket } from 'node:tls';
import { WebSocket, WebSocketServer } from 'ws';
import { event, expectBaseline, issue, serve, startPool, tempFolder, until, within } from '../support/index.js';
import type { Baseline, Served, TestLeaf, TestPool } from '../support/index.js';

describe('a ws server behind the pool', function () {
  this.timeout(30_000);
  let pool: TestPool;
  let baseline: Baseline;
  let served: Served;
  let sockets: WebSocketServer;
  let client: TestLeaf;

  before(async () => {
    pool = await startPool({ identities: [{ localid: 'localhost', policy: 'intermediate', default: true, trust: true }] });
    client = await issue(pool.ca, path.join(tempFolder(), 'client'), { commonName: 'carol', sans: ['email:carol@example.org'], usage: 'clientAuth' });
    baseline = pool.baseline();
    const server = http.createServer();
    sockets = new WebSocketServer({ server });
    sockets.on('connection', (socket, request) => {
      const tlsSocket = request.socket as TLSSocket;
      socket.send(JSON.stringify({ encrypted: tlsSocket.encrypted, address: tlsSocket.remoteAddress, subject: tlsSocket.getPeerCertificate().subject?.CN }));
      socket.on('message', (data, binary) => { socket.send(data, { binary }); });
      socket.on('error', () => undefined);
    });
    served = await serve(pool, server, { clientAuth: 'request' });
  });

  after(async () => {
    sockets.close();
    await served.close();
    await expectBaseline(pool, baseline);
    await pool.stop();
  });

  async function connect(): Promise<{ socket: WebSocket; greeting: string }> {
    const socket = new WebSocket(`wss://localhost:${String(served.port)}/`, {
      ca: readFileSync(pool.caFile), cert: readFileSync(client.certFile), key: readFileSync(client.keyFile),
    });
    const greeting = await event<Buffer>(socket, 'message');
    return { socket, greeting: greeting.toString() };
  }

  it('sees an encrypted socket, the client\'s address and its certificate', async () => {
    const { socket, greeting } = await connect();
    assert.deepEqual(JSON.parse(greeting), { encrypted: true, address: '127.0.0.1', subject: 'carol' });
    socket.terminate();
  });

  it('echoes messages from 0 octets to 4 MiB unchanged', async () => {
    const { socket } = await connect();
    for (const octets of [0, 1, 125, 126, 16_383, 16_384, 16_385, 65_536, 4 * 1024 * 1024]) {
      const message = randomBytes(octets);
      const echoed = event<Buffer>(socket, 'message');
      socket.send(message);
      assert.ok(message.equals(await echoed), `${String(octets)} octets`);
    }
    socket.terminate();
  });

  it('a close handshake ends cleanly on both sides', async () => {
    const { socket } = await connect();
    const closed = within(new Promise<number>((resolve) => { socket.once('close', resolve); }), 'the close');
    socket.close(1000, 'done');
    assert.equal(await closed, 1000);
  });

  it('a client that vanishes is noticed: the server\'s socket closes abnormally', async () => {
    const { socket } = await connect();
    const [serverSide] = [...sockets.clients];
    assert.ok(serverSide !== undefined);
    const closed = within(new Promise<number>((resolve) => { serverSide.once('close', resolve); }), 'the close on the server');
    socket.terminate();
    assert.equal(await closed, 1006);
    await until(() => sockets.clients.size === 0, { what: 'no socket to be left' });
  });
});
