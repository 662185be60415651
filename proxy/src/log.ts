/** What the log says of connections: one line each. */
import { X509Certificate } from 'node:crypto';
import { escapeText } from 'libtlspool/protocol';
import type { SessionInfo } from 'libtlspool/protocol';
import type { Log, LogFields } from 'tlspool-common/log';
import type { ConnectionRecord } from './record.js';

const maxSubjectChars = 255;

/** Subject of the client's certificate, on one line; only of one that was verified, so that nobody writes a name of his choice into the log. */
export function clientSubject({ authorized, peerCertificates: [leaf] }: Pick<SessionInfo, 'authorized' | 'peerCertificates'>): string | undefined {
  if (!authorized || leaf === undefined) return undefined;
  try {
    return escapeText(new X509Certificate(leaf).subject.split('\n').join(', '), maxSubjectChars);
  } catch {
    // What OpenSSL has verified and Node cannot show.
    return undefined;
  }
}

/** One level info line, whatever became of the connection. */
export function logConnection(log: Log, record: ConnectionRecord): void {
  const subject = record.tls === undefined ? undefined : clientSubject(record.tls);
  log.info('connection', { ...record.fields() as LogFields, ...(subject !== undefined && { clientSubject: subject }) });
}
