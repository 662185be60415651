/** Bare descriptors in the pool's care: what a proxy does, with a real tlspoold. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import tls from 'node:tls';
import { connectPool, TlsPoolError } from 'libtlspool';
import type { Pool } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { protectFd } from 'libtlspool/session';
import type { PlainSide, ProtectOptions, ProtectedSession, SessionEnd } from 'libtlspool/session';
import { descriptors, expectBaseline, PoolWire, startPool, until, within } from '../support/index.js';
import type { Baseline, TestPool } from '../support/index.js';

const code = (wanted: string) => (error: unknown): boolean => {
  assert(error instanceof TlsPoolError, String(error));
  assert.equal(error.code, wanted, error.message);
  return true;
};
const never = (): Promise<never> => new Promise(() => undefined);

describe('libtlspool with a pool: bare descriptors', function () {
  this.timeout(30_000);
  let daemon: TestPool;
  let pool: Pool;
  let baseline: Baseline;
  let open: number;
  let listening: OwnedFd;
  const waitingFds = new Map<number, OwnedFd>();
  let backend: net.Server;
  let arrived: net.Socket[];
  let roots: Buffer;
  const names = ['imap.example', 'mail.example', ...Array.from({ length: 4 }, (_, n) => `n${String(n)}.example`)];
  before(async () => {
    daemon = await startPool({ identities: names.map((localid) => ({ localid })), config: { limits: { handshakes: 1000 } } });
    roots = readFileSync(daemon.caFile);
    // Its first use loads what stays open.
    const warm = await connectPool({ path: daemon.socket });
    warm.close();
  });
  after(() => daemon.stop());
  beforeEach(async () => {
    baseline = daemon.baseline();
    open = descriptors(process.pid).size;
    pool = await connectPool({ path: daemon.socket });
    listening = sockets.tcpListen({ host: '127.0.0.1', port: 0 });
    arrived = [];
    backend = net.createServer({ allowHalfOpen: true }, (socket) => { arrived.push(socket); socket.on('error', () => undefined); }).listen(0, '127.0.0.1');
    await once(backend, 'listening');
  });
  afterEach(async () => {
    pool.close();
    sockets.close(listening);
    for (const socket of arrived) socket.destroy();
    await new Promise((resolve) => backend.close(resolve));
    await expectBaseline(daemon, baseline);
    await until(() => descriptors(process.pid).size <= open, { what: 'our descriptors to be back at the baseline', context: () => [...descriptors(process.pid).values()].join(' ') });
  });

  interface Client { readonly cryptfd: OwnedFd; readonly socket: tls.TLSSocket; readonly secured: Promise<tls.TLSSocket> }
  /** A TLS client, and the descriptor of its connection, from which nothing was read. */
  async function client(options: tls.ConnectionOptions = {}): Promise<Client> {
    const port = sockets.socketInfo(listening).local?.port ?? 0;
    const socket = tls.connect({ host: '127.0.0.1', port, ca: roots, servername: 'imap.example', ...options });
    const secured = new Promise<tls.TLSSocket>((resolve, reject) => {
      socket.once('secureConnect', () => { resolve(socket); });
      socket.on('error', reject);
    });
    secured.catch(() => undefined);
    await once(socket, 'connect');
    return { cryptfd: await accepted(socket.localPort ?? 0), socket, secured };
  }

  /** Several may be under way: each takes its own. */
  async function accepted(port: number): Promise<OwnedFd> {
    await until(() => {
      for (let fd = sockets.accept(listening); fd !== null; fd = sockets.accept(listening)) waitingFds.set(sockets.socketInfo(fd).remote?.port ?? 0, fd);
      return waitingFds.has(port);
    }, { what: 'the connection' });
    const fd = waitingFds.get(port) as OwnedFd;
    waitingFds.delete(port);
    return fd;
  }

  /** A socket of ours that is connected to the backend, as a bare descriptor. */
  async function toBackend(opened?: (port: number) => void): Promise<OwnedFd> {
    const socket = net.connect((backend.address() as net.AddressInfo).port, '127.0.0.1');
    await once(socket, 'connect');
    const fd = sockets.dup((socket as unknown as { _handle: { fd: OwnedFd } })._handle.fd);
    opened?.(socket.localPort ?? 0);
    socket.destroy();
    return fd;
  }
  const isOpen = (fd: OwnedFd, was: string | undefined): boolean => descriptors(process.pid).get(fd) === was;

  /** Everything up to the end, which must be one. Not `for await`, which would destroy the socket for writing too. */
  function text(socket: net.Socket): Promise<string> {
    if (socket.readableEnded) return Promise.resolve('');
    return within(new Promise((resolve, reject) => {
      let all = '';
      socket.on('data', (chunk: Buffer) => { all += chunk.toString(); });
      socket.once('end', () => { resolve(all); });
      socket.once('error', reject);
      socket.once('close', () => { reject(new Error('closed without an end')); });
    }), 'the end of a stream');
  }

  /** Octets through a session, both ways, and its end. */
  async function proves(session: ProtectedSession, { socket, secured }: Client, ended: Promise<SessionEnd>): Promise<void> {
    await secured;
    assert.equal(session.plainfd, undefined);
    await until(() => arrived.length > 0, { what: 'the backend to be reached' });
    const [there] = arrived as [net.Socket];
    socket.end('question');
    assert.equal(await text(there), 'question');
    there.end('answer');
    assert.equal(await text(socket), 'answer');
    const end = await within(ended, 'the end of the session');
    assert(!(end instanceof TlsPoolError));
    assert.deepEqual([end.how, end.octetsReceived, end.octetsSent], ['closed', 8, 6]);
    assert.equal(session.end, end);
  }
  const ending = (): { readonly ended: Promise<SessionEnd>; readonly onClosed: (end: SessionEnd) => void } => {
    let onClosed: (end: SessionEnd) => void = () => undefined;
    const ended = new Promise<SessionEnd>((resolve) => { onClosed = resolve; });
    return { ended, onClosed };
  };

  it('onPlainside gives a TCP connection of ours: the plain text goes there, and nothing of it stays with us', async () => {
    const peer = await client();
    const { ended, onClosed } = ending();
    let asked: string | undefined;
    let passed: OwnedFd | undefined;
    let link: string | undefined;
    const session = await protectFd(pool, peer.cryptfd, {
      role: 'server', onClosed,
      onPlainside: async ({ info, ctlkey }) => {
        asked = info.servername;
        assert.equal(ctlkey.length, 16);
        passed = await toBackend();
        link = descriptors(process.pid).get(passed);
        return passed;
      },
    });
    assert.equal(asked, 'imap.example');
    assert.equal(isOpen(passed as OwnedFd, link), false, 'our copy is closed when the pool has it');
    await proves(session, peer, ended);
  });

  it('a plainfd, and a backend that the pool connects to', async () => {
    for (const side of [{ plainfd: await toBackend() }, { backend: { host: '127.0.0.1', port: (backend.address() as net.AddressInfo).port } }]) {
      if ('plainfd' in side) await until(() => arrived.length > 0, { what: 'the backend to be reached' });
      const peer = await client();
      const { ended, onClosed } = ending();
      await proves(await protectFd(pool, peer.cryptfd, { role: 'server', onClosed, ...side }), peer, ended);
      arrived.shift();
    }
  });

  it('onPlainside says pair: one end comes with the session, as without onPlainside', async () => {
    for (const options of [{ onPlainside: (): PlainSide => 'pair' }, {}]) {
      const peer = await client();
      const session = await protectFd(pool, peer.cryptfd, { role: 'server', ...options });
      assert(session.plainfd !== undefined);
      (await peer.secured).end('hello');
      const plain = new net.Socket({ fd: session.plainfd });
      assert.equal(await text(plain), 'hello');
    }
  });

  it('the answer to a name routes it: identity and protocols are those of the name, others are refused', async () => {
    const seen: (string | undefined)[] = [];
    const route = async (options: tls.ConnectionOptions): Promise<ProtectedSession> => {
      const peer = await client(options);
      return protectFd(pool, peer.cryptfd, {
        role: 'server', alpn: ['nobody'], onPlainside: () => 'pair',
        onServername: ({ servername, alpn }) => {
          seen.push(`${String(servername)} ${alpn.join()}`);
          if (servername === 'imap.example') return { alpn: ['imap'] };
          return servername === 'mail.example' && { localid: 'mail.example', alpn: [] };
        },
      });
    };
    const imap = await route({ ALPNProtocols: ['smtp', 'imap'] });
    assert.deepEqual([imap.info.alpn, imap.info.localid], ['imap', 'imap.example']);
    const mail = await route({ servername: 'mail.example', ALPNProtocols: ['smtp'] });
    assert.deepEqual([mail.info.alpn, mail.info.localid], [undefined, 'mail.example']);
    await assert.rejects(route({ ALPNProtocols: ['smtp'] }), code('HANDSHAKE_FAILED'));
    await assert.rejects(route({ servername: 'n0.example' }), code('NAME_REFUSED'));
    assert.deepEqual(seen, ['imap.example smtp,imap', 'mail.example smtp', 'imap.example smtp', 'n0.example ']);
    for (const { plainfd } of [imap, mail]) if (plainfd !== undefined) sockets.close(plainfd);
  });

  const refusals: [string, string, () => PlainSide | Promise<PlainSide>][] = [
    ['refuse', 'PLAINSIDE_REFUSED', () => 'refuse'],
    ['an exception, which is reported as a warning', 'PLAINSIDE_REFUSED', () => { throw new Error('no backend for you'); }],
    ['a socket that is not connected', 'FD_KIND', () => sockets.tcpListen({ host: '127.0.0.1', port: 0 })],
  ];
  for (const [title, wanted, onPlainside] of refusals) {
    it(`${title} ends the session in order: ${wanted}`, async () => {
      const warned = new Promise<Error>((resolve) => process.once('warning', resolve));
      const peer = await client();
      await assert.rejects(protectFd(pool, peer.cryptfd, { role: 'server', onPlainside }), code(wanted));
      assert.equal(await text(await peer.secured), '', 'close_notify, and nothing before it');
      if (title.includes('warning')) assert.equal((await within(warned, 'the warning')).message, 'no backend for you');
      process.removeAllListeners('warning');
    });
  }

  it('no answer within the deadline is TIMEOUT, and a socket that comes later is closed', async () => {
    const peer = await client();
    let late: (fd: OwnedFd) => void = () => undefined;
    const since = performance.now();
    const refused = protectFd(pool, peer.cryptfd, { role: 'server', handshakeMs: 400, onPlainside: () => new Promise((resolve) => { late = resolve; }) });
    await assert.rejects(refused, code('TIMEOUT'));
    assert(performance.now() - since < 5_000);
    assert.equal(await text(await peer.secured), '');
    const fd = await toBackend();
    const link = descriptors(process.pid).get(fd);
    late(fd);
    await until(() => !isOpen(fd, link), { what: 'the late socket to be closed' });
    await until(() => arrived[0]?.readableEnded === true || arrived[0]?.resume() === undefined, { what: 'the backend to be reached' });
  });

  it('a client of TLS that leaves while its side is waited for is PEER_CLOSED', async () => {
    const peer = await client();
    let asked: () => void = () => undefined;
    const question = new Promise<void>((resolve) => { asked = resolve; });
    const refused = assert.rejects(protectFd(pool, peer.cryptfd, { role: 'server', onPlainside: () => { asked(); return never(); } }), code('PEER_CLOSED'));
    await question;
    peer.socket.destroy();
    await refused;
  });

  it('an abort ends it with ABORTED, before it begins, in the handshake, and while the side is waited for', async () => {
    const aborted = new AbortController();
    aborted.abort();
    const first = await client();
    await assert.rejects(protectFd(pool, first.cryptfd, { role: 'server', signal: aborted.signal }), code('ABORTED'));
    await assert.rejects(first.secured);
    for (const stage of ['onServername', 'onPlainside'] as const) {
      const peer = await client();
      const controller = new AbortController();
      const options: ProtectOptions = { role: 'server', signal: controller.signal, [stage]: () => { controller.abort(); return never(); } };
      await assert.rejects(protectFd(pool, peer.cryptfd, options), code('ABORTED'));
      peer.socket.destroy();
    }
  });

  it('a program that is gone while it is asked takes the session with it', async () => {
    const wire = new PoolWire(daemon.socket);
    const peer = await client();
    wire.send({ type: 'request', op: 'starttls', id: 77, body: { role: 'server', askPlainside: true } }, [peer.cryptfd]);
    sockets.close(peer.cryptfd);
    await peer.secured;
    // next() blocks the loop, in which our client still has its Finished to send.
    await until(() => (sockets.pollWait(wire.fd, 1, 0) & 1) !== 0, { what: 'the question' });
    const question = wire.next();
    assert.deepEqual([question?.type, question?.op, question?.body['request']], ['callback', 'plainside', 77]);
    wire.close();
    assert.equal(await text(peer.socket), '');
  });

  it('the death of the pool while it asks is POOL_LOST', async () => {
    const other = await startPool();
    const lost = await connectPool({ path: other.socket, reconnect: false });
    const peer = await client({ servername: 'localhost', ca: readFileSync(other.caFile) });
    let asked: () => void = () => undefined;
    const question = new Promise<void>((resolve) => { asked = resolve; });
    const refused = assert.rejects(protectFd(lost, peer.cryptfd, { role: 'server', onPlainside: () => { asked(); return never(); } }), code('POOL_LOST'));
    await question;
    await other.kill();
    await refused;
    peer.socket.destroy();
    lost.close();
  });

  it('requests about the session work, and after detach() another connection has it', async () => {
    const peer = await client();
    const { ended, onClosed } = ending();
    const session = await protectFd(pool, peer.cryptfd, { role: 'server', onClosed, onPlainside: () => toBackend() });
    const socket = await peer.secured;
    const { octets } = await session.request('prng', { label: 'EXPORTER-test', length: 32 });
    assert.deepEqual(Buffer.from(octets), socket.exportKeyingMaterial(32, 'EXPORTER-test', Buffer.alloc(0)));
    assert.equal((await session.request('info', {})).tlsExporter?.length, 32);
    await session.detach();
    await assert.rejects(session.request('info', {}), code('CTLKEY_UNKNOWN'));
    await session.close({ abort: true });
    const other = await connectPool({ path: daemon.socket });
    assert.equal((await other.request('reattach', { ctlkey: session.ctlkey })).info.servername, 'imap.example');
    let heard = false;
    ended.then(() => { heard = true; }, () => undefined);
    await other.request('close', { ctlkey: session.ctlkey });
    assert.equal(await text(socket), '');
    await pool.ping();
    assert.equal(heard, false, 'it is not ours any more');
    assert.equal(session.end, undefined);
    other.close();
  });

  it('close() ends the session in order, close({abort}) at once, and either does nothing afterwards', async () => {
    for (const abort of [false, true]) {
      const peer = await client();
      const { ended, onClosed } = ending();
      const session = await protectFd(pool, peer.cryptfd, { role: 'server', onClosed, onPlainside: () => toBackend() });
      const received = text(await peer.secured).catch((error: NodeJS.ErrnoException) => error.code);
      await session.close({ abort });
      assert.equal(await received, abort ? 'ECONNRESET' : '');
      const end = await within(ended, 'the end');
      assert(!(end instanceof TlsPoolError));
      assert.equal(end.how, 'closed');
      await session.close({ abort });
    }
  });

  it('200 at a time over one connection: each gets the socket that was made for it, whatever happens to the others', async () => {
    const outcomes = ['backend', 'pair', 'refuse', 'throw'] as const;
    const onWarning = (): void => undefined;
    process.on('warning', onWarning);
    const results = await Promise.all(Array.from({ length: 200 }, async (_, n) => {
      const outcome = outcomes[n % 4] ?? 'pair';
      const servername = `n${String(n % 4)}.example`;
      // Every connection has a protocol of its own to tell it by.
      const peer = await client({ servername, ALPNProtocols: [`p${String(n)}`] });
      let port = 0;
      const session = protectFd(pool, peer.cryptfd, {
        role: 'server',
        onServername: (hello) => ({ alpn: [...hello.alpn] }),
        onPlainside: async ({ info }) => {
          assert.deepEqual([info.servername, info.alpn], [servername, `p${String(n)}`]);
          if (outcome === 'throw') throw new Error('none');
          return outcome === 'backend' ? toBackend((ours) => { port = ours; }) : outcome;
        },
      });
      const made = await session.catch((error: TlsPoolError) => error.code);
      if (typeof made === 'string') return `${outcome} ${made}`;
      (await peer.secured).end(`text ${String(n)}`);
      if (outcome === 'backend') await until(() => arrived.some(({ remotePort }) => remotePort === port), { what: 'the backend to be reached' });
      const plain = made.plainfd === undefined ? arrived.find(({ remotePort }) => remotePort === port) as net.Socket : new net.Socket({ fd: made.plainfd });
      return `${outcome} ${await text(plain)}`;
    }));
    process.off('warning', onWarning);
    const expected = Array.from({ length: 200 }, (_, n) => {
      const outcome = outcomes[n % 4] ?? 'pair';
      return `${outcome} ${outcome === 'backend' || outcome === 'pair' ? `text ${String(n)}` : 'PLAINSIDE_REFUSED'}`;
    });
    assert.deepEqual(results, expected);
  });
});
