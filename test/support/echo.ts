/** An echo that needs no memory of its own, so that another process can go on with it in the middle. */
import type { PoolSocket, Released } from 'libtlspool';

export class Echo {
  /** Octets that this and all former holders have sent back. */
  octets: number;
  /** 'end' once both directions are complete, or the code of the error. */
  readonly outcome: Promise<string>;
  #isReleased = false;
  #goal: { readonly octets: number; reached(): void } | undefined;

  constructor(readonly socket: PoolSocket, octets = 0) {
    this.octets = octets;
    socket.on('data', (chunk: Buffer) => { this.#back(chunk); });
    socket.on('drain', () => { if (!this.#isReleased) socket.resume(); });
    this.outcome = new Promise((resolve) => {
      let how = 'closed';
      socket.once('end', () => { how = 'end'; });
      socket.once('error', (error: NodeJS.ErrnoException) => { how = error.code ?? error.message; });
      socket.once('close', () => { if (!this.#isReleased) resolve(how); });
    });
  }

  /** Resolves, in the turn in which that happens, when so many octets were sent back in all. */
  reaches(octets: number): Promise<void> {
    if (this.octets >= octets) return Promise.resolve();
    return new Promise((reached) => { this.#goal = { octets, reached }; });
  }

  /** Stops, and gives up socket and control. What was read ahead is sent back first. */
  release(): Promise<Released> {
    this.#isReleased = true;
    for (let chunk = this.socket.read() as Buffer | null; chunk !== null; chunk = this.socket.read() as Buffer | null) this.#back(chunk);
    return this.socket.release();
  }

  #back(chunk: Buffer): void {
    this.octets += chunk.length;
    if (!this.socket.write(chunk) && !this.#isReleased) this.socket.pause();
    const goal = this.#goal;
    if (goal === undefined || this.octets < goal.octets) return;
    this.#goal = undefined;
    goal.reached();
  }
}
