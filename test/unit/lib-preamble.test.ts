/** starttls() with a preamble, against a pool that only notes what it gets: what is said, when nobody may be handed over, and how it fails. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { connectPool, preambleNames } from 'libtlspool';
import type { Pool, StartTlsOptions } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import { preambles } from 'libtlspool/preamble';
import { event, repoRoot, until } from '../support/index.js';
import { FakePool, key, sessionInfo } from './lib-fake-pool.js';

const code = (wanted: string) => (error: unknown): true => {
  assert(error instanceof TlsPoolError, String(error));
  assert.equal(error.code, wanted, error.message);
  return true;
};
const server = { role: 'server', preamble: 'smtp', hostname: 'mail.example.org' } as const satisfies StartTlsOptions;
const client = { role: 'client', preamble: 'smtp', hostname: 'c.example.org', remoteid: 'mail.example.org' } as const satisfies StartTlsOptions;
const greeting = '220 mail.example.org ESMTP ready\r\n';

describe('libtlspool: starttls with a preamble', () => {
  let fake: FakePool;
  let pool: Pool;
  let listening: net.Server;
  let requests: object[];
  beforeEach(async () => {
    requests = [];
    fake = new FakePool().start();
    fake.handlers.starttls = ({ client: pooled, message, fds }) => {
      requests.push(message.body);
      fake.owned.push(sockets.dup(fds[0] as OwnedFd));
      const [ours, theirs] = sockets.socketpair('stream');
      fake.owned.push(ours);
      pooled.send({ type: 'reply', op: 'starttls', id: message.id, body: { ctlkey: key(1), info: sessionInfo } }, [theirs]);
      sockets.close(theirs);
      return undefined;
    };
    pool = await connectPool({ path: fake.path });
    listening = net.createServer().listen(0, '127.0.0.1');
    await once(listening, 'listening');
  });
  afterEach(async () => {
    pool.close();
    listening.close();
    await fake.end();
  });

  interface Peer { readonly socket: net.Socket; heard(): string; hears(text: string | RegExp): Promise<void> }
  /** A peer that notes what it hears, and the end that is upgraded. */
  const pair = async (): Promise<{ peer: Peer; socket: net.Socket }> => {
    const accepted = once(listening, 'connection') as Promise<[net.Socket]>;
    const peer = net.connect((listening.address() as net.AddressInfo).port, '127.0.0.1');
    peer.on('error', () => undefined);
    let heard = '';
    peer.on('data', (chunk: Buffer) => { heard += chunk.toString('latin1'); });
    const [socket] = await accepted;
    const hears = async (text: string | RegExp): Promise<void> => { await until(() => typeof text === 'string' ? heard.endsWith(text) : text.test(heard), { what: String(text), context: () => heard }); };
    return { peer: { socket: peer, heard: () => heard, hears }, socket };
  };

  it('the server speaks first, takes exactly the dialogue, and leaves the ClientHello for the pool', async () => {
    const { peer, socket } = await pair();
    const upgrading = pool.starttls(socket, { ...server, greeting: 'grüß Gott', capabilities: ['SIZE 1000', 'AUTH PLAIN'] });
    await peer.hears(`220 ${Buffer.from('grüß Gott').toString('latin1')}\r\n`);
    peer.socket.write('EHLO c\r\n');
    await peer.hears('250-mail.example.org\r\n250-SIZE 1000\r\n250 STARTTLS\r\n');
    peer.socket.once('data', () => peer.socket.write('ClientHello'));
    peer.socket.write('STARTTLS\r\n');
    const plain = await upgrading;
    assert.match(peer.heard(), /\r\n220 2\.0\.0 .*\r\n$/u);
    assert.deepEqual(plain.preamble, { protocol: 'smtp', tls: true });
    assert.notEqual(sockets.pollWait(fake.owned[0] as OwnedFd, 1, 5000), 0);
    assert.equal(sockets.receive(fake.owned[0] as OwnedFd, 100, 0)?.data.toString(), 'ClientHello');
    assert.deepEqual(requests, [{ role: 'server' }]);
    plain.destroy();
    peer.socket.destroy();
  });

  it('the client asks for TLS, and goes no further than the go-ahead', async () => {
    const { peer, socket } = await pair();
    const upgrading = pool.starttls(socket, client);
    peer.socket.write(greeting);
    await peer.hears('EHLO c.example.org\r\n');
    peer.socket.write('250-mail.example.org\r\n250 STARTTLS\r\n');
    await peer.hears('STARTTLS\r\n');
    peer.socket.write('220 go\r\n');
    const plain = await upgrading;
    assert.deepEqual(requests, [{ role: 'client', remoteid: 'mail.example.org' }]);
    plain.destroy();
    peer.socket.destroy();
  });

  it('a descriptor does as well as a socket, and is closed on each path', async () => {
    const [ours, theirs] = sockets.socketpair('stream');
    sockets.send(theirs, Buffer.from('STARTTLS\r\n'));
    (await pool.starttls(ours, server)).destroy();
    const [left, right] = sockets.socketpair('stream');
    sockets.send(right, Buffer.from('QUIT\r\n'));
    await assert.rejects(pool.starttls(left, server), code('PREAMBLE_REFUSED'));
    sockets.close(theirs);
    sockets.close(right);
  });

  /** What the client hears last, and that the connection ends; the pool gets nothing. */
  const turnedAway = async (wanted: string, says: string, hears: RegExp, more: Partial<StartTlsOptions> = {}, act: () => void = () => undefined): Promise<void> => {
    const { peer, socket } = await pair();
    const closed = event(peer.socket, 'close');
    const upgrading = assert.rejects(pool.starttls(socket, { ...server, ...more }), code(wanted));
    await peer.hears(greeting);
    peer.socket.write(says);
    act();
    await upgrading;
    await closed;
    assert.match(peer.heard(), hears);
    assert.equal(fake.owned.length, 0);
  };

  it('a client that says goodbye is answered, and is PREAMBLE_REFUSED', () => turnedAway('PREAMBLE_REFUSED', 'QUIT\r\n', /\r\n221 .*\r\n$/u));
  it('a client that breaks the rules is told, and is PREAMBLE', () => turnedAway('PREAMBLE', '\x16\x03\x01\0\xa5', /\r\n554 5\.5\.0 .*\r\n$/u));
  it('a client that pipelines is told, and is EARLY_OCTETS', () => turnedAway('EARLY_OCTETS', 'STARTTLS\r\nRSET\r\n', /\r\n554 5\.7\.0 .*\r\n$/u));
  it('a client that is too slow is told, and is TIMEOUT', () => turnedAway('TIMEOUT', 'EHLO', /\r\n421 4\.4\.2 .*\r\n$/u, { preambleMs: 60 }));
  it('an abort ends the dialogue with the farewell, and is ABORTED', () => {
    const abort = new AbortController();
    return turnedAway('ABORTED', 'NOOP\r\n', /\r\n421 4\.3\.2 .*\r\n$/u, { signal: abort.signal }, () => abort.abort());
  });

  it('without a pool the client gets the refusal in place of the go-ahead, once', async () => {
    const { peer, socket } = await pair();
    const upgrading = assert.rejects(pool.starttls(socket, server), code('POOL_LOST'));
    await peer.hears(greeting);
    pool.close();
    peer.socket.write('STARTTLS\r\n');
    await upgrading;
    await event(peer.socket, 'close');
    assert.equal(peer.heard(), `${greeting}454 4.7.0 TLS is not available now, try again later\r\n`);
  });

  it('a client that goes is PEER_CLOSED, also between its request and the go-ahead', async () => {
    for (const says of ['EHLO', 'STARTTLS\r\n']) {
      const { peer, socket } = await pair();
      const arrived = event(socket, 'readable');
      socket.pause();
      (socket as unknown as { _handle: { readStop(): void } })._handle.readStop();
      arrived.catch(() => undefined);
      peer.socket.end(says);
      const fd = (socket as unknown as { _handle: { fd: number } })._handle.fd as OwnedFd;
      await until(() => (sockets.pollWait(fd, 8192, 0) & 8192) !== 0, { what: 'the end of the client' });
      await assert.rejects(pool.starttls(socket, server), code('PEER_CLOSED'));
      socket.emit('readable');
      peer.socket.destroy();
    }
    assert.equal(fake.owned.length, 0);
  });

  it('a server that adds something behind its go-ahead is EARLY_OCTETS, one without TLS PREAMBLE_REFUSED', async () => {
    for (const [says, wanted] of [['250-x\r\n250 STARTTLS\r\n220 go\r\n250 AUTH PLAIN\r\n', 'EARLY_OCTETS'], ['250 x\r\n', 'PREAMBLE_REFUSED']] as const) {
      const { peer, socket } = await pair();
      peer.socket.write(`${greeting}${says}`);
      await assert.rejects(pool.starttls(socket, client), code(wanted));
      peer.socket.destroy();
    }
    assert.equal(fake.owned.length, 0);
  });

  it('octets that were read before are EARLY_OCTETS with a preamble too', async () => {
    const { peer, socket } = await pair();
    peer.socket.write('EHLO c\r\n');
    await event(socket, 'readable');
    await assert.rejects(pool.starttls(socket, server), code('EARLY_OCTETS'));
    peer.socket.destroy();
  });

  it('the README of the library names every protocol', () => {
    const readme = readFileSync(path.join(repoRoot, 'libtlspool/README.md'), 'utf8');
    for (const name of preambleNames) assert(readme.includes(preambles[name].server === undefined ? `'${name}'` : `\`${name}\``), name);
  });

  it('options that do not go together are BAD_ARGUMENT with the name of the field, and nothing is said', async () => {
    const wrong: readonly (readonly [field: string, options: object])[] = [
      ['preamble', { ...server, preamble: 'gopher' }], ['preamble', { ...server, preamble: 'toString' }], ['preamble', { ...client, preamble: 'socks5' }],
      ['goAhead', { ...server, goAhead: '220 go\r\n' }], ['via', { ...server, via: { proxy: 'socks5', port: 25 } }], ['via.proxy', { ...client, via: { proxy: 'imap', port: 25 } }],
      ['remoteid', { role: 'client', preamble: 'smtp' }], ['hostname', { ...server, hostname: 'a b' }], ['hostname', { ...server, hostname: '' }], ['hostname', { ...client, hostname: 'a\r\nQUIT' }],
      ['greeting', { ...server, greeting: 'hi\r\n250 ok' }], ['capabilities', { ...server, capabilities: ['SIZE', 'X\nY'] }], ['deadlineMs', { ...server, preambleMs: 0 }],
    ];
    for (const [field, options] of wrong) {
      const { peer, socket } = await pair();
      await assert.rejects(pool.starttls(socket, options as StartTlsOptions), (error) => code('BAD_ARGUMENT')(error) && (error as TlsPoolError).field === field, `${field} ${JSON.stringify(options)}`);
      await event(peer.socket, 'close');
      assert.equal(peer.heard(), '');
    }
    assert.equal(fake.owned.length, 0);
  });
});
