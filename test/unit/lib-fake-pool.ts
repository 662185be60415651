/** A pool without TLS: speaks the protocol and does what a test tells it, for the library's own behaviour and its error paths. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { connectPool } from 'libtlspool';
import type { Pool } from 'libtlspool';
import { decodeMessage, encodeMessage, TlsPoolError } from 'libtlspool/protocol';
import type { EventBody, Message, RequestOp, SessionInfo, ToPoolMessage } from 'libtlspool/protocol';
import { sockets } from 'libtlspool/native';
import type { OwnedFd, Poll } from 'libtlspool/native';
import { descriptors, until } from '../support/index.js';

export const sessionInfo: SessionInfo = {
  role: 'server', protocol: 'TLSv1.3', cipher: 'TLS_AES_128_GCM_SHA256', cipherName: 'TLS_AES_128_GCM_SHA256', resumed: false,
  authorized: false, peerCertificates: [], remote: { family: 'IPv4', address: '192.0.2.7', port: 4711 }, local: { family: 'IPv4', address: '192.0.2.1', port: 443 },
};

export interface FakeRequest { readonly client: FakeClient; readonly message: ToPoolMessage; readonly fds: readonly OwnedFd[] }
/** Returns the body of the reply, or undefined when it answers itself. Descriptors that it keeps must be taken out of `fds` by dup. */
export type Handler = (request: FakeRequest) => object | undefined;

export class FakeClient {
  readonly #poll: Poll;
  #open = true;
  constructor(readonly fd: OwnedFd, readonly pool: FakePool) {
    this.#poll = sockets.poll(fd, () => this.#read());
    this.#poll.start(1);
  }

  /** Returns false when the client's queue is full. */
  send(message: object, fds: readonly OwnedFd[] = []): boolean {
    return sockets.send(this.fd, encodeMessage(message as Message), fds) >= 0;
  }
  sendRaw(data: Uint8Array, fds: readonly OwnedFd[] = []): void { sockets.send(this.fd, data, fds); }

  /** A connection as if its handshake were done; the descriptor is the pool's end of the plain text. */
  connection(listener: number, n = 1, info: SessionInfo = sessionInfo): OwnedFd {
    const [ours, theirs] = sockets.socketpair('stream');
    const sent = this.send({ type: 'event', op: 'connection', body: { listener, ctlkey: key(n), info } }, [theirs]);
    sockets.close(theirs);
    if (!sent) {
      sockets.close(ours);
      throw new Error('the queue is full');
    }
    return ours;
  }
  closed(n: number, how: EventBody<'closed'>['how'], detail?: string): void {
    this.send({ type: 'event', op: 'closed', body: { ctlkey: key(n), how, octetsReceived: 0, octetsSent: 0, ...(detail === undefined ? {} : { detail }) } });
  }
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#poll.close();
    sockets.close(this.fd);
    this.pool.clients.delete(this);
  }

  #read(): void {
    while (this.#open) {
      const received = sockets.receive(this.fd, 65_536, 4);
      if (received === null) return;
      if (received.eof) { this.close(); return; }
      const message = decodeMessage(received.data, 'toPool');
      try {
        this.#answer(message, received.fds);
      } finally {
        for (const fd of received.fds) sockets.close(fd);
        this.pool.notice(message, this, received.fds.length);
      }
    }
  }

  #answer(message: ToPoolMessage, fds: readonly OwnedFd[]): void {
    if (message.type !== 'request') return;
    const { op, id } = message;
    try {
      const body = this.pool.handlers[op]?.({ client: this, message, fds });
      if (body !== undefined) this.send({ type: 'reply', op, id, body });
    } catch (error) {
      if (!(error instanceof TlsPoolError)) throw error;
      this.send({ type: 'error', op, id, body: { code: error.code, text: error.message } });
    }
  }
}

export const key = (n: number): Buffer => Buffer.alloc(16, n);

/** A message that came, and with how many descriptors. */
export interface Seen { readonly message: ToPoolMessage; readonly client: FakeClient; readonly fdCount: number }

export class FakePool {
  /** Within describe(): each test has a pool of its own and a connection to it, which nothing outlives. */
  static forEach(use: (fake: FakePool, pool: Pool) => void): void {
    let fake: FakePool;
    let pool: Pool | undefined;
    beforeEach(async () => {
      pool = undefined;
      fake = new FakePool().start();
      pool = await connectPool({ path: fake.path });
      use(fake, pool);
    });
    afterEach(async () => {
      pool?.close();
      await fake.end();
    });
  }

  readonly folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tlspool-lib-'));
  readonly path = path.join(this.folder, 'pool.sock');
  readonly clients = new Set<FakeClient>();
  /** All messages seen, in order. */
  readonly seen: Seen[] = [];
  /** Descriptors that the test keeps; end() closes them. */
  readonly owned: OwnedFd[] = [];
  readonly #before = descriptors(process.pid).size;
  #waiting: { want: (message: ToPoolMessage) => boolean; resolve: (got: Seen) => void }[] = [];
  #listening: { fd: OwnedFd; poll: Poll } | undefined;
  handlers: { [Op in RequestOp]?: Handler } = {
    hello: () => ({ version: 1, pool: 'fake', maxMessageOctets: 65_536 }),
    ping: ({ message }) => ({ ...message.body, pool: 'fake', pid: 1, uptimeMs: 1 }),
    listen: ({ fds }) => {
      const { local } = sockets.socketInfo(fds[0] as OwnedFd);
      return { listener: 1, local };
    },
    unlisten: () => ({}),
    close: ({ client, message }) => {
      client.send({ type: 'event', op: 'closed', body: { ctlkey: (message.body as { ctlkey: Uint8Array }).ctlkey, how: 'closed', octetsReceived: 0, octetsSent: 0 } });
      return {};
    },
  };

  start(): this {
    const fd = sockets.unixListen({ path: this.path, kind: 'seqpacket' });
    const poll = sockets.poll(fd, () => {
      for (let next = sockets.accept(fd); next !== null; next = sockets.accept(fd)) this.clients.add(new FakeClient(next, this));
    });
    poll.start(1);
    this.#listening = { fd, poll };
    return this;
  }

  /** As if the process had died. */
  stop(): void {
    this.#listening?.poll.close();
    if (this.#listening !== undefined) sockets.close(this.#listening.fd);
    this.#listening = undefined;
    fs.rmSync(this.path, { force: true });
    for (const client of this.clients) client.close();
  }
  dispose(): void {
    this.stop();
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
  /** As dispose(); then this process has as many descriptors again as before the pool was made, or something was left open. */
  async end(): Promise<void> {
    for (const fd of this.owned.splice(0)) sockets.close(fd);
    this.dispose();
    await until(() => descriptors(process.pid).size <= this.#before, { what: 'descriptors to be back at the baseline', context: () => [...descriptors(process.pid).values()].join(' ') });
  }

  notice(message: ToPoolMessage, client: FakeClient, fdCount = 0): void {
    const seen = { message, client, fdCount };
    this.seen.push(seen);
    for (const one of this.#waiting.filter(({ want }) => want(message))) {
      this.#waiting = this.#waiting.filter((other) => other !== one);
      one.resolve(seen);
    }
  }
  /** The next message of this operation, after it was answered. */
  next(op: string, type = 'request'): Promise<Seen> {
    return new Promise((resolve) => { this.#waiting.push({ want: (message) => message.op === op && message.type === type, resolve }); });
  }
}
