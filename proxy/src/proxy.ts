/** The proxy as a whole: listening sockets, the services behind them, and the connections that are under way. */
import { setMaxListeners } from 'node:events';
import type { Pool } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import type { ListenAddress, ProxyConfig, ServiceConfig } from './config/types.js';
import { ClientConnection } from './connection.js';
import { Faces } from './handoff/connect.js';
import { Places } from './limits.js';
import { addressName, openListening, updateMode } from './listening.js';
import type { ListeningSocket } from './listening.js';
import { addressList } from './proxyprotocol/index.js';
import type { ConnectionRecord } from './record.js';
import { enter } from './service.js';
import type { ServiceContext, Surroundings } from './service.js';

/** What is ended needs that long, at most, to say its last words and leave its line in the log. */
const lastRecordsMs = 1000;

const modeOf = (address: ListenAddress): number | undefined => (address.kind === 'unix' ? address.mode : undefined);

/** What the proxy tells its owner. */
export interface ProxyEvents {
  /** Once per connection, when nothing more will be known of it. */
  onRecord(record: ConnectionRecord): void;
  /** A listening socket that cannot accept for the moment. */
  onTrouble(where: string, error: TlsPoolError): void;
  /** A line of a program's standard error, made harmless. */
  onProgramOutput(service: string, line: string): void;
}

/** What the proxy is made of. */
export interface ProxyParts extends ProxyEvents {
  /** Stays its owner's. */
  readonly pool: Pool;
  /** Listening sockets from systemd, by name; those that the configuration names are the proxy's from then on. */
  readonly systemdSockets: Map<string, OwnedFd>;
}

interface Listening {
  readonly socket: ListeningSocket;
  readonly address: ListenAddress;
  /** The service that it serves now. */
  readonly context: ServiceContext;
  /** As routes and logs call it. */
  readonly listener: string;
}

/** Serves clients until it is drained or closed. */
export class Proxy {
  readonly #parts: ProxyParts;
  readonly #abort = new AbortController();
  readonly #surroundings: Surroundings;
  readonly #connections = new Set<Promise<void>>();
  #listening = new Map<string, Listening>();
  #config: ProxyConfig;

  private constructor(config: ProxyConfig, parts: ProxyParts) {
    this.#config = config;
    this.#parts = parts;
    // Each connection listens to it; from the eleventh on, Node would take that for a leak.
    setMaxListeners(0, this.#abort.signal);
    this.#surroundings = {
      pool: parts.pool, faces: new Faces(), signal: this.#abort.signal,
      places: {
        all: new Places('the proxy has', () => this.#config.connections),
        // How many of these there may be is in the configuration that a connection began with.
        services: new Places('the service has', () => 0),
        addresses: new Places('this address has', () => 0),
        programs: new Places('the program has', () => 0),
      },
      onProgramOutput: (service, line) => parts.onProgramOutput(service, line),
    };
  }

  /** Opens all listening sockets, or none. Throws SYSTEM or CONFIG_BAD with the address in the text. */
  static start(config: ProxyConfig, parts: ProxyParts): Proxy {
    const proxy = new Proxy(config, parts);
    proxy.apply(config);
    return proxy;
  }

  /** Connections that are not handed over yet, or that are followed to their end. */
  get connections(): number { return this.#connections.size; }

  /** Ports of the listening sockets, by the text of their address: what the kernel chose for port 0. */
  get ports(): ReadonlyMap<string, number> {
    return new Map([...this.#listening].map(([name, { socket }]) => [name, socket.port]));
  }

  /**
   * Serves this configuration from now on: all or nothing. Addresses that stay keep their sockets, with what waits in them; connections go on under the
   * configuration that they began with. Throws as start() does; everything is as it was then.
   */
  apply(config: ProxyConfig): void {
    const next = new Map<string, Listening>();
    const opened: ListeningSocket[] = [];
    const remoded: ListenAddress[] = [];
    try {
      for (const service of config.services) {
        const context = this.#contextOf(service);
        for (const [listener, address] of service.listen) {
          const name = addressName(address);
          const kept = this.#listening.get(name);
          const socket = kept?.socket ?? openListening(address, this.#parts.systemdSockets, (error) => this.#parts.onTrouble(name, error));
          if (kept === undefined) opened.push(socket);
          else if (modeOf(kept.address) !== modeOf(address)) remoded.push(address);
          next.set(name, { socket, address, context, listener });
        }
      }
      remoded.forEach(updateMode);
    } catch (error) {
      for (const socket of opened) socket.close();
      throw error;
    }
    this.#config = config;
    for (const [name, { socket }] of this.#listening) if (!next.has(name)) socket.close();
    this.#listening = next;
    for (const { socket, context, listener } of next.values()) socket.give((fd) => this.#accepted(context, listener, fd));
  }

  /** Accepts nothing more; resolves when all connections have ended or been handed over, at the latest after the deadline, which ends what is not handed over. */
  async drain(deadlineMs: number): Promise<void> {
    this.#stopListening();
    await this.#settledWithin(deadlineMs);
    await this.close();
  }

  /**
   * Ends what is not handed over at once, and lets go of the rest: sessions that are handed over go on, the pool has them. Resolves when all have
   * been told of, or soon. May be called twice.
   */
  async close(): Promise<void> {
    this.#stopListening();
    this.#abort.abort(new TlsPoolError('POOL_DRAINING', { text: 'the proxy goes down' }));
    await this.#settledWithin(lastRecordsMs);
  }

  #stopListening(): void {
    for (const { socket } of this.#listening.values()) socket.close();
    this.#listening.clear();
  }

  async #settledWithin(deadlineMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => { timer = setTimeout(resolve, deadlineMs); });
    await Promise.race([this.#settled(), late]);
    clearTimeout(timer);
  }

  async #settled(): Promise<void> {
    while (this.#connections.size > 0) await Promise.all(this.#connections);
  }

  #contextOf(service: ServiceConfig): ServiceContext {
    return { ...this.#surroundings, service, balancers: addressList(service.proxyFrom) };
  }

  #accepted(context: ServiceContext, listener: string, fd: OwnedFd): void {
    let leave: () => void;
    let connection: ClientConnection;
    try {
      connection = new ClientConnection(context, listener, fd);
    } catch {
      sockets.closeDrained(fd); // it has left already
      return;
    }
    try {
      leave = enter(context);
    } catch (error) {
      connection.turnAway(error);
      this.#parts.onRecord(connection.record);
      return;
    }
    const life = connection.run().finally(() => {
      leave();
      this.#connections.delete(life);
      this.#parts.onRecord(connection.record);
    });
    this.#connections.add(life);
  }
}
