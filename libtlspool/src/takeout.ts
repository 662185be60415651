/** Taking the descriptor out of a socket, for passing it on, without losing an octet either way. */
import type net from 'node:net';
import { borrowedFd, holdReading } from './handle.js';
import { sockets } from './native.js';
import type { BorrowedFd, OwnedFd } from './native.js';
import { TlsPoolError } from './protocol/index.js';

/** @internal A copy of the descriptor below a socket which has no octet left in this process, and what makes the socket read again should it be kept after all. */
export interface TakenOut {
  readonly fd: OwnedFd;
  readonly undo: () => void;
}

/**
 * @internal Stops reading in the caller's turn, waits until the kernel has everything that was written, and gives a copy of the descriptor. The socket is still open then: destroy it, which says
 * nothing to the other end while the copy is open. Rejects with BAD_STATE when the socket cannot be passed on as it is, and reads again then.
 */
export async function takeOut(socket: net.Socket): Promise<TakenOut> {
  const readOn = holdReading(socket);
  try {
    checkOpen(socket);
    if (socket.readableLength > 0) {
      throw new TlsPoolError('BAD_STATE', { text: `${socket.readableLength} octets were read and not taken, and would be lost to whoever gets the descriptor: take them with read() first, or have the socket made with pauseOnConnect` });
    }
    while (socket.writableLength > 0) await flushed(socket);
    return { fd: sockets.dup(checkOpen(socket)), undo: readOn };
  } catch (error) {
    readOn();
    throw error;
  }
}

function checkOpen(socket: net.Socket): BorrowedFd {
  const fd = borrowedFd(socket);
  if (fd === undefined || socket.destroyed || socket.connecting) throw new TlsPoolError('BAD_STATE', { text: 'the socket is not open: there is nothing to pass on' });
  if (socket.writableEnded) throw new TlsPoolError('BAD_STATE', { text: 'the socket was ended: only one that can still be written is passed on' });
  return fd;
}

function flushed(socket: net.Socket): Promise<void> {
  while (socket.writableCorked > 0) socket.uncork();
  return new Promise((resolve, reject) => {
    const onClose = (): void => reject(new TlsPoolError('BAD_STATE', { text: 'the socket was closed before everything that was written had left this process' }));
    socket.once('close', onClose);
    // A failure of the write closes the socket, which is told there.
    socket.write('', () => {
      socket.off('close', onClose);
      resolve();
    });
  });
}
