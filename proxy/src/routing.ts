/** Which backend a connection goes to: by server name, application protocol, and where it came in. */
import type { Hello, Verdict } from 'libtlspool';
import type { RouteConfig, ServiceConfig } from './config/types.js';

/** Names are compared as RFC 6125 section 6.4.3 has it: a wildcard is a whole left-most label and stands for exactly one. */
export function matchesName(patterns: readonly string[], name: string | undefined): boolean {
  if (patterns.length === 0) return true;
  if (name === undefined) return false;
  const lower = name.toLowerCase();
  const parent = lower.slice(lower.indexOf('.'));
  return patterns.some((pattern) => pattern === lower || (pattern.startsWith('*.') && parent.length > 1 && pattern.slice(1) === parent && lower !== parent));
}

const shares = (route: RouteConfig, offered: readonly string[]): boolean => route.alpn.length === 0 || route.alpn.some((word) => offered.includes(word));

/** What the ClientHello leads to. */
export type Choice =
  /** `verdict` goes to the pool. */
  | { readonly route: RouteConfig; readonly verdict: Exclude<Verdict, boolean> }
  /** The name is served, but for other application protocols: the pool finds none in common (no_application_protocol, RFC 7301 section 3.2). */
  | { readonly route: undefined; readonly verdict: Exclude<Verdict, boolean> }
  /** unrecognized_name (RFC 6066 section 3). Also for a client that offers no application protocol where each route demands one: it would get no alert for that. */
  | { readonly route: undefined; readonly verdict: false };

/** Chooses among the routes of a service for connections of one of its listeners. */
export class Router {
  readonly #routes: readonly RouteConfig[];
  readonly #alpn: string | undefined;

  /** `alpn`: the protocol's own demand (postgres), for routes that say nothing. */
  constructor({ routes }: Pick<ServiceConfig, 'routes'>, listener: string, alpn?: string) {
    this.#routes = routes.filter(({ listeners }) => listeners.length === 0 || listeners.includes(listener));
    this.#alpn = alpn;
  }

  /** The route that all connections take, or undefined when the ClientHello decides. */
  get only(): RouteConfig | undefined {
    const [first] = this.#routes;
    return first !== undefined && first.servernames.length === 0 && first.alpn.length === 0 ? first : undefined;
  }

  /** The route for clients that did not ask for TLS, and whose backend is shown before TLS: the last one, which is the default if there is one. */
  get fallback(): RouteConfig | undefined { return this.#routes.at(-1); }

  /** Does any of them need to be connected when the handshake is done? */
  get connects(): boolean { return this.#routes.some(({ backend }) => backend.handoff === 'connect'); }

  choose({ servername, alpn: offered }: Pick<Hello, 'servername' | 'alpn'>): Choice {
    const named = this.#routes.filter(({ servernames }) => matchesName(servernames, servername));
    const route = named.find((one) => shares(one, offered));
    if (route !== undefined) return { route, verdict: this.verdictOf(route) };
    const alpn = [...new Set(named.flatMap((one) => one.alpn))].slice(0, 32);
    return named.length === 0 || offered.length === 0 ? { route: undefined, verdict: false } : { route: undefined, verdict: { alpn } };
  }

  /** What the pool is told of a route. */
  verdictOf({ localid, alpn }: RouteConfig): Exclude<Verdict, boolean> {
    const own = this.#alpn === undefined ? undefined : [this.#alpn];
    const words = alpn.length > 0 ? alpn : own;
    return { ...(localid !== undefined && { localid }), ...(words !== undefined && { alpn: words }) };
  }
}
