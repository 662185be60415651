/** What node:tls knows and a program behind a pool cannot have: refused by every call that takes options, never ignored. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import tls from 'node:tls';
import { Agent, attach, connectPool, createServer, listenForHandoff } from 'libtlspool';
import type { Pool } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import { descriptors, within } from '../support/index.js';
import { FakePool } from './lib-fake-pool.js';

const foreign = ['key', 'cert', 'ca', 'pfx', 'crl', 'SNICallback', 'minVersion', 'maxVersion', 'ciphers', 'sigalgs', 'secureOptions', 'session', 'ticketKeys', 'checkServerIdentity', 'handshakeTimeout'];

const refusal = (name: string) => (error: unknown): boolean => {
  assert(error instanceof TlsPoolError, String(error));
  assert.equal(error.code, 'BAD_ARGUMENT', error.message);
  assert.equal(error.field, name);
  assert(error.message.includes(name), error.message);
  return true;
};

describe('libtlspool: options of node:tls', () => {
  let fake: FakePool;
  let pool: Pool;
  let target: net.Server;
  let connections: number;
  beforeEach(async () => {
    fake = new FakePool().start();
    pool = await connectPool({ path: fake.path });
    connections = 0;
    target = net.createServer((socket) => { connections++; socket.destroy(); }).listen(0, '127.0.0.1');
    await once(target, 'listening');
  });
  afterEach(async () => {
    pool.close();
    target.close();
    await fake.end();
  });

  const port = (): number => (target.address() as net.AddressInfo).port;
  const request = (options: object, agent = new Agent({ pool })): Promise<never> => new Promise((_resolve, reject) => {
    https.get({ host: '127.0.0.1', port: port(), agent, ...options }, () => reject(new Error('it was answered'))).on('error', reject);
  });

  /** Each call that takes options. */
  const calls: Readonly<Record<string, (options: object) => Promise<unknown>>> = {
    'createServer()': (options) => Promise.resolve().then(() => createServer({ pool, ...options })),
    'attach()': (options) => attach(http.createServer(), { pool, host: '127.0.0.1', ...options }),
    'listen()': (options) => pool.listen({ host: '127.0.0.1', ...options }),
    'listenForHandoff()': (options) => listenForHandoff({ path: path.join(os.tmpdir(), `tlspool-refused-${process.pid}`), ...options }),
    'starttls()': (options) => pool.starttls(sockets.socketpair('stream').map((fd, n) => { if (n === 1) sockets.close(fd); return fd; })[0] as number, { role: 'client', ...options }),
    'connect()': (options) => pool.connect({ host: '127.0.0.1', port: port(), ...options }),
    'new Agent()': (options) => Promise.resolve().then(() => new Agent(options)),
    'a request with an Agent': (options) => request(options),
  };

  for (const [call, make] of Object.entries(calls)) {
    it(`${call} refuses by name what would be ignored, and asks nobody`, async () => {
      const asked = fake.seen.length;
      for (const name of foreign) await assert.rejects(make({ [name]: 'x' }), refusal(name));
      assert.equal(fake.seen.length, asked);
      assert.equal(connections, 0);
    });
  }

  it('what is called otherwise here is refused with its name here', async () => {
    for (const [call, names] of Object.entries({
      'listen()': ['requestCert', 'ALPNProtocols'], 'listenForHandoff()': ['requestCert', 'ALPNProtocols'], 'starttls()': ['requestCert', 'ALPNProtocols', 'isServer'],
      'connect()': ['socket', 'path', 'timeout', 'ALPNProtocols'], 'new Agent()': ['ALPNProtocols'], 'a request with an Agent': ['ALPNProtocols'],
    })) {
      for (const name of names) await assert.rejects(calls[call]?.({ [name]: 'x' }) ?? Promise.resolve(), refusal(name), `${call} ${name}`);
    }
  });

  it('options that are there and say nothing are accepted', async () => {
    const nothing = Object.fromEntries(foreign.map((name, n) => [name, n % 2 === 0 ? undefined : null]));
    const listener = await pool.listen({ host: '127.0.0.1', ...nothing });
    await listener.close();
    assert.equal(createServer({ pool, ...nothing }).listening, false);
    assert(new Agent({ ...nothing }) instanceof Agent);
    assert(new Agent({ ...nothing, checkServerIdentity: tls.checkServerIdentity } as object) instanceof Agent, 'the check that node:tls does by itself');
    assert.throws(() => new Agent({ checkServerIdentity: () => undefined } as object), refusal('checkServerIdentity'));
  });

  it('a net.Socket that comes with such an option is closed, and nothing is said on it', async () => {
    let said = '';
    target.removeAllListeners('connection').on('connection', (socket: net.Socket) => {
      void assert.rejects(pool.starttls(socket, { role: 'server', goAhead: 'go ahead', ...{ requestCert: true } }), refusal('requestCert'));
    });
    const client = net.connect(port(), '127.0.0.1');
    client.on('data', (chunk: Buffer) => { said += chunk.toString(); });
    await within(once(client, 'close'), 'the connection to be closed');
    assert.equal(said, '');
  });

  it('an inherited descriptor that comes with such an option is closed', async () => {
    const fd = sockets.tcpListen({ host: '127.0.0.1', port: 0 });
    await assert.rejects(pool.listen({ fd, ...{ key: 'x' } }), refusal('key'));
    assert.equal(descriptors(process.pid).has(fd), false);
  });

  describe('of a server that exists already', () => {
    /** What the pool is asked for. */
    const asked = async (server: net.Server, options = {}): Promise<unknown> => {
      const listen = fake.next('listen');
      const at = await attach(server, { pool, host: '127.0.0.1', ...options });
      await at.close();
      return ((await listen).message.body as { clientAuth?: string }).clientAuth;
    };

    it('requestCert is in force, as is rejectUnauthorized', async () => {
      assert.equal(await asked(https.createServer({})), undefined);
      assert.equal(await asked(https.createServer({ rejectUnauthorized: true })), undefined);
      assert.equal(await asked(https.createServer({ requestCert: true })), 'require');
      assert.equal(await asked(https.createServer({ requestCert: true, rejectUnauthorized: false })), 'request');
      assert.equal(await asked(tls.createServer({ requestCert: true })), 'require');
      assert.equal(await asked(https.createServer({ requestCert: true }), { clientAuth: 'request' }), 'request', 'what attach() is told comes first');
    });

    it('what would not be in force is refused by name', async () => {
      for (const [name, value] of Object.entries({ ca: [], minVersion: 'TLSv1.3', maxVersion: 'TLSv1.2', ciphers: 'TLS_AES_128_GCM_SHA256', ecdhCurve: 'X25519' })) {
        await assert.rejects(attach(https.createServer({ [name]: value }), { pool, host: '127.0.0.1' }), refusal(name));
      }
      assert.equal(fake.seen.some(({ message: { op } }) => op === 'listen'), false);
    });
  });
});
