/** The plain-text phase of a connection: who the client is, what it is shown, and the dialogue up to the go-ahead; docs/proxy.md, steps 2 to 5. */
import { Conversation, farewellFor } from 'libtlspool/preamble';
import type { Face, ServerOutcome, ServerRole } from 'libtlspool/preamble';
import type { BorrowedFd } from 'libtlspool/native';
import { asPoolError } from './faults.js';
import type { Learnt } from './handoff/connect.js';
import { sayLast } from './lastwords.js';
import { ownHeader, readOrigin } from './origin.js';
import type { Origin } from './origin.js';
import type { Router } from './routing.js';
import { enterFrom, poolOf } from './service.js';
import type { ServiceContext } from './service.js';

type TlsOutcome = Extract<ServerOutcome, { next: 'tls' }>;

/** One client before TLS, and what is known of it afterwards. */
export class PlainTextPhase {
  readonly #context: ServiceContext;
  readonly #role: ServerRole;
  readonly #fd: BorrowedFd;
  #origin: Origin;
  #face: Face;
  #leave = (): void => undefined;
  #isRefused = false;

  /** `origin`: the ends of the socket. The descriptor is borrowed until talk() or turnAway() is over. */
  constructor(context: ServiceContext, role: ServerRole, { fd, origin }: { readonly fd: BorrowedFd; readonly origin: Origin }) {
    const { hostname, capabilities } = context.service;
    this.#context = context;
    this.#role = role;
    this.#fd = fd;
    this.#origin = origin;
    this.#face = { hostname, ...(capabilities !== undefined && { capabilities }) };
  }

  /** The client's connection: behind a load balancer what that says of it, once it has. */
  get origin(): Origin { return this.#origin; }

  /** From the first octet to the go-ahead, or to whatever else ends the dialogue. Rejects when that was all, and the client was told. */
  async talk(router: Router, onOrigin: (origin: Origin) => void): Promise<ServerOutcome> {
    const talk = this.#conversation();
    try {
      this.#origin = await readOrigin(talk, this.#origin, this.#context.balancers);
      onOrigin(this.#origin);
      this.#leave = enterFrom(this.#context, this.#origin.remote);
      this.#face = { ...await this.#learn(router), ...this.#face };
      const { tls } = this.#context.service;
      const outcome = await talk.run(this.#role.serve({ face: this.#face, tls }));
      if (outcome.next === 'tls') await this.#goAhead(talk, outcome);
      return outcome;
    } catch (error) {
      if (!this.#isRefused) talk.tell(this.#farewell(error));
      throw error;
    } finally {
      talk.close();
    }
  }

  /** Instead of talk(), where there is no room for the client: tells it so. */
  turnAway(error: unknown): void { sayLast(this.#fd, this.#farewell(error)); }

  /** "Not available", valid before TLS and behind it. */
  unavailable(): Uint8Array { return this.#role.farewell('unavailable', this.#face); }

  /** Gives back the place that its address has. May be called twice, and before talk(). */
  leave(): void { this.#leave(); }

  /** Empty where nobody is there to be told. */
  #farewell(error: unknown): Uint8Array {
    const why = farewellFor(asPoolError(error));
    return why === undefined ? new Uint8Array() : this.#role.farewell(why, this.#face);
  }

  /** Watching the connection takes a descriptor, too: without one there is just the farewell. */
  #conversation(): Conversation {
    const { service: { preambleMs }, signal } = this.#context;
    try {
      return new Conversation(this.#fd, { deadlineMs: preambleMs, signal });
    } catch (error) {
      this.turnAway(error);
      throw error;
    }
  }

  /** What a plain-text backend says of itself, where it says anything, a client would see it, and the configuration does not say it. */
  async #learn(router: Router): Promise<Learnt> {
    const { service: { protocol, tls, hostname, capabilities, backendMs }, faces, signal } = this.#context;
    const config = router.fallback?.backend;
    const { learn, learnOnly = tls } = this.#role;
    if (config?.handoff !== 'connect' || learn === undefined || learnOnly !== tls || capabilities !== undefined) return {};
    return faces.of({ protocol, config, learn, hostname, header: ownHeader }, { deadlineMs: backendMs, signal });
  }

  async #goAhead(talk: Conversation, outcome: TlsOutcome): Promise<void> {
    try {
      await poolOf(this.#context);
    } catch (error) {
      // That is the answer to the request for TLS, and all that is said.
      this.#isRefused = true;
      talk.tell(outcome.refusal);
      throw error;
    }
    if (outcome.direct !== true) talk.refuseEarly();
    await talk.write(outcome.goAhead);
  }
}
