/** Which backend a connection goes to, and programs as backends. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { listenForHandoff } from 'libtlspool';
import type { HandoffListener } from 'libtlspool';
import { PlainClient, run, startPool, startTls, tempFolder, TestProxy, ToyBackend } from '../support/index.js';
import type { ConnectionLine, ProxyBaseline, ServiceYaml, TestPool, TlsClient, TlsWishes } from '../support/index.js';

/** Says its name and sends everything back. */
const named = (name: string): Promise<ToyBackend> => ToyBackend.listen(({ socket }) => { socket.write(`${name}\r\n`); socket.pipe(socket); });
const script = 'echo "$$ $LISTEN_PID $LISTEN_FDS $LISTEN_FDNAMES"; env | sort | grep -v _PID; echo descriptors; ls /proc/$$/fd; echo end; exec cat';

describe('proxy: routes and programs', function () {
  this.timeout(30_000);
  let pool: TestPool;
  let proxy: TestProxy;
  let before_: ProxyBaseline;
  let backends: ToyBackend[];
  let listener: HandoffListener;
  const connect = (index: number) => ({ connect: backends[index]!.address });

  before(async () => {
    pool = await startPool({ identities: [
      { localid: 'localhost', default: true }, { localid: 'other', sans: ['DNS:a.example', 'DNS:b.example', 'DNS:asked.example'] },
    ] });
    backends = await Promise.all(['zero', 'one', 'two', 'three'].map(named));
    const file = path.join(tempFolder(), 'h.sock');
    listener = await listenForHandoff({ path: file, reattach: false, onServername: ({ servername }) => (servername === 'a.example' ? false : { localid: 'other' }) });
    (async () => { for await (const socket of listener) socket.on('error', () => undefined).end('handed\r\n'); })().catch(() => undefined);
    const service = (name: string, more: object): ServiceYaml => ({ name, protocol: 'none', ...more });
    proxy = await TestProxy.start(pool, [
      service('names', { routes: [{ servername: 'a.example', backend: connect(0) }, { servername: ['*.example'], backend: connect(1) }], backend: connect(2) }),
      service('closed', { routes: [{ servername: 'localhost', alpn: ['imap'], backend: connect(0) }, { servername: 'a.example', localid: 'other', backend: connect(1) }] }),
      service('alpn', { routes: [{ alpn: ['h2', 'imap'], backend: connect(0) }, { alpn: 'smtp', backend: { exec: ['/bin/echo', 'program'] } }], backend: connect(2) }),
      service('listeners', {
        listen: [{ address: '127.0.2.1:0', name: 'in' }, { address: '127.0.2.2:0', name: 'out' }], routes: [{ listener: 'in', backend: connect(0) }, { listener: 'out', servername: 'b.example', backend: connect(1) }], backend: connect(2),
      }),
      service('asked', { backend: { fd: file, checkServername: true } }),
      service('env', { backend: { exec: ['/bin/sh', '-c', script] } }),
      service('cat', { backend: { exec: ['/bin/cat'], max: 2 } }),
      service('nobody', { backend: { exec: ['/usr/bin/id', '-un'], user: 'nobody' } }),
    ]);
  });
  after(async () => {
    await proxy.stop();
    await listener.close();
    for (const backend of backends) await backend.close();
    await pool.stop();
  });
  beforeEach(() => { before_ = proxy.baseline(); });
  afterEach(() => proxy.expectBaseline(before_));

  async function open(name: string, wishes: Partial<TlsWishes> = {}, listenerName?: string): Promise<{ readonly client: TlsClient; readonly port: number | undefined }> {
    const plain = await PlainClient.connect(proxy.port(name, listenerName), proxy.host(name, listenerName));
    const port = plain.socket.localPort;
    try {
      return { client: await plain.secure({ caFile: pool.caFile, ...wishes }), port };
    } catch (error) {
      plain.close();
      throw Object.assign(error as Error, { port });
    }
  }
  /** The first line that comes, the application protocol, and what the log says. */
  async function reached(name: string, wishes: Partial<TlsWishes> = {}, listenerName?: string): Promise<{ readonly first: string; readonly alpn: string | false | null; readonly line: ConnectionLine }> {
    const { client, port } = await open(name, wishes, listenerName);
    await client.hears(/\n/u);
    const alpn = client.socket.alpnProtocol;
    await client.finish();
    return { first: client.text.split(/\r?\n/u)[0] ?? '', alpn, line: await proxy.recordOf(name, port) };
  }
  async function refused(name: string, wishes: Partial<TlsWishes>, alert: RegExp): Promise<ConnectionLine> {
    let port: number | undefined;
    await assert.rejects(open(name, wishes), (error: Error & { port?: number }) => { port = error.port; return alert.test(error.message); });
    return proxy.recordOf(name, port);
  }

  for (const [servername, backend] of [['a.example', 'zero'], ['b.example', 'one'], ['localhost', 'two'], ['', 'two']] as const) {
    it(`the server name ${servername === '' ? 'that is not sent' : servername} leads to ${backend}`, async () => {
      const { first, line } = await reached('names', { servername });
      assert.equal(first, backend);
      assert.deepEqual([line.servername, line.backend], [servername === '' ? undefined : servername, backends[['zero', 'one', 'two'].indexOf(backend)]!.address]);
    });
  }
  it('a name that no route has is refused with unrecognized_name, and no backend is connected', async () => {
    for (const backend of backends) backend.forget();
    const { ended, code, servername } = await refused('closed', { servername: 'b.example' }, /unrecognized name/u);
    assert.deepEqual([ended, code, servername], ['refused', 'NAME_REFUSED', 'b.example']);
    assert(backends.every(({ connections }) => connections.length === 0));
  });
  it('a route may have an identity of its own', async () => {
    const { first, line } = await reached('closed', { servername: 'a.example' });
    assert.deepEqual([first, line.localid], ['one', 'other']);
  });
  it('application protocols of which none is served end with no_application_protocol', async () => {
    const { ended, code } = await refused('closed', { alpn: ['h2'] }, /no application protocol/u);
    assert.deepEqual([ended, code], ['refused', 'NAME_REFUSED']);
  });
  it('a client that offers no application protocol, where all routes demand one, is refused in the handshake', async () => {
    const { ended, code } = await refused('closed', {}, /unrecognized name|no application protocol/u);
    assert.deepEqual([ended, code], ['refused', 'NAME_REFUSED']);
  });
  it('the application protocol chooses the route, and the route the order of preference', async () => {
    const both = await reached('alpn', { alpn: ['imap', 'h2'] });
    assert.deepEqual([both.first, both.alpn, both.line.alpn], ['zero', 'h2', 'h2']);
    const smtp = await reached('alpn', { alpn: ['smtp'] });
    assert.deepEqual([smtp.first, smtp.alpn], ['program', 'smtp']);
    const none = await reached('alpn', {});
    assert.deepEqual([none.first, none.alpn], ['two', false]);
  });
  it('the listener chooses the route, with or without other conditions', async () => {
    assert.equal((await reached('listeners', { servername: 'b.example' }, 'in')).first, 'zero');
    assert.equal((await reached('listeners', { servername: 'b.example' }, 'out')).first, 'one');
    const { first, line } = await reached('listeners', { servername: 'a.example' }, 'out');
    assert.deepEqual([first, line.listener], ['two', 'out']);
  });
  it('a backend that takes descriptors is asked about the name: its no is an alert, its yes names the identity', async () => {
    assert.equal((await refused('asked', { servername: 'a.example' }, /unrecognized name/u)).code, 'NAME_REFUSED');
    const { first, line } = await reached('asked', { servername: 'asked.example' });
    assert.deepEqual([first, line.localid, line.ended], ['handed', 'other', 'handed-over']);
  });

  it('exec: the program has the socket at 0, 1 and 3, LISTEN_FDS, and the facts of the connection', async () => {
    const { client, port } = await open('env', { servername: 'a.example' });
    await client.hears(/\nend\n/u);
    assert.equal(await client.ask('hello', /hello/u), 'hello');
    await client.finish();
    const [pids = '', ...lines] = client.text.split('\n');
    const [own, listen, ...rest] = pids.split(' ');
    assert.deepEqual([own === listen, ...rest], [true, '1', 'connection']);
    for (const line of [`REMOTE_ADDR=127.0.0.1`, `REMOTE_PORT=${port}`, `LOCAL_PORT=${proxy.port('env')}`, 'TLS_PROTOCOL=TLSv1.3', 'TLS_SNI=a.example', 'TLS_LOCALID=other']) assert(lines.includes(line), `${line} in ${client.text}`);
    assert(!client.text.includes('TLSPOOL'), 'nothing of the environment of the proxy');
    // What the tests themselves were started with is nobody's doing here.
    const inherited = (await run('/bin/sh', ['-c', 'ls /proc/$$/fd'])).stdout.split('\n');
    const descriptors = lines.slice(lines.indexOf('descriptors') + 1, lines.indexOf('end'));
    assert.deepEqual(descriptors.filter((fd) => !inherited.includes(fd)), ['3']);
  });
  it('exec: one program more than `max` is refused with the words of the protocol, and served when one has ended', async () => {
    const two = [await open('cat'), await open('cat')];
    for (const { client } of two) await client.ask('x', /x/u);
    const third = await open('cat');
    await third.client.over();
    assert.equal((await proxy.recordOf('cat', third.port)).code, 'LIMIT_CLIENTS');
    await third.client.finish();
    await two[0]!.client.finish();
    await proxy.recordOf('cat', two[0]!.port);
    const { client } = await open('cat');
    await client.ask('again', /again/u);
    await client.finish();
    await two[1]!.client.finish();
  });
  it('exec: as another user', async () => {
    assert.equal((await reached('nobody')).first, 'nobody');
  });
  it('a program that is missing is a mistake of the configuration, which the running one survives', async () => {
    const { reason } = await proxy.reload([{ name: 'new', protocol: 'none', backend: { exec: ['/nowhere/program'] } }], 'reload failed; everything stays as it was');
    assert.match(String(reason), /\/nowhere\/program does not exist/u);
    const client = await startTls({ port: proxy.port('cat'), host: proxy.host('cat'), protocol: 'none' }, pool);
    await client.ask('x', /x/u);
    await client.finish();
  });
});
