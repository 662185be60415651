import { describeCases } from './native-cases.js';

/** Each case of test/fuzz/native/faults.cc makes certain what the kernel or a peer seldom does. */
const cases = [
  ['endless-handshake', 'a server that sends HelloRequests for ever holds up nobody else, and its handshake ends at the deadline'],
  ['key-update-flood', 'a flood of KeyUpdates gets 96 KiB of a worker\'s round and no more, and the data behind it arrive'],
  ['unread-answers', 'a peer that asks for new keys one by one and reads no answer is not read any more at 64 KiB of them, and goes on when it reads'],
  ['short-of-memory-plain', 'what the plain side does not take for want of memory (ENOBUFS, ENOMEM) is tried again, with pauses, and arrives'],
  ['short-of-memory-crypt', 'so does what the peer\'s socket does not take'],
  ['gone-while-short-of-memory', 'a session can be ended while it waits for memory'],
  ['accept-errors', 'errors of accept(2) that pass do not end a listener, nor keep its worker busy; others are reported'],
  ['slow-once-then-quiet', 'a peer that was slow once does not end the session of an application that only shut its reading side'],
  ['backend-queue-full', 'a connection waits for a backend on a UNIX socket whose queue is full, until the deadline of a handshake'],
  ['backend-without-descriptors', 'out of descriptors, a connection waits for one to its backend'],
] as const;

describeCases('engine: faults of the kernel and floods, under the address and undefined sanitizers', 'faults', cases);
