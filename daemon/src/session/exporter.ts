/** What may be exported from a session (RFC 5705, RFC 8446 section 7.5). */

/**
 * Labels of the IANA registry "TLS Exporter Labels" that do not begin with EXPORTER: those of RFC 5216, RFC 5281 and RFC 5764, and of IEEE 802.21. Its other entries are the labels by which
 * TLS 1.2 derives its own keys (`master secret`, `key expansion`, ...), which it marks as not to be used here: an exporter with one of them would give those keys away.
 */
const registered: ReadonlySet<string> = new Set(['client EAP encryption', 'ttls keying material', 'ttls challenge', 'EXTRACTOR-dtls_srtp', 'TLS_MK_Extr']);

/** RFC 8447 section 10: what is registered from now on begins with EXPORTER. RFC 5705 section 4: EXPERIMENTAL is for everybody's private use. */
const prefixes = ['EXPORTER', 'EXPERIMENTAL'] as const;

/** RFC 8446 section 7.1: HkdfLabel has 255 octets for "tls13 " and the label. */
const maxLabelOctets13 = 249;
/** So many the message table, and the C dialect even more so, have for a label. */
const maxLabelOctets12 = 255;

/** May this label be exported with? Those that TLS itself uses, and those that nobody registered, may not. RFC 5705 section 4: printable ASCII. */
export function isExporterLabel(label: string): boolean {
  if (!/^[\x20-\x7e]{1,255}$/u.test(label)) return false;
  return registered.has(label) || prefixes.some((prefix) => label.length > prefix.length && label.startsWith(prefix));
}

/** How long a label may be in this version, in octets. OpenSSL refuses longer ones, with a text about something else. */
export function maxExporterLabel(protocol: 'TLSv1.2' | 'TLSv1.3'): number {
  return protocol === 'TLSv1.3' ? maxLabelOctets13 : maxLabelOctets12;
}
