/** What several messages of the table have in common. */
import { bin, bool, list, map, optional, secret, text, uint, word } from './schema.js';

/** Octets in a control key. */
export const ctlkeyOctets = 16;

/** Names of identities, servers and remotes. */
export const name = text(255);
/** A control key. */
export const ctlkey = secret(ctlkeyOctets, ctlkeyOctets);
/** No fields. */
export const none = map({});

/** Where a socket is bound or connected. For `unix`, address is the path (empty: unnamed) and port 0. */
export const endpoint = map({ family: word('IPv4', 'IPv6', 'unix'), address: text(255), port: uint(65_535) });

/** A plain-text service that the pool itself connects to. Needs the `backend` permission. */
export const backend = map({ host: optional(name), port: optional(uint(65_535)), path: optional(text(107)) });

/** What is known of an established session. Certificates are DER. */
export const sessionInfo = map({
  role: word('server', 'client'),
  protocol: word('TLSv1.2', 'TLSv1.3'),
  /** IANA name, such as TLS_AES_128_GCM_SHA256. */
  cipher: text(64),
  /** The name that OpenSSL and Node's getCipher() use. */
  cipherName: text(64),
  /** Key-exchange group, such as X25519MLKEM768; absent where it is not known. */
  group: optional(text(64)),
  alpn: optional(text(255)),
  servername: optional(name),
  /** The identity that was used on our side; absent for a client without one. */
  localid: optional(name),
  /** The identity's revision at the time of the handshake. */
  revision: optional(uint()),
  resumed: bool(),
  /** True only when a certificate of the peer was verified against the identity's trust. */
  authorized: bool(),
  /** X.509 verification code in OpenSSL's spelling, such as CERT_HAS_EXPIRED. */
  authorizationError: optional(text(64)),
  /**
   * Leaf first; then, where `authorized`, its issuers, up to the root; then what else the peer sent. On resumption the leaf, and issuers that are trusted. Those at the end are left out where they
   * do not fit into the message.
   */
  peerCertificates: list(bin(32_768), 16),
  /** Left out where it does not fit beside the leaf of the peer. */
  localCertificate: optional(bin(32_768)),
  remote: optional(endpoint),
  local: optional(endpoint),
});

/** What a proxy tells the backend of the plain-text phase that came before. Only in a hand-off; a pool never sends it. */
export const preamble = map({
  /** The protocol's name in the registry of preambles, such as `imap`; `none` where TLS came at once. */
  protocol: text(32),
  /** What a backend must know of that phase, in a form that the protocol defines. It was not protected: nothing to be trusted. */
  state: optional(bin(4096)),
  /** Is the connection protected now? */
  tls: bool(),
});

/** Whether clients are asked for a certificate. */
export const clientAuth = word('none', 'request', 'require');

/** What a TLS server or client may ask for beside its identity; the policy of the identity is a floor that it cannot lower. */
export const negotiation = {
  /** Identity to use. A server without it chooses by SNI among the identities that it may use. */
  localid: optional(name),
  /** Application protocols (RFC 7301), the server's most preferred first. */
  alpn: optional(list(text(255), 32)),
  /** Server role only. May raise what the identity's policy says, not lower it. */
  clientAuth: optional(clientAuth),
  /** False: a peer certificate that fails verification is reported, not refused. Never lowers `require` of the policy. */
  rejectUnauthorized: optional(bool()),
  /** Server role: ask by a `servername` callback before the identity is chosen. */
  askServername: optional(bool()),
  /** Ask by a `plainside` callback, once the handshake is done, for the plain-text socket. Not with `backend` or a plainfd. */
  askPlainside: optional(bool()),
  /** Have the pool's signing CA make a certificate for the name that is asked for (server role: the SNI, or localid for peers that send none; client role: localid). Needs the `sign` permission. */
  onTheFly: optional(bool()),
  backend: optional(backend),
} as const;

/** Names in a certificate, for programs that do not read DER. */
export const certificateNames = map({
  /** RFC 4514 form; one that was cut to fit ends in `\\...`, which no complete one does. */
  subject: text(1024), issuer: text(1024),
  /** In the order of the certificate, such as `DNS:www.example.org`, `URI:spiffe://example.org/web`, `IP:192.0.2.1`, `email:a@example.org`; other kinds, and names of more than 512 octets, are left out. */
  subjectAltNames: list(text(512), 64),
});

/** Something that a client does for the pool: `chooser` picks the identity of outgoing sessions of its own user; `pin` unlocks keys and is for operators. */
export const service = word('chooser', 'pin');

/** What is known of a listener. */
export const listenerInfo = map({ listener: uint(), local: endpoint });
/** Octets of plain text in each direction. */
export const counters = { octetsReceived: uint(Number.MAX_SAFE_INTEGER), octetsSent: uint(Number.MAX_SAFE_INTEGER) } as const;
