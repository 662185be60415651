/** Listening sockets, which the library opens and keeps a copy of, so that the port stays open while the pool restarts. */
import { isAbandoned, removerOf } from './abandoned.js';
import { isErrno } from './errno.js';
import dns from 'node:dns/promises';
import fs from 'node:fs';
import net from 'node:net';
import { sockets } from './native.js';
import type { OwnedFd } from './native.js';
import { TlsPoolError } from './protocol/index.js';
import type { Endpoint } from './protocol/index.js';

/** Where to listen: one of port, path and fd. */
export interface SourceOptions {
  /** TCP port, 0 to 65535; 0 lets the kernel choose. Default 0. */
  readonly port?: number;
  /** Name or address to bind; default all addresses of IPv6 and IPv4. */
  readonly host?: string;
  /** Path of a UNIX listener instead of TCP. Removed when the listener is closed. */
  readonly path?: string;
  /** An inherited listening socket (systemd's first is 3). It belongs to the library from the call on, and is closed on each path. */
  readonly fd?: number;
  /** Length of the kernel's accept queue. Default 511. */
  readonly backlog?: number;
  /** On all addresses, or on one of IPv6: no connections of IPv4. Default false. Without effect on an address of IPv4. */
  readonly ipv6Only?: boolean;
  /** SO_REUSEPORT: several sockets on one port, each with its own accept queue. Default false. */
  readonly reusePort?: boolean;
}

/** @internal An open listening socket. */
export interface Source {
  readonly fd: OwnedFd;
  /** Closes our copy; removes the path of a UNIX listener that we made. May be called twice. */
  close(): void;
}

/** @internal Throws BAD_ARGUMENT, FD_KIND or SYSTEM (EADDRINUSE, EACCES, ...). */
export async function openSource(options: SourceOptions): Promise<Source> {
  checkSource(options);
  if (options.fd !== undefined) return inherited(options.fd);
  const backlog = options.backlog === undefined ? {} : { backlog: options.backlog };
  if (options.path !== undefined) {
    const { path } = options;
    const fd = sockets.unixListen({ path, kind: 'stream', mode: 0o666 & ~process.umask(), ...backlog });
    return closing(fd, path.startsWith('\0') ? undefined : removerOf(path));
  }
  const ipv6Only = options.ipv6Only ?? false;
  const tcp = { port: options.port ?? 0, reusePort: options.reusePort ?? false, ipv6Only, ...backlog };
  if (options.host !== undefined) return closing(sockets.tcpListen({ ...tcp, host: await numeric(options.host) }));
  try {
    return closing(sockets.tcpListen({ ...tcp, host: '::' }));
  } catch (error) {
    // As in Node: a host without IPv6 listens on IPv4.
    if (!ipv6Only && isErrno(error, 'EAFNOSUPPORT', 'EADDRNOTAVAIL')) return closing(sockets.tcpListen({ ...tcp, host: '0.0.0.0' }));
    throw error;
  }
}

/** @internal Throws BAD_ARGUMENT. */
export function checkSource({ port, path, fd }: SourceOptions): void {
  if ([port, path, fd].filter((one) => one !== undefined).length > 1) {
    throw new TlsPoolError('BAD_ARGUMENT', { text: 'give one of port, path and fd to listen on, not several' });
  }
  if (port !== undefined && !(Number.isInteger(port) && port >= 0 && port <= 65_535)) {
    throw new TlsPoolError('BAD_ARGUMENT', { text: `port is ${String(port)}; it must be from 0 to 65535`, field: 'port' });
  }
  if (fd !== undefined && !(Number.isInteger(fd) && fd >= 0)) {
    throw new TlsPoolError('BAD_ARGUMENT', { text: `fd is ${String(fd)}; it must be the number of a listening socket`, field: 'fd' });
  }
}

/** Where to listen for a proxy: exactly one of path and fd. */
export interface PacketSourceOptions extends Pick<SourceOptions, 'path' | 'fd' | 'backlog'> {
  /** Permission bits of the path. */
  readonly mode: number;
}

/**
 * @internal A listening UNIX SOCK_SEQPACKET socket. A path on which nobody answers is taken over: whoever made it was killed.
 * Throws BAD_ARGUMENT, FD_KIND or SYSTEM (EADDRINUSE: somebody answers).
 */
export function openPacketSource({ path, fd, backlog, mode }: PacketSourceOptions): Source {
  if (path === undefined) return inherited(fd as number, 'seqpacket');
  const options = { path, mode, kind: 'seqpacket' as const, ...(backlog === undefined ? {} : { backlog }) };
  const made = (): Source => {
    const listening = sockets.unixListen(options);
    // The abstract namespace has no files.
    return closing(listening, path.startsWith('\0') ? undefined : removerOf(path));
  };
  try {
    return made();
  } catch (error) {
    if (!isErrno(error, 'EADDRINUSE') || !isAbandoned(path, 'seqpacket')) throw error;
    fs.rmSync(path, { force: true });
    return made();
  }
}

function inherited(fd: number, type?: 'seqpacket'): Source {
  const owned = fd as OwnedFd;
  let copy: OwnedFd;
  try {
    const info = sockets.socketInfo(owned);
    if (!info.listening) throw new TlsPoolError('FD_KIND', { text: `descriptor ${fd} is not a listening socket` });
    if (type !== undefined && (info.type !== type || info.domain !== 'unix')) throw new TlsPoolError('FD_KIND', { text: `descriptor ${fd} listens, but is no UNIX ${type} socket` });
    // Inherited descriptors are not CLOEXEC; the copy is.
    copy = sockets.dup(owned);
  } catch (error) {
    if (!isErrno(error, 'EBADF')) closeQuietly(owned);
    throw error;
  }
  closeQuietly(owned);
  return closing(copy);
}

/** @internal Closes what may be no descriptor. */
export function closeQuietly(fd: OwnedFd): void {
  try { sockets.close(fd); } catch { /* it was no descriptor: the error that is thrown says so */ }
}

/** @internal Closes the descriptor that was given, where the call failed before the library could use it. */
export function closeGiven({ fd }: Pick<SourceOptions, 'fd'>): void {
  if (fd !== undefined && Number.isInteger(fd) && fd >= 0) closeQuietly(fd as OwnedFd);
}

function closing(fd: OwnedFd, clean?: () => void): Source {
  let open = true;
  // The port of a worker thread that was terminated would stay open, with nobody to accept from it.
  sockets.closeWithThread(fd);
  return {
    fd,
    close() {
      if (!open) return;
      open = false;
      clean?.();
      sockets.close(fd);
    },
  };
}

async function numeric(host: string): Promise<string> {
  if (net.isIP(host) !== 0) return host;
  try {
    return (await dns.lookup(host)).address;
  } catch (error) {
    throw new TlsPoolError('BAD_ARGUMENT', { text: `the host name ${JSON.stringify(host)} cannot be resolved; give an address to listen on`, field: 'host', cause: error });
  }
}

/** @internal An endpoint in the shape of net.Server.address(). */
export function addressOf(local: Endpoint): net.AddressInfo | string {
  return local.family === 'unix' ? local.address : { address: local.address, family: local.family, port: local.port };
}
