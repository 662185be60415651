/** Addresses as they are written in the configuration. */
import net from 'node:net';
import { isHostName } from 'tlspool-common/config';
import type { ParsedListen } from './schema.js';
import type { ListenAddress, PlainAddress } from './types.js';

/** FileDescriptorName= of systemd.socket(5). */
const systemdName = /^[^:\p{Cc}\s]{1,255}$/u;

export const listenAllowed = 'an address to listen on: "127.0.0.1:143", "[::1]:143", "143" for all addresses, "unix:/path" or "systemd:NAME"; addresses are numeric';
export const plainAllowed = 'an address to connect to: "127.0.0.1:143", "[::1]:143", "name:143" or "unix:/path"';

function portOf(text: string | undefined, min: number): number | undefined {
  if (text === undefined || !/^\d{1,5}$/.test(text)) return undefined;
  const port = Number(text);
  return port >= min && port <= 65_535 ? port : undefined;
}

/** `host:port` and `[IPv6]:port`, the latter in the one spelling that inet_ntop(3) has for the address. */
function splitHostPort(text: string, minPort: number): { readonly host: string; readonly port: number } | undefined {
  const [, bracketed, plain, digits] = /^(?:\[([0-9A-Fa-f:.]+)\]|([^[\]:]+)):(\d+)$/.exec(text) ?? [];
  const port = portOf(digits, minPort);
  if (port === undefined) return undefined;
  if (bracketed !== undefined) return net.isIPv6(bracketed) ? { host: new net.SocketAddress({ address: bracketed, family: 'ipv6' }).address, port } : undefined;
  return plain === undefined ? undefined : { host: plain, port };
}

/** A listening address; a path stays as it was written, and `mode` is what the caller says. Port 0 lets the kernel choose. */
export function parseListen(text: string): Exclude<ListenAddress, { kind: 'unix' }> | { readonly kind: 'unix'; readonly path: string } | undefined {
  const [, scheme, rest = ''] = /^(unix|systemd):(.*)$/su.exec(text) ?? [];
  if (scheme === 'unix') return rest === '' || rest.includes('\0') ? undefined : { kind: 'unix', path: rest };
  if (scheme === 'systemd') return systemdName.test(rest) ? { kind: 'systemd', name: rest } : undefined;
  const everywhere = portOf(text, 0);
  if (everywhere !== undefined) return { kind: 'tcp', host: '::', port: everywhere };
  const found = splitHostPort(text, 0);
  return found === undefined || net.isIP(found.host) === 0 ? undefined : { kind: 'tcp', ...found };
}

/** The address of a plain-text service; a path stays as it was written. */
export function parsePlain(text: string): PlainAddress | undefined {
  if (text.startsWith('unix:')) {
    const path = text.slice('unix:'.length);
    return path === '' || path.includes('\0') ? undefined : { path };
  }
  const found = splitHostPort(text, 1);
  if (found === undefined) return undefined;
  const host = found.host.toLowerCase();
  // What looks like an address and is none ("1.2.3.256") would be looked up as a name, and never be found.
  const isName = isHostName(host) && !/^[\d.]+$/.test(host);
  return net.isIP(host) !== 0 || isName ? { host, port: found.port } : undefined;
}

/** Can the two not be listened on at the same time? `::` takes IPv4, too. */
export function clash(one: ListenAddress, other: ListenAddress): boolean {
  if (one.kind === 'unix') return other.kind === 'unix' && one.path === other.path;
  if (one.kind === 'systemd') return other.kind === 'systemd' && one.name === other.name;
  if (other.kind !== 'tcp' || one.port !== other.port) return false;
  if (one.host === other.host) return true;
  // The kernel chooses a free one for each.
  if (one.port === 0) return false;
  const hosts = [one.host, other.host];
  return hosts.includes('::') || (hosts.includes('0.0.0.0') && hosts.every((host) => net.isIPv4(host)));
}

/** An entry of `listen`, with its path made absolute. */
export function toListen({ address: { address }, mode = 0o660 }: ParsedListen, absolute: (file: string) => string): ListenAddress {
  return address.kind === 'unix' ? { kind: 'unix', path: absolute(address.path), mode } : address;
}

/** How routes and the log call it. */
export function nameOfListen({ name, address }: ParsedListen): string {
  return name ?? address.written;
}
