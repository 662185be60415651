/** Client certificates that are awkward to tell of: longer than a message, or with names that no message can carry. */
import assert from 'node:assert/strict';
import { appendFileSync } from 'node:fs';
import { webcrypto } from 'node:crypto';
import path from 'node:path';
// Needed by the next one, at its first import.
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import { defaultMaxMessageOctets } from 'libtlspool/protocol';
import type { PoolSocket } from 'libtlspool';
import { acceptLoop, event, expectBaseline, nodeConnect, PoolWire, startPool, until } from '../support/index.js';
import type { Baseline, Served, TestPool } from '../support/index.js';

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

interface Party { readonly certificate: x509.X509Certificate; readonly keys: webcrypto.CryptoKeyPair }
interface Wanted {
  readonly subject: string | ArrayBuffer;
  /** Octets of padding, in an extension that nobody knows. */
  readonly padding?: number;
  readonly ca?: boolean;
}

/** A certificate of this issuer; without one it is its own. */
async function make({ subject, padding = 0, ca = false }: Wanted, issuer?: Party): Promise<Party> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: Buffer.from(webcrypto.getRandomValues(new Uint8Array(8)).map((octet, n) => (n === 0 ? (octet & 0x3f) | 1 : octet))).toString('hex'),
    subject: typeof subject === 'string' ? subject : new x509.Name(subject), issuer: issuer?.certificate.subjectName ?? (typeof subject === 'string' ? subject : new x509.Name(subject)),
    notBefore: new Date(Date.now() - 3_600_000), notAfter: new Date(Date.now() + 86_400_000), signingAlgorithm: algorithm,
    publicKey: keys.publicKey, signingKey: (issuer?.keys ?? keys).privateKey,
    extensions: [
      new x509.BasicConstraintsExtension(ca, undefined, true),
      new x509.KeyUsagesExtension(ca ? x509.KeyUsageFlags.keyCertSign : x509.KeyUsageFlags.digitalSignature, true),
      ...(padding > 0 ? [new x509.Extension('1.3.6.1.4.1.55555.1', false, new Uint8Array(padding))] : []),
    ],
  });
  return { certificate, keys };
}

async function keyPem({ keys }: Party): Promise<string> {
  return `-----BEGIN PRIVATE KEY-----\n${Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64')}\n-----END PRIVATE KEY-----\n`;
}

/** DER of a length below 128. */
const der = (tag: number, ...content: readonly Buffer[]): Buffer => {
  const inside = Buffer.concat(content);
  assert.ok(inside.length < 128);
  return Buffer.concat([Buffer.from([tag, inside.length]), inside]);
};
const commonName = (tag: number, value: Buffer): ArrayBuffer => {
  const octets = der(0x30, der(0x31, der(0x30, Buffer.from('0603550403', 'hex'), der(tag, value))));
  return new Uint8Array(octets).buffer;
};
const utf8String = 0x0c;

describe('certificates of peers', function () {
  this.timeout(60_000);
  let pool: TestPool;
  let root: Party;
  let served: Served;
  let accepted: PoolSocket[];
  let baseline: Baseline;

  before(async () => {
    pool = await startPool({ identities: [{ localid: 'localhost', clientAuth: 'require', trust: true, default: true }] });
    root = await make({ subject: 'CN=root of clients', ca: true });
    appendFileSync(path.join(pool.identityDir('localhost'), 'ca.crt'), `${root.certificate.toString('pem')}\n`);
    const wire = new PoolWire(pool.socket);
    wire.request('reload');
    wire.close();
    baseline = pool.baseline();
  });
  after(() => pool.stop());
  beforeEach(async () => {
    accepted = [];
    served = await acceptLoop(pool, (socket) => {
      accepted.push(socket.on('error', () => undefined));
      socket.pipe(socket);
    });
  });
  afterEach(async () => {
    await served.close();
    await expectBaseline(pool, baseline);
  });

  /** Connects with this chain, sees its octets come back, and gives the socket at the application. */
  async function connect(leaf: Party, issuers: readonly Party[], look: (socket: PoolSocket) => void): Promise<void> {
    const cert = [leaf, ...issuers].map(({ certificate }) => certificate.toString('pem')).join('\n');
    const client = await nodeConnect({ port: served.port, caFile: pool.caFile }, { cert, key: await keyPem(leaf) });
    const echo = event<Buffer>(client, 'data');
    client.write('octets');
    assert.equal((await echo).toString(), 'octets');
    assert.equal(accepted.length, 1);
    look(accepted[0] as PoolSocket);
    client.destroy();
    await until(() => pool.status()['sessions'] === 0, { what: 'the session to end' });
  }
  const rows = (): Record<string, unknown>[] => {
    const wire = new PoolWire(pool.socket);
    try { return wire.request('sessions').body['sessions'] as Record<string, unknown>[]; } finally { wire.close(); }
  };

  async function chain(count: number, padding: number): Promise<[leaf: Party, issuers: Party[]]> {
    const issuers: Party[] = [];
    for (let n = 0; n < count; n += 1) issuers.unshift(await make({ subject: `CN=issuer ${n}`, ca: true, padding }, issuers[0] ?? root));
    return [await make({ subject: 'CN=leaf' }, issuers[0] ?? root), issuers];
  }
  const derOf = ({ certificate }: Party): Buffer => Buffer.from(certificate.rawData);

  it('a chain that fits is told as it is, and the root on top of it', async () => {
    const [leaf, issuers] = await chain(3, 1000);
    await connect(leaf, issuers, ({ authorized, sessionInfo }) => {
      assert.equal(authorized, true);
      assert.deepEqual(sessionInfo.peerCertificates.map((one) => Buffer.from(one)), [leaf, ...issuers, root].map(derOf));
    });
  });

  it('of a chain that is longer than a message the leaf and the first issuers are told, and the session is verified and works', async () => {
    const [leaf, issuers] = await chain(8, 10_000);
    const whole = [leaf, ...issuers].map(derOf);
    assert.ok(whole.reduce((sum, { length }) => sum + length, 0) > defaultMaxMessageOctets);
    await connect(leaf, issuers, (socket) => {
      assert.equal(socket.authorized, true);
      const told = socket.sessionInfo.peerCertificates.map((one) => Buffer.from(one));
      assert.ok(told.length >= 5 && told.length < whole.length, `${told.length} of ${whole.length}`);
      assert.deepEqual(told, whole.slice(0, told.length));
      assert.equal(socket.getPeerCertificate().subject.CN, 'leaf');
      assert.equal(socket.getPeerX509Certificate()?.subject, 'CN=leaf');
      assert.equal(rows()[0]?.['subject'], 'CN=leaf');
    });
  });

  const awkward: readonly (readonly [string, ArrayBuffer])[] = [
    ['a NUL', commonName(utf8String, Buffer.from('good.example\0.evil.example'))],
    ['a byte order mark', commonName(utf8String, Buffer.from('\ufeffgood.example'))],
    ['octets that are not UTF-8', commonName(utf8String, Buffer.from('61ff62', 'hex'))],
    ['line ends and escape sequences', commonName(utf8String, Buffer.from('a\nCN=admin\u001b[2J'))],
  ];
  for (const [name, subject] of awkward) {
    it(`a subject with ${name} costs neither the session nor the operator's list, and looks like no other`, async () => {
      const leaf = await make({ subject }, root);
      await connect(leaf, [], ({ authorized }) => {
        assert.equal(authorized, true);
        const [row, ...more] = rows();
        assert.equal(more.length, 0);
        const shown = row?.['subject'];
        assert.ok(shown === undefined || typeof shown === 'string');
        assert.ok(shown !== 'CN=good.example' && shown !== 'CN=admin', String(shown));
        assert.doesNotMatch(String(shown), /[\0\n\u001b]/u);
      });
    });
  }
});
