/** What a client is told when there will be no service for it, in the words of its protocol. */
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';

/** As far as the socket takes it; a peer that has gone hears nothing. */
export function sayLast(fd: BorrowedFd, words: Uint8Array): void {
  try {
    if (words.length > 0) sockets.send(fd, words);
  } catch (error) {
    if (!(error instanceof TlsPoolError)) throw error;
  }
}

/** A plain-text side that says this and ends; undefined without the descriptors for one. */
export function lastWords(text: Uint8Array): OwnedFd | undefined {
  try {
    const [ours, theirs] = sockets.socketpair('stream');
    sayLast(ours, text);
    sockets.close(ours);
    return theirs;
  } catch (error) {
    if (!(error instanceof TlsPoolError)) throw error;
    return undefined;
  }
}
