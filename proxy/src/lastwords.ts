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

/** A plain-text side that says this and ends. */
export function lastWords(text: Uint8Array): OwnedFd {
  const [ours, theirs] = sockets.socketpair('stream');
  try {
    sayLast(ours, text);
    return theirs;
  } finally {
    sockets.close(ours);
  }
}
