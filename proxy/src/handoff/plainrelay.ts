/** For clients that did not ask for TLS, where the service allows that: there is no session, so the pool has no part in it and the octets pass through here. */
import net from 'node:net';
import { finished } from 'node:stream/promises';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd } from 'libtlspool/native';

/** Octets of the client, and for it. */
export interface Relayed { readonly octetsIn: number; readonly octetsOut: number }

/**
 * Carries octets both ways until both sides have ended, each direction by itself. The client's descriptor is borrowed; the backend's is ours, closed on each path. `ahead` goes
 * to the backend first. An error of either side resets both, so that what was cut does not look complete. Rejects with SYSTEM when there is no descriptor left, and with nothing else.
 */
export async function relayPlain(client: BorrowedFd, backend: OwnedFd, ahead: Uint8Array, signal: AbortSignal): Promise<Relayed> {
  const inner = open(backend);
  let outer: net.Socket;
  try {
    outer = open(sockets.dup(client));
  } catch (error) {
    inner.destroy();
    throw error;
  }
  const abort = (): void => { cut(outer); cut(inner); };
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  if (ahead.length > 0) inner.write(ahead);
  outer.pipe(inner);
  inner.pipe(outer);
  const end = (socket: net.Socket): Promise<void> => finished(socket).catch(abort);
  await Promise.all([end(outer), end(inner)]);
  signal.removeEventListener('abort', abort);
  return { octetsIn: inner.bytesWritten, octetsOut: outer.bytesWritten };
}

function open(fd: OwnedFd): net.Socket {
  return new net.Socket({ fd, allowHalfOpen: true, readable: true, writable: true });
}

/** A UNIX socket has no reset. */
function cut(socket: net.Socket): void {
  if (socket.remoteFamily === undefined) socket.destroy();
  else socket.resetAndDestroy();
}
