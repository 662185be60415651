/** Going on with a session that another program had. */
import { AsyncResource } from 'node:async_hooks';
import type net from 'node:net';
import type { Reply } from './channel.js';
import type { Link } from './link.js';
import { sockets } from './native.js';
import type { OwnedFd } from './native.js';
import { TlsPoolError, ctlkeyOctets } from './protocol/index.js';
import { PoolSocket } from './socket.js';
import { takeOut } from './takeout.js';

/** How to go on with a session that somebody else had. */
export interface ReattachOptions {
  /** As in net.createServer. Default false. */
  readonly allowHalfOpen?: boolean;
  /** The socket does not read before resume(). Default false. */
  readonly pauseOnConnect?: boolean;
}

/**
 * Takes control of a detached session and goes on with its plain text. `socket` is the library's from the call on, and closed on each path of failure, which ends the session when it was
 * the only copy. That the two belong together is for the caller to know: neither the pool nor this library can see it.
 */
export async function reattachSocket(link: Link, ctlkey: Uint8Array, socket: net.Socket | OwnedFd, options: ReattachOptions): Promise<PoolSocket> {
  let fd: OwnedFd | undefined = typeof socket === 'number' ? socket : await fromSocket(socket);
  try {
    checkArguments(ctlkey, fd);
    const channel = await link.whenUp();
    const { allowHalfOpen = false, pauseOnConnect = false } = options;
    let made: (() => PoolSocket) | undefined;
    await channel.request('reattach', { ctlkey }, [], link.timeoutMs, {
      // In the turn of the reply: `closed` may be right behind it.
      reply: AsyncResource.bind(({ body: { info } }: Reply<'reattach'>) => {
        const owned = fd as OwnedFd;
        fd = undefined;
        try {
          const value = new PoolSocket({ channel, fd: owned, ctlkey, info, allowHalfOpen, pauseOnConnect });
          made = () => value;
        } catch (error) {
          made = () => { throw error; };
        }
      }),
    });
    if (made === undefined) throw new TlsPoolError('INTERNAL');
    return made();
  } catch (error) {
    if (fd !== undefined) sockets.close(fd);
    throw error;
  }
}

async function fromSocket(socket: net.Socket): Promise<OwnedFd> {
  // Its owner has no more say in it, and must not be brought down by its errors.
  socket.on('error', () => undefined);
  try {
    return (await takeOut(socket)).fd;
  } finally {
    socket.destroy();
  }
}

function checkArguments(ctlkey: Uint8Array, fd: OwnedFd): void {
  if (ctlkey.length !== ctlkeyOctets) throw new TlsPoolError('BAD_ARGUMENT', { text: `a control key has ${ctlkeyOctets} octets, not ${ctlkey.length}`, field: 'ctlkey' });
  const { domain, type, listening, connected } = sockets.socketInfo(fd);
  if (domain === 'unix' && type === 'stream' && !listening && connected) return;
  throw new TlsPoolError('FD_KIND', { text: `the plain text of a session is a connected UNIX stream socket; this is ${listening ? 'a listening' : 'a'} ${domain} ${type} socket${connected || listening ? '' : ' that is not connected'}` });
}
