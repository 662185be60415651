/** One end of a hand-off connection in raw packets: a proxy or a backend that does what a test tells it. */
import { decodeMessage, decodePacket, encodeMessage, highestMaxMessageOctets } from 'libtlspool/protocol';
import type { Message, ToClientMessage, ToPoolMessage } from 'libtlspool/protocol';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd } from 'libtlspool/native';
import { within } from './wait.js';

/** Resolves when the descriptor has something to be received, its end included. */
function readable(fd: BorrowedFd): Promise<void> {
  return new Promise((resolve) => {
    const poll = sockets.poll(fd, () => { poll.close(); resolve(); });
    poll.start(1);
  });
}

/** What was received, with descriptors that are the test's. */
export interface Got<M> { readonly message: M; readonly fds: readonly OwnedFd[] }

class Wire<M extends Message> {
  #isOpen = true;
  constructor(readonly fd: OwnedFd, private readonly decode: (packet: Uint8Array) => M) {}

  send(message: object, fds: readonly BorrowedFd[] = []): void { this.sendRaw(encodeMessage(message as Message, highestMaxMessageOctets), fds); }
  sendRaw(packet: Uint8Array, fds: readonly BorrowedFd[] = []): void {
    if (sockets.send(this.fd, packet, fds) < 0) throw new Error('the socket is full');
  }

  /** The next packet; `end` when the other side has hung up. */
  async next(): Promise<Got<M> | 'end'> {
    for (;;) {
      const received = sockets.receive(this.fd, highestMaxMessageOctets, 32);
      if (received === null) await within(readable(this.fd), 'a packet on the hand-off connection');
      else return received.eof ? 'end' : { message: this.decode(received.data), fds: received.fds };
    }
  }

  /** The next message, which must be there. */
  async got(): Promise<Got<M>> {
    const next = await this.next();
    if (next === 'end') throw new Error('the other side hung up instead of sending a message');
    return next;
  }

  close(): void {
    if (this.#isOpen) sockets.close(this.fd);
    this.#isOpen = false;
  }
}

/** A backend: reads what the pool's part sends. */
export class RawBackend extends Wire<ToClientMessage> {
  #id = 0;
  constructor(fd: OwnedFd) { super(fd, (packet) => decodePacket(packet, highestMaxMessageOctets)[0] as ToClientMessage); }

  /** Sends a request and gives the message that answers it. */
  async ask(op: string, body: object, fds: readonly BorrowedFd[] = []): Promise<ToClientMessage> {
    this.send({ type: 'request', op, id: ++this.#id, body }, fds);
    return (await this.got()).message;
  }
}

/** A proxy: reads what a client of the pool sends. */
export class RawProxy extends Wire<ToPoolMessage> {
  constructor(fd: OwnedFd) { super(fd, (packet) => decodeMessage(packet, 'toPool', highestMaxMessageOctets)); }
  static to(path: string): RawProxy { return new RawProxy(sockets.unixConnect(path, 'seqpacket')); }
}

/** A listening hand-off socket of a raw backend. */
export class RawListener {
  readonly #fd: OwnedFd;
  constructor(readonly path: string, backlog = 511) { this.#fd = sockets.unixListen({ path, kind: 'seqpacket', backlog }); }
  async accept(): Promise<RawBackend> {
    for (;;) {
      const fd = sockets.accept(this.#fd);
      if (fd !== null) return new RawBackend(fd);
      await within(readable(this.#fd), 'a connection to the hand-off socket');
    }
  }
  close(): void { sockets.close(this.#fd); }
}

/** What can be read from a stream socket within the deadline: at least one octet, or the end. */
export async function readSome(fd: BorrowedFd): Promise<string> {
  for (;;) {
    const received = sockets.receive(fd, 65_536, 0);
    if (received !== null) return received.data.toString('latin1');
    await within(readable(fd), 'octets');
  }
}
