/** Control of a session by way of a proxy that relays. */
import type { Channel, Reply, SessionSink } from './channel.js';
import type { SessionControl } from './control.js';
import type { BorrowedFd } from './native.js';
import type { ReplyBody, RequestBody, RequestOp, TlsPoolError } from './protocol/index.js';

/** @internal The proxy's connection, as long as that is there. The session does not end with it, so control may pass to others. */
export class PassingControl implements SessionControl {
  #current: SessionControl;
  #session: { readonly ctlkey: Uint8Array; readonly sink: SessionSink } | undefined;

  constructor(channel: Channel) { this.#current = channel; }

  get lost(): TlsPoolError | undefined { return this.#current.lost; }
  get isDeaf(): boolean { return this.#current.isDeaf === true; }

  /** Somebody else is asked, and tells, from now on. */
  pass(to: SessionControl): void {
    this.#current = to;
    if (this.#session !== undefined) to.addSession(this.#session.ctlkey, this.#session.sink);
  }

  addSession(ctlkey: Uint8Array, sink: SessionSink): void {
    this.#session = { ctlkey, sink };
    this.#current.addSession(ctlkey, sink);
  }
  removeSession(ctlkey: Uint8Array): void {
    this.#session = undefined;
    this.#current.removeSession(ctlkey);
  }
  catchUp(): void { this.#current.catchUp(); }
  request<Op extends RequestOp>(op: Op, body: RequestBody<Op>, fds: readonly BorrowedFd[], timeoutMs: number): Promise<Reply<Op>> {
    return this.#current.request(op, body, fds, timeoutMs);
  }
  requestSync<Op extends RequestOp>(op: Op, body: RequestBody<Op>, timeoutMs: number): ReplyBody<Op> {
    return this.#current.requestSync(op, body, timeoutMs);
  }
}
