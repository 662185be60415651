/** Two sessions of one engine that are each other's peer, with a wire in between that a test can hold up. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import type net from 'node:net';
import type { Context, ContextSpec, KeyPairSpec, NegotiationSpec, ReauthSpec } from 'tlspool/dist/engine.js';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { application, makeCertificates, Rig } from './engine-support.js';
import type { Certificates, EventOf } from './engine-support.js';

export type Version = 'TLSv1.2' | 'TLSv1.3';
export const versions: readonly Version[] = ['TLSv1.3', 'TLSv1.2'];

/** What `reauthenticate` came to. */
export type Outcome = EventOf<'reauthenticated'> | (EventOf<'answer'> & { readonly code: string; readonly text: string });

export const leafOf = (pair: KeyPairSpec): Buffer => new X509Certificate(pair.chain).raw;
export const rootOf = ({ ca }: Certificates): Buffer => new X509Certificate(ca).raw;

/** Carries octets between two sockets. What the client says can be held back, whole or after some octets. */
export class Wire {
  /** Octets that the client has said so far. */
  said = 0;
  #held: Buffer[] | undefined;
  #left = Infinity;
  #ended = false;
  #wake: (() => void)[] = [];
  readonly #server: net.Socket;
  readonly #client: net.Socket;

  constructor(server: OwnedFd, client: OwnedFd) {
    this.#server = application(server);
    this.#client = application(client);
    for (const end of [this.#client, this.#server]) end.on('error', () => undefined);
    this.#server.on('end', () => this.#client.end());
    this.#client.on('end', () => {
      this.#ended = true;
      if (this.#held === undefined) this.#server.end();
    });
    this.#server.on('data', (chunk: Buffer) => { if (!this.#client.write(chunk)) { this.#server.pause(); this.#client.once('drain', () => this.#server.resume()); } });
    this.#client.on('data', (chunk: Buffer) => { this.#take(chunk); });
  }

  #take(chunk: Buffer): void {
    this.said += chunk.length;
    for (const wake of this.#wake.splice(0)) wake();
    if (this.#held === undefined) { this.#server.write(chunk); return; }
    const through = Math.min(this.#left, chunk.length);
    if (through > 0) this.#server.write(chunk.subarray(0, through));
    this.#left -= through;
    if (through < chunk.length) this.#held.push(chunk.subarray(through));
  }

  /** From now on, lets through only that many octets of the client. */
  hold(octets = 0): void {
    this.#held = [];
    this.#left = octets;
  }

  /** What was held goes on its way in one piece; or only so many octets of it and of what follows. */
  release(most = Infinity): void {
    const held = Buffer.concat(this.#held ?? []);
    const through = Math.min(most, held.length);
    if (through > 0) this.#server.write(held.subarray(0, through));
    this.#left = most - through;
    this.#held = most === Infinity ? undefined : [held.subarray(through)];
    if (this.#ended && this.#held === undefined) this.#server.end();
  }

  /** Resolves when the client has said `octets` in all. */
  async hasSaid(octets: number): Promise<void> {
    while (this.said < octets) await new Promise<void>((resolve) => this.#wake.push(resolve));
  }

  /** RST or FIN for both. */
  destroy(): void {
    this.#server.destroy();
    this.#client.destroy();
  }
}

export interface PairOptions {
  readonly version?: Version;
  /** What the client shows; none where it is absent. */
  readonly shows?: KeyPairSpec;
  readonly server?: Partial<ContextSpec>;
  readonly client?: Partial<ContextSpec>;
  /** Of the server. */
  readonly negotiation?: NegotiationSpec;
  readonly wired?: boolean;
  /** The plain-text side of the server. */
  readonly plainfd?: OwnedFd;
}

export interface Pair {
  /** The number of the server's session, and of the client's. */
  readonly server: number;
  readonly client: number;
  /** The applications' ends. That of the server is absent where its plain-text side was given. */
  readonly atServer: net.Socket;
  readonly atClient: net.Socket;
  readonly established: EventOf<'established'>;
  readonly wire: Wire;
}

/** A Rig whose sessions come in pairs; `close` closes everything that was made here. */
export class ReauthRig extends Rig {
  readonly #owned: (() => void)[] = [];
  #requests = 0;

  own<T extends net.Socket | Wire>(one: T): T {
    this.#owned.push(() => { one.destroy(); });
    return one;
  }

  #socketpair(): [OwnedFd, OwnedFd] { return sockets.socketpair('stream'); }

  async pair(options: PairOptions = {}): Promise<Pair> {
    const { version = 'TLSv1.3', shows } = options;
    const [serverEnd, otherEnd] = this.#socketpair();
    let clientEnd = otherEnd;
    let wire: Wire | undefined;
    if (options.wired === true) {
      const [far, near] = this.#socketpair();
      wire = this.own(new Wire(otherEnd, near));
      clientEnd = far;
    }
    const own = this.context({ minVersion: version, maxVersion: version, ...options.server });
    const server = this.engine.startTls(serverEnd, options.plainfd ?? -1, { role: 'server', selector: this.selector(own), ask: false, alpn: ['h2', 'x/1'], ...options.negotiation });
    const context = this.context({ localid: 'client', keyPairs: shows === undefined ? [] : [shows], minVersion: version, maxVersion: version, ...options.client });
    const client = this.engine.startTls(clientEnd, -1, { role: 'client', context, remoteid: 'server.test', servername: 'server.test', alpn: ['x/1'] });
    const established = await this.event('established', (event) => event.session === server);
    const connected = await this.event('established', (event) => event.session === client);
    const atServer = established.plainfd < 0 ? undefined : this.own(application(established.plainfd));
    const atClient = this.own(application(connected.plainfd));
    for (const end of [atServer, atClient]) end?.on('error', () => undefined);
    return { server, client, established, atClient, get atServer() { assert.ok(atServer); return atServer; }, get wire() { assert.ok(wire); return wire; } };
  }

  /** Asks, and returns the number of the request. */
  ask(session: number, spec: Partial<ReauthSpec> = {}): number {
    const request = ++this.#requests;
    this.engine.reauthenticate(session, request, { require: false, ...spec });
    return request;
  }

  /** How a request was answered. */
  async outcome(request: number): Promise<Outcome> {
    return await Promise.race([
      this.event('reauthenticated', (event) => event.request === request),
      this.event('answer', (event) => event.request === request) as Promise<Outcome>,
    ]);
  }

  async reauthenticate(session: number, spec: Partial<ReauthSpec> = {}): Promise<Outcome> {
    return await this.outcome(this.ask(session, spec));
  }

  /** How many octets the client of a wired pair says to answer. The first time it may offer a ticket, too. */
  async answerOctets(pair: Pair): Promise<number> {
    assert.equal(await this.refusal(pair.server), 'authenticated');
    const before = pair.wire.said;
    assert.equal(await this.refusal(pair.server), 'authenticated');
    return pair.wire.said - before;
  }

  /** The outcome of a request, or the code that it failed with. */
  async refusal(session: number, spec: Partial<ReauthSpec> = {}): Promise<string> {
    const outcome = await this.reauthenticate(session, spec);
    return outcome.kind === 'answer' ? outcome.code : outcome.outcome;
  }

  async closed(session: number): Promise<EventOf<'closed'>> {
    return await this.event('closed', (event) => event.session === session);
  }

  async exported(session: number): Promise<string> {
    const request = ++this.#requests;
    this.engine.exporter(session, request, 'EXPERIMENTAL-test', null, 32);
    const answer = await this.event('answer', (event) => event.request === request);
    return 'octets' in answer ? answer.octets.toString('hex') : 'code' in answer ? answer.code : '';
  }

  async bindings(session: number): Promise<{ readonly tlsUnique?: Buffer; readonly tlsServerEndPoint?: Buffer; readonly tlsExporter?: Buffer }> {
    const request = ++this.#requests;
    this.engine.bindings(session, request);
    const answer = await this.event('answer', (event) => event.request === request);
    assert.ok('bindings' in answer, JSON.stringify(answer));
    return answer.bindings;
  }

  /** A context that trusts the authority of strangers, and not ours. */
  strangers(changes: Partial<ContextSpec> = {}): Context {
    return this.context({ localid: 'strangers', trust: this.certificates.otherCa, ...changes });
  }

  override close(): void {
    super.close();
    for (const release of this.#owned.splice(0)) release();
  }
}

/** Makes the certificates once, and a rig for each test; returns how to get at them. */
export function useReauthRig(): { rig: () => ReauthRig; certificates: () => Certificates; restart: (options: ConstructorParameters<typeof Rig>[1]) => ReauthRig } {
  let certificates: Certificates;
  let rig: ReauthRig;
  before(() => { certificates = makeCertificates(); });
  beforeEach(() => { rig = new ReauthRig(certificates); });
  afterEach(() => { rig.close(); });
  return {
    rig: () => rig,
    certificates: () => certificates,
    restart: (options) => {
      rig.close();
      rig = new ReauthRig(certificates, options);
      return rig;
    },
  };
}
