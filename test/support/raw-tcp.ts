/** Raw TCP against the pool: send octets, look at what comes back, with the time of each thing. */
import net from 'node:net';
import { defaultDeadlineMs, within } from './wait.js';

/** A TCP port that was free a moment ago. Prefer listening on port 0; this is for programs that must be told. */
export async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => { server.close(resolve); });
  return port;
}

/** How the other end finished: end of stream, reset, or (null) not yet. */
export type Ending = 'fin' | 'rst' | null;

export class RawTcp {
  readonly socket: net.Socket;
  /** Our port, which the socket does not know any more when it is closed. */
  readonly localPort: number | undefined;
  received = Buffer.alloc(0);
  ending: Ending = null;
  /** performance.now() of the last octet and of the ending. */
  lastOctetAt = 0;
  endedAt = 0;
  /** Runs after octets arrived and before anybody who waits looks, for a protocol on top. */
  onOctets: () => void = () => undefined;
  #watchers = new Set<() => void>();

  protected constructor(socket: net.Socket) {
    this.socket = socket;
    this.localPort = socket.localPort;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => { this.received = Buffer.concat([this.received, chunk]); this.lastOctetAt = performance.now(); this.onOctets(); this.#tell(); });
    socket.on('end', () => { this.#finish('fin'); });
    socket.on('error', () => { this.#finish('rst'); });
    socket.on('close', () => { this.#finish('fin'); });
  }

  static async connect(port: number, host = '127.0.0.1'): Promise<RawTcp> {
    const socket = net.connect({ port, host, allowHalfOpen: true });
    await within(new Promise<void>((resolve, reject) => { socket.once('connect', resolve); socket.once('error', reject); }), `a connection to port ${String(port)}`);
    return new this(socket);
  }

  send(octets: Uint8Array): void { if (this.socket.writable) this.socket.write(octets); }
  /** FIN after everything that was sent. */
  finish(): void { this.socket.end(); }
  reset(): void { this.socket.resetAndDestroy(); }
  close(): void { this.socket.destroy(); }

  /** Waits until `look` is true of this connection; the ending counts as news too. */
  async when(look: (tcp: this) => boolean, what: string, deadlineMs = defaultDeadlineMs): Promise<void> {
    const happened = new Promise<void>((resolve) => {
      const check = (): void => { if (look(this)) { this.#watchers.delete(check); resolve(); } };
      this.#watchers.add(check);
      check();
    });
    await within(happened, what, deadlineMs, () => `received ${String(this.received.length)} octets, last ${this.received.subarray(-64).toString('hex')}, ending ${String(this.ending)}`);
  }

  ended(deadlineMs = defaultDeadlineMs): Promise<void> {
    return this.when((tcp) => tcp.ending !== null, 'the connection to end', deadlineMs);
  }

  #finish(how: 'fin' | 'rst'): void {
    if (this.ending !== null) return;
    this.ending = how;
    this.endedAt = performance.now();
    this.#tell();
  }

  #tell(): void { for (const watcher of [...this.#watchers]) watcher(); }
}
