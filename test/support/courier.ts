/** Small messages with at most one descriptor between two processes that do not talk to the pool about it: one end of a SOCK_SEQPACKET pair each. */
import { pollReadable, pollWritable, sockets } from 'libtlspool/native';
import type { OwnedFd, Poll } from 'libtlspool/native';

const maxOctets = 65_536;

export class Courier<M extends object> {
  readonly #fd: OwnedFd;
  readonly #poll: Poll;
  readonly #queue: { readonly data: Buffer; readonly fd: OwnedFd | undefined }[] = [];
  #closed = false;

  /** Owns the descriptor. Those that arrive belong to `received`. `ended`: the other process has gone. */
  constructor(fd: OwnedFd, received: (message: M, fd: OwnedFd | undefined) => void, private readonly ended: () => void = () => undefined) {
    this.#fd = fd;
    this.#poll = sockets.poll(fd, () => { this.#onReady(received); });
    this.#poll.start(pollReadable);
  }

  /** The descriptor is the courier's from now on. */
  send(message: M, fd?: OwnedFd): void {
    this.#queue.push({ data: Buffer.from(JSON.stringify(message)), fd });
    this.#flush();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#poll.close();
    sockets.close(this.#fd);
    for (const { fd } of this.#queue.splice(0)) if (fd !== undefined) sockets.close(fd);
  }

  #onReady(received: (message: M, fd: OwnedFd | undefined) => void): void {
    this.#flush();
    while (!this.#closed) {
      const packet = sockets.receive(this.#fd, maxOctets, 1);
      if (packet === null) return;
      if (packet.eof) {
        this.close();
        this.ended();
        return;
      }
      received(JSON.parse(packet.data.toString()) as M, packet.fds[0]);
    }
  }

  #flush(): void {
    try {
      for (let next = this.#queue[0]; next !== undefined && !this.#closed; next = this.#queue[0]) {
        if (sockets.send(this.#fd, next.data, next.fd === undefined ? [] : [next.fd]) === -1) break;
        this.#queue.shift();
        if (next.fd !== undefined) sockets.close(next.fd);
      }
    } catch {
      // The other process has gone: reading tells.
    }
    if (!this.#closed) this.#poll.start(pollReadable | (this.#queue.length > 0 ? pollWritable : 0));
  }
}
