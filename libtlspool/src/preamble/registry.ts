/** Every preamble, by name. One protocol is one file, and one line here. */
import { ftp } from './ftp.js';
import { httpConnect } from './httpconnect.js';
import { imap } from './imap.js';
import { irc } from './irc.js';
import { ldap } from './ldap.js';
import { lmtp } from './lmtp.js';
import { mysql } from './mysql.js';
import { nntp } from './nntp.js';
import { none } from './none.js';
import { pop3 } from './pop3.js';
import { postgres } from './postgres.js';
import { sieve } from './sieve.js';
import { smtp, submission } from './smtp.js';
import { socks5 } from './socks5.js';
import { xmppClient, xmppServer } from './xmpp.js';
import type { Preamble } from './types.js';

/** All of them, as written in configurations and in starttls(). */
export const preambleNames = [
  'smtp', 'submission', 'lmtp', 'imap', 'pop3', 'sieve', 'nntp', 'ftp', 'xmpp-client', 'xmpp-server', 'ldap', 'postgres', 'mysql', 'irc', 'none', 'http-connect', 'socks5',
] as const;
/** Name of a preamble. */
export type PreambleName = (typeof preambleNames)[number];

/** By name. */
export const preambles: Readonly<Record<PreambleName, Preamble>> = {
  smtp, submission, lmtp, imap, pop3, sieve, nntp, ftp, 'xmpp-client': xmppClient, 'xmpp-server': xmppServer, ldap, postgres, mysql, irc, none, 'http-connect': httpConnect, socks5,
};
