/**
 * One end of a SCRAM exchange over TLS, by a pool (TLSPOOL_SOCKET) or by Node's own TLS, each of which it asks for channel bindings. Argument: ScramEnd as JSON.
 * A server says {port}, and {outcome} for each client; a client says {outcome} and ends.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import type net from 'node:net';
import tls from 'node:tls';
import { connectPool } from 'libtlspool';
import type { PoolSocket } from 'libtlspool';
import { Lines, authenticate, verify } from '../scram.js';
import type { Account, BindingType, Bindings } from '../scram.js';

export interface ScramEnd {
  readonly role: 'server' | 'client';
  readonly by: 'pool' | 'node';
  readonly account: Account;
  /** Client: where to, and whom to trust (Node's own TLS). */
  readonly port?: number;
  readonly caFile?: string;
  /** Server by Node's own TLS. */
  readonly certFile?: string;
  readonly keyFile?: string;
  readonly version?: 'TLSv1.2' | 'TLSv1.3';
  /** Client: SCRAM-SHA-256 without PLUS where absent. */
  readonly type?: BindingType;
}

const { role, by, account, port = 0, caFile = '', certFile = '', keyFile = '', version, type } = JSON.parse(process.argv[2] ?? '{}') as ScramEnd;
process.on('disconnect', () => { process.exit(0); });

const ofPool = (socket: PoolSocket): Bindings => async (wanted) => {
  const { tlsUnique, tlsServerEndPoint, tlsExporter } = await socket.channelBindings();
  return { 'tls-unique': tlsUnique, 'tls-server-end-point': tlsServerEndPoint, 'tls-exporter': tlsExporter }[wanted];
};

/** The certificates of these tests are signed with SHA-256, and no handshake here is resumed. */
const ofNode = (socket: tls.TLSSocket): Bindings => (wanted) => {
  if (wanted === 'tls-exporter') return Promise.resolve(socket.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0)));
  if (wanted === 'tls-unique') return Promise.resolve(role === 'client' ? socket.getFinished() : socket.getPeerFinished());
  const certificate = role === 'client' ? socket.getPeerX509Certificate() : socket.getX509Certificate();
  return Promise.resolve(certificate === undefined ? undefined : createHash('sha256').update(certificate.raw).digest());
};

function serve(socket: net.Socket, bindings: Bindings): void {
  socket.on('error', () => undefined);
  verify(new Lines(socket), account, bindings).then((outcome) => {
    process.send?.({ outcome });
    socket.end();
  }, (error: unknown) => { process.send?.({ outcome: String(error) }); });
}

async function client(): Promise<void> {
  let socket: net.Socket;
  let bindings: Bindings;
  if (by === 'pool') {
    const secured = await (await connectPool()).connect({ host: '127.0.0.1', port, servername: 'localhost', remoteid: 'localhost' });
    [socket, bindings] = [secured, ofPool(secured)];
  } else {
    const secured = tls.connect({ host: '127.0.0.1', port, ca: readFileSync(caFile), servername: 'localhost', ...(version === undefined ? {} : { maxVersion: version }) });
    await once(secured, 'secureConnect');
    [socket, bindings] = [secured, ofNode(secured)];
  }
  socket.on('error', () => undefined);
  process.send?.({ outcome: await authenticate(new Lines(socket), account, type, bindings) });
  process.disconnect();
}

async function server(): Promise<void> {
  if (by === 'pool') {
    const listener = await (await connectPool()).listen({ host: '127.0.0.1', port: 0, localid: 'localhost' });
    process.send?.({ port: (listener.address() as net.AddressInfo).port });
    for await (const socket of listener) serve(socket, ofPool(socket));
  } else {
    const listener = tls.createServer({ cert: readFileSync(certFile), key: readFileSync(keyFile), ...(version === undefined ? {} : { maxVersion: version }) }, (socket) => { serve(socket, ofNode(socket)); });
    await once(listener.listen(0, '127.0.0.1'), 'listening');
    process.send?.({ port: (listener.address() as net.AddressInfo).port });
  }
}

await (role === 'client' ? client() : server());
