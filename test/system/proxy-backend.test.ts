/** Backends that are down, mute, full, or die: the client gets the protocol's own temporary error, and nothing is left. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { sockets } from 'libtlspool/native';
import { canned, PlainClient, startPool, startTls, tempFolder, TestProxy, ToyBackend, toyImap, toyMail, toyPop3, within } from '../support/index.js';
import type { ProxyBaseline, Talk, TestPool } from '../support/index.js';

interface Row {
  readonly protocol: 'imap' | 'smtp' | 'pop3';
  readonly talk: Talk;
  /** A backend that has no room. */
  readonly full: string;
  /** The temporary error of the protocol. */
  readonly sorry: RegExp;
}

const rows: readonly Row[] = [
  { protocol: 'imap', talk: toyImap, full: '* BYE too busy\r\n', sorry: /^\* BYE \[UNAVAILABLE\] .*\r\n$/u },
  { protocol: 'smtp', talk: toyMail('EHLO'), full: '421 4.3.2 too busy\r\n', sorry: /^421 4\.3\.2 .*\r\n$/u },
  { protocol: 'pop3', talk: toyPop3, full: '-ERR [SYS/TEMP] too busy\r\n', sorry: /^-ERR \[SYS\/TEMP\] .*\r\n$/u },
];
const backendMs = 400;
const die: Talk = ({ socket }) => { socket.resetAndDestroy(); };
const leave: Talk = ({ socket }) => { socket.destroy(); };

describe('proxy: backends that fail', function () {
  this.timeout(30_000);
  let pool: TestPool;
  let proxy: TestProxy;
  let before_: ProxyBaseline;
  const folder = tempFolder();
  const backends = new Map<string, ToyBackend>();
  const at = (name: string, protocol: string) => ({ port: proxy.port(name), host: proxy.host(name), protocol });

  before(async () => {
    pool = await startPool();
    for (const { protocol, talk } of rows) backends.set(protocol, await ToyBackend.listen(talk));
    // No port that the kernel would give to anybody.
    const nowhere = '127.0.0.77:1';
    proxy = await TestProxy.start(pool, [
      ...rows.flatMap(({ protocol }) => [
        { name: protocol, protocol, backendMs, backend: { connect: backends.get(protocol)!.address } },
        { name: `${protocol}-down`, protocol, backend: { connect: nowhere } },
        { name: `${protocol}-unlearnt`, protocol, capabilities: [], backend: { connect: nowhere } },
      ]),
      { name: 'fd-missing', protocol: 'imap', backend: { fd: path.join(folder, 'missing') } },
      { name: 'fd', protocol: 'imap', backendMs, backend: { fd: path.join(folder, 'fd') } },
      { name: 'fd-asked', protocol: 'imap', backendMs, backend: { fd: path.join(folder, 'missing'), checkServername: true } },
      { name: 'exec', protocol: 'imap', backend: { exec: ['/bin/sh', '-c', 'exit 3'] } },
    ]);
  });
  after(async () => {
    await proxy.stop();
    for (const backend of backends.values()) await backend.close();
    await pool.stop();
  });
  beforeEach(() => { before_ = proxy.baseline(); });
  afterEach(() => proxy.expectBaseline(before_));

  /** Told before TLS, and the log says why. */
  async function turnedAway(name: string, { protocol, sorry }: Row, why: RegExp): Promise<void> {
    const client = await PlainClient.connect(at(name, protocol).port, at(name, protocol).host);
    await client.ended();
    assert.match(client.text, sorry);
    assert.equal(client.ending, 'fin');
    client.close();
    const { ended, code, error, octetsIn } = await proxy.recordOf(name, client.localPort);
    assert.deepEqual([ended, code, octetsIn], ['refused', 'BACKEND_FAILED', 0]);
    assert.match(error ?? '', why);
  }

  /** Told under TLS. */
  async function turnedAwayUnderTls(name: string, { protocol, sorry }: Pick<Row, 'protocol' | 'sorry'>, plain: PlainClient, why: RegExp): Promise<void> {
    const client = await plain.secure(pool);
    await client.over();
    assert.match(client.text, sorry);
    assert.equal(client.state, 'end', 'with close_notify');
    await client.finish();
    const record = await proxy.recordOf(name, plain.localPort);
    assert.deepEqual([record.ended, record.code, record.protocol], ['refused', 'BACKEND_FAILED', 'TLSv1.3'], `${protocol} ${String(record.error)}`);
    assert.match(record.error ?? '', why);
  }
  async function goneAhead(name: string, protocol: string): Promise<PlainClient> {
    const client = await PlainClient.connect(at(name, protocol).port, at(name, protocol).host);
    await client.askForTls(protocol);
    return client;
  }

  for (const row of rows) {
    const { protocol, talk, full } = row;
    const backend = (): ToyBackend => backends.get(protocol)!;
    /** What was learnt a moment ago is still shown; a failure is not kept. */
    const forgotten = () => within((async () => { while (backend().connections.length === 0) { const client = await PlainClient.connect(at(protocol, protocol).port, at(protocol, protocol).host); await client.ended(); client.close(); } })(), 'the proxy to ask again');
    describe(protocol, () => {
      afterEach(() => { backend().talk = talk; });

      it('that is down', () => turnedAway(`${protocol}-down`, row, /cannot be connected: ECONNREFUSED/u));
      for (const [what, behaviour, why] of [
        ['that accepts and never greets', () => undefined, /within \d+ ms/u],
        ['that greets with a refusal', canned(full), /too busy|turns us away|refus/iu],
        ['that hangs up at once', leave, /closed|broke/u],
        ['that says what is no greeting', canned('SSH-2.0-OpenSSH\r\n'), /./u],
      ] as const) {
        it(what, async () => {
          backend().talk = behaviour;
          backend().forget();
          await forgotten();
          await turnedAway(protocol, row, why);
        });
      }
      it('that is back again serves', async () => {
        const client = await startTls(at(protocol, protocol), pool);
        await client.ask('NOOP\r\n', /\r\n$/u);
        await client.finish();
      });
      it('that dies between the request for TLS and the handshake', async () => {
        const plain = await goneAhead(protocol, protocol);
        backend().talk = die;
        await turnedAwayUnderTls(protocol, row, plain, /closed|broke|lost|ECONNRESET/u);
      });
      it('that is mute behind the handshake', async () => {
        const plain = await goneAhead(protocol, protocol);
        backend().talk = () => undefined;
        await turnedAwayUnderTls(protocol, row, plain, /within \d+ ms/u);
      });
      it('that refuses behind the handshake', async () => {
        const plain = await goneAhead(protocol, protocol);
        backend().talk = canned(full);
        await turnedAwayUnderTls(protocol, row, plain, /./u);
      });
      it('that is down, where nothing is learnt from it', async () => {
        await turnedAwayUnderTls(`${protocol}-unlearnt`, row, await goneAhead(`${protocol}-unlearnt`, protocol), /ECONNREFUSED/u);
      });
    });
  }

  describe('other ways to a backend', () => {
    const [imap] = rows as [Row];
    it('fd: nobody listens', async () => { await turnedAwayUnderTls('fd-missing', imap, await goneAhead('fd-missing', 'imap'), /cannot be connected: .*ENOENT/u); });
    it('fd: accepted by nobody, or never taken', async () => {
      const listener = sockets.unixListen({ path: path.join(folder, 'fd'), kind: 'seqpacket' });
      try {
        await turnedAwayUnderTls('fd', imap, await goneAhead('fd', 'imap'), /within \d+ ms/u);
      } finally {
        for (let fd = sockets.accept(listener); fd !== null; fd = sockets.accept(listener)) sockets.close(fd);
        sockets.close(listener);
      }
    });
    it('fd: a backend that cannot be asked about the name refuses it, and the log says that it is the backend', async () => {
      const plain = await goneAhead('fd-asked', 'imap');
      await assert.rejects(plain.secure(pool), /unrecognized name/u);
      const { ended, code, servername } = await proxy.record('fd-asked');
      assert.deepEqual([ended, code, servername], ['refused', 'BACKEND_FAILED', 'localhost']);
    });
    it('exec: a program that ends at once ends the connection, and the log has its exit code', async () => {
      const client = await startTls(at('exec', 'imap'), pool);
      await client.over();
      assert.deepEqual([client.state, client.text], ['end', '']);
      await client.finish();
      await proxy.record('exec');
      assert.match(String((await proxy.said('program'))['line']), /ended with code 3$/u);
    });
  });
});
