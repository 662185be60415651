/** The phase between the handshake and the plain-text side that the owner brings, under every ending. */
import assert from 'node:assert/strict';
import net from 'node:net';
import tls from 'node:tls';
import { application, connectTls, failure, makeCertificates, readAll, readSome, Rig } from './engine-support.js';
import type { Certificates, EventOf } from './engine-support.js';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { countDescriptors } from '../support/native-fds.js';
import { until } from '../support/wait.js';

describe('engine: answers of the owner', () => {
  // Outside: hooks of the inner suites close what the tests leave.
  countDescriptors();

  describe('the plain-text side that is asked for', () => {
    let certificates: Certificates;
    let rig: Rig;
    const owned: (net.Socket | OwnedFd)[] = [];
    const own = <T extends net.Socket | OwnedFd>(one: T): T => {
      owned.push(one);
      return one;
    };
    before(() => { certificates = makeCertificates(); });
    beforeEach(() => { rig = new Rig(certificates); });
    afterEach(() => {
      rig.close();
      for (const one of owned.splice(0)) {
        if (typeof one === 'number') sockets.close(one);
        else one.destroy();
      }
    });

    /** A client whose handshake is done, over a TCP connection of its own, and the session that waits. */
    async function waiting(options: tls.ConnectionOptions & { readonly allowHalfOpen?: boolean } = {}): Promise<{ client: tls.TLSSocket; raw: net.Socket; event: EventOf<'established'>; port: number }> {
      const { port } = rig.listen(rig.selector(), { askPlain: true });
      const raw = own(net.connect({ port, host: '127.0.0.1', allowHalfOpen: options.allowHalfOpen === true }));
      const client = own(await connectTls(port, certificates.ca, { ...options, socket: raw }));
      client.on('error', () => undefined);
      return { client, raw, event: await rig.event('established'), port };
    }

    /** The engine's end, and the application's as a socket. */
    function plainPair(): { passed: OwnedFd; left: net.Socket } {
      const [ours, passed] = sockets.socketpair('stream');
      return { passed, left: own(application(ours)) };
    }

    const failed = (session: number): Promise<EventOf<'failed'>> => rig.event('failed', (event) => event.session === session);

    for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
      it(`the socket that is supplied carries the plain text of ${version}, both ways`, async () => {
        const { client, event } = await waiting({ minVersion: version, maxVersion: version });
        assert.deepEqual([event.waiting, event.plainfd, event.protocol, event.servername], [true, -1, version, 'server.test']);
        const { passed, left } = plainPair();
        rig.engine.supply(event.session, passed);
        const supplied = await rig.event('supplied');
        assert.deepEqual(supplied, { kind: 'supplied', session: event.session, plainfd: -1 });
        client.write('to the backend');
        assert.equal((await readSome(left, 14)).toString(), 'to the backend');
        left.end('to the client');
        assert.equal((await readAll(client)).toString(), 'to the client');
        client.end();
        assert.equal((await rig.event('closed')).how, 'closed');
      });
    }

    it('a session that does not ask is established at once, with the application\'s end', async () => {
      const { port } = rig.listen(rig.selector());
      own(await connectTls(port, certificates.ca));
      const event = await rig.event('established');
      assert.equal(event.waiting, false);
      own(application(event.plainfd));
    });

    it('a TCP socket is taken, and so is a packet socket, which keeps boundaries', async () => {
      const server = net.createServer().listen(0, '127.0.0.1');
      await new Promise((resolve) => server.once('listening', resolve));
      const accepted = new Promise<net.Socket>((resolve) => server.once('connection', (socket) => resolve(own(socket))));
      const connected = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1');
      await new Promise((resolve) => connected.once('connect', resolve));
      const first = await waiting();
      rig.engine.supply(first.event.session, sockets.dup((connected as unknown as { _handle: { fd: OwnedFd } })._handle.fd));
      await rig.event('supplied');
      connected.destroy();
      first.client.write('over TCP');
      assert.equal((await readSome(await accepted, 8)).toString(), 'over TCP');
      await new Promise((resolve) => { server.close(resolve); for (const one of owned) if (one instanceof net.Socket) one.destroy(); });

      const second = await waiting();
      const [ours, passed] = sockets.socketpair('seqpacket');
      own(ours);
      rig.engine.supply(second.event.session, passed);
      await rig.event('supplied');
      const received = readSome(second.client, 6);
      sockets.send(ours, Buffer.from('one'));
      sockets.send(ours, Buffer.from('two'));
      assert.equal((await received).toString(), 'onetwo');
    });

    it('without a descriptor the engine makes a socket pair', async () => {
      const { client, event } = await waiting();
      rig.engine.supply(event.session, -1);
      const left = own(application((await rig.event('supplied')).plainfd));
      client.write('x');
      assert.equal((await readSome(left, 1)).toString(), 'x');
    });

    it('a refusal ends the session with close_notify, and is PLAINSIDE_REFUSED', async () => {
      const { client, event } = await waiting();
      rig.engine.supply(event.session, 'refuse');
      assert.equal((await failed(event.session)).code, 'PLAINSIDE_REFUSED');
      assert.equal((await readAll(client)).length, 0, 'Node emits `end` only after close_notify');
      assert.equal(rig.engine.counters().handshakesFailed, 1);
    });

    it('what is no connected socket is FD_KIND, and closed', async () => {
      const listening = sockets.tcpListen({ host: '127.0.0.1', port: 0 });
      const { client, event } = await waiting();
      rig.engine.supply(event.session, listening);
      assert.equal((await failed(event.session)).code, 'FD_KIND');
      await readAll(client);
    });

    it('without an answer it is TIMEOUT, at the deadline of a handshake counted from the handshake\'s end', async () => {
      rig.close();
      rig = new Rig(certificates, { handshakeMs: 300 });
      const { client, event } = await waiting();
      const since = performance.now();
      assert.equal((await failed(event.session)).code, 'TIMEOUT');
      const waitedMs = performance.now() - since;
      // The wheel ticks every 32 ms, and the event took a moment to get here.
      assert(waitedMs > 200 && waitedMs < 2000, `${waitedMs} ms`);
      assert.equal((await readAll(client)).length, 0);
    });

    it('an answer within the deadline ends it: the session outlives it by far', async () => {
      rig.close();
      rig = new Rig(certificates, { handshakeMs: 300 });
      const { client, event } = await waiting();
      const { passed, left } = plainPair();
      rig.engine.supply(event.session, passed);
      await rig.event('supplied');
      const { port } = rig.listen(rig.selector());
      const silent = own(net.connect(port, '127.0.0.1'));
      assert.equal((await rig.event('failed')).code, 'HANDSHAKE_TIMEOUT', 'a deadline that began later has passed');
      silent.destroy();
      client.write('still here');
      assert.equal((await readSome(left, 10)).toString(), 'still here');
    });

    it('a peer that leaves while it is waited for is PEER_CLOSED, by FIN and by RST', async () => {
      const first = await waiting();
      first.raw.end();
      assert.equal((await failed(first.event.session)).code, 'PEER_CLOSED');
      const second = await waiting();
      second.raw.resetAndDestroy();
      assert.equal((await failed(second.event.session)).code, 'PEER_CLOSED');
    });

    it('an answer that comes after the end is ignored, and its descriptor closed; so is a second one', async () => {
      const { raw, event } = await waiting();
      raw.resetAndDestroy();
      await failed(event.session);
      const late = plainPair();
      rig.engine.supply(event.session, late.passed);
      assert.equal((await readAll(late.left)).length, 0);
      const again = await waiting();
      const first = plainPair();
      const second = plainPair();
      rig.engine.supply(again.event.session, first.passed);
      rig.engine.supply(again.event.session, second.passed);
      rig.engine.supply(again.event.session, 'refuse');
      assert.equal((await readAll(second.left)).length, 0);
      again.client.write('first');
      assert.equal((await readSome(first.left, 5)).toString(), 'first');
    });

    it('a request that was sent and half closed while it was waited for is delivered whole', async () => {
      const { client, event } = await waiting({ allowHalfOpen: true });
      await new Promise<void>((resolve) => client.end('GET /', resolve));
      // Until it is in the kernel of the other side there is nothing to see; then the session must still be waiting.
      await until(() => client.writableFinished, { what: 'the FIN' });
      const { passed, left } = plainPair();
      rig.engine.supply(event.session, passed);
      await rig.event('supplied');
      assert.equal((await readAll(left)).toString(), 'GET /');
      left.end('200');
      assert.equal((await readAll(client)).toString(), '200');
    });

    it('nothing is read from the peer meanwhile: what it sends stays in the kernel, and arrives whole', async () => {
      const { client, event } = await waiting();
      const data = Buffer.alloc(32 * 1024 * 1024, 'abcdefg');
      client.write(data);
      const before = process.memoryUsage().rss;
      // The kernel's buffers fill and nothing moves any more: the same amount unsent on two looks, with a round trip through the engine between.
      let unsent = -1;
      await until(async () => {
        const last = unsent;
        unsent = client.writableLength;
        rig.engine.bindings(event.session, 1);
        await rig.event('answer');
        return unsent === last;
      }, { what: 'the peer to be blocked' });
      assert(unsent > 0, 'the engine has taken everything');
      assert(process.memoryUsage().rss - before < 64 * 1024 * 1024);
      const { passed, left } = plainPair();
      rig.engine.supply(event.session, passed);
      await rig.event('supplied');
      client.end();
      const received = await readAll(left);
      assert.equal(Buffer.compare(received, data), 0);
    });

    for (const how of ['orderly', 'abort', 'revoked', 'drained'] as const) {
      it(`close(${how}) while it is waited for ends the session as ABORTED`, async () => {
        const { client, event } = await waiting();
        const ended = new Promise((resolve) => client.once('close', resolve));
        client.resume();
        rig.engine.close(event.session, how);
        assert.equal((await failed(event.session)).code, 'ABORTED');
        await ended;
      });
    }

    it('the exporter and the channel bindings answer while it is waited for', async () => {
      const { client, event } = await waiting();
      rig.engine.exporter(event.session, 1, 'EXPORTER-test', null, 32);
      const answer = await rig.event('answer', ({ request }) => request === 1);
      assert('octets' in answer);
      assert.deepEqual(answer.octets, client.exportKeyingMaterial(32, 'EXPORTER-test', Buffer.alloc(0)));
      rig.engine.bindings(event.session, 2);
      const bindings = await rig.event('answer', ({ request }) => request === 2);
      assert('bindings' in bindings && bindings.bindings.tlsExporter?.length === 32);
    });

    it('it counts as a handshake in flight until the side is there, and a resumed one is counted once', async () => {
      const first = await waiting({ maxVersion: 'TLSv1.2' });
      assert.deepEqual([rig.engine.counters().handshakes, rig.engine.counters().handshakesDone], [1, 0]);
      rig.engine.supply(first.event.session, plainPair().passed);
      await rig.event('supplied');
      assert.deepEqual([rig.engine.counters().handshakes, rig.engine.counters().handshakesDone], [0, 1]);
      const session = first.client.getSession();
      assert(session !== undefined);
      const again = own(await connectTls(first.port, certificates.ca, { maxVersion: 'TLSv1.2', session }));
      const event = await rig.event('established');
      assert.equal(event.resumed, true);
      rig.engine.supply(event.session, plainPair().passed);
      await rig.event('supplied');
      again.destroy();
      assert.equal(rig.engine.counters().handshakesResumed, 1);
    });

    it('a client session asks too, and its Finished reaches the server before the answer', async () => {
      const [a, b] = sockets.socketpair('stream');
      const context = rig.context();
      const server = rig.engine.startTls(a, -1, { role: 'server', selector: rig.selector(context), ask: false });
      const client = rig.engine.startTls(b, -1, { role: 'client', context, remoteid: 'server.test', servername: 'server.test', askPlain: true });
      const right = own(application((await rig.event('established', (event) => event.session === server)).plainfd));
      assert.equal((await rig.event('established', (event) => event.session === client)).waiting, true);
      right.write('early');
      const { passed, left } = plainPair();
      rig.engine.supply(client, passed);
      await rig.event('supplied');
      assert.equal((await readSome(left, 5)).toString(), 'early');
    });

    it('stop() while it is waited for closes everything', async () => {
      const { client } = await waiting();
      const ended = new Promise((resolve) => client.once('close', resolve));
      client.resume();
      rig.close();
      await ended;
    });

    it('askPlain with a backend or with a plainfd is BAD_ARGUMENT', async () => {
      const selector = rig.selector();
      const listening = own(sockets.tcpListen({ host: '127.0.0.1', port: 0 }));
      const backend = { host: '127.0.0.1', port: 1 };
      await assert.rejects(async () => { await Promise.resolve(rig.engine.listen(listening, { selector, ask: false, backend, askPlain: true })); }, { code: 'BAD_ARGUMENT' });
      const [a, b] = sockets.socketpair('stream').map(own) as [OwnedFd, OwnedFd];
      const spec = { role: 'server', selector, ask: false, askPlain: true } as const;
      assert.throws(() => rig.engine.startTls(a, b, spec), { code: 'BAD_ARGUMENT' });
      assert.throws(() => rig.engine.startTls(a, -1, { ...spec, backend }), { code: 'BAD_ARGUMENT' });
      assert.throws(() => { rig.engine.supply(1, 'maybe' as never); }, { code: 'BAD_ARGUMENT' });
    });
  });

  describe('application protocols that the decision names', () => {
    let certificates: Certificates;
    let rig: Rig;
    before(() => { certificates = makeCertificates(); });
    beforeEach(() => { rig = new Rig(certificates); });
    afterEach(() => { rig.close(); });

    async function decided(listed: readonly string[], alpn: readonly string[] | undefined, offered: string[]): Promise<tls.TLSSocket> {
      const { port } = rig.listen(rig.selector(), { ask: true, alpn: listed });
      const connecting = connectTls(port, certificates.ca, { ALPNProtocols: offered });
      connecting.catch(() => undefined);
      const { session } = await rig.event('hello');
      rig.engine.decide(session, { selector: rig.selector(), ...(alpn !== undefined && { alpn }) }, -1);
      return connecting;
    }

    const cases: [string, readonly string[] | undefined, string | false][] = [
      ['none named: the listener\'s list holds', undefined, 'h2'], ['another list takes its place', ['imap', 'smtp'], 'imap'], ['an empty list negotiates none', [], false],
    ];
    for (const [title, alpn, expected] of cases) {
      it(title, async () => {
        const client = await decided(['h2'], alpn, ['smtp', 'imap', 'h2']);
        assert.equal(client.alpnProtocol, expected);
        const event = await rig.event('established');
        assert.equal(event.alpn, expected === false ? undefined : expected);
        sockets.close(event.plainfd as OwnedFd);
        client.destroy();
      });
    }

    it('a client that offers none of them gets no_application_protocol', async () => {
      const error = await failure(decided(['h2'], ['imap'], ['h2']));
      assert.match(error.message, /no application protocol/i);
      assert.equal((await rig.event('failed')).alert, 120);
    });

    it('the list of one handshake does not reach the next', async () => {
      const { port } = rig.listen(rig.selector(), { ask: true, alpn: ['h2'] });
      for (const alpn of [['imap'], undefined]) {
        const connecting = connectTls(port, certificates.ca, { ALPNProtocols: ['imap', 'h2'] });
        const { session } = await rig.event('hello');
        rig.engine.decide(session, { selector: rig.selector(), ...(alpn !== undefined && { alpn }) }, -1);
        const client = await connecting;
        assert.equal(client.alpnProtocol, alpn?.[0] ?? 'h2');
        sockets.close((await rig.event('established')).plainfd as OwnedFd);
        client.destroy();
      }
    });

    it('a client that leaves while its name is asked about is PEER_CLOSED at once', async () => {
      const { port } = rig.listen(rig.selector(), { ask: true });
      const raw = net.connect(port, '127.0.0.1');
      const client = tls.connect({ socket: raw, ca: certificates.ca, servername: 'server.test' });
      client.on('error', () => undefined);
      const hello = await rig.event('hello');
      raw.destroy();
      assert.equal((await rig.event('failed', (event) => event.session === hello.session)).code, 'PEER_CLOSED');
      rig.engine.decide(hello.session, { selector: rig.selector() }, -1);
      client.destroy();
    });

    it('an empty name is BAD_ARGUMENT', () => {
      assert.throws(() => { rig.engine.decide(1, { selector: rig.selector(), alpn: [''] }, -1); }, { code: 'BAD_ARGUMENT' });
    });
  });
});
