/** The vocabulary of the PROXY protocol: HAProxy's proxy-protocol.txt of 2020/03/05, which "section" refers to in this folder. */
import type { Endpoint } from 'libtlspool/protocol';

/** Most octets of a header of version 1, with its CRLF (section 2.1). */
export const v1MaxOctets = 107;
/** Most octets of a header of version 2 that is read; what encodeV2() makes is always shorter. The format would allow 65,551. */
export const v2MaxOctets = 4096;
/** Octets of a unique ID, at most (section 2.2.5). */
export const uniqueIdMaxOctets = 128;

/** First 12 octets of version 2. */
export const v2Signature = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');
/** Octets of version 2 before the addresses. */
export const v2FixedOctets = 16;
/** Octets of a path in AF_UNIX addresses, filled up with NUL. */
export const unixPathOctets = 108;

/** Types of TLVs (section 2.2). */
export const tlvType = {
  alpn: 0x01, authority: 0x02, crc32c: 0x03, noop: 0x04, uniqueId: 0x05,
  ssl: 0x20, sslVersion: 0x21, sslCn: 0x22, sslCipher: 0x23, sslSigAlg: 0x24, sslKeyAlg: 0x25,
} as const;

/** Bits of the `client` octet of the SSL TLV (section 2.2.6). */
export const clientBit = { ssl: 0x01, certConn: 0x02, certSess: 0x04 } as const;

/** Both ends of the connection that is proxied. Both IP or both `unix`. */
export interface ProxyAddresses {
  /** The client. */
  readonly source: Endpoint;
  /** Where it connected to. */
  readonly destination: Endpoint;
}

/** A client certificate, as far as a header speaks of it. */
export interface CertificateFacts {
  /** In the handshake of this connection, or earlier in the TLS session that it resumed. */
  readonly shown: 'connection' | 'session';
  /** Result of the verification, in OpenSSL's X509_V_ERR numbers: 0 means verified, and nothing else does. */
  readonly verify: number;
  /** Common name of the subject, whether verified or not; absent where the subject has none, or not exactly one. */
  readonly commonName?: string;
}

/**
 * What a header says of TLS. A header that calls a certificate verified though none was shown cannot be expressed: without
 * `certificate`, `verify` is sent as 1 (X509_V_ERR_UNSPECIFIED), as section 2.2.6 wants.
 */
export interface TlsFacts {
  /** Such as TLSv1.3. */
  readonly protocol: string;
  /** OpenSSL's name of the cipher. */
  readonly cipher: string;
  readonly alpn?: string;
  /** SNI, as the client sent it. */
  readonly servername?: string;
  readonly certificate?: CertificateFacts;
  /** How our own certificate is signed, in OpenSSL's short names, such as RSA-SHA256. */
  readonly signatureAlgorithm?: string;
  /** Kind and size of our own key, such as RSA2048 or EC256. */
  readonly keyAlgorithm?: string;
}

/** What encodeV2() makes a header of. */
export type V2Content =
  /** From the proxy itself, such as a health check. */
  | { readonly command: 'LOCAL' }
  | {
    readonly command: 'PROXY';
    /** Absent: unknown (AF_UNSPEC). */
    readonly addresses?: ProxyAddresses;
    /** Absent: the client did not use TLS, or that is not known yet. No TLV speaks of TLS then. */
    readonly tls?: TlsFacts;
    /** 1 to 128 octets. */
    readonly uniqueId?: Uint8Array;
  };

/** What a received header says of TLS between the client and its sender. */
export interface ReceivedTls {
  /** The client came over TLS (PP2_CLIENT_SSL). */
  readonly tls: boolean;
  /** The client showed a certificate on that connection. */
  readonly certConn: boolean;
  /** The client showed a certificate in that session. */
  readonly certSess: boolean;
  /** 0: the certificate was verified. Without `certConn` and `certSess` it means nothing. */
  readonly verify: number;
  readonly protocol?: string;
  readonly cipher?: string;
  readonly commonName?: string;
  readonly signatureAlgorithm?: string;
  readonly keyAlgorithm?: string;
}

/**
 * A received header. Without addresses (LOCAL, UNKNOWN, AF_UNSPEC, datagrams) those of the connection itself are the true ones.
 * Texts were written by the sender or its client: NUL and what is no UTF-8 is U+FFFD in them; escape them before they are logged.
 */
export interface Header {
  readonly version: 1 | 2;
  readonly command: 'PROXY' | 'LOCAL';
  readonly addresses?: ProxyAddresses;
  readonly alpn?: string;
  readonly authority?: string;
  readonly uniqueId?: Buffer;
  readonly ssl?: ReceivedTls;
}

/** What parse() found. */
export type Parsed =
  /** Not all there. `need` more octets belong to the header for certain (it may need more after them), so a reader that takes just these never takes too many. */
  | { readonly kind: 'more'; readonly need: number }
  /** The header is the first `length` octets. */
  | { readonly kind: 'header'; readonly length: number; readonly header: Header };
