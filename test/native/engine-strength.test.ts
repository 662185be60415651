/** How weak the key of a peer may be: the same with each OpenSSL, whose own default was RSA of 1024 bits until 3.2. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import tls from 'node:tls';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { presets } from 'tlspool/dist/policy/presets.js';
import { application, makeCertificates, Rig } from './engine-support.js';
import type { Certificates } from './engine-support.js';

interface Peer { readonly cert: Buffer; readonly key: Buffer; readonly ca: Buffer }

/** A leaf with a key of `leafBits`, issued by a root with one of `rootBits`. */
function makePeer(leafBits: number, rootBits: number): Peer {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'tlspool-strength-'));
  const openssl = (...args: string[]): void => { execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' }); };
  const read = (file: string): Buffer => readFileSync(path.join(folder, file));
  try {
    openssl('req', '-x509', '-newkey', `rsa:${String(rootBits)}`, '-nodes', '-keyout', 'ca.key', '-out', 'ca.crt', '-days', '2', '-subj', '/CN=root');
    openssl('req', '-newkey', `rsa:${String(leafBits)}`, '-nodes', '-keyout', 'tls.key', '-out', 'tls.csr', '-subj', '/CN=peer', '-addext', 'subjectAltName=DNS:peer.test');
    openssl('x509', '-req', '-in', 'tls.csr', '-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-copy_extensions', 'copy', '-out', 'tls.crt');
    return { cert: read('tls.crt'), key: read('tls.key'), ca: read('ca.crt') };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** A peer of Node's that takes any strength itself. */
const lenient = { ciphers: 'DEFAULT@SECLEVEL=0' };

describe('engine: strength of the keys of peers', () => {
  let certificates: Certificates;
  let rig: Rig;
  const cleaners: (() => unknown)[] = [];

  before(() => { certificates = makeCertificates(); });
  beforeEach(() => { rig = new Rig(certificates); });
  afterEach(() => {
    for (const clean of cleaners.splice(0).reverse()) clean();
    rig.close();
  });

  /** What came of the one handshake of a test: `authorized`, or the reason. */
  const outcome = async (): Promise<string> => {
    const event = await Promise.race([rig.event('established'), rig.event('failed')]);
    if (event.kind === 'failed') return event.text;
    sockets.close(event.plainfd as OwnedFd);
    return event.authorized ? 'authorized' : 'established without authorization';
  };

  const roles = {
    client: ({ cert, key, ca }: Peer): Promise<string> => {
      const { port } = rig.listen(rig.selector(rig.context({ ...presets.intermediate, clientAuth: 'require', trust: ca })));
      const client = tls.connect({ ...lenient, host: '127.0.0.1', port, servername: 'server.test', ca: certificates.ca, cert, key });
      cleaners.push(() => client.on('error', () => undefined).resume().destroy());
      client.on('error', () => undefined).resume();
      return outcome();
    },
    server: async ({ cert, key, ca }: Peer): Promise<string> => {
      const server = tls.createServer({ ...lenient, cert, key }, (socket) => { socket.on('error', () => undefined).resume(); }).on('tlsClientError', () => undefined);
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const wire = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1');
      const [ours, passed] = sockets.socketpair('stream');
      const carrier = application(ours);
      for (const socket of [wire, carrier]) socket.on('error', () => undefined);
      carrier.pipe(wire).pipe(carrier);
      cleaners.push(() => { carrier.destroy(); wire.destroy(); server.close(); });
      rig.engine.startTls(passed, -1, { role: 'client', context: rig.context({ ...presets.intermediate, keyPairs: [], trust: ca }), remoteid: 'peer.test', servername: 'peer.test' });
      return outcome();
    },
  };

  for (const role of ['client', 'server'] as const) {
    it(`a ${role} with an RSA key of 1024 bits is refused`, async () => {
      assert.match(await roles[role](makePeer(1024, 2048)), /EE_KEY_TOO_SMALL/u);
    });

    it(`a ${role} whose root has an RSA key of 1024 bits is refused`, async () => {
      assert.match(await roles[role](makePeer(2048, 1024)), /CA_KEY_TOO_SMALL/u);
    });

    it(`a ${role} with RSA keys of 2048 bits is authorized`, async () => {
      assert.equal(await roles[role](makePeer(2048, 2048)), 'authorized');
    });
  }
});
