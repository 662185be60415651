/**
 * Errors as the C library knows them: the table `tlsP` of com_err (`E_TLSPOOL_...`), negative, or a positive errno. Both go into the errno of the
 * program, so that a wrong number is a wrong diagnosis.
 */
import { constants } from 'node:os';
import { escapeText, fitText } from 'libtlspool/protocol';
import type { ErrorCode } from 'libtlspool/protocol';
import { asPoolError } from '../api/faults.js';

/** com_err's number of the table `tlsP`. */
const base = -1_167_372_288;

/** In the order of the table, which makes the numbers. */
const texts = {
  OUT_OF_MEMORY: 'TLS Pool ran out of memory',
  ENTANGLED_THREADS: 'TLS Pool threads have become entangled',
  CLIENT_DISCONNECT: 'TLS Pool client has disconnected',
  CLIENT_REFUSES_CALLBACK: 'TLS Pool client does not answer callbacks',
  COMMAND_NEEDED: 'TLS Pool needs a command',
  SUPERFLUOUS_SOCKET: 'TLS Pool got a socket that this command does not take',
  CIPHER_SOCKET_NEEDED: 'TLS Pool needs exactly one socket for the encrypted side',
  PLAIN_SOCKET_NEEDED: 'TLS Pool needs exactly one connected socket for the plaintext side',
  COMMAND_UNKNOWN: 'TLS Pool does not know this command',
  COMMAND_NOTIMPL: 'TLS Pool does not offer this variety of the command',
  COMMAND_BAD_CALLBACK_RESPONSE: 'TLS Pool got another command than the answer to its callback',
  FACILITY_STARTTLS: 'TLS Pool does not offer STARTTLS to this user',
  FACILITY_STARTGSS: 'TLS Pool does not offer STARTGSS',
  FACILITY_STARTSSH: 'TLS Pool does not offer STARTSSH',
  CTLKEY_REGISTRATION_FAILED: 'TLS Pool has this control key already',
  CTLKEY_NOT_FOUND: 'TLS Pool cannot find the control key',
  CTLKEY_NOT_YOURS: 'TLS Pool has this control key for another connection',
  CTLKEY_DETACHED: 'TLS Pool has detached this control key already',
  CTLKEY_ATTACHED: 'TLS Pool has this control key attached to a connection',
  RENOGIATE_NOT_FOUND: 'TLS Pool cannot find the session to renegotiate',
  RENOGIATE_NOT_INTERRUPTABLE: 'TLS Pool cannot interrupt this session now',
  RENOGIATE_WOULD_BE_INSECURE: 'TLS Pool cannot renegotiate this session securely',
  CONNECTION_HANDLER_SETUP: 'TLS Pool could not set up the connection',
  CONNECTION_DRIVER_SETUP: 'TLS Pool has no identity for this connection',
  STIRRED_NOT_SHAKEN: 'TLS Pool could not complete the TLS handshake',
  PRNG_UNAVAILABLE: 'TLS Pool cannot derive these random octets',
  LIDENTRY_NOT_VACANT: 'TLS Pool has another identity selector',
  PINENTRY_NOT_VACANT: 'TLS Pool has another PIN entry',
  INFOKIND_UNKNOWN: 'TLS Pool does not know this kind of information',
  INFO_NOT_FOUND: 'TLS Pool does not have this information',
} as const;

export type TableError = keyof typeof texts;
/** For whoever may not, for limits, for the end of the pool, and for what is no such socket; as in errno(3). */
export type SystemError = 'EACCES' | 'EAGAIN' | 'EINVAL' | 'ENOTSOCK' | 'ENOTCONN' | 'ESHUTDOWN';

export const tableErrors = Object.keys(texts) as readonly TableError[];

/** ESHUTDOWN is the one that node:os does not name. */
const systemNumbers: Readonly<Record<SystemError, number>> = {
  EACCES: constants.errno.EACCES, EAGAIN: constants.errno.EAGAIN, EINVAL: constants.errno.EINVAL, ENOTSOCK: constants.errno.ENOTSOCK,
  ENOTCONN: constants.errno.ENOTCONN, ESHUTDOWN: 108,
};

/** `tlserrno` of an error. */
export function numberOf(error: TableError | SystemError): number {
  return error in texts ? base + tableErrors.indexOf(error as TableError) : systemNumbers[error as SystemError];
}

/** What a client is told. Peer-supplied text in it is escaped. */
export class V2Error extends Error {
  readonly tlserrno: number;

  /** `detail` follows the text of the table. */
  constructor(readonly reason: TableError | SystemError, detail?: string) {
    const text = reason in texts ? texts[reason as TableError] : undefined;
    super([text, detail].filter((part) => part !== undefined).join(': '));
    this.tlserrno = numberOf(reason);
  }
}

/** The octets of `message` that are there for text; the last is a NUL. */
const messageOctets = 127;

/** Text as it goes into `message`: one line of printable characters. */
export function messageOf(error: V2Error): string {
  return fitText(escapeText(error.message, Infinity), messageOctets);
}

/** What the pool's errors are in this dialect. What is not here is `otherwise`. */
const meanings: Readonly<Partial<Record<ErrorCode, TableError | SystemError>>> = {
  NOT_PERMITTED: 'EACCES', POOL_DRAINING: 'ESHUTDOWN',
  LIMIT_CLIENTS: 'EAGAIN', LIMIT_SESSIONS: 'EAGAIN', LIMIT_REQUESTS: 'EAGAIN', LIMIT_HANDSHAKES: 'EAGAIN',
  IDENTITY_UNKNOWN: 'CONNECTION_DRIVER_SETUP', IDENTITY_BAD: 'CONNECTION_DRIVER_SETUP', IDENTITY_LOCKED: 'CONNECTION_DRIVER_SETUP',
  CHOICE_REFUSED: 'CONNECTION_DRIVER_SETUP', SIGNING_UNAVAILABLE: 'CONNECTION_DRIVER_SETUP',
  CTLKEY_UNKNOWN: 'CTLKEY_NOT_FOUND', REAUTH_UNAVAILABLE: 'RENOGIATE_WOULD_BE_INSECURE',
};

/** Whatever was thrown, as this dialect says it. */
export function asV2Error(thrown: unknown, otherwise: TableError): V2Error {
  if (thrown instanceof V2Error) return thrown;
  const error = asPoolError(thrown);
  // What an unforeseen error says is for the log.
  return new V2Error(meanings[error.code] ?? otherwise, error.code === 'INTERNAL' ? undefined : error.message);
}
