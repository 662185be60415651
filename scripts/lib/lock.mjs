// One process at a time. The lock is a listening socket in the abstract UNIX namespace: the kernel gives it to one process,
// and takes it back however that process ends, so there is no stale lock to detect and no sleep: a waiter is connected
// to the holder and sees it go.
import { createHash } from 'node:crypto';
import net from 'node:net';

/**
 * Waits until this process holds the lock of `name`; resolves with {release, fd}. `waiting` is called once if somebody holds it.
 * A child process that inherits `fd` holds the lock too, until it ends: also when we are killed before.
 */
export async function lock(name, waiting = () => {}) {
  const address = `\0tlspool-${createHash('sha256').update(name).digest('hex').slice(0, 32)}`;
  let told = false;
  for (;;) {
    const server = await tryListen(address);
    if (server !== undefined) return server;
    if (!told) waiting();
    told = true;
    await holderGone(address);
  }
}

function tryListen(address) {
  return new Promise((resolve, reject) => {
    const waiters = new Set();
    const server = net.createServer((socket) => {
      waiters.add(socket);
      socket.on('error', () => {}).on('close', () => waiters.delete(socket)).unref();
    });
    server.once('error', (error) => (error.code === 'EADDRINUSE' ? resolve(undefined) : reject(error)));
    server.listen(address, () => {
      server.unref();
      resolve({
        fd: server._handle.fd,
        release: () => {
          server.close();
          for (const socket of waiters) socket.destroy();
        },
      });
    });
  });
}

function holderGone(address) {
  return new Promise((resolve) => {
    net.connect(address).on('error', () => {}).on('close', resolve).resume();
  });
}
