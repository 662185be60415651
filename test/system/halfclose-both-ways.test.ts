import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import type { Duplex } from 'node:stream';
import type { PoolSocket } from 'libtlspool';
import { acceptLoop, expectBaseline, nodeConnect, startPool, until, within } from '../support/index.js';
import type { Baseline, Served, Target, TestPool } from '../support/index.js';

const octets = 8 * 1024 * 1024;
const sha256 = (data: Buffer): string => createHash('sha256').update(data).digest('hex');

/** Everything up to a clean end; rejects when the stream fails instead. */
function readAll(stream: Duplex): Promise<Buffer> {
  return within(new Promise<Buffer>((resolve, reject) => {
    const chunks: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => { chunks.push(chunk); });
    stream.once('end', () => { resolve(Buffer.concat(chunks)); });
    stream.once('error', reject);
  }), 'the end of the stream', 20_000);
}

describe('half-close', function () {
  this.timeout(40_000);
  let pool: TestPool;
  let baseline: Baseline;
  let served: Served;
  let target: Target;
  let accepted: PoolSocket[] = [];

  before(async () => {
    pool = await startPool({ identities: [{ localid: 'localhost', policy: 'intermediate', default: true }], config: { log: { level: 'warn' } } });
    baseline = pool.baseline();
    served = await acceptLoop(pool, (socket) => { accepted.push(socket); }, { allowHalfOpen: true });
    target = { port: served.port, caFile: pool.caFile };
  });

  beforeEach(() => { accepted = []; });
  after(async () => {
    await served.close();
    await expectBaseline(pool, baseline);
    await pool.stop();
  });

  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    const both = async (): Promise<{ client: TLSSocket; application: PoolSocket }> => {
      // The type of tls.connect's options lacks allowHalfOpen, which it passes on to net.Socket.
      const options: object = { minVersion: version, maxVersion: version, allowHalfOpen: true };
      const client = await nodeConnect(target, options);
      const application = await until(() => accepted[0], { what: 'the application to get the connection' });
      return { client, application };
    };

    it(`${version}: the client ends first; the application reads a clean end and its 8 MiB still arrive`, async () => {
      const { client, application } = await both();
      const request = randomBytes(100_000);
      const answer = randomBytes(octets);
      const atClient = readAll(client);
      const atApplication = readAll(application);
      client.end(request);
      assert.equal(sha256(await atApplication), sha256(request));
      application.end(answer);
      assert.equal(sha256(await atClient), sha256(answer));
    });

    it(`${version}: the application ends first; the client reads a clean end and its 8 MiB still arrive`, async () => {
      const { client, application } = await both();
      const greeting = randomBytes(100_000);
      const upload = randomBytes(octets);
      const atClient = readAll(client);
      const atApplication = readAll(application);
      application.end(greeting);
      assert.equal(sha256(await atClient), sha256(greeting));
      client.end(upload);
      assert.equal(sha256(await atApplication), sha256(upload));
    });

    it(`${version}: both end at once, and nothing of either side is lost`, async () => {
      const { client, application } = await both();
      const one = randomBytes(octets);
      const two = randomBytes(octets);
      const atClient = readAll(client);
      const atApplication = readAll(application);
      client.end(one);
      application.end(two);
      assert.equal(sha256(await atApplication), sha256(one));
      assert.equal(sha256(await atClient), sha256(two));
    });

    it(`${version}: a connection without any octet ends cleanly on both sides`, async () => {
      const { client, application } = await both();
      const ends = Promise.all([readAll(client), readAll(application)]);
      client.end();
      application.end();
      assert.deepEqual((await ends).map((data) => data.length), [0, 0]);
    });
  }
});
