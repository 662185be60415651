/** Secrets that are typed at the terminal of the process, without echo; never in arguments or the environment, which others can read. */
import { closeSync, openSync, writeSync } from 'node:fs';
import { ReadStream } from 'node:tty';
import { TlsPoolError } from 'libtlspool/protocol';

/** As the message table has it. */
const maxOctets = 256;
const keys = { interrupt: 0x03, end: 0x04, backspace: 0x08, newline: 0x0a, enter: 0x0d, clear: 0x15, delete: 0x7f } as const;

/** What was typed so far, in a buffer that can be wiped. */
class Line {
  readonly #octets = Buffer.alloc(maxOctets);
  #length = 0;

  /** Takes in what was typed. done: Enter was pressed. none: it was broken off. */
  type(chunk: Buffer): 'more' | 'done' | 'none' {
    for (const octet of chunk) {
      if (octet === keys.enter || octet === keys.newline) return 'done';
      if (octet === keys.interrupt || octet === keys.end) return 'none';
      if (octet === keys.backspace || octet === keys.delete) this.#length = this.#before(this.#length);
      else if (octet === keys.clear) this.#length = 0;
      else if (this.#length === maxOctets) return 'none';
      else this.#octets[this.#length++] = octet;
    }
    return 'more';
  }

  take(): Buffer {
    const taken = Buffer.alloc(this.#length);
    this.#octets.copy(taken, 0, 0, this.#length);
    this.wipe();
    return taken;
  }

  wipe(): void {
    this.#octets.fill(0);
    this.#length = 0;
  }

  /** Where the last character begins: UTF-8 continues with octets of 10xxxxxx. */
  #before(length: number): number {
    let at = Math.max(0, length - 1);
    while (at > 0 && ((this.#octets[at] ?? 0) & 0xc0) === 0x80) at--;
    return at;
  }
}

/**
 * Asks at the controlling terminal. Undefined when nothing was typed, when it was broken off (Ctrl-C, Ctrl-D, more than 256 octets), or when the signal is
 * aborted. The buffer is the caller's to wipe. Throws SYSTEM where there is no terminal.
 */
export async function askSecret(prompt: string, signal: AbortSignal): Promise<Buffer | undefined> {
  const fd = openTerminal();
  let input: ReadStream | undefined;
  try {
    input = new ReadStream(fd);
    input.setRawMode(true);
    writeSync(fd, prompt);
    const octets = await readLine(input, signal);
    writeSync(fd, '\r\n');
    return octets === undefined || octets.length === 0 ? undefined : octets;
  } finally {
    input?.setRawMode(false);
    if (input === undefined) closeSync(fd);
    else input.destroy();
  }
}

function openTerminal(): number {
  try {
    return openSync('/dev/tty', 'r+');
  } catch (error) {
    throw new TlsPoolError('SYSTEM', { text: 'there is no terminal to ask for the PIN at; give it in a file of mode 0600, with --pin-file', cause: error });
  }
}

function readLine(input: ReadStream, signal: AbortSignal): Promise<Buffer | undefined> {
  return new Promise((resolve, reject) => {
    const line = new Line();
    const over = (settle: () => void) => {
      signal.removeEventListener('abort', aborted);
      input.removeAllListeners();
      settle();
      line.wipe();
    };
    const aborted = () => { over(() => { resolve(undefined); }); };
    input.on('data', (chunk: Buffer) => {
      const state = line.type(chunk);
      chunk.fill(0);
      if (state === 'done') over(() => { resolve(line.take()); });
      else if (state === 'none') aborted();
    });
    input.once('end', aborted);
    input.once('error', (error) => { over(() => { reject(error); }); });
    if (signal.aborted) aborted();
    else signal.addEventListener('abort', aborted);
  });
}
