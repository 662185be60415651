/**
 * What is on its way to one client. Most messages go out at once and never enter the queue; when the socket is full they wait, in
 * order, with the descriptors that belong to them.
 */
import { constants } from 'node:os';
import { TlsPoolError } from 'libtlspool/protocol';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd } from 'libtlspool/native';
import { closeFd } from './fdbag.js';

export type ItemKind = 'reply' | 'connection' | 'other';

export interface Item {
  readonly data: Uint8Array;
  readonly kind: ItemKind;
  /** Sent with the message and then closed; -1 for none. Owned by the outbox. */
  readonly sendFd: number;
  /** Closed once the message was sent; -1 for none. Owned by the outbox. */
  readonly closeFd: number;
}

export interface OutboxHooks {
  /** Wait for writability (true) or do not (false). */
  writable(wanted: boolean): void;
  /** The socket is of no use any more. Called at most once. */
  failed(error: unknown): void;
}

/**
 * sendmsg fails with these while the host is short of something; nothing is wrong with the socket. ETOOMANYREFS: too many
 * descriptors of our user are in flight because somebody does not read (unix(7)).
 */
const passing: ReadonlySet<number> = new Set([constants.errno.ENOBUFS, constants.errno.ENOMEM, 109 /* ETOOMANYREFS, which node:os does not name */]);
const retryMs = 100;

export class Outbox {
  readonly #fd: BorrowedFd;
  readonly #hooks: OutboxHooks;
  #queue: Item[] = [];
  #head = 0;
  #closed = false;
  #retry: NodeJS.Timeout | undefined;
  /** Replies (and errors) that wait. */
  replies = 0;
  /** `connection` events that wait. */
  connections = 0;

  /** The socket stays the caller's. */
  constructor(fd: BorrowedFd, hooks: OutboxHooks) {
    this.#fd = fd;
    this.#hooks = hooks;
  }

  get isEmpty(): boolean { return this.#head === this.#queue.length; }

  /** Sends now or later. The item's descriptors belong to the outbox from here on, whatever happens. */
  push(item: Item): void {
    if (this.#closed) {
      drop(item);
      return;
    }
    if (this.isEmpty && this.#send(item)) return;
    if (this.#closed) return;
    if (this.isEmpty && this.#retry === undefined) this.#hooks.writable(true);
    this.#queue.push(item);
    this.#count(item, 1);
  }

  /** Sends what can be sent. */
  flush(): void {
    while (!this.isEmpty && !this.#closed) {
      const item = this.#queue[this.#head] as Item;
      if (!this.#send(item)) return;
      if (this.#closed) return;
      this.#head += 1;
      this.#count(item, -1);
    }
    if (this.#closed) return;
    this.#queue = [];
    this.#head = 0;
    this.#hooks.writable(false);
  }

  /** Forgets what waits and closes its descriptors. May be called twice. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#retry);
    for (const item of this.#queue.slice(this.#head)) drop(item);
    this.#queue = [];
    this.#head = 0;
    this.replies = 0;
    this.connections = 0;
  }

  /** True when the item is done with: it was sent, or the socket has failed. */
  #send(item: Item): boolean {
    let sent: number;
    try {
      sent = item.sendFd >= 0 ? sockets.send(this.#fd, item.data, [item.sendFd as BorrowedFd]) : sockets.send(this.#fd, item.data);
    } catch (error) {
      if (error instanceof TlsPoolError && passing.has(-(error.errno ?? 0))) {
        this.#retryLater();
        return false;
      }
      // A queued item is closed with the queue; this one may not be in it.
      if (this.#queue[this.#head] !== item) drop(item);
      this.close();
      this.#hooks.failed(error);
      return true;
    }
    if (sent === -1) return false;
    drop(item);
    return true;
  }

  #retryLater(): void {
    this.#hooks.writable(false);
    this.#retry ??= setTimeout(() => {
      this.#retry = undefined;
      this.#hooks.writable(true);
    }, retryMs);
  }

  #count(item: Item, step: 1 | -1): void {
    if (item.kind === 'reply') this.replies += step;
    else if (item.kind === 'connection') this.connections += step;
  }
}

function drop(item: Item): void {
  closeFd(item.sendFd);
  closeFd(item.closeFd);
}
