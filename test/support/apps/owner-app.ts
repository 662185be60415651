/**
 * A program that owns a session, and gives a copy of its plain text to the test over descriptor 3, so that only the program's connection to the pool is missing when it is killed. Argument: the state
 * to be in. Says {port}; then {ready} with the control key where there is one, and the descriptor where there is one.
 */
import type net from 'node:net';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { connectPool } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { protectFd } from 'libtlspool/session';
import { Courier } from '../courier.js';

/** The states of docs/control-keys.md. */
export type OwnerState = 'open' | 'fork' | 'detached' | 'closing' | 'handshake' | 'waiting' | 'member';
export type FromOwner = { readonly port: number } | { readonly ready: true; readonly ctlkey?: string };

const state = process.argv[2] as OwnerState;
const pool = await connectPool();
const courier = new Courier<FromOwner>(3 as OwnedFd, () => undefined, () => { process.exit(0); });
const ready = (ctlkey?: Uint8Array, fd?: OwnedFd): void => { courier.send({ ready: true, ...(ctlkey === undefined ? {} : { ctlkey: Buffer.from(ctlkey).toString('hex') }) }, fd); };

async function member(): Promise<void> {
  const listener = await pool.listen({ host: '127.0.0.1', port: 0, share: 'owners', localid: 'localhost' });
  courier.send({ port: (listener.address() as net.AddressInfo).port });
  for await (const socket of listener) {
    // The library's own descriptor: this program reads nothing.
    ready(socket.ctlkey, sockets.dup((socket as unknown as { _handle: { fd: OwnedFd } })._handle.fd));
  }
}

async function owner(): Promise<void> {
  const server = createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  courier.send({ port: (server.address() as net.AddressInfo).port });
  const [tcp] = await once(server, 'connection') as [net.Socket];
  const cryptfd = sockets.dup((tcp as unknown as { _handle: { fd: OwnedFd } })._handle.fd);
  tcp.destroy();
  const session = protectFd(pool, cryptfd, {
    role: 'server', localid: 'localhost', fork: state === 'fork',
    ...(state === 'waiting' ? { onPlainside: ({ ctlkey }) => { ready(ctlkey); return new Promise<never>(() => undefined); } } : {}),
  });
  // The test sees to it that the pool has it.
  if (state === 'handshake') { ready(); await session; }
  if (state === 'waiting') await session;
  const { ctlkey, plainfd } = await session;
  if (state === 'detached') await (await session).detach();
  if (state === 'closing') await (await session).close();
  ready(ctlkey, plainfd);
}

await (state === 'member' ? member() : owner());
