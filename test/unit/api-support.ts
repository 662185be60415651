/** A front with a scripted engine behind it and real sockets before it. */
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd, Poll } from 'libtlspool/native';
import { decodePacket, encodeMessage, highestMaxMessageOctets, maxPacketMessages } from 'libtlspool/protocol';
import type { Message, RequestOp, ToClientMessage } from 'libtlspool/protocol';
import { readdirSync } from 'node:fs';
import { Front } from 'tlspool/dist/api/index.js';
import type { FrontLimits, FrontParts } from 'tlspool/dist/api/index.js';
import type {
  ClientSpec, Context, Engine, EngineEvent, EstablishedEvent, ListenSpec, ReauthSpec, Selector, ServerSpec,
} from 'tlspool/dist/engine.js';
import type { Signer } from 'tlspool/dist/identity/onthefly.js';
import type { IdentityStore, Published } from 'tlspool/dist/identity/types.js';
import { Log } from 'tlspool/dist/observe/index.js';
import type { AccessPolicy, Client, Permission } from 'tlspool/dist/policy/access.js';
import { TlsPoolError } from 'libtlspool/protocol';
import { until, within } from '../support/wait.js';

export type EngineCall = readonly [name: string, ...args: unknown[]];

/** Does nothing but remember; owns what it is given until the test ends. */
export class FakeEngine implements Engine {
  readonly openssl = 'OpenSSL 0.0 (fake)';
  readonly calls: EngineCall[] = [];
  readonly owned: number[] = [];
  handshakes = 0;
  #next = 100;

  context(): Context { return {} as Context; }
  selector(): Selector { return { empty: true } as unknown as Selector; }
  listen(fd: OwnedFd, spec: ListenSpec): number { return this.#take('listen', [fd], spec); }
  setSelector(listener: number, selector: Selector): void { this.calls.push(['setSelector', listener, selector]); }
  pauseListener(listener: number, paused: boolean): void { this.calls.push(['pauseListener', listener, paused]); }
  unlisten(listener: number): void { this.calls.push(['unlisten', listener]); }
  startTls(cryptfd: OwnedFd, plainfd: OwnedFd | -1, spec: ServerSpec | ClientSpec): number {
    return this.#take('startTls', plainfd === -1 ? [cryptfd] : [cryptfd, plainfd], spec);
  }
  decide(session: number, decision: Parameters<Engine['decide']>[1], plainfd: OwnedFd | -1): void {
    if (plainfd !== -1) this.owned.push(plainfd);
    this.calls.push(['decide', session, decision, plainfd]);
  }
  supply(session: number, plainfd: OwnedFd | -1 | 'refuse'): void {
    if (plainfd !== -1 && plainfd !== 'refuse') this.owned.push(plainfd);
    this.calls.push(['supply', session, plainfd]);
  }
  close(session: number, how: string): void { this.calls.push(['close', session, how]); }
  exporter(session: number, request: number, label: string, context: Buffer | null, length: number): void {
    this.calls.push(['exporter', session, request, label, context, length]);
  }
  bindings(session: number, request: number): void { this.calls.push(['bindings', session, request]); }
  reauthenticate(session: number, request: number, spec: ReauthSpec): void { this.calls.push(['reauthenticate', session, request, spec]); }
  counters() {
    return { sessions: 0, handshakes: this.handshakes, handshakesDone: 0, handshakesFailed: 0, handshakesResumed: 0, octetsReceived: 0, octetsSent: 0 };
  }
  stop(): void { for (const fd of this.owned.splice(0)) sockets.close(fd as OwnedFd); }

  named(name: string): EngineCall[] { return this.calls.filter(([one]) => one === name); }
  last(name: string): EngineCall {
    const call = this.named(name).at(-1);
    if (call === undefined) throw new Error(`the engine was not asked to ${name}`);
    return call;
  }

  #take(name: string, fds: number[], spec: unknown): number {
    this.owned.push(...fds);
    this.#next += 1;
    this.calls.push([name, this.#next, spec]);
    return this.#next;
  }
}

/** Everything is allowed to everybody unless a test says otherwise. */
export class FakeAccess implements AccessPolicy {
  sessionsPerClient = 100;
  connect: (client: Client) => boolean = () => true;
  permissions: (client: Client, permission: Permission) => boolean = () => true;
  identities: (client: Client, localid: string, role: 'server' | 'client') => boolean = () => true;
  mayConnect(client: Client): boolean { return this.connect(client); }
  may(client: Client, permission: Permission): boolean { return this.permissions(client, permission); }
  mayUse(client: Client, localid: string, role: 'server' | 'client'): boolean { return this.identities(client, localid, role); }
}

export class FakeStore implements IdentityStore {
  readonly known = new Set(['localhost']);
  readonly rootless = new Set<string>();
  /** Cleared, it is as if all had been published anew. */
  readonly verifiers = new Map<string, Context>();
  published: (changed: readonly string[]) => void = () => undefined;
  constructor(private readonly access: FakeAccess) {}
  summaries: Published['summary'][] = [];
  list(): Published[] { return this.summaries.map((summary) => ({ summary, settings: { localid: summary.localid } }) as Published); }
  serverSelector(client: Client, localid: string | undefined): Selector {
    if (localid !== undefined && this.isLocked(client, localid, 'server')) throw new TlsPoolError('IDENTITY_LOCKED');
    if (localid !== undefined && !(this.known.has(localid) && this.access.mayUse(client, localid, 'server'))) throw new TlsPoolError('IDENTITY_UNKNOWN');
    return { localid } as unknown as Selector;
  }
  /** Names that identities of this name serve. */
  readonly names = new Map<string, string>();
  serving(client: Client, name: string): Selector | undefined {
    const localid = this.names.get(name);
    return localid !== undefined && this.access.mayUse(client, localid, 'server') ? this.serverSelector(client, localid) : undefined;
  }
  clientContext(client: Client, localid: string | undefined): Context {
    if (localid !== undefined && this.isLocked(client, localid, 'client')) throw new TlsPoolError('IDENTITY_LOCKED');
    if (localid !== undefined && !(this.known.has(localid) && this.access.mayUse(client, localid, 'client'))) throw new TlsPoolError('IDENTITY_UNKNOWN');
    return { localid } as unknown as Context;
  }
  readonly lockedIds = new Set<string>();
  clientIdentities(client: Client): Published[] { return this.list().filter(({ summary: { localid } }) => this.access.mayUse(client, localid, 'client')); }
  locked(): { localid: string; source: string }[] { return [...this.lockedIds].sort().map((localid) => ({ localid, source: `/${localid}/tls.key` })); }
  isLocked(client: Client, localid: string, role: 'server' | 'client'): boolean { return this.lockedIds.has(localid) && this.access.mayUse(client, localid, role); }
  verifier(client: Client, localid: string): Context {
    if (!(this.known.has(localid) && this.access.mayUse(client, localid, 'server'))) throw new TlsPoolError('IDENTITY_UNKNOWN');
    if (this.rootless.has(localid)) throw new TlsPoolError('REAUTH_UNAVAILABLE', { text: 'no roots' });
    let found = this.verifiers.get(localid);
    if (found === undefined) this.verifiers.set(localid, found = { verifier: localid } as unknown as Context);
    return found;
  }
  onPublished(callback: (changed: readonly string[]) => void): void { this.published = callback; }
}

const limits: FrontLimits = {
  handshakes: 10, messageOctets: 65_536, clients: 5, listenersPerClient: 2, requestsPerClient: 4, queuedConnections: 8, handshakeMs: 60_000,
};

/** A client of the front, over a real socket pair. */
export class TestClient {
  readonly fd: OwnedFd;
  readonly received: { message: ToClientMessage; fds: readonly OwnedFd[] }[] = [];
  isEnded = false;
  /** Packets that came, each with one message or several. */
  packets = 0;
  readonly #poll: Poll;
  #wake: (() => void) | undefined;
  #isReading = true;
  #closed = false;
  #lastId = 0;

  constructor(fd: OwnedFd) {
    this.fd = fd;
    this.#poll = sockets.poll(fd, () => { this.#receive(); });
    this.#poll.start(1);
  }

  send(message: Message, fds: readonly BorrowedFd[] = []): void { this.sendRaw(encodeMessage(message), fds); }
  sendRaw(packet: Uint8Array, fds: readonly BorrowedFd[] = []): void {
    if (sockets.send(this.fd, packet, fds) === -1) throw new Error('the socket is full');
  }

  /** Sends a request; returns its id. */
  ask(op: RequestOp, body: object = {}, fds: readonly BorrowedFd[] = []): number {
    this.#lastId += 1;
    this.send({ type: 'request', op, id: this.#lastId, body } as unknown as Message, fds);
    return this.#lastId;
  }

  /** Sends a request and waits for the next message, which must be its reply or error. */
  async request(op: RequestOp, body: object = {}, fds: readonly BorrowedFd[] = []): Promise<{ message: ToClientMessage; fds: readonly OwnedFd[]; body: Record<string, unknown> }> {
    const id = this.ask(op, body, fds);
    const next = await this.next();
    if (!('id' in next.message) || next.message.id !== id) throw new Error(`${next.message.type} ${next.message.op} came instead of the answer to ${op}`);
    return next;
  }

  async next(): Promise<{ message: ToClientMessage; fds: readonly OwnedFd[]; body: Record<string, unknown> }> {
    await within((async () => { while (this.received.length === 0 && !this.isEnded) await this.#woken(); })(), 'a message of the front');
    const first = this.received.shift();
    if (first === undefined) throw new Error('the front has closed the connection');
    return { ...first, body: first.message.body };
  }

  async ended(): Promise<void> {
    await within((async () => { while (!this.isEnded) await this.#woken(); })(), 'the front to close the connection');
  }

  pause(): void { this.#isReading = false; this.#poll.stop(); }
  resume(): void { this.#isReading = true; this.#poll.start(1); }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#poll.close();
    for (const { fds } of this.received) for (const fd of fds) sockets.close(fd);
    sockets.close(this.fd);
  }

  #takeApart(messages: readonly ToClientMessage[], fds: OwnedFd[]): void {
    this.packets += 1;
    const [only] = messages;
    if (messages.length === 1 && only !== undefined) this.received.push({ message: only, fds });
    else for (const message of messages) this.received.push({ message, fds: message.op === 'connection' ? fds.splice(0, 1) : [] });
  }

  #woken(): Promise<void> { return new Promise((resolve) => { this.#wake = resolve; }); }

  #receive(): void {
    while (this.#isReading && !this.isEnded) {
      let packet;
      try {
        packet = sockets.receive(this.fd, highestMaxMessageOctets, maxPacketMessages);
      } catch {
        this.isEnded = true;
        break;
      }
      if (packet === null) break;
      if (packet.eof) this.isEnded = true;
      else this.#takeApart(decodePacket(packet.data, highestMaxMessageOctets), [...packet.fds]);
    }
    if (this.isEnded) this.#poll.stop();
    this.#wake?.();
  }
}

export const root: Client = { pid: 1, uid: 0, gid: 0, groups: [] };
export const userA: Client = { pid: 10, uid: 1000, gid: 1000, groups: [] };
export const userB: Client = { pid: 11, uid: 1001, gid: 1001, groups: [] };

/** Front, engine, store, access and clients of one test. `close` gives everything back. */
export class Bench {
  readonly engine = new FakeEngine();
  readonly access = new FakeAccess();
  readonly store = new FakeStore(this.access);
  readonly log: string[] = [];
  readonly front: Front;
  readonly #clients: TestClient[] = [];
  readonly #fds: OwnedFd[] = [];
  reload: () => Promise<{ changed: readonly string[]; unchanged: number }> = () => Promise.resolve({ changed: [], unchanged: 1 });

  constructor(changed: Partial<FrontLimits> = {}, signer?: Signer, more: Pick<FrontParts, 'unlock' | 'choices'> = {}) {
    this.front = new Front({
      ...more,
      engine: this.engine, access: this.access, store: this.store, ...(signer !== undefined && { signer }), limits: { ...limits, ...changed },
      log: new Log('debug', { destination: { write: (line: string) => { this.log.push(line); } } }),
      identification: { pool: 'tlspool/test', openssl: 'none', workers: 1, socket: '/nowhere', startedAtMs: performance.now() },
      reloads: {}, reload: () => this.reload(),
    });
  }

  /** A client that has not said anything yet. */
  connect(client: Client = root): TestClient {
    const [ours, theirs] = sockets.socketpair('seqpacket');
    const made = new TestClient(theirs);
    this.#clients.push(made);
    this.front.accept(ours, client);
    return made;
  }

  /** A client that has said hello. */
  async client(client: Client = root): Promise<TestClient> {
    const made = this.connect(client);
    await made.request('hello', { versions: [1], client: 'test' });
    return made;
  }

  /** A pair whose both ends live as long as the test; both are borrowed. */
  pair(kind: 'stream' | 'seqpacket' = 'stream'): [OwnedFd, OwnedFd] {
    const pair = sockets.socketpair(kind);
    this.#fds.push(...pair);
    return pair;
  }

  /** A descriptor that the engine has made for an event: whoever handles the event owns it. */
  plainPair(): OwnedFd {
    const [ours, theirs] = sockets.socketpair('stream');
    this.#fds.push(ours);
    return theirs;
  }

  listenFd(): OwnedFd {
    const fd = sockets.tcpListen({ host: '127.0.0.1', port: 0 });
    this.#fds.push(fd);
    return fd;
  }

  emit(...events: EngineEvent[]): void { this.front.onEvents(events); }

  /** Starts TLS for the client and returns the engine's session number once the request has arrived. */
  async startTls(client: TestClient, body: object = {}): Promise<number> {
    const before = this.engine.named('startTls').length;
    client.ask('starttls', { role: 'server', ...body }, [this.pair()[0]]);
    // Answered in order: when the ping is back, the starttls has been handled.
    await client.request('ping');
    if (this.engine.named('startTls').length === before) throw new Error('starttls did not reach the engine');
    return this.engine.last('startTls')[1] as number;
  }

  close(): void {
    this.front.close('now');
    for (const client of this.#clients) client.close();
    for (const fd of this.#fds) sockets.close(fd);
    this.engine.stop();
  }
}

export function established(session: number, changed: Partial<EstablishedEvent> = {}): EstablishedEvent {
  return {
    kind: 'established', session, listener: 0, plainfd: -1, waiting: false, role: 'server', protocol: 'TLSv1.3', cipher: 'TLS_AES_128_GCM_SHA256',
    cipherName: 'TLS_AES_128_GCM_SHA256', group: 'X25519', localid: 'localhost', revision: 1, resumed: false, authorized: false,
    peerCertificates: [], localCertificate: Buffer.from('a certificate'), ...changed,
  };
}

export function closed(session: number, changed: Partial<Extract<EngineEvent, { kind: 'closed' }>> = {}): EngineEvent {
  return { kind: 'closed', session, plainfd: -1, how: 'closed', octetsReceived: 1, octetsSent: 2, ...changed };
}

/** Registers hooks of mocha: a bench for each test, closed after it, with every descriptor. A test may put another in its place, having closed the first. */
export function benchForEach(current: () => Bench, made: (bench: Bench) => void): void {
  let descriptors: number;
  beforeEach(() => {
    descriptors = openDescriptors();
    made(new Bench());
  });
  afterEach(async () => {
    current().close();
    await descriptorsLeft(descriptors);
  });
}

/** No more than so many are open, soon: those of clients are closed by another thread. */
export async function descriptorsLeft(baseline: number): Promise<void> {
  await until(() => openDescriptors() <= baseline, { what: 'the descriptors to be closed', deadlineMs: 3000, context: () => `${baseline} -> ${openDescriptors()}` });
}

export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}
