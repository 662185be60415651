import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http2 from 'node:http2';
import path from 'node:path';
import type { TLSSocket } from 'node:tls';
import { curl, event, expectBaseline, issue, nodeGet, serve, startPool, tempFolder, within } from '../support/index.js';
import type { Baseline, Served, Target, TestLeaf, TestPool } from '../support/index.js';

interface Answer { readonly status: number; readonly body: Buffer }

function ask(session: http2.ClientHttp2Session, headers: http2.OutgoingHttpHeaders, body?: Buffer): Promise<Answer> {
  return within(new Promise((resolve, reject) => {
    const stream = session.request(headers);
    const chunks: Buffer[] = [];
    let status = 0;
    stream.on('response', (response) => { status = Number(response[':status']); });
    stream.on('data', (chunk: Buffer) => { chunks.push(chunk); });
    stream.on('end', () => { resolve({ status, body: Buffer.concat(chunks) }); });
    stream.on('error', reject);
    stream.end(body);
  }), 'an HTTP/2 answer');
}

describe('an http2 server behind the pool', function () {
  this.timeout(30_000);
  let pool: TestPool;
  let baseline: Baseline;
  let served: Served;
  let target: Target;
  let client: TestLeaf;

  before(async () => {
    pool = await startPool({ identities: [{ localid: 'localhost', policy: 'intermediate', default: true, trust: true }] });
    client = await issue(pool.ca, path.join(tempFolder(), 'client'), { commonName: 'bob', sans: ['email:bob@example.org'], usage: 'clientAuth' });
    baseline = pool.baseline();
    const server = http2.createServer((req, res) => {
      const socket = req.socket as TLSSocket;
      if (req.url === '/who') {
        res.end(JSON.stringify({
          version: req.httpVersion, alpn: socket.alpnProtocol, encrypted: socket.encrypted, address: socket.remoteAddress, subject: socket.getPeerCertificate().subject?.CN,
        }));
        return;
      }
      const hash = createHash('sha256');
      req.on('data', (chunk: Buffer) => { hash.update(chunk); });
      req.on('end', () => { res.end(hash.digest('hex')); });
    });
    served = await serve(pool, server, { clientAuth: 'request' });
    target = { port: served.port, caFile: pool.caFile };
  });

  after(async () => {
    await served.close();
    await expectBaseline(pool, baseline);
    await pool.stop();
  });

  async function session(withCertificate = false): Promise<http2.ClientHttp2Session> {
    const connected = http2.connect(`https://localhost:${String(served.port)}`, {
      ca: readFileSync(pool.caFile), host: '127.0.0.1', servername: 'localhost',
      ...(withCertificate ? { cert: readFileSync(client.certFile), key: readFileSync(client.keyFile) } : {}),
    });
    await event(connected, 'connect');
    return connected;
  }

  const close = async (open: http2.ClientHttp2Session): Promise<void> => {
    const closed = event(open, 'close');
    open.close();
    await closed;
  };

  it('a client that offers h2 gets HTTP/2, with its address and certificate', async () => {
    const open = await session(true);
    const { status, body } = await ask(open, { ':path': '/who' });
    assert.equal(status, 200);
    assert.deepEqual(JSON.parse(body.toString()), { version: '2.0', alpn: 'h2', encrypted: true, address: '127.0.0.1', subject: 'bob' });
    await close(open);
  });

  it('a client that offers only http/1.1 gets HTTP/1.1 from the same server', async () => {
    const { body } = await nodeGet({ ...target, client }, '/who', { ALPNProtocols: ['http/1.1'] });
    assert.deepEqual(JSON.parse(body), { version: '1.1', alpn: 'http/1.1', encrypted: true, address: '127.0.0.1', subject: 'bob' });
  });

  it('a client that offers only another protocol is refused with no_application_protocol', async () => {
    await assert.rejects(nodeGet(target, '/who', { ALPNProtocols: ['imap'] }), /no application protocol/u);
  });

  it('curl speaks HTTP/2 and HTTP/1.1 with it', async () => {
    for (const [option, version] of [['--http2', '2.0'], ['--http1.1', '1.1']] as const) {
      const { stdout } = await curl(target, '/who', [option]);
      assert.equal((JSON.parse(stdout) as { version: string }).version, version);
    }
  });

  it('100 streams at a time on one connection each get their own answer', async () => {
    const open = await session();
    const bodies = Array.from({ length: 100 }, (_unused, index) => randomBytes(1 + index * 700));
    const answers = await Promise.all(bodies.map((body) => ask(open, { ':path': '/hash', ':method': 'POST' }, body)));
    assert.deepEqual(answers.map(({ body }) => body.toString()), bodies.map((body) => createHash('sha256').update(body).digest('hex')));
    await close(open);
  });
});
