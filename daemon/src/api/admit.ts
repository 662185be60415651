/** A descriptor that has just been accepted becomes a client of the front that it has come to. */
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { identifyClient } from '../policy/index.js';
import type { Client } from '../policy/access.js';

/** Who lets clients in. Owns the descriptor when called, also when it throws. */
export interface Admitting { accept(fd: OwnedFd, client: Client): unknown }

/** Owns the descriptor from now on. Fails closed: whose credentials cannot be read is not a client. */
export function admit(front: Admitting, fd: OwnedFd): void {
  let client;
  try {
    client = identifyClient(sockets.peerCredentials(fd));
  } catch (error) {
    sockets.closeDrained(fd);
    throw error;
  }
  front.accept(fd, client);
}
