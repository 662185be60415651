/** Connections that come together share packets to the application; each must still be the one it is. */
import assert from 'node:assert/strict';
import tls from 'node:tls';
import { readFileSync } from 'node:fs';
import { sockets } from 'libtlspool/native';
import { acceptLoop, expectBaseline, nodeConnect, PoolWire, startPool, until, within } from '../support/index.js';
import type { TestPool, WireMessage } from '../support/index.js';

const count = 200;

describe('many connections at once', function () {
  this.timeout(60_000);
  let pool: TestPool;
  before(async () => { pool = await startPool({ identities: [{ localid: 'localhost', sans: ['DNS:localhost', 'DNS:*.example.org'], default: true }] }); });
  after(() => pool.stop());

  const talk = (port: number, n: number): Promise<string> => within(new Promise((resolve, reject) => {
    const socket = tls.connect({ host: '127.0.0.1', port, servername: `n${n}.example.org`, ca: readFileSync(pool.caFile) });
    let text = '';
    socket.setEncoding('utf8').on('data', (chunk: string) => { text += chunk; }).on('end', () => { resolve(text); }).on('error', reject);
    socket.end(`I am ${n}`);
  }), `answer ${n}`, 30_000);

  it(`libtlspool: ${count} are served, each with its own octets under its own name`, async () => {
    const before = pool.baseline();
    const served = await acceptLoop(pool, (socket) => {
      let text = '';
      socket.setEncoding('utf8').on('data', (chunk: string) => { text += chunk; }).on('end', () => { socket.end(`${String(socket.servername)}:${String(socket.remotePort)}: ${text}`); });
    }, { allowHalfOpen: true, localid: 'localhost' });
    const answers = await Promise.all(Array.from({ length: count }, (_, n) => talk(served.port, n)));
    for (const [n, answer] of answers.entries()) assert.match(answer, new RegExp(`^n${n}\\.example\\.org:\\d+: I am ${n}$`, 'u'));
    assert.equal(new Set(answers.map((answer) => answer.split(':')[1])).size, count, 'each has its own port');
    await served.close();
    await expectBaseline(pool, before);
  });

  it(`a client that was stopped while ${count} came finds packets with several, and each descriptor is that of its message`, async () => {
    const before = pool.baseline();
    const wire = new PoolWire(pool.socket);
    const listening = sockets.tcpListen({ host: '127.0.0.1', port: 0, backlog: 511 });
    const { body } = wire.request('listen', { localid: 'localhost' }, [listening]);
    sockets.close(listening);
    const { port } = body['local'] as { port: number };
    const target = { port, caFile: pool.caFile };
    const clients = await Promise.all(Array.from({ length: count }, (_, n) => nodeConnect({ ...target, servername: `n${n}.example.org` })));
    // From here on this thread waits in poll(2), and nothing that our clients still have to send would go out.
    await until(() => pool.status()['sessions'] === count && pool.status()['handshakes'] === 0, { what: 'all handshakes to be done' });
    const came: WireMessage[] = [];
    let shared = 0;
    while (came.length < count) {
      const message = wire.next();
      assert.equal(message?.op, 'connection');
      came.push(message);
      if (wire.others.length > 0) shared += 1;
    }
    assert.ok(shared > 0, 'some shared a packet');
    for (const { body: { info }, fds: [fd, ...more] } of came) {
      assert.ok(fd !== undefined && more.length === 0);
      const name = (info as { servername: string }).servername;
      sockets.send(fd, Buffer.from(name));
      sockets.close(fd);
    }
    await Promise.all(clients.map(async (client, n) => {
      const [text] = await within(new Promise<[string]>((resolve) => { client.setEncoding('utf8').once('data', (chunk: string) => { resolve([chunk]); }); }), `octets for ${n}`);
      assert.equal(text, `n${n}.example.org`);
      client.destroy();
    }));
    await until(() => pool.status()['sessions'] === 0, { what: 'all sessions to end' });
    wire.close();
    await expectBaseline(pool, before);
  });
});
