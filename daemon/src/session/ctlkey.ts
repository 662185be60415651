/** Control keys: made here, and compared here, and nowhere else. */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { ctlkeyOctets } from 'libtlspool/protocol';

const poolOctets = 4096;

/**
 * Makes control keys of 16 octets from the CSPRNG. Octets are drawn 4 KiB at a time (one call into OpenSSL costs as much as a
 * whole batch) and wiped from the batch as they are handed out, so that a key is in one place only.
 */
export class CtlkeyMaker {
  #batch = Buffer.alloc(0);
  #used = 0;

  /** A new key, as 16 latin1 characters (the cheapest thing that can be the key of a Map). */
  make(): string {
    if (this.#used + ctlkeyOctets > this.#batch.length) {
      this.#batch = randomBytes(poolOctets);
      this.#used = 0;
    }
    const end = this.#used + ctlkeyOctets;
    const key = this.#batch.toString('latin1', this.#used, end);
    this.#batch.fill(0, this.#used, end);
    this.#used = end;
    return key;
  }
}

/** The octets of a key, for a message. */
export function ctlkeyToOctets(key: string): Buffer {
  return Buffer.from(key, 'latin1');
}

/** The form in which keys are looked up. */
export function ctlkeyFromOctets(octets: Uint8Array): string {
  return Buffer.from(octets.buffer, octets.byteOffset, octets.byteLength).toString('latin1');
}

/** Compares in constant time. Keys of different lengths are different. */
export function isSameCtlkey(a: string, b: string): boolean {
  const left = ctlkeyToOctets(a);
  const right = ctlkeyToOctets(b);
  return left.length === right.length && timingSafeEqual(left, right);
}
