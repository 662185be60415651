/** From what a stream socket has at hand to whole frames, each with the descriptor that came with it. */
import type { OwnedFd, Received } from 'libtlspool/native';
import { FdBag, discardFd } from '../api/fdbag.js';
import { frameOctets } from './frames.js';

/** One message of a client. The frame belongs to whoever gets it; nobody else has these octets. */
export interface Inbound {
  readonly frame: Buffer;
  /** Exactly one descriptor or none. */
  readonly fds: FdBag;
}

/**
 * Puts frames together. The caller never receives more than `wanted` octets at once: descriptors arrive with the first octet of their sendmsg, so one that is
 * received while a frame is filled belongs to that frame, however the client has cut or joined its writes.
 *
 * Only one descriptor means anything, as in the original; with several none does. Surplus ones are closed at once and not when the frame is complete, or a client
 * could have us hold one per octet.
 */
export class FrameReader {
  #frame = Buffer.alloc(frameOctets);
  #filled = 0;
  #fd: OwnedFd | -1 = -1;
  #hasSurplus = false;

  /** Octets that the frame lacks, 1 to 388. */
  get wanted(): number { return frameOctets - this.#filled; }

  /** Is part of a frame here? */
  get isHalf(): boolean { return this.#filled > 0; }

  /** Takes what was received, at most `wanted` octets; its descriptors are the reader's from now on. The frame, once it is complete. */
  take({ data, fds }: Pick<Received, 'data' | 'fds'>): Inbound | undefined {
    for (const fd of fds) this.#keep(fd);
    data.copy(this.#frame, this.#filled);
    // It may be a PIN, which has to be wiped in one place only.
    data.fill(0);
    this.#filled += data.length;
    if (this.#filled < frameOctets) return undefined;
    const inbound = { frame: this.#frame, fds: new FdBag(this.#fd === -1 ? [] : [this.#fd]) };
    this.#frame = Buffer.alloc(frameOctets);
    this.#filled = 0;
    this.#fd = -1;
    this.#hasSurplus = false;
    return inbound;
  }

  /** Closes the descriptor of a frame that will never be complete. May be called twice. */
  close(): void {
    discardFd(this.#fd);
    this.#fd = -1;
    // A PIN may have been on its way.
    this.#frame.fill(0);
  }

  #keep(fd: OwnedFd): void {
    if (this.#fd === -1 && !this.#hasSurplus) {
      this.#fd = fd;
      return;
    }
    this.#hasSurplus = true;
    discardFd(fd);
    discardFd(this.#fd);
    this.#fd = -1;
  }
}
