/** What the proxy is told to do; made from YAML by load.ts, and immutable. */
import type { ClientAuth } from 'libtlspool/protocol';
import type { PreambleName } from 'libtlspool/preamble';
import type { Account } from 'tlspool-common/config';

/** Where a service listens. */
export type ListenAddress =
  /** Numeric IPv4 or IPv6 address ("127.0.0.1:143", "[::]:143", "143" for all addresses). */
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  /** Absolute path; the socket is replaced when nobody answers on it, and removed at the end. */
  | { readonly kind: 'unix'; readonly path: string; readonly mode: number }
  /** A socket that systemd passed under this FileDescriptorName (sd_listen_fds_with_names(3)). */
  | { readonly kind: 'systemd'; readonly name: string };

/** A plain-text service over TCP (name or address) or a UNIX stream socket. */
export type PlainAddress = { readonly host: string; readonly port: number } | { readonly path: string };

/** How the protected connection reaches the backend. */
export type BackendConfig =
  | {
    readonly handoff: 'fd';
    /** UNIX SOCK_SEQPACKET socket on which the backend listens. */
    readonly path: string;
    /** The backend's requests about its sessions are relayed to the pool. */
    readonly relay: boolean;
    /** Ask the backend whether a server name may be served. */
    readonly checkServername: boolean;
  }
  | { readonly handoff: 'connect'; readonly to: PlainAddress; /** 0: none. */ readonly proxyProtocol: 0 | 1 | 2 }
  | {
    readonly handoff: 'exec';
    /** Program with an absolute path, and its arguments. */
    readonly command: readonly [string, ...string[]];
    /** undefined: the proxy's own. */
    readonly user: Account | undefined;
    /** Programs at a time. */
    readonly max: number;
  };

/** Which connections go to a backend. All conditions that are there must hold; the first route that matches is taken. */
export interface RouteConfig {
  /** Lower-case names; `*.example.org` stands for one label. Empty: any name, and none. */
  readonly servernames: readonly string[];
  /** Application protocols, the most preferred first. Empty: any, and none. */
  readonly alpn: readonly string[];
  /** Names of the service's listening addresses (see ServiceConfig.listen). Empty: any. */
  readonly listeners: readonly string[];
  /** Identity to serve; undefined: the service's. */
  readonly localid: string | undefined;
  readonly backend: BackendConfig;
}

/** One protocol on one or more addresses. */
export interface ServiceConfig {
  readonly name: string;
  readonly protocol: PreambleName;
  /** By the name under which routes and logs speak of them: the text of the address, or the name given. */
  readonly listen: ReadonlyMap<string, ListenAddress>;
  /** required (default), or optional: a client that does not ask for TLS is passed on in plain text. */
  readonly tls: 'required' | 'optional';
  readonly localid: string | undefined;
  /** Raises what the identity's policy says. undefined: what the policy says. */
  readonly clientAuth: ClientAuth | undefined;
  /** Our name in greetings. Default: the host's. */
  readonly hostname: string;
  /** Shown before TLS instead of what a plain-text backend says; needed by no backend. */
  readonly capabilities: readonly string[] | undefined;
  /** Load balancers whose PROXY header is believed, and awaited: CIDR notation. */
  readonly proxyFrom: readonly string[];
  /** In order; the default route, if there is one, is last and has no conditions. */
  readonly routes: readonly [RouteConfig, ...RouteConfig[]];
  /** Connections at a time: those that are not handed over yet, and those that are followed to their end. */
  readonly connections: number;
  readonly perAddress: number;
  /** From accept() to the go-ahead, in milliseconds. */
  readonly preambleMs: number;
  /** For a backend to take a connection, in milliseconds. */
  readonly backendMs: number;
}

/** The whole of it. */
export interface ProxyConfig {
  /** Socket of the pool; undefined: where libtlspool looks. */
  readonly pool: string | undefined;
  readonly services: readonly ServiceConfig[];
  /** All services together. */
  readonly connections: number;
  /** How long connections may go on after SIGTERM, in milliseconds. */
  readonly drainMs: number;
  readonly log: { readonly level: 'debug' | 'info' | 'warn' | 'error'; readonly format: 'text' | 'json' };
}
