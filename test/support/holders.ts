/** Processes that hold sessions of each other's, and the words that the test exchanges with them. */
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import path from 'node:path';
import { Courier } from './courier.js';
import type { TestPool } from './pool.js';
import { Program } from './program.js';

/** A session on its way. */
export interface Passed {
  readonly n: number;
  /** In hexadecimal. */
  readonly ctlkey: string;
  /** Octets sent back so far. */
  readonly octets: number;
  /** To be passed on once more when so many octets were sent back. */
  readonly next?: { readonly after: number; readonly to: number };
}
export type ToHolder = ({ readonly kind: 'session' } & Passed) | { readonly kind: 'giveBack'; readonly sessions: readonly number[] } | { readonly kind: 'stop' };
export type ToTest =
  | { readonly kind: 'up' } | { readonly kind: 'taken'; readonly n: number } | { readonly kind: 'failed'; readonly n: number; readonly text: string }
  | ({ readonly kind: 'passed'; readonly to?: number } & Passed) | { readonly kind: 'ended'; readonly n: number; readonly how: string; readonly octets: number };

/** One process of apps/echo-app. */
export class Holder {
  readonly program: Program;
  readonly courier: Courier<ToHolder | ToTest>;

  constructor(pool: TestPool, heard: (message: ToTest, fd: OwnedFd | undefined) => void) {
    const [ours, theirs] = sockets.socketpair('seqpacket');
    this.program = new Program(process.execPath, [path.join(import.meta.dirname, 'apps', 'echo-app.js')], { env: { TLSPOOL_SOCKET: pool.socket }, passed: [theirs] });
    sockets.close(theirs);
    this.courier = new Courier<ToHolder | ToTest>(ours, (message, fd) => { heard(message as ToTest, fd); });
  }

  async stop(): Promise<void> {
    this.courier.close();
    if (this.program.running) this.program.kill('SIGKILL');
    await this.program.ended;
  }
}
