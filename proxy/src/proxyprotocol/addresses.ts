/** IP addresses as text and as octets. */
import net from 'node:net';

const mappedPrefix = Buffer.from('00000000000000000000ffff', 'hex');

/** The 4 or 16 octets of a numeric address; undefined when it is none. A zone (`fe80::1%eth0`) is left out: it means nothing on another host. */
export function octetsOf(address: string): Buffer | undefined {
  if (net.isIPv4(address)) return Buffer.from(address.split('.').map(Number));
  if (!net.isIPv6(address)) return undefined;
  const bare = address.replace(/%.*$/u, '');
  const lastDot = bare.includes('.') ? bare.lastIndexOf(':') + 1 : bare.length;
  const tail = bare.slice(lastDot);
  // A dotted tail stands for the last two groups.
  const groups = tail === '' ? bare : bare.slice(0, lastDot) + hexGroups(Buffer.from(tail.split('.').map(Number)));
  const [front = '', back] = groups.split('::');
  const [left, right] = [front, back ?? ''].map((side) => (side === '' ? [] : side.split(':').map((group) => parseInt(group, 16))));
  const octets = Buffer.alloc(16);
  left?.forEach((group, index) => octets.writeUInt16BE(group, index * 2));
  right?.forEach((group, index) => octets.writeUInt16BE(group, 16 - right.length * 2 + index * 2));
  return octets;
}

/** Groups of 16 bits in hexadecimal, the only form of an IPv6 address that section 2.1 knows. */
export function hexGroups(octets: Uint8Array): string {
  return Array.from({ length: octets.length / 2 }, (_, index) => (((octets[index * 2] as number) << 8) | (octets[index * 2 + 1] as number)).toString(16)).join(':');
}

/** The text of 4 or 16 octets, as inet_ntop(3) writes it. */
export function textOf(octets: Uint8Array): string {
  if (octets.length === 4) return octets.join('.');
  return new net.SocketAddress({ address: hexGroups(octets), family: 'ipv6' }).address;
}

/** An IPv4-mapped address (RFC 4291 section 2.5.5.2), which dual-stack sockets show, as the IPv4 address that it is; any other as it was. */
export function unmapped(octets: Buffer): Buffer {
  return octets.length === 16 && octets.subarray(0, 12).equals(mappedPrefix) ? octets.subarray(12) : octets;
}

/** 16 octets for either kind of address. */
export function mapped(octets: Buffer): Buffer {
  return octets.length === 4 ? Buffer.concat([mappedPrefix, octets]) : octets;
}
