/** Addresses of the connection that a socket stands for, where net.Socket would tell those of the socket itself. */
import type net from 'node:net';

/** A socket that knows whom it stands for. */
export interface Endpointed extends net.Socket {
  /** undefined where it is not known, or no address. */
  endpoint(side: 'local' | 'remote', field: 'address' | 'port' | 'family'): string | number | undefined;
}

/** Gives a class of sockets remoteAddress, remotePort, ... of the client's connection, as tls.TLSSocket has them. Once per class. */
export function tellEndpoints(prototype: Endpointed): void {
  for (const side of ['local', 'remote'] as const) {
    for (const field of ['address', 'port', 'family'] as const) {
      const name = `${side}${field.charAt(0).toUpperCase()}${field.slice(1)}`;
      Object.defineProperty(prototype, name, {
        configurable: true, enumerable: false,
        get(this: Endpointed) { return this.endpoint(side, field); },
      });
    }
  }
}
