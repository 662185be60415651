/** Which key exchange is agreed on: hybrid post-quantum (draft-ietf-tls-ecdhe-mlkem) where the running OpenSSL has it, X25519 where it has not. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import net from 'node:net';
import process from 'node:process';
import tls from 'node:tls';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { presets } from 'tlspool/dist/policy/presets.js';
import { parseClientHello, parseRecords } from '../support/tls-wire.js';
import { application, connectTls, makeCertificates, Rig } from './engine-support.js';
import type { Certificates } from './engine-support.js';

/** OpenSSL has ML-KEM from 3.5 on. Not asked of the engine: it could be the one that is wrong. */
const [major = 0, minor = 0] = process.versions.openssl.split('.').map(Number);
const hasMlKem = major > 3 || (major === 3 && minor >= 5);

/** Numbers of TLS Supported Groups (IANA). */
const x25519 = 0x001d;
const x25519MlKem768 = 0x11ec;
const first = hasMlKem ? x25519MlKem768 : x25519;
const nameOf = (group: number): RegExp => (group === x25519MlKem768 ? /^X25519MLKEM768$/iu : /^X25519$/iu);

const supportedGroups = 10;
const keyShare = 51;

/** A ServerHello with this random is a HelloRetryRequest (RFC 8446 section 4.1.3). */
const retryRandom = createHash('sha256').update('HelloRetryRequest').digest();

/** The data of one extension of the ClientHello that these octets begin with. */
function clientExtension(octets: Buffer, type: number): Buffer {
  const hello = parseClientHello(parseRecords(octets)[0]?.body ?? Buffer.alloc(0));
  const found = hello.extensions?.find((extension) => extension.type === type);
  assert(found !== undefined, `the ClientHello has no extension ${String(type)}`);
  return found.data;
}

/** Whether the server asked for another key share first. */
function isRetried(octets: Buffer): boolean {
  return parseRecords(octets)[0]?.body.subarray(6, 38).equals(retryRandom) ?? false;
}

/** The group of the ServerHello's key_share (RFC 8446 section 4.2.8). */
function serverShare(octets: Buffer): number {
  const hello = parseRecords(octets)[0]?.body ?? Buffer.alloc(0);
  const sessionIdOctets = hello[38] ?? 0;
  // Type and length, version, random, session id, suite, compression, length of the extensions.
  for (let at = 4 + 2 + 32 + 1 + sessionIdOctets + 2 + 1 + 2; at < hello.length; at += 4 + hello.readUInt16BE(at + 2)) {
    if (hello.readUInt16BE(at) === keyShare) return hello.readUInt16BE(at + 4);
  }
  throw new Error('the ServerHello has no key_share');
}

function groupsOf(octets: Buffer): number[] {
  const list = clientExtension(octets, supportedGroups);
  return Array.from({ length: list.readUInt16BE() / 2 }, (_unused, index) => list.readUInt16BE(2 + index * 2));
}

/** Groups of which the client sent its share at once (RFC 8446 section 4.2.8). */
function sharesOf(octets: Buffer): number[] {
  const shares = clientExtension(octets, keyShare);
  const groups: number[] = [];
  for (let at = 2; at < shares.length; at += 4 + shares.readUInt16BE(at + 2)) groups.push(shares.readUInt16BE(at));
  return groups;
}

/** Carries octets to a port, and keeps what went either way. */
class Tap {
  readonly fromClient: Buffer[] = [];
  readonly fromServer: Buffer[] = [];
  readonly #sockets: net.Socket[] = [];
  readonly #server: net.Server;

  constructor(readonly target: number) {
    this.#server = net.createServer((client) => { this.carry(client); });
  }

  carry(client: net.Socket): void {
    const server = net.connect(this.target, '127.0.0.1');
    client.on('data', (octets: Buffer) => { this.fromClient.push(octets); }).pipe(server);
    server.on('data', (octets: Buffer) => { this.fromServer.push(octets); }).pipe(client);
    for (const socket of [client, server]) this.#sockets.push(socket.on('error', () => socket.destroy()));
  }

  async listen(): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return (this.#server.address() as net.AddressInfo).port;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

describe(`engine: key exchange with OpenSSL ${process.versions.openssl}, which ${hasMlKem ? 'has' : 'lacks'} X25519MLKEM768`, () => {
  let certificates: Certificates;
  let rig: Rig;
  const cleaners: (() => unknown)[] = [];

  before(() => { certificates = makeCertificates(); });
  beforeEach(() => { rig = new Rig(certificates); });
  afterEach(async () => {
    for (const clean of cleaners.splice(0).reverse()) await clean();
    rig.close();
  });

  const tap = async (target: number): Promise<{ tapped: Tap; port: number }> => {
    const tapped = new Tap(target);
    cleaners.push(() => tapped.close());
    return { tapped, port: await tapped.listen() };
  };

  /** A handshake of a client of Node's own with the pool: what the ServerHello chose, and what the pool reported. */
  const serve = async (policy: keyof typeof presets, options: tls.ConnectionOptions): Promise<{ chosen: number; reported: string | undefined; retried: boolean }> => {
    const { port: target } = rig.listen(rig.selector(rig.context(presets[policy])));
    const { tapped, port } = await tap(target);
    const client = await connectTls(port, certificates.ca, options);
    cleaners.push(() => client.destroy());
    const event = await rig.event('established');
    sockets.close(event.plainfd as OwnedFd);
    const sent = Buffer.concat(tapped.fromServer);
    return { chosen: serverShare(sent), reported: event.group, retried: isRetried(sent) };
  };

  for (const policy of ['intermediate', 'modern'] as const) {
    it(`${policy}: ${hasMlKem ? 'X25519MLKEM768' : 'X25519, the best that both have,'} is what a client with its own default gets`, async () => {
      const { chosen, reported } = await serve(policy, {});
      assert.equal(chosen, first);
      assert.match(reported ?? 'none', nameOf(first));
    });

    it(`${policy}: a client that knows X25519 only is served all the same`, async () => {
      const { chosen, reported } = await serve(policy, { ecdhCurve: 'X25519' });
      assert.equal(chosen, x25519);
      assert.match(reported ?? 'none', nameOf(x25519));
    });

    // Without an end of the list behind the hybrid group, OpenSSL takes any share that came along.
    for (const ecdhCurve of hasMlKem ? ['X25519:X25519MLKEM768', 'P-256:X25519MLKEM768'] : []) {
      it(`${policy}: a client that prefers ${ecdhCurve.replace(':', ' to ')}, and sent a share of that alone, gets a HelloRetryRequest for X25519MLKEM768`, async () => {
        const { chosen, reported, retried } = await serve(policy, { ecdhCurve });
        assert.deepEqual([chosen, retried], [x25519MlKem768, true]);
        assert.match(reported ?? 'none', nameOf(x25519MlKem768));
      });
    }

    it(`${policy}: a client without X25519MLKEM768 that sent a share of P-256 is served at once, and one with P-521 first is asked for X25519`, async () => {
      const served = await serve(policy, { ecdhCurve: 'P-256:X25519' });
      assert.deepEqual([served.chosen, served.retried], [0x0017, false]);
      const asked = await serve(policy, { ecdhCurve: 'P-521:X25519' });
      assert.deepEqual([asked.chosen, asked.retried], [x25519, true]);
    });

    it(`${policy}: as a client the pool ${hasMlKem ? 'names X25519MLKEM768 first, sends its share and one of X25519 at once' : 'does not name X25519MLKEM768, begins with X25519'}, and agrees on it`, async () => {
      const server = tls.createServer({ cert: certificates.server.chain, key: certificates.server.key }, (socket) => { socket.resume(); });
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      cleaners.push(() => server.close());
      const { tapped } = await tap((server.address() as net.AddressInfo).port);
      const [ours, passed] = sockets.socketpair('stream');
      tapped.carry(application(ours));
      rig.engine.startTls(passed, -1, { role: 'client', context: rig.context(presets[policy]), remoteid: 'server.test', servername: 'server.test' });
      const event = await rig.event('established');
      cleaners.push(() => { sockets.close(event.plainfd as OwnedFd); });
      const sent = Buffer.concat(tapped.fromClient);
      assert.deepEqual(groupsOf(sent), hasMlKem ? [x25519MlKem768, x25519, 0x0017, 0x0018] : [x25519, 0x0017, 0x0018]);
      assert.deepEqual(sharesOf(sent), hasMlKem ? [x25519MlKem768, x25519] : [x25519]);
      assert.equal(serverShare(Buffer.concat(tapped.fromServer)), first);
      assert.match(event.group ?? 'none', nameOf(first));
    });
  }
});
