/** Keying material exporters at the limits of OpenSSL: what it cannot do is an error, and never octets that are no key. */
import assert from 'node:assert/strict';
import type tls from 'node:tls';
import type { OwnedFd } from 'libtlspool/native';
import { sockets } from 'libtlspool/native';
import { connectTls, makeCertificates, Rig } from './engine-support.js';
import type { Certificates } from './engine-support.js';

const label = (octets: number): string => `EXPORTER${'x'.repeat(octets - 8)}`;
const zeros = (octets: Buffer): boolean => octets.every((octet) => octet === 0);

describe('engine: exporters', () => {
  let certificates: Certificates;
  let rig: Rig;
  let client: tls.TLSSocket;
  let session: number;
  let plainfd: number;

  before(() => { certificates = makeCertificates(); });
  beforeEach(() => { rig = new Rig(certificates); });
  afterEach(() => {
    client.destroy();
    sockets.close(plainfd as OwnedFd);
    rig.close();
  });

  async function open(version: 'TLSv1.2' | 'TLSv1.3'): Promise<void> {
    const { port } = rig.listen(rig.selector());
    client = await connectTls(port, certificates.ca, { minVersion: version, maxVersion: version });
    ({ session, plainfd } = await rig.event('established'));
  }

  async function exported(name: string, context: Buffer | null, length: number): Promise<Buffer | string> {
    rig.engine.exporter(session, 7, name, context, length);
    const answer = await rig.event('answer');
    return 'octets' in answer ? answer.octets : 'code' in answer ? answer.code : 'nothing';
  }

  async function same(name: string, context: Buffer | null, length: number): Promise<void> {
    const octets = await exported(name, context, length);
    assert.ok(Buffer.isBuffer(octets), String(octets));
    // Node's types want a context; without one, TLS 1.2 gives other octets than with an empty one.
    assert.deepEqual(octets, (client.exportKeyingMaterial as (length: number, label: string, context?: Buffer) => Buffer).call(client, length, name, context ?? undefined));
    assert.ok(!zeros(octets) || length < 16);
  }

  for (const [version, most] of [['TLSv1.2', 255], ['TLSv1.3', 249]] as const) {
    it(`over ${version} a label of ${most} octets gives what the peer has, with contexts and lengths of every size that messages have`, async () => {
      await open(version);
      await same(label(most), null, 32);
      for (const length of [1, 255, 4096]) await same(label(9), null, length);
      for (const octets of version === 'TLSv1.3' ? [0, 1, 4096, 16_384] : [0, 1, 900]) await same(label(9), Buffer.alloc(octets, 1), 32);
    });
  }

  it('over TLS 1.3 a longer label is EXPORTER, and the session goes on', async () => {
    await open('TLSv1.3');
    for (const octets of [250, 255]) assert.equal(await exported(label(octets), null, 32), 'EXPORTER');
    await same(label(249), null, 32);
  });

  it('over TLS 1.2 a context that does not fit is EXPORTER or what the peer has, and never zeros; the session goes on', async () => {
    await open('TLSv1.2');
    for (const octets of [2000, 16_384]) {
      const answer = await exported(label(9), Buffer.alloc(octets, 1), 32);
      // Whether it fits depends on the version of OpenSSL.
      if (Buffer.isBuffer(answer)) await same(label(9), Buffer.alloc(octets, 1), 32);
      else assert.equal(answer, 'EXPORTER');
    }
    await same(label(9), null, 32);
  });

  it('over TLS 1.2 the labels of TLS itself are refused by OpenSSL too', async () => {
    await open('TLSv1.2');
    for (const name of ['client finished', 'server finished', 'master secret', 'key expansion', 'extended master secret']) assert.equal(await exported(name, null, 32), 'EXPORTER');
  });
});
