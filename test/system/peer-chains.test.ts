/** What a program sees of its peer's chain, beside what node:tls shows of the same peer. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import type net from 'node:net';
import path from 'node:path';
import type { Duplex } from 'node:stream';
import tls from 'node:tls';
import type { X509Certificate } from 'node:crypto';
import { connectPool } from 'libtlspool';
import type { Pool } from 'libtlspool';
import { issue, makeCa, nodeConnect, startPool, tempFolder, until, within } from '../support/index.js';
import type { TestCa, TestPool } from '../support/index.js';

type Shown = Pick<tls.TLSSocket, 'authorized' | 'getPeerCertificate' | 'getPeerX509Certificate'>;
type Connection = Duplex & Shown;

/** Fingerprints from the leaf up; `itself` where a certificate is its own issuer. */
function detailed(socket: Shown): string[] {
  const found: string[] = [];
  for (let at: tls.DetailedPeerCertificate | undefined = socket.getPeerCertificate(true); at !== undefined; at = at.issuerCertificate) {
    found.push(at.fingerprint256);
    if (at.issuerCertificate === at) return [...found, 'itself'];
  }
  return found;
}

function issuers(leaf: X509Certificate | undefined): string[] {
  const found: string[] = [];
  for (let at = leaf; at !== undefined; at = at.issuerCertificate) found.push(at.fingerprint256);
  return found;
}

async function over(...sockets: readonly Duplex[]): Promise<void> {
  for (const socket of sockets) socket.on('error', () => undefined).destroy();
  await until(() => sockets.every(({ closed }) => closed), { what: 'the sockets to be closed' });
}

const leafOnly = (socket: Shown): boolean => Object.hasOwn(socket.getPeerCertificate(), 'issuerCertificate');

describe('the chain of a peer, as node:tls shows it', () => {
  let root: TestCa;
  let issuing: TestCa;
  let other: TestCa;
  let pool: Pool;
  let daemon: TestPool;
  /** Certificates that a client may show, in PEM, each with the key. */
  const shown = new Map<string, { cert: string; key: string }>();
  const pem = (file: string): string => readFileSync(file, 'utf8');

  before(async () => {
    root = await makeCa(path.join(tempFolder(), 'root'), 'root', { levels: 1 });
    issuing = await makeCa(path.join(tempFolder(), 'issuing'), 'issuing', { issuer: root });
    other = await makeCa(path.join(tempFolder(), 'other'), 'other');
    const names = { commonName: 'a peer', sans: ['DNS:localhost'] };
    for (const usage of ['clientAuth', 'serverAuth'] as const) {
      const below = await issue(issuing, path.join(tempFolder(), 'below'), { ...names, usage });
      const direct = await issue(root, path.join(tempFolder(), 'direct'), { ...names, usage });
      const stranger = await issue(other, path.join(tempFolder(), 'stranger'), { ...names, usage });
      const of = (leaf: { certFile: string; keyFile: string }, ...above: readonly TestCa[]) => ({ cert: [pem(leaf.certFile), ...above.map(({ certFile }) => pem(certFile))].join(''), key: pem(leaf.keyFile) });
      shown.set(`${usage}, issued by the root`, of(direct));
      shown.set(`${usage}, issued by the root, which it sends, too`, of(direct, root));
      shown.set(`${usage}, with its issuer`, of(below, issuing));
      shown.set(`${usage}, with all that is above`, of(below, issuing, root));
      shown.set(`${usage}, in another order`, of(below, root, issuing));
      shown.set(`${usage}, with one that has nothing to do with it`, of(below, other, issuing));
      shown.set(`${usage}, of a stranger`, of(stranger));
    }
    daemon = await startPool({ identities: [{ localid: 'localhost', default: true, clientAuth: 'request', trust: [root] }, { localid: 'below', sans: ['DNS:below'], clientAuth: 'request', trust: [root, issuing] }] });
    pool = await connectPool({ path: daemon.socket });
  });
  after(async () => {
    pool.close();
    await daemon.stop();
  });

  /** A node:tls server that trusts what the identity does. */
  async function nodeServer(credentials: tls.TlsOptions): Promise<{ port: number; next(): Promise<tls.TLSSocket>; close(): Promise<void> }> {
    const server = tls.createServer({ ca: pem(root.certFile), ...credentials }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    return {
      port: (server.address() as net.AddressInfo).port,
      next: async () => (await once(server, 'secureConnection') as [tls.TLSSocket])[0],
      close: async () => { server.close(); await once(server, 'close'); },
    };
  }

  function same(ours: Shown, theirs: Shown): void {
    assert.equal(ours.authorized, theirs.authorized);
    assert.deepEqual(detailed(ours), detailed(theirs));
    assert.equal(leafOnly(ours), leafOnly(theirs));
    // Node's goes by the order in which the peer sent them, so that a certificate has an issuer who has not issued it, and ends there.
    assert.deepEqual(issuers(ours.getPeerX509Certificate()), detailed(ours).filter((one) => one !== 'itself'));
  }

  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    for (const how of ['issued by the root', 'issued by the root, which it sends, too', 'with its issuer', 'with all that is above', 'in another order', 'with one that has nothing to do with it', 'of a stranger']) {
      it(`${version}: a client's certificate ${how}, in a full handshake and when it comes back`, async () => {
        const credentials = shown.get(`clientAuth, ${how}`);
        const identity = { cert: pem(path.join(daemon.identityDir('localhost'), 'tls.crt')), key: pem(path.join(daemon.identityDir('localhost'), 'tls.key')) };
        const node = await nodeServer({ ...identity, requestCert: true, rejectUnauthorized: false, minVersion: version, maxVersion: version });
        const listener = await pool.listen({ host: '127.0.0.1', localid: 'localhost', rejectUnauthorized: false });
        const port = (listener.address() as net.AddressInfo).port;
        const talk = async (to: number, accept: Promise<Connection>, session?: Buffer): Promise<{ at: Shown; session: Buffer; resumed: boolean; sockets: readonly Duplex[] }> => {
          const client = tls.connect({ host: '127.0.0.1', port: to, ca: pem(daemon.caFile), servername: 'localhost', ...credentials, minVersion: version, maxVersion: version, ...(session === undefined ? {} : { session }) });
          const [at] = await Promise.all([within(accept, 'the connection'), once(client, 'secureConnect')]);
          const ticket = once(client, 'session') as Promise<[Buffer]>;
          at.write('x');
          const fresh = session === undefined ? (version === 'TLSv1.3' ? (await within(ticket, 'a ticket'))[0] : client.getSession()) : session;
          return { at, session: fresh as Buffer, resumed: client.isSessionReused(), sockets: [client, at] };
        };
        const ours = await talk(port, listener.accept());
        const theirs = await talk(node.port, node.next());
        same(ours.at, theirs.at);
        const [again, nodeAgain] = [await talk(port, listener.accept(), ours.session), await talk(node.port, node.next(), theirs.session)];
        assert.equal(again.resumed, how !== 'of a stranger', 'a session is resumed, unless its certificate was let through');
        if (again.resumed && nodeAgain.resumed) same(again.at, nodeAgain.at);
        // A ticket holds the leaf; what is above it is known if it is trusted.
        assert.deepEqual(detailed(again.at), again.resumed && !how.startsWith('issued by the root') ? detailed(ours.at).slice(0, 1) : detailed(ours.at));
        await over(...[ours, theirs, again, nodeAgain].flatMap(({ sockets }) => sockets));
        await listener.close();
        await node.close();
      });
    }
  }

  it('of a certificate that does not verify no issuer is told: anybody can name the root as such', async () => {
    const expired = await issue(root, path.join(tempFolder(), 'expired'), { commonName: 'a peer', sans: [], usage: 'clientAuth', notBefore: '20200101000000Z', notAfter: '20200201000000Z' });
    const listener = await pool.listen({ host: '127.0.0.1', localid: 'localhost', rejectUnauthorized: false });
    const [socket, client] = await Promise.all([
      within(listener.accept(), 'the connection'),
      nodeConnect({ port: (listener.address() as net.AddressInfo).port, caFile: daemon.caFile }, { cert: pem(expired.certFile), key: pem(expired.keyFile) }),
    ]);
    assert.equal(socket.authorizationError, 'CERT_HAS_EXPIRED');
    assert.deepEqual(detailed(socket), [socket.getPeerCertificate().fingerprint256]);
    await over(socket, client);
    await listener.close();
  });

  for (const how of ['issued by the root', 'with its issuer', 'with all that is above', 'in another order', 'of a stranger']) {
    it(`a server's certificate ${how}`, async () => {
      const node = await nodeServer(shown.get(`serverAuth, ${how}`) as tls.TlsOptions);
      const accepted = node.next();
      const ours = await pool.connect({ host: '127.0.0.1', port: node.port, servername: 'localhost', localid: 'below', rejectUnauthorized: false });
      await accepted;
      const next = node.next();
      const theirs = tls.connect({ host: '127.0.0.1', port: node.port, servername: 'localhost', ca: pem(root.certFile), rejectUnauthorized: false });
      await once(theirs, 'secureConnect');
      same(ours, theirs);
      await over(ours, theirs, await accepted, await next);
      await node.close();
    });
  }
});
