/**
 * For each preamble, by the name of the registry: what a peer says in it. test/contract/preambles.test.ts runs all kinds of bad input
 * over this table, so a protocol without a row here fails the tests.
 */
import type { ClientOptions, Face } from 'libtlspool/preamble';
import type { Octets } from './dialogue.js';
import { binaryScripts } from './preamble-scripts-binary.js';
import { mailScripts } from './preamble-scripts-mail.js';
import { xmppScripts } from './preamble-scripts-xmpp.js';

/** Input that is at a limit, and its twin that is one over. */
export interface LimitScript {
  /** Completes "the limit of ...". */
  readonly what: string;
  /** Ends as the good dialogue does. */
  readonly at: Octets;
  /** PREAMBLE. */
  readonly over: Octets;
}

/** The server role: what a client says. Octets, and not lines, so every row works in all splits. */
export interface ServerScript {
  readonly face?: Partial<Face>;
  /** All that a client says, up to and with its request for TLS. */
  readonly good: Octets;
  /** All that the server says meanwhile, and its go-ahead, as latin1. */
  readonly says: string | RegExp;
  /** TLS at once: the octets of `good` are the ClientHello, which stays in the kernel. */
  readonly direct?: true;
  /** There is no go-ahead: the ClientHello may be in the segment of the request. */
  readonly withoutGoAhead?: true;
  /** TLS at once is another way to ask for it. */
  readonly mayBeDirect?: true;
  /** What an attacker sends behind `good`, in plain text. Absent only for `direct`. */
  readonly injection?: Octets;
  /** The client says goodbye; absent where the protocol has no word for that. */
  readonly goodbye?: Octets;
  /** Commands that need TLS, each with what is said to it (with TLS required) in place of carrying it out. They are followed by `good`. */
  readonly withheld: readonly (readonly [command: Octets, reply: RegExp])[];
  /** With TLS optional: what a client says that does not ask for it, and what of it is the backend's. Absent where there is no such thing. */
  readonly plain?: { readonly input: Octets; readonly ahead: Octets };
  /** Each of them PREAMBLE. */
  readonly broken: readonly Octets[];
  readonly limits: readonly LimitScript[];
  /** The protocol has words for turning a client away. */
  readonly hasFarewell: boolean;
  /** A plain-text backend that greets first. Present when, and only when, the role has learn(). */
  readonly backend?: BackendScript;
}

/** What a plain-text backend says. */
export interface BackendScript {
  /** All that it says to learn(). */
  readonly learn: Octets;
  /** All that learn() says. */
  readonly asks: string;
  readonly learnt: Omit<Face, 'hostname'>;
  /** Backends that turn us away: PREAMBLE_REFUSED. */
  readonly refusals: readonly Octets[];
  /** What settle() takes, and no more; absent when, and only when, the role has no settle(). */
  readonly settles?: Octets;
}

/** The client role: what a server says. */
export interface ClientScript {
  /** hostname and remoteid have defaults. */
  readonly options?: Partial<ClientOptions>;
  /** All that a server says, up to and with its go-ahead. Empty: it says nothing. */
  readonly good: Octets;
  /** All that the client says meanwhile, as latin1. */
  readonly says: string | RegExp;
  /** What somebody on the way adds behind `good`. */
  readonly injection: Octets;
  /** A server without TLS, or that does not begin it now: PREAMBLE_REFUSED. */
  readonly refusals: readonly Octets[];
  /** Each of them PREAMBLE. */
  readonly broken: readonly Octets[];
  readonly limits: readonly LimitScript[];
}

export interface PreambleScripts {
  readonly server?: ServerScript;
  readonly client?: ClientScript;
}

/** Rows of the table, by name. */
export const preambleScripts: Readonly<Record<string, PreambleScripts>> = {
  ...mailScripts,
  ...binaryScripts,
  ...xmppScripts,
};
