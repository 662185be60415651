/** Who the client is, for logs, limits and backends. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { listenForHandoff } from 'libtlspool';
import type { HandoffListener } from 'libtlspool';
import { needProgram, PlainClient, run, startPool, startTls, tempFolder, TestProxy, within } from '../support/index.js';
import type { TestPool, TlsClient } from '../support/index.js';

/** Binds to a name, given in hexadecimal digits, and reads what it gets under TLS. */
const namedClient = `
import socket, ssl, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.bind(bytes.fromhex(sys.argv[1])); s.connect(sys.argv[2])
context = ssl.create_default_context(cafile=sys.argv[3]); context.check_hostname = False
print(context.wrap_socket(s, server_hostname='localhost').recv(100).decode())
`;

describe('proxy: who the client is', function () {
  this.timeout(30_000);
  let pool: TestPool;
  let proxy: TestProxy;
  let listener: HandoffListener;
  const inside = path.join(tempFolder(), 'in.sock');
  const both = '[::]:0';
  const [env, fd] = ['env', 'fd'] as const;

  before(async () => {
    pool = await startPool();
    const file = path.join(tempFolder(), 'h.sock');
    listener = await listenForHandoff({ path: file, reattach: false });
    const exec = ['/bin/sh', '-c', 'echo "$REMOTE_ADDR $LOCAL_ADDR"; exec cat'];
    proxy = await TestProxy.start(pool, [
      { name: env, protocol: 'none', listen: both, backend: { exec } },
      { name: fd, protocol: 'none', listen: [`unix:${inside}`], backend: { fd: file } },
      { name: 'balanced', protocol: 'imap', proxyFrom: ['127.0.0.0/8', '::1'], perAddress: 2, backend: { exec } },
    ]);
    (async () => {
      for await (const socket of listener) {
        socket.on('error', () => undefined);
        socket.end(`remote ${JSON.stringify(socket.sessionInfo.remote?.address)}`);
      }
    })().catch(() => undefined);
  });
  after(async () => {
    await proxy.stop();
    await listener.close();
    await pool.stop();
  });

  for (const [host, shown] of [['127.0.0.1', '127.0.0.1'], ['::1', '[::1]']] as const) {
    it(`${host} is that, on a socket that takes IPv4 and IPv6, in the log and for programs`, async () => {
      const client = await startTls({ port: proxy.port(env), host, protocol: 'none' }, pool);
      const { localPort } = client.socket;
      await client.hears(/\n$/u);
      assert.equal(client.text, `${host} ${host}\n`);
      await client.finish();
      assert.equal((await proxy.recordOf(env, localPort)).peer, `${shown}:${localPort}`);
    });
  }

  const file = path.join(tempFolder(), 'client.sock');
  for (const [what, name, told] of [
    ['a path is called by it', Buffer.from(file), file],
    ['abstract has none that could be told', Buffer.from('\0a name'), ''],
    ['no text has none either', Buffer.concat([Buffer.from([0]), Buffer.alloc(107, 0xff)]), ''],
  ] as const) {
    it(`a client on a UNIX socket is served; one whose own name is ${what}`, async () => {
      const { stdout } = await run(needProgram('python3', 'python3'), ['-c', namedClient, name.toString('hex'), inside, pool.caFile]);
      assert.equal(stdout.trim(), `remote ${JSON.stringify(told)}`);
    });
  }

  it('behind a balancer it is who the header says: each client has its own places, to the end of its sessions, and the balancer has its own', async () => {
    const from = async (header: string): Promise<PlainClient> => {
      const client = await PlainClient.connect(proxy.port('balanced'), proxy.host('balanced'));
      client.say(header);
      return client;
    };
    const tcp4 = (address: string): string => `PROXY TCP4 ${address} 192.0.2.1 1000 143\r\n`;
    const secured = async (header: string): Promise<TlsClient> => {
      const plain = await from(header);
      await plain.askForTls('imap');
      const client = await plain.secure(pool);
      await client.hears(/\n$/u);
      return client;
    };
    const sessions: TlsClient[] = [];
    for (const header of ['203.0.113.1', '203.0.113.1', '203.0.113.2', '203.0.113.3'].map(tcp4)) sessions.push(await secured(header));
    assert.equal(sessions[0]!.text, '203.0.113.1 192.0.2.1\n');
    // The same client, also when it is written as an address of IPv6.
    for (const header of [tcp4('203.0.113.1'), 'PROXY TCP6 ::ffff:203.0.113.1 ::1 1000 143\r\n']) {
      const over = await from(header);
      await over.ended();
      assert.match(over.text, /^\* BYE \[LIMIT\]/u);
      over.close();
    }
    const own = await Promise.all([1, 2].map(() => from('PROXY UNKNOWN\r\n')));
    for (const client of own) await within(client.hears(/^\* OK/u), 'the balancer to be served for itself');
    const third = await from('PROXY UNKNOWN\r\n');
    await third.ended();
    assert.match(third.text, /^\* BYE \[LIMIT\]/u);
    for (const client of [...own, third]) client.close();
    for (const session of sessions) await session.finish();
  });
});
