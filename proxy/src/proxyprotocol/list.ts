/** Who may send a header: a list of addresses and networks. */
import net from 'node:net';
import { escapeText, TlsPoolError } from 'libtlspool/protocol';
import type { Endpoint } from 'libtlspool/protocol';
import { octetsOf, textOf, unmapped } from './addresses.js';

/** A set of addresses. */
export interface AddressList {
  /** Is the peer on the list? False for an address that cannot be read: fails closed. */
  has(peer: Pick<Endpoint, 'family' | 'address'> | undefined): boolean;
}

const cure = 'write an address or a network, such as 192.0.2.7, 10.0.0.0/8, ::1 or 2001:db8::/32, or `unix` for UNIX sockets';

/**
 * From addresses and networks in CIDR notation; `unix` stands for every peer on a UNIX socket. An IPv4-mapped IPv6 address, in the list or of a
 * peer, is the IPv4 address that it is; no other IPv6 network holds IPv4 addresses, not even `::/0`. An empty list holds nobody.
 * Throws CONFIG_BAD with the index of the entry in `field`: no numeric address (names are not looked up), a prefix that is too long, bits behind the prefix.
 */
export function addressList(entries: readonly string[], field = 'proxyFrom'): AddressList {
  // One for each family: in a list of both, `::/0` would hold every IPv4 address.
  const lists = { ipv4: new net.BlockList(), ipv6: new net.BlockList() };
  entries.forEach((entry, index) => { if (entry !== 'unix') add(lists, entry, `${field}[${index}]`); });
  const unix = entries.includes('unix');
  return {
    has: (peer) => {
      if (peer === undefined) return false;
      if (peer.family === 'unix') return unix;
      const octets = octetsOf(peer.address);
      if (octets === undefined) return false;
      const bare = unmapped(octets);
      const family = bare.length === 4 ? 'ipv4' : 'ipv6';
      return lists[family].check(textOf(bare), family);
    },
  };
}

function add(lists: Readonly<Record<'ipv4' | 'ipv6', net.BlockList>>, entry: string, field: string): void {
  const refuse = (why: string): TlsPoolError => new TlsPoolError('CONFIG_BAD', { field, text: `${field}: ${why} in ${escapeText(entry)}; ${cure}` });
  const [, address = '', prefix] = /^([^/%]+)(?:\/(0|[1-9]\d{0,2}))?$/u.exec(entry) ?? [];
  const octets = octetsOf(address);
  if (octets === undefined) throw refuse('no numeric address, or no prefix length after the slash,');
  const bits = prefix === undefined ? octets.length * 8 : Number(prefix);
  if (bits > octets.length * 8) throw refuse(`a prefix of more than ${octets.length * 8} bits`);
  const network = masked(octets, bits);
  if (!network.equals(octets)) throw refuse(`bits behind the prefix (the network is ${textOf(network)}/${bits})`);
  // Of a mapped network the first 96 bits say only that it is one.
  const isMapped = bits >= 96 && octets.length === 16 && unmapped(octets).length === 4;
  const family = isMapped || octets.length === 4 ? 'ipv4' : 'ipv6';
  lists[family].addSubnet(textOf(isMapped ? unmapped(octets) : octets), isMapped ? bits - 96 : bits, family);
}

function masked(octets: Buffer, bits: number): Buffer {
  return Buffer.from(octets.map((octet, index) => octet & (0xff00 >> Math.min(8, Math.max(0, bits - index * 8)))));
}
