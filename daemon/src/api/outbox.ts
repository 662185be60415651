/**
 * What is on its way to one client. Most messages go out at once and never enter the queue; when the socket is full they wait, in
 * order, with the descriptors that belong to them.
 */
import { constants } from 'node:os';
import { TlsPoolError, maxPacketMessages } from 'libtlspool/protocol';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd } from 'libtlspool/native';
import { closeEnded, closeFd } from './fdbag.js';

export type ItemKind = 'reply' | 'connection' | 'callback' | 'other';

export interface Item {
  readonly data: Uint8Array;
  readonly kind: ItemKind;
  /** The application's end of a session: sent with the message and then closed; -1 for none. Owned by the outbox. */
  readonly sendFd: number;
  /** The plain-text side of a session that is over: closed once the message was sent; -1 for none. Owned by the outbox. */
  readonly closeFd: number;
  /** May share a packet with its neighbours (messages.ts says which events may). */
  readonly sharesPacket: boolean;
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
/** Sent items at the head of the queue before it is worth copying the rest. */
const compactAt = 64;

export class Outbox {
  readonly #fd: BorrowedFd;
  readonly #hooks: OutboxHooks;
  readonly #maxPacketOctets: number;
  #queue: Item[] = [];
  #head = 0;
  #closed = false;
  #corked = false;
  #retry: NodeJS.Timeout | undefined;
  /** Replies (and errors) that wait. */
  replies = 0;
  /** `connection` events that wait. */
  connections = 0;
  /** Callbacks that wait, also those whose answer nobody waits for any more. */
  callbacks = 0;

  /** The socket stays the caller's. */
  constructor(fd: BorrowedFd, hooks: OutboxHooks, maxPacketOctets: number) {
    this.#fd = fd;
    this.#hooks = hooks;
    this.#maxPacketOctets = maxPacketOctets;
  }

  get isEmpty(): boolean { return this.#head === this.#queue.length; }

  /** Is the socket full, or the host short of something? What waits for uncork() alone does not count. */
  get isBlocked(): boolean { return !this.isEmpty && !this.#corked; }

  /** Items in memory: those that wait, at most as many again that were sent, and a few. */
  get kept(): number { return this.#queue.length; }

  /** Sends now or later. The item's descriptors belong to the outbox from here on, whatever happens. */
  push(item: Item): void {
    if (this.#closed) {
      drop(item);
      return;
    }
    if (this.isEmpty && !this.#corked && this.#send([item])) return;
    if (this.#closed) return;
    if (this.isEmpty && !this.#corked && this.#retry === undefined) this.#hooks.writable(true);
    this.#queue.push(item);
    this.#count(item, 1);
  }

  /** Until uncork(), items wait so that those which may can share packets. True when it was not corked before. */
  cork(): boolean {
    const isNew = !this.#corked;
    this.#corked = true;
    return isNew;
  }

  uncork(): void {
    this.#corked = false;
    if (this.isEmpty || this.#retry !== undefined) return;
    this.flush();
    if (!this.isEmpty && !this.#closed && this.#retry === undefined) this.#hooks.writable(true);
  }

  /** Sends what can be sent. */
  flush(): void {
    while (!this.isEmpty && !this.#closed) {
      const items = this.#nextPacket();
      if (!this.#send(items)) return;
      if (this.#closed) return;
      for (const item of items) this.#count(item, -1);
      this.#advance(items.length);
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
    this.callbacks = 0;
  }

  /** A client that reads, but never catches up, must not make us keep all that it was ever sent. */
  #advance(count: number): void {
    this.#head += count;
    if (this.#head < compactAt || this.#head * 2 < this.#queue.length) return;
    this.#queue = this.#queue.slice(this.#head);
    this.#head = 0;
  }

  /** The items at the head of the queue that go out together. */
  #nextPacket(): readonly Item[] {
    const from = this.#head;
    const first = this.#queue[from] as Item;
    let to = from + 1;
    let octets = first.data.length;
    while (first.sharesPacket && to - from < maxPacketMessages) {
      const next = this.#queue[to];
      if (next === undefined || !next.sharesPacket || octets + next.data.length > this.#maxPacketOctets) break;
      octets += next.data.length;
      to += 1;
    }
    return this.#queue.slice(from, to);
  }

  /** True when the items are done with: they were sent, or the socket has failed. */
  #send(items: readonly Item[]): boolean {
    let sent: number;
    const [only] = items;
    const fds = items.filter(({ sendFd }) => sendFd >= 0).map(({ sendFd }) => sendFd as BorrowedFd);
    try {
      const data = items.length === 1 && only !== undefined ? only.data : Buffer.concat(items.map((item) => item.data));
      sent = sockets.send(this.#fd, data, fds);
      // Of a packet all is sent or nothing, and so it is with a small message on a UNIX stream; half a message would be none.
      if (sent !== -1 && sent !== data.length) throw new TlsPoolError('SYSTEM', { text: 'the socket has taken only a part of a message' });
    } catch (error) {
      if (error instanceof TlsPoolError && passing.has(-(error.errno ?? 0))) {
        this.#retryLater();
        return false;
      }
      // Queued items are closed with the queue; a single one may not be in it.
      if (only !== undefined && this.#queue[this.#head] !== only) drop(only);
      this.close();
      this.#hooks.failed(error);
      return true;
    }
    if (sent === -1) return false;
    for (const item of items) drop(item);
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
    else if (item.kind === 'callback') this.callbacks += step;
  }
}

function drop(item: Item): void {
  closeFd(item.sendFd);
  closeEnded(item.closeFd);
}
