/**
 * The native socket addon, typed. Verbs equal system calls; there is no policy here.
 *
 * All descriptors are opened CLOEXEC and non-blocking. A failed call throws TlsPoolError SYSTEM with `errno` (negative,
 * as in libuv) , `syscall` and the errno's name in the text; nothing asserts on a caller's input.
 *
 * @packageDocumentation
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { TlsPoolError } from './protocol/errors.js';

/** A descriptor that the holder must close, exactly once. */
export type OwnedFd = number & {
  /** Exists for the compiler only. */
  readonly __fd: 'owned';
};
/** A descriptor that somebody else closes. */
export type BorrowedFd = number & {
  /** Exists for the compiler only. */
  readonly __fd: 'owned' | 'borrowed';
};

/** SOCK_STREAM or SOCK_SEQPACKET. */
export type SocketKind = 'stream' | 'seqpacket';

/** One packet, or what a stream had at hand. */
export interface Received {
  /** Empty at end of stream (`eof` is then true). */
  readonly data: Buffer;
  /** Owned by the caller from now on. */
  readonly fds: OwnedFd[];
  /** The peer has ended its side. */
  readonly eof: boolean;
  /** Only with `mayLose`: descriptors behind those in `fds` came and could not be installed, for this errno (negative). */
  readonly lost?: number;
}

/** Who is at the other end of a UNIX socket, as the kernel noted when it was connected. */
export interface PeerCredentials {
  /** In our pid namespace; 0 when it is not in there. */
  readonly pid: number;
  /** Effective user. */
  readonly uid: number;
  /** Effective group. */
  readonly gid: number;
  /** Supplementary groups (SO_PEERGROUPS); empty where the kernel does not say. */
  readonly groups: readonly number[];
  /** SO_PEERPIDFD where the kernel has it: owned by the caller. */
  readonly pidfd?: OwnedFd;
}

/** One end of a socket; Endpoint of the message table. */
export interface SocketAddress {
  /** Address family. */
  readonly family: 'IPv4' | 'IPv6' | 'unix';
  /** Numeric address, or path (empty: unnamed). */
  readonly address: string;
  /** 0 for `unix`. */
  readonly port: number;
}

/** What kind of socket a descriptor is. */
export interface SocketInfo {
  /** SO_DOMAIN. */
  readonly domain: 'IPv4' | 'IPv6' | 'unix' | 'other';
  /** SO_TYPE. */
  readonly type: 'stream' | 'seqpacket' | 'dgram' | 'other';
  /** SO_ACCEPTCONN. */
  readonly listening: boolean;
  /** It has a peer. */
  readonly connected: boolean;
  /** Present for the domains of Endpoint in the message table. */
  readonly local?: SocketAddress;
  /** The peer's end; absent when not connected. */
  readonly remote?: SocketAddress;
}

/** Where and how to listen. */
export interface TcpListenOptions {
  /** Numeric IPv4 or IPv6 address; `::` with ipv6Only false serves both. */
  readonly host: string;
  /** 0 to 65535; 0 lets the kernel choose. */
  readonly port: number;
  /** Length of the accept queue, default 511. */
  readonly backlog?: number;
  /** SO_REUSEPORT. Default false. */
  readonly reusePort?: boolean;
  /** IPV6_V6ONLY. */
  readonly ipv6Only?: boolean;
}

/** Where and how to listen. */
export interface UnixListenOptions {
  /** 1 to 107 octets. A leading NUL means the abstract namespace. */
  readonly path: string;
  /** Stream or packets. */
  readonly kind: SocketKind;
  /** Length of the accept queue. */
  readonly backlog?: number;
  /** Permission bits of the path, set before anybody can connect. Default 0o600. */
  readonly mode?: number;
}

/** Bits of Poll events, as in libuv. */
export const pollReadable = 1;
/** See pollReadable. */
export const pollWritable = 2;
/** See pollReadable: the peer has shut down its side. */
export const pollDisconnect = 4;

/**
 * Readiness of one descriptor on Node's own loop (uv_poll). The descriptor is borrowed; close the Poll before it: the Poll holds a
 * duplicate, so a peer sees the end only when both are closed. An error of the socket (POLLERR) counts as readiness for everything
 * that is waited for; the next receive or send tells what it was, after or before what is still queued. Holds its process alive
 * while started, unless `unref`ed, and is never collected before it is closed.
 */
export interface Poll {
  /** Replace the set of events waited for (pollReadable | pollWritable | pollDisconnect). */
  start(events: number): void;
  /** No more callbacks until start(). */
  stop(): void;
  /** Stops and releases the handle. May be called twice. */
  close(): void;
  /** Keeps the loop running (the default). */
  ref(): void;
  /** Does not keep the loop running. */
  unref(): void;
}

/** The system calls. */
export interface NativeSockets {
  /** Both ends are the caller's. */
  socketpair(kind: SocketKind): [OwnedFd, OwnedFd];
  /** Connects a UNIX socket. Paths over 107 octets are refused, not cut. A leading NUL means the abstract namespace. */
  unixConnect(path: string, kind: SocketKind): OwnedFd;
  /** Binds and listens. An existing path is an error (EADDRINUSE); unlinking is policy. */
  unixListen(options: UnixListenOptions): OwnedFd;
  /** Binds and listens, with SO_REUSEADDR. */
  tcpListen(options: TcpListenOptions): OwnedFd;
  /** Raw accept4: a descriptor from which nothing has been read; null when nobody is waiting (EAGAIN). */
  accept(fd: BorrowedFd): OwnedFd | null;
  /** One sendmsg, MSG_NOSIGNAL. Returns the octets taken, or -1 when the socket is full (EAGAIN; nothing was sent). The fds stay the caller's. */
  send(fd: BorrowedFd, data: Uint8Array, fds?: readonly BorrowedFd[]): number;
  /**
   * One recvmsg with MSG_CMSG_CLOEXEC; null when nothing is there (EAGAIN). A packet that did not fit (MSG_TRUNC, MSG_CTRUNC)
   * or carries more than maxFds descriptors throws TlsPoolError MESSAGE_TOO_LARGE or FD_COUNT after closing all of them; FD_COUNT with
   * errno -EMFILE or -ENFILE when they could not be installed here; with mayLose such a packet comes with those that could, the first ones, and `lost`. maxOctets is 1 to 2^24, maxFds 0 to 253. Never blocks.
   */
  receive(fd: BorrowedFd, maxOctets: number, maxFds: number, mayLose?: boolean): Received | null;
  /** Octets that wait, left where they are; empty at end of stream, null when nothing is there (EAGAIN). maxOctets is 1 to 2^24. Never blocks. */
  peek(fd: BorrowedFd, maxOctets: number): Buffer | null;
  /** Of a connected UNIX socket. */
  peerCredentials(fd: BorrowedFd): PeerCredentials;
  /** Throws FD_KIND when fd is no socket. */
  socketInfo(fd: BorrowedFd): SocketInfo;
  /** shutdown(2): 0 read, 1 write, 2 both. */
  shutdown(fd: BorrowedFd, how: 0 | 1 | 2): void;
  /** close(2), never retried on EINTR (the descriptor is gone either way). */
  close(fd: OwnedFd): void;
  /**
   * Closes a descriptor that came from somebody who need not be trusted, by a thread, a moment later: close() may wait for as long as he likes (SO_LINGER, descriptors in the queue of a
   * UNIX socket, a file of FUSE), and throw what he likes. SO_LINGER is switched off.
   */
  discard(fd: OwnedFd): void;
  /**
   * Closes a socket that nobody is to use any more, by a copy neither. What is in the queue of a UNIX socket is thrown away, and descriptors among it are discarded; any other socket is closed,
   * or with `passed`, where somebody else has had it, discarded. Never blocks.
   */
  closeDrained(fd: OwnedFd, passed?: boolean): void;
  /**
   * Has a descriptor closed when this thread ends, if close() has not done so by then: Worker.terminate() gives JavaScript no chance to, and the process lives on. Only for descriptors
   * that are closed by close() and never given away.
   */
  closeWithThread(fd: OwnedFd): void;
  /** dup with CLOEXEC. */
  dup(fd: BorrowedFd): OwnedFd;
  /** Blocking poll(2) of one descriptor; returns revents in poll(2)'s bits (POLLIN 1, POLLOUT 4, POLLERR 8, POLLHUP 16, POLLRDHUP 8192), 0 on time-out. */
  pollWait(fd: BorrowedFd, events: number, timeoutMs: number): number;
  /** A watcher of readiness. `callback(status, events)`: status is 0 or a negative errno. */
  poll(fd: BorrowedFd, callback: (status: number, events: number) => void): Poll;
}

const require = createRequire(import.meta.url);
const nodeGypBuild = require('node-gyp-build') as (folder: string) => unknown;

/**
 * Loads the native addon of a package: its own build, or the prebuilt binary for this platform. In a checkout of the project,
 * and only there, the environment variable TLSPOOL_ADDON_DIR names another folder with `<name>.node`: the sanitizer builds.
 * An installed package ignores it, so that the environment of a privileged process cannot choose its code.
 */
export function loadAddon(packageFolder: string, name: string): unknown {
  const folder = process.env['TLSPOOL_ADDON_DIR'];
  const inCheckout = existsSync(path.join(packageFolder, '..', 'tsconfig.base.json'));
  if (folder !== undefined && folder !== '' && inCheckout) return require(path.resolve(folder, `${name}.node`));
  return nodeGypBuild(packageFolder);
}

interface Addon {
  /** Gives the verbs, which throw instances of this class. Once per thread. */
  bind(errorClass: typeof TlsPoolError): NativeSockets;
}

const packageFolder = path.join(path.dirname(fileURLToPath(import.meta.url)), '..');

/** The verbs. Every error is a TlsPoolError: SYSTEM, FD_KIND, BAD_ARGUMENT, BAD_STATE, MESSAGE_TOO_LARGE or FD_COUNT. */
export const sockets: NativeSockets = (loadAddon(packageFolder, 'tlspool_sockets') as Addon).bind(TlsPoolError);
export { errnoName, isErrno } from './errno.js';

/** sockets.poll() for who owns the descriptor: closes it when it cannot be watched (SYSTEM), which takes a descriptor more. */
export function pollOwned(fd: OwnedFd, onReady: Parameters<NativeSockets['poll']>[1]): Poll {
  try {
    return sockets.poll(fd, onReady);
  } catch (error) {
    sockets.close(fd);
    throw error;
  }
}
