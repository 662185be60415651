/** Dovecot: IMAP, POP3, ManageSieve and LMTP for one mailbox. */
import { chmodSync, chownSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { needProgram } from '../program.js';
import { account, freePorts, makePlace, needRoot, startServer, userNamed } from './server.js';
import type { ServerOptions, TestServer } from './server.js';

export interface DovecotServer extends TestServer {
  readonly imap: number;
  readonly pop3: number;
  readonly sieve: number;
  readonly lmtp: number;
  /** Socket at which Postfix has passwords checked. */
  readonly authSocket: string;
  /** Messages that were delivered to joe and not yet fetched or seen. */
  newMail(): string[];
}

export interface DovecotOptions extends ServerOptions {
  /** Awaits a PROXY header (version 1 or 2) on every connection to imap, pop3 and sieve. */
  readonly proxyProtocol?: boolean;
  /** Takes passwords only on connections that it is told are protected. */
  readonly protectedOnly?: boolean;
}

/** Users joe and joe@example.org with password secret share a mailbox. Passwords are taken in plain text where there is no TLS. */
export async function startDovecot(options: DovecotOptions = {}): Promise<DovecotServer> {
  needRoot('Dovecot');
  const place = makePlace(options);
  const { folder, tls } = place;
  chmodSync(folder, 0o755);
  const mail = userNamed('nobody');
  const mailFolder = place.makeFolder('mail');
  chownSync(mailFolder, mail.uid, mail.gid);
  const [imap = 0, pop3 = 0, sieve = 0, lmtp = 0] = await freePorts(4);
  const users = place.write('users', [account.user, account.address].map((name) => `${name}:{PLAIN}${account.password}\n`).join(''));
  chmodSync(users, 0o644);
  const listener = (name: string, port: number): string =>
    `inet_listener ${name} {\n address = 127.0.0.1\n port = ${String(port)}\n${options.proxyProtocol === true ? ' haproxy = yes\n' : ''}}`;
  const config = place.write('dovecot.conf', `
base_dir = ${folder}/run
state_dir = ${folder}/run
instance_name = ${path.basename(folder)}
log_path = /dev/stderr
protocols = imap pop3 lmtp sieve
haproxy_trusted_networks = 127.0.0.1
${tls === undefined ? `ssl = no\ndisable_plaintext_auth = ${options.protectedOnly === true ? 'yes' : 'no'}` : `ssl = required\nssl_cert = <${tls.certFile}\nssl_key = <${tls.keyFile}`}
auth_mechanisms = plain login
# Neither after a wrong password nor for the address that it came from.
auth_failure_delay = 0
service anvil {
 unix_listener anvil-auth-penalty {\n  mode = 0\n }
}
mail_location = maildir:${mailFolder}/joe
first_valid_uid = ${String(Math.min(mail.uid, 500))}
passdb {
 driver = passwd-file
 args = username_format=%u ${users}
}
userdb {
 driver = static
 args = uid=${String(mail.uid)} gid=${String(mail.gid)} home=${mailFolder}
}
service imap-login {
 ${listener('imap', imap)}
 inet_listener imaps {\n port = 0\n }
}
service pop3-login {
 ${listener('pop3', pop3)}
 inet_listener pop3s {\n port = 0\n }
}
service managesieve-login {
 ${listener('sieve', sieve)}
}
service auth {
 unix_listener ${folder}/auth {\n  mode = 0666\n }
}
service lmtp {
 inet_listener lmtp {\n address = 127.0.0.1\n port = ${String(lmtp)}\n }
}
`);
  const server = await startServer({ command: needProgram('dovecot', 'dovecot-imapd'), args: ['-F', '-c', config], ports: options.proxyProtocol === true ? [lmtp] : [imap, pop3, sieve, lmtp] });
  const inbox = path.join(mailFolder, 'joe/new');
  return {
    ...server, imap, pop3, sieve, lmtp, authSocket: `${folder}/auth`,
    newMail: () => existsSync(inbox) ? readdirSync(inbox).map((name) => readFileSync(path.join(inbox, name), 'utf8')) : [],
  };
}
