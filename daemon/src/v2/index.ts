/**
 * The V2 dialect: the wire format of the original C TLS Pool, so that programs that are linked against its library run unchanged. It is a second front to the
 * same engine, sessions, identities and access rules; what it offers, and where it differs from the original, is in docs/v2.md.
 *
 * How a frame walks:
 *
 *   socket -> reader.ts      gathers 388 octets, however they were cut, with the one descriptor that came with them
 *          -> connection.ts  is it the answer to a callback of this connection (callbacks.ts)? then to whoever asked
 *          -> dispatch.ts    else it is a request: its handler by `cmd`, or ERROR
 *          -> starttls.ts    checks what is asked for in the order of the original, chooses identities (identities.ts), starts the engine,
 *             claim.ts       which is the claim on the session from then on: its events come here and not to the pool protocol's code
 *          -> the same frame with a few fields written over (frames.ts), in one send
 *
 * A frame belongs to one client from its first octet to the reply: no octet of it has been anybody else's, so that the echo of what no field covers tells nothing.
 *
 * Sessions are in the pool's session table like all others: they count against the same limits, `tlspool sessions` shows them, a revoked identity ends them, and a drain
 * waits for them. Their control keys are not (keys.ts), because clients make them. A client that leaves gives up its sessions, which go on.
 */
import { Acceptor, admit, openPoolSocket } from '../api/index.js';
import type { Front } from '../api/index.js';
import type { V2Config } from '../config/index.js';
import { V2Front } from './front.js';
import { writePidFile } from './pidfile.js';

export { V2Front } from './front.js';

/** The dialect while it is offered. */
export interface V2Service {
  /** Lets nobody in any more. May be called twice. */
  closeSocket(): void;
  /** Closes all connections, too. May be called twice. */
  close(): void;
}

/** Offers the dialect at its socket. Throws as openPoolSocket() does, and SYSTEM for the pid file. */
export function serveV2({ socket, pidFile }: V2Config, front: Front): V2Service {
  const v2 = new V2Front(front);
  const acceptor = new Acceptor({
    socket: openPoolSocket({ ...socket, kind: 'stream', key: 'v2.socket' }), log: front.parts.log, admit: (fd) => { admit(v2, fd); },
  });
  let removePidFile = (): void => undefined;
  try {
    if (pidFile !== undefined) removePidFile = writePidFile(pidFile);
  } catch (error) {
    acceptor.close();
    throw error;
  }
  front.parts.log.info(`listening at ${socket.path} for V2 clients`, { socket: socket.path, pidFile });
  const closeSocket = (): void => {
    acceptor.close();
    removePidFile();
    removePidFile = () => undefined;
  };
  return {
    closeSocket,
    close: () => {
      closeSocket();
      v2.close();
    },
  };
}
