/**
 * Who a certificate names: subject, issuer and subjectAltName (RFC 5280 sections 4.1.2.4, 4.1.2.6 and 4.2.1.6), as text for programs that do not read DER, and
 * in DER for those that compare octets. Nothing is verified here.
 */
import { SocketAddress } from 'node:net';
import { DerReader, derElements, derTags, malformed } from './der.js';
import type { DerElement } from './der.js';
import { nameText } from './distinguished-name.js';

/** As in the message table. */
export interface CertificateNames {
  /** RFC 4514 form, most specific part first; one of more than 1024 octets is cut, and ends in `\...`, which no complete name does. Empty where the certificate has none. */
  readonly subject: string;
  readonly issuer: string;
  /**
   * The first 64, in the order of the certificate: `DNS:`, `URI:`, `IP:` or `email:` and the name. Other kinds are left out, and so is what is not as its kind says
   * (an address of 4 or 16 octets; printable ASCII) or has more than 512 octets: half a name would be somebody else's.
   */
  readonly subjectAltNames: readonly string[];
}

/** Views into the certificate. */
export interface DerCertificateNames {
  /** Name, header included. */
  readonly subject: Uint8Array;
  readonly issuer: Uint8Array;
  /** All of them: each one a complete GeneralName. */
  readonly subjectAltNames: readonly Uint8Array[];
}

const maxNameOctets = 1024;
const maxAltNames = 64;
const maxAltNameOctets = 512;

/** Context tags of a Certificate (RFC 5280 section 4.1) and of GeneralName. */
const tags = { version: 0xa0, issuerUniqueId: 0x81, subjectUniqueId: 0x82, extensions: 0xa3, email: 0x81, dns: 0x82, uri: 0x86, ip: 0x87 } as const;
/** id-ce-subjectAltName, 2.5.29.17. */
const subjectAltName = Buffer.from('551d11', 'hex');

/** Names in a certificate, as text. Throws BAD_ARGUMENT when it is no certificate in DER. */
export function namesOf(der: Uint8Array): CertificateNames {
  const { subject, issuer, subjectAltNames } = partsOf(der);
  const texts: string[] = [];
  for (const one of subjectAltNames) {
    if (texts.length === maxAltNames) break;
    const text = altNameText(one);
    if (text !== undefined && text.length <= maxAltNameOctets) texts.push(text);
  }
  return { subject: nameText(subject.content, maxNameOctets), issuer: nameText(issuer.content, maxNameOctets), subjectAltNames: texts };
}

/** Names in a certificate, in DER. Throws BAD_ARGUMENT when it is no certificate in DER. */
export function derNamesOf(der: Uint8Array): DerCertificateNames {
  const { subject, issuer, subjectAltNames } = partsOf(der);
  return { subject: subject.whole, issuer: issuer.whole, subjectAltNames: subjectAltNames.map(({ whole }) => whole) };
}

interface Parts { readonly subject: DerElement; readonly issuer: DerElement; readonly subjectAltNames: readonly DerElement[] }

function partsOf(der: Uint8Array): Parts {
  const outer = new DerReader(der);
  const certificate = outer.next('the certificate', derTags.sequence);
  outer.end('the certificate');
  const reader = new DerReader(new DerReader(certificate.content).next('tbsCertificate', derTags.sequence).content);
  reader.optional('version', tags.version);
  reader.next('serialNumber', derTags.integer);
  reader.next('signature', derTags.sequence);
  const issuer = reader.next('issuer', derTags.sequence);
  reader.next('validity', derTags.sequence);
  const subject = reader.next('subject', derTags.sequence);
  reader.next('subjectPublicKeyInfo', derTags.sequence);
  reader.optional('issuerUniqueID', tags.issuerUniqueId);
  reader.optional('subjectUniqueID', tags.subjectUniqueId);
  const extensions = reader.optional('extensions', tags.extensions);
  reader.end('tbsCertificate');
  return { subject, issuer, subjectAltNames: extensions === undefined ? [] : altNamesIn(extensions.content) };
}

function altNamesIn(content: Uint8Array): readonly DerElement[] {
  const explicit = new DerReader(content);
  const extensions = explicit.next('extensions', derTags.sequence);
  explicit.end('extensions');
  let found: readonly DerElement[] | undefined;
  for (const extension of derElements(extensions.content, 'an extension', derTags.sequence)) {
    const reader = new DerReader(extension.content);
    const oid = reader.next('the identifier of an extension', derTags.oid);
    reader.optional('critical', derTags.boolean);
    const value = reader.next('the value of an extension', derTags.octetString);
    reader.end('the value of an extension');
    if (!subjectAltName.equals(oid.content)) continue;
    // RFC 5280 section 4.2: not more than one instance. Whoever reads the first and whoever reads the last would see two different peers.
    if (found !== undefined) throw malformed('it has two subjectAltName extensions');
    const inner = new DerReader(value.content);
    const names = inner.next('subjectAltName', derTags.sequence);
    inner.end('subjectAltName');
    found = [...derElements(names.content, 'a name of subjectAltName')];
  }
  return found ?? [];
}

/** undefined for kinds that are left out, and for what is not as its kind says. */
function altNameText({ tag, content }: DerElement): string | undefined {
  switch (tag) {
    case tags.dns: return prefixed('DNS', content);
    case tags.uri: return prefixed('URI', content);
    case tags.email: return prefixed('email', content);
    case tags.ip: return addressText(content);
    default: return undefined;
  }
}

function prefixed(kind: string, content: Uint8Array): string | undefined {
  if (content.length === 0 || !content.every((octet) => octet >= 0x20 && octet <= 0x7e)) return undefined;
  return `${kind}:${Buffer.from(content).toString('latin1')}`;
}

/** IPv6 as in RFC 5952. */
function addressText(content: Uint8Array): string | undefined {
  if (content.length === 4) return `IP:${content.join('.')}`;
  if (content.length !== 16) return undefined;
  const groups = Buffer.from(content).toString('hex').match(/.{4}/gu) ?? [];
  return `IP:${new SocketAddress({ family: 'ipv6', address: groups.join(':') }).address}`;
}
