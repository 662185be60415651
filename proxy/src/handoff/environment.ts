/** What a program of `exec` learns about its connection: environment variables, and nothing that is secret. docs/proxy/exec.md lists them. */
import { X509Certificate } from 'node:crypto';
import type { Endpoint, SessionInfo } from 'libtlspool/protocol';

/** What is told of a connection. */
export interface Told {
  /** Absent: the client did not ask for TLS. */
  readonly info?: SessionInfo;
  readonly remote: Endpoint | undefined;
  readonly local: Endpoint | undefined;
}

/** Octets of one value, at most; what is longer is left out, because a name that is cut is another name. */
const maxOctets = 1024;

/**
 * The whole environment of the program but LISTEN_PID, which only the program's own process can know. Nothing of the proxy's environment is in it.
 *
 * PATH, LANG; LISTEN_FDS and LISTEN_FDNAMES (sd_listen_fds(3)); REMOTE_ADDR, REMOTE_PORT as systemd.socket(5) sets them with Accept=yes, LOCAL_ADDR, LOCAL_PORT.
 * With TLS, and only then: TLS_PROTOCOL, TLS_CIPHER (IANA name), TLS_RESUMED (yes, no), and where they are known TLS_GROUP, TLS_SNI, TLS_ALPN, TLS_LOCALID.
 * TLS_PEER_SUBJECT, TLS_PEER_ISSUER, TLS_PEER_SAN and TLS_PEER_FINGERPRINT (SHA-256, hex) are there only when the certificate of the peer was verified:
 * a program that tests one of them cannot be fooled by one that was not.
 */
export function environmentOf({ info, remote, local }: Told): Record<string, string> {
  return {
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8', LISTEN_FDS: '1', LISTEN_FDNAMES: 'connection',
    ...endVariables('REMOTE', remote), ...endVariables('LOCAL', local),
    ...(info !== undefined && tlsVariables(info)),
  };
}

function endVariables(prefix: string, end: Endpoint | undefined): Record<string, string> {
  if (end === undefined) return {};
  return variables({ [`${prefix}_ADDR`]: end.address, [`${prefix}_PORT`]: end.family === 'unix' ? undefined : String(end.port) });
}

function tlsVariables(info: SessionInfo): Record<string, string> {
  return variables({
    TLS_PROTOCOL: info.protocol, TLS_CIPHER: info.cipher, TLS_GROUP: info.group, TLS_SNI: info.servername, TLS_ALPN: info.alpn, TLS_LOCALID: info.localid,
    TLS_RESUMED: info.resumed ? 'yes' : 'no',
    ...(info.authorized && info.peerCertificates[0] !== undefined && peerFacts(info.peerCertificates[0])),
  });
}

function peerFacts(der: Uint8Array): Record<string, string | undefined> {
  try {
    const certificate = new X509Certificate(der);
    return {
      // Attributes are one a line, and line breaks within them escaped.
      TLS_PEER_SUBJECT: certificate.subject.replaceAll('\n', ', '), TLS_PEER_ISSUER: certificate.issuer.replaceAll('\n', ', '),
      TLS_PEER_SAN: certificate.subjectAltName, TLS_PEER_FINGERPRINT: certificate.fingerprint256.replaceAll(':', '').toLowerCase(),
    };
  } catch {
    // OpenSSL has read it in the handshake, so this is one that Node's reader does not take; nothing is said of it.
    return {};
  }
}

/** Only printable ASCII, the rest as `\u{...}`: values end up in shell scripts, logs and terminals. */
function variables(values: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const found: Record<string, string> = {};
  for (const [name, value] of Object.entries(values)) {
    const safe = (value ?? '').replace(/[^\x20-\x7e]/gu, (char) => `\\u{${(char.codePointAt(0) ?? 0).toString(16)}}`);
    if (safe !== '' && safe.length <= maxOctets) found[name] = safe;
  }
  return found;
}
