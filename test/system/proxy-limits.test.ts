/** Who is turned away, and that nobody stands in the way of the others. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { listenForHandoff } from 'libtlspool';
import type { HandoffListener } from 'libtlspool';
import { PlainClient, startPool, startTls, tempFolder, TestProxy, ToyBackend, toyMail, until } from '../support/index.js';
import type { ProxyBaseline, TestPool } from '../support/index.js';

const full = /^421 4\.7\.0 .* too many connections/u;

describe('proxy: limits', function () {
  this.timeout(30_000);
  let pool: TestPool;
  let backend: ToyBackend;
  let listener: HandoffListener;
  const file = path.join(tempFolder(), 'h.sock');
  let proxy: TestProxy;
  let before_: ProxyBaseline;
  const open: PlainClient[] = [];
  const preambleMs = 700;

  before(async () => {
    pool = await startPool();
    backend = await ToyBackend.listen(toyMail('EHLO'));
    listener = await listenForHandoff({ path: file, reattach: false, onServername: () => true });
    (async () => { for await (const socket of listener) socket.on('error', () => undefined).pipe(socket); })().catch(() => undefined);
    const to = { connect: backend.address };
    proxy = await TestProxy.start(pool, [
      { name: 'address', protocol: 'smtp', perAddress: 3, proxyFrom: ['127.0.0.0/8'], backend: to },
      { name: 'service', protocol: 'smtp', connections: 4, backend: to },
      { name: 'slow', protocol: 'smtp', preambleMs, backend: to },
      { name: 'wide', protocol: 'smtp', perAddress: 1000, backend: to },
    ], { config: { connections: 510 } });
  });
  after(async () => {
    await proxy.stop();
    await listener.close();
    await backend.close();
    await pool.stop();
  });
  beforeEach(() => { before_ = proxy.baseline(); });
  afterEach(async () => {
    for (const client of open.splice(0)) client.close();
    await proxy.expectBaseline(before_);
  });

  const connect = async (name: string): Promise<PlainClient> => {
    const client = await PlainClient.connect(proxy.port(name), proxy.host(name));
    open.push(client);
    return client;
  };
  const from = async (address: string): Promise<PlainClient> => {
    const client = await connect('address');
    client.say(address.includes(':') ? `PROXY TCP6 ${address} ::1 1000 25\r\n` : `PROXY TCP4 ${address} 192.0.2.1 1000 25\r\n`);
    return client;
  };
  const greeted = (client: PlainClient): Promise<void> => client.hears(/^220 /u);
  async function turnedAway(client: PlainClient): Promise<void> {
    await client.ended();
    assert.match(client.text, full);
    assert.equal(client.ending, 'fin');
  }

  it('of one address: one less is served, one over is told and logged; the next is served when one has left', async () => {
    for (let count = 0; count < 3; count++) await greeted(await from('203.0.113.1'));
    await turnedAway(await from('203.0.113.1'));
    await until(() => proxy.connections().some(({ service, code, ended, peer }) => service === 'address' && code === 'LIMIT_CLIENTS' && ended === 'refused' && peer === '203.0.113.1:1000'), { what: 'the log' });
    await greeted(await from('203.0.113.2'));
    const before = proxy.connections().length;
    open[0]!.close();
    await until(() => proxy.connections().length > before, { what: 'the first to leave' });
    await greeted(await from('203.0.113.1'));
  });
  it('of one address: an IPv6 client is its /64', async () => {
    for (const last of ['1', '2', 'ffff:1']) await greeted(await from(`2001:db8::${last}`));
    await turnedAway(await from('2001:db8::9'));
    await greeted(await from('2001:db8:0:1::9'));
  });
  it('of a service: other services are served all the same', async () => {
    for (let count = 0; count < 4; count++) await greeted(await connect('service'));
    await turnedAway(await connect('service'));
    await greeted(await connect('wide'));
  });
  it('a session under TLS keeps its place to its end', async () => {
    const sessions = await Promise.all([1, 2, 3, 4].map(() => startTls({ port: proxy.port('service'), host: proxy.host('service'), protocol: 'smtp' }, pool)));
    for (const session of sessions) await session.ask('EHLO c\r\n', /^250 /mu);
    await turnedAway(await connect('service'));
    const { localPort } = sessions[0]!.socket;
    await sessions[0]!.finish();
    await proxy.recordOf('service', localPort);
    await greeted(await connect('service'));
    for (const session of sessions.slice(1)) await session.finish();
  });

  it('an octet now and then does not prolong the plain-text part', async () => {
    const began = performance.now();
    const client = await connect('slow');
    const { localPort } = client.socket;
    await greeted(client);
    const dripping = setInterval(() => client.say('N'), 50);
    await client.ended();
    clearInterval(dripping);
    const took = performance.now() - began;
    assert(took >= preambleMs - 100 && took < preambleMs + 3000, `${took} ms`);
    assert.match(client.text, /^421 4\.4\.2 /mu);
    assert.equal((await proxy.recordOf('slow', localPort)).code, 'TIMEOUT');
  });
  it('a client that is quick enough is served under the same deadline, and longer than that once it has TLS', async () => {
    const client = await startTls({ port: proxy.port('slow'), host: proxy.host('slow'), protocol: 'smtp' }, pool);
    const end = performance.now() + preambleMs + 200;
    await until(() => performance.now() > end, { what: 'the deadline to pass' });
    await client.ask('EHLO c\r\n', /^250 /mu);
    await client.finish();
  });

  it('500 clients that say nothing do not stop others, up to the limit of all together', async () => {
    for (let batch = 0; batch < 10; batch++) await Promise.all((await Promise.all(Array.from({ length: 50 }, () => connect('wide')))).map(greeted));
    const client = await startTls({ port: proxy.port('service'), host: proxy.host('service'), protocol: 'smtp' }, pool);
    await client.ask('EHLO c\r\n', /^250 /mu);
    const more = await Promise.all(Array.from({ length: 9 }, () => connect('wide')));
    await Promise.all(more.map(greeted));
    await turnedAway(await connect('wide'));
    await client.finish();
  });

  it('every way to a backend that runs out of descriptors, at whatever step, gives back those that it had, and serves again', async () => {
    const backends = { connect: { connect: backend.address }, exec: { exec: ['/bin/cat'] }, relay: { fd: file, relay: true }, fd: { fd: file, checkServername: true } };
    const other = await TestProxy.start(pool, Object.entries(backends).map(([name, to_]) => ({ name, protocol: 'smtp', backendMs: 500, backend: to_ })));
    /** Is there a backend that answers? */
    const attempt = async (name: string): Promise<boolean> => {
      const plain = await PlainClient.connect(other.port(name), other.host(name));
      const turnedAway = plain.ended().then(() => { throw new Error('turned away'); });
      try {
        await Promise.race([plain.askForTls('smtp'), turnedAway]);
        const client = await plain.secure(pool);
        client.say('EHLO c\r\n');
        await until(() => client.text !== '' || client.state !== 'open', { what: 'an answer' });
        return /^(?:250|EHLO)/u.test(client.text);
      } catch {
        return false;
      } finally {
        plain.close();
        await turnedAway.catch(() => undefined);
      }
    };
    const limit = (most: number): void => { execFileSync('prlimit', [`--pid=${other.pid}`, `--nofile=${most}:`]); };
    for (const name of Object.keys(backends)) assert.equal(await attempt(name), true, name);
    await other.settled();
    const before = other.baseline();
    for (const name of Object.keys(backends)) {
      const count = (): number => other.connections().filter(({ service, code }) => service === name && code !== undefined).length;
      for (let spare = 0; spare < 12; spare++) {
        const seen = other.log().length;
        limit(before.proxy.length + spare);
        const tried = attempt(name);
        await until(() => other.log().slice(seen).some(({ msg }) => msg === (spare === 0 ? 'cannot accept for the moment' : 'connection')), { what: `an outcome of ${name} with ${spare}` });
        limit(4096);
        await tried;
        await other.expectBaseline(before);
      }
      assert(count() > 1, `${name} ran out of descriptors ${count()} times`);
      await until(() => attempt(name), { what: `${name} to serve again` });
      await other.expectBaseline(before);
    }
    await other.stop();
  });

  // A connection takes two at once, so the last one is missing for the first or for the second of them.
  for (const spare of [30, 31]) it(`with ${spare} descriptors left the proxy says when it has no more, leaves clients waiting or tells them, and serves when it has some again`, async () => {
    const fds = proxy.baseline().proxy.length;
    const said = proxy.log().length;
    execFileSync('prlimit', [`--pid=${proxy.pid}`, `--nofile=${fds + spare}:`]);
    const clients = await Promise.all(Array.from({ length: 60 }, () => connect('wide')));
    await proxy.said('cannot accept for the moment', 10_000, said);
    const served = (): PlainClient[] => clients.filter(({ text }) => text !== '');
    await until(() => served().length > 0, { what: 'some to be served' });
    execFileSync('prlimit', [`--pid=${proxy.pid}`, '--nofile=4096:']);
    await until(() => served().length === clients.length, { what: 'all to be served or told', context: () => clients.map(({ text, ending }) => `${text.slice(0, 3)} ${ending}`).join(', ') + proxy.program.tail() });
    assert(clients.filter(({ text }) => text.startsWith('220 ')).length >= 30);
    const client = await startTls({ port: proxy.port('wide'), host: proxy.host('wide'), protocol: 'smtp' }, pool);
    await client.ask('EHLO c\r\n', /^250 /mu);
    await client.finish();
  });
});
