/** What a client is told when there will be no service for it, in the words of its protocol. */
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd } from 'libtlspool/native';
import type { Farewell } from 'libtlspool/preamble';
import { TlsPoolError } from 'libtlspool/protocol';

/** Which of the protocol's last words an error calls for; undefined: nobody is there to hear one. */
export function farewellFor(error: TlsPoolError): Farewell | undefined {
  switch (error.code) {
    case 'PEER_CLOSED': return undefined;
    case 'TIMEOUT': return 'timeout';
    case 'EARLY_OCTETS': return 'early';
    case 'PREAMBLE': case 'BAD_MESSAGE': return 'syntax';
    default: return error.code.startsWith('LIMIT_') ? 'limit' : 'unavailable';
  }
}

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
