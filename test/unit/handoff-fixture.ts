/** Hand-off listeners of the library, with proxies in front of them that do what a test tells them. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { listenForHandoff } from 'libtlspool';
import type { HandedOver, HandoffListener, HandoffOptions } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import { descriptors, event, tempFolder, until, within } from '../support/index.js';
import { RawProxy } from '../support/handoff-wire.js';
import { key, sessionInfo } from './lib-fake-pool.js';

/** A check for assert.rejects and its kin. */
export const code = (wanted: string, text = /(?:)/u) => (error: unknown): boolean => {
  assert(error instanceof TlsPoolError, String(error));
  assert.equal(error.code, wanted, error.message);
  assert.match(error.message, text);
  return true;
};
/** The client's address, as the proxies tell it. */
export const client = { family: 'IPv4', address: '203.0.113.9', port: 50_000 } as const;

/** The pool has closed its end, or both directions are shut down. */
export const isOver = (fd: BorrowedFd): boolean => (sockets.pollWait(fd, 0, 0) & 16) !== 0;
export const refusalOf = (listener: HandoffListener<HandedOver>): Promise<TlsPoolError> => event<TlsPoolError>(listener, 'refused');

/** Everything of one test; counts the descriptors around it. */
export class Handoffs {
  /** Where listening() listens and proxy() connects. */
  file = '';
  /** Called when the test is over, last first. */
  readonly open: (() => unknown)[] = [];
  readonly #ends = new Map<OwnedFd, () => void>();
  #before = 0;
  #environment: string | undefined;

  /** Call it in the describe block. */
  constructor() {
    beforeEach(() => {
      this.#before = descriptors(process.pid).size;
      this.file = path.join(tempFolder(), 'backend.sock');
      this.#environment = process.env['TLSPOOL_SOCKET'];
      // The pool of this process is not there.
      process.env['TLSPOOL_SOCKET'] = `${this.file}.none`;
    });
    afterEach(async () => {
      for (const close of this.open.splice(0).reverse()) await close();
      if (this.#environment === undefined) delete process.env['TLSPOOL_SOCKET'];
      else process.env['TLSPOOL_SOCKET'] = this.#environment;
      await until(() => descriptors(process.pid).size <= this.#before, { what: 'descriptors to be back at the baseline' });
    });
  }

  async listening(options: Omit<HandoffOptions, 'plain'> = {}): Promise<HandoffListener> {
    const listener = await listenForHandoff({ ...(options.fd === undefined ? { path: this.file } : {}), ...options });
    this.open.push(() => listener.close());
    return listener;
  }

  proxy(): RawProxy {
    const made = RawProxy.to(this.file);
    this.open.push(() => made.close());
    return made;
  }

  /** Sends a connection; gives the pool's end of its plain text. */
  hand(to: RawProxy, n = 1, more: object = {}): OwnedFd {
    const [ours, theirs] = sockets.socketpair('stream');
    to.send({ type: 'event', op: 'connection', body: { listener: 0, ctlkey: key(n), info: { ...sessionInfo, remote: client }, preamble: { protocol: 'imap', tls: true }, ...more } }, [theirs]);
    sockets.close(theirs);
    let isOpen = true;
    const end = (): void => {
      if (isOpen) sockets.close(ours);
      isOpen = false;
    };
    this.open.push(end);
    this.#ends.set(ours, end);
    return ours;
  }
  /** Closes the pool's end early. */
  endOf(fd: OwnedFd): void { this.#ends.get(fd)?.(); }

  /** Reads `taken`, and answers it. */
  async letGo(from: RawProxy, body: object, n = 1): Promise<void> {
    const { message } = await from.got();
    assert(message.type === 'request' && message.op === 'taken');
    assert.deepEqual(Buffer.from(message.body.ctlkey ?? []), key(n));
    from.send({ type: 'reply', op: 'taken', id: message.id, body });
  }

  async accepted<S extends HandedOver>(listener: HandoffListener<S>): Promise<S> {
    const socket = await within(listener.accept(), 'a connection');
    this.open.push(() => socket.destroy());
    return socket;
  }
}
