/** Large transfers that can be held at chosen points, hashed on both ends. Used by tests and by the applications that they start. */
import { createHash, randomBytes } from 'node:crypto';
import type { Duplex } from 'node:stream';
import { Random } from './random.js';

export interface BulkState {
  /** Octets given to the stream, or taken from it. */
  readonly octets: number;
  /** Waits for resume(). */
  readonly held: boolean;
  /** SHA-256 of everything, once the stream has ended cleanly. */
  readonly sha256?: string;
  readonly error?: string;
}

export interface BulkOptions {
  /** Stop and wait for resume() after each so many octets; never where absent. */
  readonly holdEvery?: number;
}

const chunkOctets = 64 * 1024;

/** Writes `octets` of data in which no two chunks are the same, in pieces of uneven size, respecting backpressure; then ends the stream. */
export class BulkWriter {
  #octets = 0;
  #held = false;
  #sha256: string | undefined;
  #error: string | undefined;
  #nextHold: number;
  readonly #hash = createHash('sha256');
  readonly #noise = randomBytes(chunkOctets * 2);
  readonly #random = new Random(1);

  constructor(private readonly stream: Duplex, private readonly total: number, private readonly options: BulkOptions = {}) {
    this.#nextHold = options.holdEvery ?? Infinity;
    stream.on('error', (error: NodeJS.ErrnoException) => { this.#error = error.code ?? error.message; });
    stream.on('drain', () => { if (!this.#held) this.#go(); });
    this.#go();
  }

  resume(): void {
    if (!this.#held) return;
    this.#held = false;
    this.#go();
  }

  state(): BulkState {
    return { octets: this.#octets, held: this.#held, ...(this.#sha256 === undefined ? {} : { sha256: this.#sha256 }), ...(this.#error === undefined ? {} : { error: this.#error }) };
  }

  #go(): void {
    for (;;) {
      if (this.#octets >= this.#nextHold && this.#octets < this.total) {
        this.#nextHold += this.options.holdEvery ?? Infinity;
        this.#held = true;
        return;
      }
      if (this.#octets >= this.total) {
        this.#sha256 ??= this.#hash.digest('hex');
        this.stream.end();
        return;
      }
      const chunk = this.#chunk();
      this.#octets += chunk.length;
      this.#hash.update(chunk);
      if (!this.stream.write(chunk)) return;
    }
  }

  /** A window into the noise with the position in front: what is lost, doubled or moved changes the hash. */
  #chunk(): Buffer {
    const length = Math.min(1 + this.#random.below(chunkOctets), this.total - this.#octets);
    const from = this.#random.below(chunkOctets);
    const chunk = Buffer.from(this.#noise.subarray(from, from + length));
    if (length >= 8) chunk.writeDoubleBE(this.#octets, 0);
    return chunk;
  }
}

/** Reads to the end. */
export class BulkReader {
  #octets = 0;
  #held = false;
  #sha256: string | undefined;
  #error: string | undefined;
  #nextHold: number;

  constructor(private readonly stream: Duplex, options: BulkOptions = {}) {
    this.#nextHold = options.holdEvery ?? Infinity;
    const hash = createHash('sha256');
    stream.on('data', (chunk: Buffer) => {
      this.#octets += chunk.length;
      hash.update(chunk);
      if (this.#octets < this.#nextHold) return;
      this.#nextHold += options.holdEvery ?? Infinity;
      this.#held = true;
      stream.pause();
    });
    stream.once('end', () => { this.#sha256 = hash.digest('hex'); });
    stream.on('error', (error: NodeJS.ErrnoException) => { this.#error = error.code ?? error.message; });
  }

  resume(): void {
    this.#held = false;
    this.stream.resume();
  }

  state(): BulkState {
    return { octets: this.#octets, held: this.#held, ...(this.#sha256 === undefined ? {} : { sha256: this.#sha256 }), ...(this.#error === undefined ? {} : { error: this.#error }) };
  }
}
