/** How many connections there may be: in all, of a service, and from one address. */
import { TlsPoolError } from 'libtlspool/protocol';
import type { Endpoint } from 'libtlspool/protocol';
import { hexGroups, octetsOf, textOf, unmapped } from './proxyprotocol/addresses.js';

/** What counts as one client: an IPv4 address, or the /64 that an IPv6 client has to itself. Clients of UNIX sockets count as one. */
export function addressKey(remote: Endpoint | undefined): string {
  const octets = remote === undefined || remote.family === 'unix' ? undefined : octetsOf(remote.address);
  if (octets === undefined) return 'unix';
  const bare = unmapped(octets);
  return bare.length === 4 ? textOf(bare) : hexGroups(bare.subarray(0, 8));
}

/** Places of one kind, counted by key. */
export class Places {
  readonly #taken = new Map<string, number>();

  /** `max`: of a key; asked each time, because a configuration may change it. */
  constructor(private readonly what: string, private readonly max: (key: string) => number) {}

  of(key: string): number { return this.#taken.get(key) ?? 0; }

  /** Takes a place; the function gives it back and may be called twice. Throws LIMIT_CLIENTS. */
  take(key: string, max = this.max(key)): () => void {
    if (this.of(key) >= max) throw new TlsPoolError('LIMIT_CLIENTS', { text: `${this.what}: ${max} connections, which is the limit` });
    this.#taken.set(key, this.of(key) + 1);
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      const left = this.of(key) - 1;
      if (left === 0) this.#taken.delete(key);
      else this.#taken.set(key, left);
    };
  }
}
