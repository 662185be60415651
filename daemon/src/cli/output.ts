/** Where the answers of `tlspool` go: the two outputs of the process, whose readers may be gone and whose disks may be full. */

/** Where output goes; tests read it. */
export interface Output {
  out(text: string): void;
  err(text: string): void;
  /** Resolves when everything was taken, with what kept some of it from being written. Absent: nothing can. */
  written?(): Promise<NodeJS.ErrnoException | undefined>;
}

export class StandardOutput implements Output {
  #last: Promise<void> = Promise.resolve();
  #failure: NodeJS.ErrnoException | undefined;

  constructor() {
    // Without a listener a failed write would end the process with a stack trace. Each write hears of its own failure.
    for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  }

  out(text: string): void {
    this.#last = new Promise((resolve) => {
      process.stdout.write(text, (error) => {
        // A reader that has seen enough (`tlspool sessions | head`) is no failure.
        if (error && (error as NodeJS.ErrnoException).code !== 'EPIPE') this.#failure ??= error;
        resolve();
      });
    });
  }

  err(text: string): void {
    process.stderr.write(text);
  }

  async written(): Promise<NodeJS.ErrnoException | undefined> {
    await this.#last;
    return this.#failure;
  }
}
