/** starttls() with a preamble: one call on each side, through a real pool, for every protocol of the registry. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import tls from 'node:tls';
import { connectPool, preambleNames, TlsPoolError } from 'libtlspool';
import type { Pool, PoolSocket, PreambleName, StartTlsOptions } from 'libtlspool';
import { preambles } from 'libtlspool/preamble';
import { event, expectBaseline, startPool, until, within } from '../support/index.js';
import type { Baseline, TestPool } from '../support/index.js';
import { descriptors } from '../support/process-info.js';

const code = (wanted: string) => (error: unknown): true => {
  assert(error instanceof TlsPoolError, String(error));
  assert.equal(error.code, wanted, error.message);
  return true;
};
const bothRoles = preambleNames.filter((name) => preambles[name].server !== undefined);

describe('libtlspool with a pool: starttls with a preamble', () => {
  let daemon: TestPool;
  let pool: Pool;
  let baseline: Baseline;
  let server: net.Server;
  let before_: number;
  before(async () => {
    daemon = await startPool({ identities: [{ localid: 'localhost', default: true }, { localid: 'client.example', usage: 'clientAuth', trust: true }] });
  });
  after(() => daemon.stop());
  beforeEach(async () => {
    before_ = descriptors(process.pid).size;
    baseline = daemon.baseline();
    pool = await connectPool({ path: daemon.socket });
    server = net.createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
  });
  afterEach(async () => {
    server.close();
    pool.close();
    await expectBaseline(daemon, baseline);
    await until(() => descriptors(process.pid).size <= before_, { what: 'descriptors to be back at the baseline' });
  });

  const port = (): number => (server.address() as net.AddressInfo).port;
  /** What becomes of the next connection. */
  const serve = (preamble: PreambleName, more: Partial<StartTlsOptions> = {}): Promise<PoolSocket> => {
    const upgraded = new Promise<PoolSocket>((resolve, reject) => {
      server.once('connection', (socket) => { pool.starttls(socket, { role: 'server', preamble, ...more }).then(resolve, reject); });
    });
    upgraded.catch(() => undefined);
    return within(upgraded, 'the server');
  };
  const ask = async (preamble: PreambleName, more: Partial<StartTlsOptions> = {}, to = port()): Promise<PoolSocket> => {
    const socket = net.connect(to, '127.0.0.1');
    const upgraded = new Promise<PoolSocket>((resolve, reject) => {
      socket.once('error', reject);
      socket.once('connect', () => { pool.starttls(socket, { role: 'client', preamble, remoteid: 'localhost', localid: 'client.example', ...more }).then(resolve, reject); });
    });
    return within(upgraded, 'the client');
  };
  /** Octets both ways, and an orderly end. */
  const exchange = async (ours: PoolSocket, theirs: net.Socket): Promise<void> => {
    for (const [from, to] of [[ours, theirs], [theirs, ours]] as const) {
      const came = once(to, 'data') as Promise<[Buffer]>;
      from.write('protected');
      assert.equal((await within(came, 'data'))[0].toString(), 'protected');
    }
    theirs.resume();
    const closed = Promise.all([event(ours, 'close'), event(theirs, 'close')]);
    theirs.end();
    await closed;
  };

  it('there is something to test', () => { assert(bothRoles.length >= 10, bothRoles.join()); });

  for (const preamble of bothRoles) {
    it(`${preamble}: server and client role understand each other, and what follows is protected`, async () => {
      const accepted = serve(preamble);
      const client = await ask(preamble);
      const socket = await accepted;
      assert.deepEqual([socket.encrypted, client.encrypted, client.authorized], [true, true, true]);
      for (const end of [socket, client]) {
        const { state, ...said } = end.preamble ?? assert.fail('no preamble');
        assert.deepEqual(said, { protocol: preamble, tls: true });
        assert.equal(state !== undefined, preamble === 'mysql');
      }
      await exchange(socket, client);
    });
  }

  it('connect() takes a preamble as well', async () => {
    const accepted = serve('imap');
    const client = await pool.connect({ host: 'localhost', port: port(), family: 4, preamble: 'imap', localid: 'client.example' });
    await exchange(await accepted, client);
  });

  it('postgres: TLS at once needs its application protocol', async () => {
    const direct = async (ALPNProtocols: string[]): Promise<tls.TLSSocket> => {
      const socket = tls.connect({ port: port(), host: '127.0.0.1', servername: 'localhost', ca: fs.readFileSync(daemon.caFile), ALPNProtocols });
      socket.on('error', () => undefined);
      return socket;
    };
    const accepted = serve('postgres');
    const client = await direct(['postgresql']);
    const socket = await accepted;
    assert.equal(socket.alpnProtocol, 'postgresql');
    await exchange(socket, client);
    const refused = serve('postgres');
    const other = await direct([]);
    other.resume();
    await assert.rejects(refused, code('HANDSHAKE_FAILED'));
    await until(() => other.destroyed, { what: 'the client to be turned away' });
    const wrong = serve('postgres');
    (await direct(['http/1.1'])).resume();
    await assert.rejects(wrong, code('HANDSHAKE_FAILED'));
  });

  it('commands behind STARTTLS never come out as protected: EARLY_OCTETS, and the client is told', async () => {
    const accepted = serve('smtp', { hostname: 'mail.example.org' });
    const client = net.connect(port(), '127.0.0.1');
    let heard = '';
    client.on('data', (chunk: Buffer) => { heard += chunk.toString(); });
    client.write('EHLO c\r\nSTARTTLS\r\nMAIL FROM:<mallory@example.net>\r\n');
    await assert.rejects(accepted, code('EARLY_OCTETS'));
    await event(client, 'end');
    assert.match(heard, /^220 mail\.example\.org ESMTP ready\r\n250-.*\r\n250-.*\r\n250 STARTTLS\r\n554 5\.7\.0 mail\.example\.org commands behind STARTTLS\r\n$/u);
    client.destroy();
  });

  it('a client that breaks off behind the go-ahead is PEER_CLOSED, and leaves nothing behind', async () => {
    const accepted = serve('imap');
    const client = net.connect(port(), '127.0.0.1');
    client.write('a STARTTLS\r\n');
    await until(() => client.bytesRead > 50, { what: 'the go-ahead' });
    client.destroy();
    await assert.rejects(accepted, code('PEER_CLOSED'));
  });

  describe('through a proxy', () => {
    /** A proxy that answers with this and then copies octets. */
    const proxy = async (answers: readonly (readonly [wants: number, says: Buffer])[]): Promise<{ at: net.Server; asked: () => Buffer }> => {
      let asked = Buffer.alloc(0);
      const at = net.createServer({ allowHalfOpen: true }, (client) => {
        client.on('error', () => undefined);
        let step = 0;
        client.on('data', function heard(chunk: Buffer) {
          asked = Buffer.concat([asked, chunk]);
          for (let next = answers[step]; next !== undefined && asked.length >= next[0]; next = answers[++step]) client.write(next[1]);
          if (step < answers.length) return;
          client.off('data', heard);
          const onward = net.connect({ port: port(), host: '127.0.0.1', allowHalfOpen: true });
          onward.on('error', () => undefined);
          client.pipe(onward).pipe(client);
        });
      }).listen(0, '127.0.0.1');
      await once(at, 'listening');
      return { at, asked: () => asked };
    };
    const connectRequest = 'CONNECT imap.example.org:143 HTTP/1.1\r\nHost: imap.example.org:143\r\n\r\n';

    it('HTTP CONNECT and SOCKS 5 come first, then the preamble', async () => {
      const ways = [
        ['http-connect', connectRequest, [[connectRequest.length, Buffer.from('HTTP/1.1 200 OK\r\n\r\n')]]],
        ['socks5', '\x05\x01\0\x05\x01\0\x03\x10imap.example.org\0\x8f', [[3, Buffer.from([5, 0])], [26, Buffer.from('05000001000000000000', 'hex')]]],
      ] as const;
      for (const [name, request, answers] of ways) {
        const { at, asked } = await proxy(answers);
        const accepted = serve('imap');
        const client = await ask('imap', { via: { proxy: name, host: 'imap.example.org', port: 143 } }, (at.address() as net.AddressInfo).port);
        assert.equal(asked().toString('latin1'), request);
        await exchange(await accepted, client);
        at.close();
      }
    });

    it('without a preamble TLS begins behind the proxy\'s answer; a proxy that refuses is PREAMBLE_REFUSED', async () => {
      const request = 'CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n';
      const { at } = await proxy([[request.length, Buffer.from('HTTP/1.1 200 OK\r\n\r\n')]]);
      const accepted = serve('none');
      const socket = net.connect((at.address() as net.AddressInfo).port, '127.0.0.1');
      await once(socket, 'connect');
      const client = await pool.starttls(socket, { role: 'client', remoteid: 'localhost', localid: 'client.example', via: { proxy: 'http-connect', port: 443 } });
      await exchange(await accepted, client);
      at.close();
      const no = await proxy([[request.length, Buffer.from('HTTP/1.1 403 Forbidden\r\n\r\n')]]);
      await assert.rejects(ask('imap', { via: { proxy: 'http-connect', port: 443 } }, (no.at.address() as net.AddressInfo).port), code('PREAMBLE_REFUSED'));
      no.at.close();
    });
  });
});
