/**
 * The parts of Node's sockets that are not public but that everybody's TLS adapter needs: the handle below a net.Socket.
 * All of them are here, so that a change in Node has one place to look at. Checked with Node 20, 22, 24 and 26.
 */
import net from 'node:net';
import { sockets } from './native.js';
import type { BorrowedFd, OwnedFd } from './native.js';
import { TlsPoolError } from './protocol/index.js';

interface PipeHandle {
  open(fd: number): number | undefined;
  close(): void;
}
type PipeClass = new (kind: number) => PipeHandle;

interface StreamHandle {
  readonly fd?: number;
  readonly constructor: unknown;
  reading?: boolean;
  readStop?(): number;
}

/** The insides of a net.Socket that this library touches. */
export interface SocketInside {
  _handle: StreamHandle | null;
  _read: (octets: number) => void;
  server: unknown;
  _server: unknown;
}

/** The insides of a net.Socket. */
export const inside = (socket: net.Socket): SocketInside => socket as unknown as SocketInside;

let pipeClass: PipeClass | undefined;

/** Node has no public name for the class of UNIX socket handles; a socket made from a descriptor has one. */
function findPipeClass(): PipeClass {
  const [ours, other] = sockets.socketpair('stream');
  const probe = new net.Socket({ fd: ours, readable: false });
  const found = inside(probe)._handle?.constructor as PipeClass;
  probe.destroy();
  sockets.close(other);
  return found;
}

/**
 * A handle for a UNIX stream socket, which owns the descriptor from now on; closes it when that fails (SYSTEM).
 * `new net.Socket({fd})` would do the same, with five more system calls to guess the kind of the descriptor.
 */
export function openHandle(fd: OwnedFd): object {
  try {
    pipeClass ??= findPipeClass();
  } catch (error) {
    // It takes two descriptors, and there may be none.
    sockets.close(fd);
    throw error;
  }
  const handle = new pipeClass(0);
  let errno: number | undefined;
  try {
    errno = handle.open(fd);
  } catch (error) {
    errno = (error as NodeJS.ErrnoException).errno ?? -1;
  }
  if (errno !== undefined && errno < 0) {
    handle.close();
    sockets.close(fd);
    throw new TlsPoolError('SYSTEM', { text: `the plain-text socket from the pool could not be opened (errno ${errno})`, errno, syscall: 'open' });
  }
  return handle;
}

/** The descriptor below a socket, which goes on owning it; undefined when it has none (any more). */
export function borrowedFd(socket: net.Socket): BorrowedFd | undefined {
  const fd = inside(socket)._handle?.fd;
  return fd === undefined || fd < 0 ? undefined : fd as BorrowedFd;
}

/**
 * Stops a socket from reading, now and for good. pause() is not enough: libuv goes on reading into the stream's buffer,
 * and _read() starts it again; octets that arrive then are lost to whoever gets the descriptor.
 */
export function stopReading(socket: net.Socket): void {
  const within = inside(socket);
  within._read = () => undefined;
  if (within._handle !== null) {
    within._handle.readStop?.();
    within._handle.reading = false;
  }
}

/** Stops a socket from reading until the function that comes back is called; what arrives waits in the kernel. For a socket of which nothing was read yet. */
export function holdReading(socket: net.Socket): () => void {
  const within = inside(socket);
  stopReading(socket);
  return () => {
    // The class's own is in force again.
    Reflect.deleteProperty(within, '_read');
    if (!socket.destroyed) within._read(0);
  };
}
