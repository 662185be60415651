/**
 * Options of node:tls that mean nothing where no TLS is done. They are refused and never ignored, also where no compiler looks: a program must not believe in
 * a trust store, a limit or a check that nobody has heard of.
 */
import tls from 'node:tls';
import { TlsPoolError } from './protocol/index.js';

const keys = 'which has the keys and the trust: name an identity with localid';
const policy = 'which decides that by the policy of the identity: set it in the configuration of the pool';
const sessions = 'which keeps and resumes sessions itself: leave it out';
const checks = 'which verifies peers itself: use the trust and the access rules of the identity';

/** Option -> why it is not for a program, and what is instead. */
const foreign: Readonly<Record<string, string>> = {
  key: keys, cert: keys, ca: keys, pfx: keys, passphrase: keys, secureContext: keys, crl: keys, dhparam: keys, SNICallback: keys, pskCallback: keys,
  pskIdentityHint: keys, privateKeyIdentifier: keys, privateKeyEngine: keys, clientCertEngine: keys, allowPartialTrustChain: keys,
  minVersion: policy, maxVersion: policy, secureProtocol: policy, secureOptions: policy, ciphers: policy, honorCipherOrder: policy, ecdhCurve: policy, sigalgs: policy,
  minDHSize: policy,
  session: sessions, sessionTimeout: sessions, sessionIdContext: sessions, ticketKeys: sessions,
  checkServerIdentity: checks, requestOCSP: checks,
  ALPNCallback: 'which chooses the protocol itself: list what is spoken in alpn',
  handshakeTimeout: 'whose configuration has limits.handshakeMs; starttls() and connect() take handshakeMs',
};

/** What a server that was made for node:tls restricts. Its key and certificate are just not used. */
const restrictions = ['ca', 'crl', 'minVersion', 'maxVersion', 'secureProtocol', 'secureOptions', 'ciphers', 'sigalgs', 'ecdhCurve'] as const;

const isGiven = (options: object, name: string): boolean => {
  const value = (options as Record<string, unknown>)[name];
  // What node:tls does by itself is no check of the program's own, and no less than the pool does; got, for one, writes it out.
  return value !== undefined && value !== null && value !== tls.checkServerIdentity;
};

/** Throws BAD_ARGUMENT for the first option that would be ignored; `renamed` has those that are called otherwise here, with what to do. */
export function refuseTlsOptions(options: object, renamed: Readonly<Record<string, string>> = {}): void {
  for (const [name, instead] of Object.entries(renamed)) {
    if (isGiven(options, name)) throw new TlsPoolError('BAD_ARGUMENT', { text: `the option ${name} of node:tls is not known here: ${instead}`, field: name });
  }
  const name = Object.keys(foreign).find((one) => isGiven(options, one));
  if (name === undefined) return;
  throw new TlsPoolError('BAD_ARGUMENT', { text: `the option ${name} is not for a program behind a pool, ${foreign[name]}`, field: name });
}

/** The same for a server that exists already: throws BAD_ARGUMENT for settings of its own that would not be in force. */
export function refuseTlsServer(server: object): void {
  const name = restrictions.find((one) => isGiven(server, one));
  if (name === undefined) return;
  throw new TlsPoolError('BAD_ARGUMENT', { text: `the server was made with the option ${name}, which would not be in force behind a pool, ${foreign[name]}`, field: name });
}
