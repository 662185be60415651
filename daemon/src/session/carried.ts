/**
 * What the engine reports, made to fit into messages. Peers choose certificates, names and the addresses of UNIX sockets; what cannot be
 * carried as it is must not cost the session.
 */
import { fitText } from 'libtlspool/protocol';
import type { Endpoint } from 'libtlspool/protocol';

/** What an event says of certificates. */
interface Certificates { readonly peerCertificates: readonly Uint8Array[]; readonly localCertificate?: Uint8Array | undefined }

/** Octets that everything but the certificates can take in a message with session info: envelope, names, addresses, channel bindings. */
export const otherOctets = 3072;
/** As in the message table. */
const maxCertificates = 16;
const maxCertificateOctets = 32_768;
/** Octets before those of a certificate. */
const headOctets = 3;
const maxNameOctets = 255;
const maxAddressOctets = 255;

const sizeOf = (certificate: Uint8Array | undefined): number => (certificate === undefined ? 0 : certificate.length + headOctets);

/**
 * The event with what fits of its certificates: the leaf of the peer in any case, then our own certificate, then issuers for as long as
 * there is room. A leaf that does not fit by itself makes a message that cannot be sent.
 */
export function withFittingCertificates<E extends Certificates>(event: E, messageOctets: number): E {
  const { peerCertificates, localCertificate } = event;
  let room = messageOctets - otherOctets - sizeOf(peerCertificates[0]) - sizeOf(localCertificate);
  const keepsLocal = localCertificate !== undefined && localCertificate.length <= maxCertificateOctets && room >= 0;
  if (!keepsLocal) room += sizeOf(localCertificate);
  let count = Math.min(1, peerCertificates.length);
  for (; count < Math.min(peerCertificates.length, maxCertificates); count += 1) {
    const next = peerCertificates[count];
    room -= sizeOf(next);
    if (room < 0 || next === undefined || next.length > maxCertificateOctets) break;
  }
  if (count === peerCertificates.length && keepsLocal === (localCertificate !== undefined)) return event;
  return { ...event, peerCertificates: peerCertificates.slice(0, count), localCertificate: keepsLocal ? localCertificate : undefined };
}

/** A name that a peer chose, as a message carries it. */
export function carriedName(name: string | undefined): string | undefined {
  return name === undefined ? undefined : fitText(name, maxNameOctets);
}

/** An address, as a message carries it. A name in the abstract namespace is no path that anybody could open: it is shown as unnamed. */
export function carriedEndpoint(endpoint: Endpoint): Endpoint;
export function carriedEndpoint(endpoint: Endpoint | undefined): Endpoint | undefined;
export function carriedEndpoint(endpoint: Endpoint | undefined): Endpoint | undefined {
  if (endpoint?.family !== 'unix') return endpoint;
  return { ...endpoint, address: endpoint.address.startsWith('\0') ? '' : fitText(endpoint.address, maxAddressOctets) };
}
