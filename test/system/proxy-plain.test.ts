/** Services where TLS is optional: a client that does not ask for it is passed on in plain text, and the backend is told so. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { listenForHandoff, PlainSocket } from 'libtlspool';
import type { HandoffListener, PoolSocket } from 'libtlspool';
import { behindHeader, BulkReader, BulkWriter, PlainClient, startPool, startTls, tempFolder, TestProxy, ToyBackend, toyImap, toyMail, until } from '../support/index.js';
import type { ConnectionLine, ProxyBaseline, Talk, TestPool } from '../support/index.js';
import { preambleScripts } from '../support/preamble-scripts.js';

const octets = 8_000_000;

describe('proxy: clients that do not ask for TLS, where it is optional', function () {
  this.timeout(30_000);
  let pool: TestPool;
  let proxy: TestProxy;
  let before_: ProxyBaseline;
  let smtp: ToyBackend;
  let imap: ToyBackend;
  let bulk: ToyBackend;
  let listener: HandoffListener<PoolSocket | PlainSocket>;
  const handed: (PoolSocket | PlainSocket)[] = [];
  /** Hears all, then says as much. */
  const reader: { in?: BulkReader; out?: BulkWriter } = {};
  const bulkTalk: Talk = ({ socket }) => {
    reader.in = new BulkReader(socket);
    socket.once('end', () => { reader.out = new BulkWriter(socket, octets); });
  };
  const connect = (name: string): Promise<PlainClient> => PlainClient.connect(proxy.port(name), proxy.host(name));
  const countOf = (name: string): number => proxy.connections().filter(({ service }) => service === name).length;
  const next = (name: string): Promise<ConnectionLine> => proxy.record(name, countOf(name) + 1);

  before(async () => {
    pool = await startPool();
    [smtp, imap, bulk] = await Promise.all([ToyBackend.listen(toyMail('EHLO')), ToyBackend.listen(behindHeader(toyImap)), ToyBackend.listen(bulkTalk)]);
    const file = path.join(tempFolder(), 'h.sock');
    listener = await listenForHandoff({ path: file, plain: true, reattach: false });
    (async () => { for await (const socket of listener) handed.push(socket); })().catch(() => undefined);
    proxy = await TestProxy.start(pool, [
      { name: 'smtp', protocol: 'smtp', tls: 'optional', backend: { connect: smtp.address } },
      { name: 'imap', protocol: 'imap', tls: 'optional', backend: { connect: imap.address, proxyProtocol: 2 } },
      { name: 'imap-v1', protocol: 'imap', tls: 'optional', backend: { connect: imap.address, proxyProtocol: 1 } },
      { name: 'imap-required', protocol: 'imap', backend: { connect: imap.address, proxyProtocol: 1 } },
      { name: 'bulk', protocol: 'irc', tls: 'optional', backend: { connect: bulk.address } },
      { name: 'fd', protocol: 'imap', tls: 'optional', backend: { fd: file } },
      { name: 'mysql', protocol: 'mysql', tls: 'optional', backend: { fd: file } },
      { name: 'exec', protocol: 'imap', tls: 'optional', backend: { exec: ['/bin/sh', '-c', 'printf "%s %s\\r\\n" "$REMOTE_ADDR" "TLS=$TLS_PROTOCOL"; exec cat'] } },
    ]);
  });
  after(async () => {
    await proxy.stop();
    await listener.close();
    await Promise.all([smtp.close(), imap.close(), bulk.close()]);
    await pool.stop();
  });
  beforeEach(() => { before_ = proxy.baseline(); for (const backend of [smtp, imap, bulk]) backend.forget(); });
  afterEach(async () => {
    for (const socket of handed.splice(0)) socket.destroy();
    await proxy.expectBaseline(before_);
  });

  it('connect: the backend gets the EHLO that the client had said, and the client does not see its answer again', async () => {
    const line = next('smtp');
    const client = await connect('smtp');
    await client.ask('EHLO c.example.org\r\n', /^250 .*\r\n/mu);
    assert.equal(await client.ask('MAIL FROM:<a@b.example>\r\n', /\r\n$/u), '250 MAIL FROM:<a@b.example>\r\n');
    await client.ask('QUIT\r\n', /^221 /mu);
    await client.ended();
    client.close();
    assert.equal(smtp.connections.at(-1)!.text, 'EHLO c.example.org\r\nMAIL FROM:<a@b.example>\r\nQUIT\r\n');
    const { ended, protocol, cipher, octetsIn, octetsOut, backend } = await line;
    assert.deepEqual([ended, protocol, cipher, backend], ['plain', undefined, undefined, smtp.address]);
    assert(octetsIn > 0 && octetsOut > 0);
  });

  for (const [name, version] of [['imap', 2], ['imap-v1', 1]] as const) {
    it(`connect: the PROXY header of version ${version} has the address of the client, and nothing about TLS`, async () => {
      const client = await connect(name);
      await client.ask('a LOGIN joe secret\r\n', /^a OK/mu);
      const { localPort } = client.socket;
      client.close();
      const { header, text } = await until(() => imap.connections.find((one) => one.text.includes('LOGIN')), { what: 'the login' });
      assert(header !== undefined);
      assert.deepEqual([header.version, header.command, header.ssl, header.alpn, header.authority], [version, 'PROXY', undefined, undefined, undefined]);
      assert.deepEqual([header.addresses?.source.address, header.addresses?.source.port, header.addresses?.destination.port], ['127.0.0.1', localPort, proxy.port(name)]);
      assert.equal(text, 'a LOGIN joe secret\r\n');
    });
  }

  it('connect: a client that does ask gets TLS, and the header says so', async () => {
    const client = await startTls({ port: proxy.port('imap'), host: proxy.host('imap'), protocol: 'imap' }, pool);
    await client.ask('a LOGIN joe secret\r\n', /^a OK/mu);
    await client.finish();
    const { header } = await until(() => imap.connections.find((one) => one.text.includes('LOGIN')), { what: 'the login' });
    assert.equal(header?.ssl?.protocol, 'TLSv1.3');
  });

  it('where TLS is required the same client gets nowhere', async () => {
    const client = await connect('imap-required');
    await client.ask('a LOGIN joe secret\r\n', /^a NO \[PRIVACYREQUIRED\]/mu);
    client.close();
    assert(!imap.connections.some(({ text }) => text.includes('LOGIN')));
  });

  it('connect: transfers arrive whole in both directions, each ending for itself', async () => {
    const line = next('bulk');
    const client = await connect('bulk');
    client.socket.removeAllListeners('data');
    const inbound = new BulkReader(client.socket);
    client.socket.write('NICK joe\r\n');
    const outbound = new BulkWriter(client.socket, octets);
    await until(() => inbound.state().sha256 !== undefined, { what: 'the answer to end', deadlineMs: 20_000 });
    assert.equal(reader.in?.state().octets, octets + 10);
    assert.deepEqual([inbound.state().octets, inbound.state().sha256], [octets, reader.out?.state().sha256]);
    assert.equal(outbound.state().octets, octets);
    client.close();
    const { octetsIn, octetsOut, ended } = await line;
    assert.deepEqual([octetsIn, octetsOut, ended], [octets + 10, octets, 'plain']);
  });

  it('connect: a client that resets does not look like one that ended', async () => {
    const client = await connect('bulk');
    client.say('NICK joe\r\n');
    const backend = await bulk.connection(1);
    await backend.heard('NICK');
    client.reset();
    await backend.over();
    assert.equal(backend.state, 'error');
  });

  it('fd: the backend gets the socket of the client itself, with what it said, and is told that there is no TLS', async () => {
    const line = next('fd');
    const client = await connect('fd');
    client.say('a LOGIN joe secret\r\nb NOOP\r\n');
    const [socket] = await until(() => handed.length > 0 && handed, { what: 'the connection' });
    assert(socket instanceof PlainSocket);
    assert.equal(socket.encrypted, false);
    assert.deepEqual({ ...socket.preamble }, { protocol: 'imap', tls: false });
    assert.equal(socket.remotePort, client.socket.localPort);
    let heard = '';
    socket.on('data', (data: Buffer) => { heard += data.toString(); });
    await until(() => heard === 'a LOGIN joe secret\r\nb NOOP\r\n', { what: 'what the client said', context: () => heard });
    socket.end('a OK\r\n');
    await client.hears(/^a OK/mu);
    client.close();
    const { ended, protocol } = await line;
    assert.deepEqual([ended, protocol], ['handed-over', undefined]);
  });

  it('fd: what the client was greeted with goes along, where the rest of the login depends on it (mysql)', async () => {
    const client = await connect('mysql');
    await client.when(({ received }) => received.length > 4 && received.length === 4 + received.readUIntLE(0, 3), 'the greeting');
    client.say(preambleScripts['mysql']!.server!.plain!.input);
    const [socket] = await until(() => handed.length > 0 && handed, { what: 'the connection' });
    assert(socket instanceof PlainSocket);
    assert.deepEqual(Buffer.from(socket.preamble.state ?? []), client.received);
    client.close();
  });

  it('exec: the program has the connection, and no variable about TLS', async () => {
    const line = next('exec');
    const client = await connect('exec');
    await client.ask('a LOGIN joe secret\r\n', /127\.0\.0\.1 TLS=\r\na LOGIN joe secret\r\n$/u);
    client.finish();
    await client.ended();
    client.close();
    assert.equal((await line).ended, 'plain');
  });
});
