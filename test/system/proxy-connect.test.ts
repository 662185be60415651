/** Plain-text backends behind the proxy: what clients see before TLS, what the backend sees behind it, and what the log says. */
import assert from 'node:assert/strict';
import { canned, PlainClient, startPool, startTls, TestProxy, ToyBackend, toyImap, toyMail, toyPop3 } from '../support/index.js';
import type { Talk, TestPool } from '../support/index.js';

/** A plain-text protocol, as a test speaks it. */
interface Spoken {
  readonly protocol: string;
  readonly talk: Talk;
  /** What shows the capabilities before TLS, and the end of the answer. */
  readonly list: readonly [string, RegExp];
  readonly shown: readonly RegExp[];
  readonly withheld: RegExp;
  /** A command that must not be carried out before TLS. */
  readonly early: readonly [string, RegExp];
  /** Behind TLS: a command that fails in any state but the first, or works in the first only. */
  readonly first: readonly [string, RegExp];
  readonly quit: readonly [string, RegExp];
}

const mail = (protocol: string, hello: 'EHLO' | 'LHLO'): Spoken => ({
  protocol, talk: toyMail(hello), list: [`${hello} c.example\r\n`, /^250 .*\r\n/mu], shown: [/^250.SIZE 1000\r$/mu, /^250.CHUNKING\r$/mu, /^250.STARTTLS\r$/mu], withheld: /AUTH/u,
  early: ['MAIL FROM:<a@b.example>\r\n', /^530 5\.7\.0 /mu], first: ['MAIL FROM:<a@b.example>\r\n', /^503 5\.5\.1 hello first/mu], quit: ['QUIT\r\n', /^221 /mu],
});

const spoken: readonly Spoken[] = [
  {
    protocol: 'imap', talk: toyImap, list: ['a CAPABILITY\r\n', /^a OK/mu], shown: [/^\* OK .*Toy IMAP ready\r$/mu, /^\* CAPABILITY .*\bIDLE\b/mu, /^\* CAPABILITY .*\bSTARTTLS\b.*\bLOGINDISABLED\b/mu], withheld: /AUTH|SASL/u,
    early: ['x LOGIN joe secret\r\n', /^x NO \[PRIVACYREQUIRED\]/mu], first: ['y SELECT INBOX\r\n', /^y BAD log in first/mu], quit: ['z LOGOUT\r\n', /^z OK/mu],
  },
  mail('smtp', 'EHLO'), mail('submission', 'EHLO'), mail('lmtp', 'LHLO'),
  {
    protocol: 'pop3', talk: toyPop3, list: ['CAPA\r\n', /^\.\r\n/mu], shown: [/^\+OK Toy ready\.?\r$/mu, /^TOP\r$/mu, /^STLS\r$/mu], withheld: /USER|SASL|</u,
    early: ['USER joe\r\n', /^-ERR \[AUTH\]/mu], first: ['NOOP\r\n', /^\+OK NOOP/mu], quit: ['QUIT\r\n', /^\+OK bye/mu],
  },
];

describe('proxy: plain-text backends (connect)', function () {
  this.timeout(30_000);
  let pool: TestPool;
  let proxy: TestProxy;
  const backends = new Map<string, ToyBackend>();
  const rows = spoken.flatMap((row) => (['tcp', 'unix'] as const).map((kind) => ({ ...row, kind, name: `${row.protocol}-${kind}` })));

  before(async () => {
    pool = await startPool({ identities: [{ localid: 'localhost', default: true }, { localid: 'old', policy: 'intermediate' }] });
    for (const { name, talk, kind } of rows) backends.set(name, await ToyBackend.listen(talk, kind));
    proxy = await TestProxy.start(pool, [
      ...rows.map(({ name, protocol }) => ({ name, protocol, hostname: 'mail.example.org', backend: { connect: backends.get(name)!.address } })),
      { name: 'old', protocol: 'imap', localid: 'old', backend: { connect: backends.get('imap-tcp')!.address } },
    ]);
  });
  after(async () => {
    await proxy.stop();
    for (const backend of backends.values()) await backend.close();
    await pool.stop();
  });

  for (const row of rows) {
    it(`${row.protocol} over ${row.kind}: STARTTLS is shown and authentication is not; behind TLS the backend is in its first state; the log has it all`, async () => {
      const before = proxy.baseline();
      const backend = backends.get(row.name)!;
      const plain = await PlainClient.connect(proxy.port(row.name), proxy.host(row.name));
      await plain.ask(...row.list);
      for (const shown of row.shown) assert.match(plain.text, shown);
      assert.doesNotMatch(plain.text, row.withheld);
      await plain.ask(...row.early);
      await plain.askForTls(row.protocol);
      const client = await plain.secure(pool);
      const answer = await client.ask(...row.first);
      assert.match(answer, new RegExp(`^${row.first[1].source}`, 'u'), 'the greeting of the backend is not shown again');
      await client.ask(...row.quit);
      await client.over();
      assert.equal(client.state, 'end');
      await client.finish();
      const told = await backend.connection(2);
      assert.equal(told.text, row.first[0] + row.quit[0], 'what was said before TLS has not reached it');
      assert.doesNotMatch(backend.connections[0]!.text, /joe|MAIL/u);
      const record = await proxy.record(row.name);
      const { durationMs, octetsIn, octetsOut, ...rest } = record;
      assert.deepEqual(rest, {
        ...rest, service: row.name, listener: `${proxy.host(row.name)}:0`, peer: `127.0.0.1:${plainPort(record.peer)}`, servername: 'localhost', localid: 'localhost', protocol: 'TLSv1.3', resumed: false,
        authorized: false, backend: backend.address.replace(/^unix:/u, ''), ended: 'closed',
      });
      assert.match(String(rest.cipher), /^TLS_/u);
      assert.deepEqual([octetsIn, octetsOut], [told.received.length, client.received.length]);
      assert(durationMs >= 0 && durationMs < 10_000);
      assert.equal(rest.code, undefined);
      await proxy.expectBaseline(before);
    });
  }

  it('a backend is asked what it can do once a second at most, however many clients come', async () => {
    const backend = backends.get('pop3-tcp')!;
    backend.forget();
    const clients = await Promise.all(Array.from({ length: 20 }, () => PlainClient.connect(proxy.port('pop3-tcp'), proxy.host('pop3-tcp'))));
    for (const client of clients) await client.ask('CAPA\r\n', /^\.\r\n/mu);
    assert(backend.connections.length <= 3, `${backend.connections.length} connections`);
    for (const client of clients) client.close();
  });

  it('a client that says goodbye before TLS is answered, and the log says that it left', async () => {
    const { port, host } = { port: proxy.port('smtp-tcp'), host: proxy.host('smtp-tcp') };
    const count = proxy.connections().filter(({ service }) => service === 'smtp-tcp').length;
    const client = await PlainClient.connect(port, host);
    await client.ask('QUIT\r\n', /^221 /mu);
    await client.ended();
    const { ended, code, protocol } = await proxy.record('smtp-tcp', count + 1);
    assert.deepEqual([ended, code, protocol], ['left', undefined, undefined]);
  });

  it('xmpp: where TLS is required nobody asks the backend, of which nothing would be shown; where it is optional its features are', async () => {
    const features = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms></stream:features>";
    const header = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='im.example' version='1.0'>";
    const xmpp = await ToyBackend.listen(canned(`${header}${features}`));
    const chat = await TestProxy.start(pool, ['required', 'optional'].map((tls) => ({ name: tls, protocol: 'xmpp-client', tls, backend: { connect: xmpp.address } })));
    for (const [tls, count] of [['required', 0], ['optional', 1]] as const) {
      const client = await PlainClient.connect(chat.port(tls), chat.host(tls));
      await client.ask(header, /<\/stream:features>/u);
      assert.equal(/PLAIN/u.test(client.text), tls === 'optional');
      assert.equal(xmpp.connections.length, count);
      client.close();
    }
    await chat.stop();
    await xmpp.close();
  });

  it('the log says which version of TLS it was, and that a client without close_notify was cut off', async () => {
    const client = await startTls({ port: proxy.port('old'), host: proxy.host('old'), protocol: 'imap' }, { caFile: pool.caFile, servername: 'old', maxVersion: 'TLSv1.2' });
    await client.ask('a NOOP\r\n', /^a OK/mu);
    client.close();
    const { protocol, ended } = await proxy.record('old');
    assert.deepEqual([protocol, ended], ['TLSv1.2', 'truncated']);
  });
});

const plainPort = (peer: string | undefined): string => /:(\d+)$/u.exec(peer ?? '')?.[1] ?? 'none';
