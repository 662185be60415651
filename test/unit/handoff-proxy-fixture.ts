/** The proxy's end of hand-off sockets, with backends that do what a test tells them, and a pool that is a few promises. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import type { EventBody, ToClientMessage } from 'libtlspool/protocol';
import { HandoffOffer } from 'tlspool-proxy/dist/handoff/fd.js';
import type { FdConfig } from 'tlspool-proxy/dist/handoff/fd.js';
import type { HandedOver, SecuredConnection } from 'tlspool-proxy/dist/handoff/types.js';
import { descriptors, tempFolder, until } from '../support/index.js';
import { RawListener } from '../support/handoff-wire.js';
import type { RawBackend } from '../support/handoff-wire.js';
import { key, sessionInfo } from './lib-fake-pool.js';

export const closedEvent = (how: EventBody<'closed'>['how']): EventBody<'closed'> => ({ ctlkey: key(1), how, octetsReceived: 3, octetsSent: 4 });
export const client = { family: 'IPv4', address: '203.0.113.9', port: 50_000 } as const;

/** A session of a pool that answers each request with what the test has for it. */
export class FakeSession implements SecuredConnection {
  readonly ctlkey = key(1);
  info = sessionInfo;
  readonly protocol = 'mysql';
  readonly state = Buffer.from('state');
  readonly remote = client;
  readonly local = undefined;
  readonly asked: string[] = [];
  answers: Record<string, unknown> = { prng: { octets: Buffer.from('keying') }, info: { info: sessionInfo, tlsExporter: Buffer.alloc(32, 7) }, detach: {}, close: {} };
  end: (closed: EventBody<'closed'> | undefined) => void = () => undefined;
  readonly closed = new Promise<EventBody<'closed'> | undefined>((resolve) => { this.end = resolve; });
  constructor(readonly plainfd: OwnedFd) {}
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- a stand-in for a generic method
  request(op: string, body: unknown): Promise<any> {
    this.asked.push(op);
    assert.deepEqual(Buffer.from((body as { ctlkey: Uint8Array }).ctlkey), this.ctlkey);
    const answer = this.answers[op];
    return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
  }
  async detach(): Promise<void> { await this.request('detach', { ctlkey: this.ctlkey }); }
}

export const bodyOf = (message: ToClientMessage): { code?: string; text?: string } => (message.type === 'error' ? message.body : {});

/** Everything of one test; counts the descriptors around it. */
export class Offers {
  /** Closed when the test is over. */
  open: { close(): void }[] = [];
  /** Its plain-text side is what the proxy hands over; the pool's end is `inner`. */
  session!: FakeSession;
  inner!: OwnedFd;
  /** Where the backend listens. */
  listener!: RawListener;
  #before = 0;

  /** Call it in the describe block. */
  constructor() {
    beforeEach(() => {
      this.#before = descriptors(process.pid).size;
      this.listener = new RawListener(path.join(tempFolder(), 'backend.sock'));
      const [ours, theirs] = sockets.socketpair('stream');
      this.inner = theirs;
      this.session = new FakeSession(ours);
      this.open = [this.listener, { close: () => { sockets.close(ours); sockets.close(theirs); } }];
    });
    afterEach(async () => {
      for (const one of this.open) one.close();
      await until(() => descriptors(process.pid).size <= this.#before, { what: 'descriptors to be back at the baseline' });
    });
  }

  config(relay = false): FdConfig { return { handoff: 'fd', path: this.listener.path, relay, checkServername: true }; }

  async connected(relay = false, deadlineMs = 5_000, signal?: AbortSignal): Promise<{ offer: HandoffOffer; backend: RawBackend }> {
    const offer = await HandoffOffer.connect(this.config(relay), { deadlineMs, ...(signal === undefined ? {} : { signal }) });
    const backend = await this.listener.accept();
    this.open.push(offer, backend);
    return { offer, backend };
  }

  /** The event, with the descriptor closed. */
  async event(backend: RawBackend): Promise<ToClientMessage> {
    const { message, fds } = await backend.got();
    for (const fd of fds) sockets.close(fd);
    return message;
  }

  async relaying(): Promise<{ backend: RawBackend; handed: HandedOver }> {
    const { offer, backend } = await this.connected(true);
    const given = offer.give(this.session);
    await this.event(backend);
    assert.deepEqual((await backend.ask('taken', { ctlkey: key(1) })).body, { relay: true });
    return { backend, handed: await given };
  }
}
