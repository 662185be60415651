/** A descriptor that has just been accepted becomes a client of the front. */
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { identifyClient } from '../policy/index.js';
import type { Front } from './front.js';

/** Owns the descriptor from now on. Fails closed: whose credentials cannot be read is not a client. */
export function admit(front: Front, fd: OwnedFd): void {
  let client;
  try {
    client = identifyClient(sockets.peerCredentials(fd));
  } catch (error) {
    sockets.close(fd);
    throw error;
  }
  front.accept(fd, client);
}
