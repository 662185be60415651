/** A way out through a SOCKS proxy: RFC 1928, without authentication or with user name and password (RFC 1929). */
import net from 'node:net';
import { TlsPoolError } from '../protocol/errors.js';
import { broken, readOctets, refused, say } from './dialogue.js';
import type { ClientOptions, Dialogue, Preamble } from './types.js';

const version = 5;
const method = { none: 0, password: 2, noneAcceptable: 0xff } as const;
const addressType = { ipv4: 1, name: 3, ipv6: 4 } as const;

/** RFC 1928 section 6. */
const replies = [
  'succeeded', 'general SOCKS server failure', 'connection not allowed by ruleset', 'network unreachable', 'host unreachable', 'connection refused',
  'TTL expired', 'command not supported', 'address type not supported',
];

const bad = (field: string, text: string): TlsPoolError => new TlsPoolError('BAD_ARGUMENT', { text, field });

/** Octets with their count before them, 1 to 255. */
function counted(field: string, text: string): Buffer {
  const value = Buffer.from(text);
  if (value.length === 0 || value.length > 255) throw bad(field, `a SOCKS proxy takes 1 to 255 octets of ${field}`);
  return Buffer.concat([Buffer.from([value.length]), value]);
}

/** Address type and address. Names go to the proxy as they are: it may be the only one that can resolve them. */
function address(remoteid: string): Buffer {
  if (net.isIPv4(remoteid)) return Buffer.from([addressType.ipv4, ...remoteid.split('.').map(Number)]);
  if (net.isIPv6(remoteid)) return Buffer.concat([Buffer.from([addressType.ipv6]), ipv6Octets(remoteid)]);
  return Buffer.concat([Buffer.from([addressType.name]), counted('remoteid', remoteid)]);
}

function ipv6Octets(text: string): Buffer {
  if (text.includes('%')) throw bad('remoteid', 'a SOCKS proxy takes no zone of an address');
  // The URL parser writes all forms, IPv4 in the last four octets among them, in the one of RFC 5952.
  const [left = '', right] = new URL(`http://[${text}]`).hostname.slice(1, -1).split('::');
  const groups = (part: string): number[] => part === '' ? [] : part.split(':').map((group) => parseInt(group, 16));
  const [before, after] = [groups(left), groups(right ?? '')];
  const all = [...before, ...Array<number>(8 - before.length - after.length).fill(0), ...after];
  return Buffer.from(all.flatMap((group) => [group >> 8, group & 0xff]));
}

function* client({ remoteid, port, credentials }: ClientOptions): Dialogue<object> {
  if (port === undefined) throw bad('port', 'a SOCKS proxy needs to know which port to connect to');
  // Both are checked before anything is said.
  const login = credentials === undefined ? undefined : Buffer.concat([Buffer.from([1]), counted('credentials.user', credentials.user), counted('credentials.password', credentials.password)]);
  const request = Buffer.concat([Buffer.from([version, 1, 0]), address(remoteid), Buffer.from([port >> 8, port & 0xff])]);
  const offered: readonly number[] = login === undefined ? [method.none] : [method.none, method.password];
  yield* say(Buffer.from([version, offered.length, ...offered]));
  const [speaks, chosen = method.noneAcceptable] = yield* readOctets(2);
  if (speaks !== version) throw broken('the proxy does not speak SOCKS version 5');
  if (chosen === method.noneAcceptable) throw refused('the proxy takes none of our ways to authenticate');
  if (!offered.includes(chosen)) throw broken(`the proxy chose method ${chosen}, which was not offered`);
  if (chosen === method.password && login !== undefined) yield* authenticate(login);
  yield* say(request);
  yield* readReply();
  return {};
}

/** RFC 1929 section 2. */
function* authenticate(login: Buffer): Dialogue<void> {
  yield* say(login);
  const [speaks, status] = yield* readOctets(2);
  if (speaks !== 1) throw broken('the proxy does not answer to user name and password');
  if (status !== 0) throw refused('the proxy does not accept our user name and password');
}

function* readReply(): Dialogue<void> {
  const [speaks, reply = 0xff] = yield* readOctets(2);
  if (speaks !== version) throw broken('the proxy does not speak SOCKS version 5');
  if (reply !== 0) throw refused('the proxy does not connect', replies[reply] ?? `reply ${reply}`);
  // Reserved, and where the proxy connected from, which nobody needs.
  const [, type] = yield* readOctets(2);
  if (type === addressType.ipv4) yield* readOctets(4 + 2);
  else if (type === addressType.ipv6) yield* readOctets(16 + 2);
  else if (type === addressType.name) yield* readOctets(((yield* readOctets(1))[0] as number) + 2);
  else throw broken('the proxy gives an address of no known type');
}

export const socks5: Preamble = {
  name: 'socks5',
  title: 'SOCKS proxy (RFC 1928)',
  client,
};
