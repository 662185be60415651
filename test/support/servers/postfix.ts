/** Postfix as the mail server of example.org. */
import { chmodSync, chownSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { needProgram, run } from '../program.js';
import { account, freePorts, makePlace, needRoot, startServer, userNamed } from './server.js';
import type { ServerOptions, TestServer } from './server.js';

export interface PostfixServer extends TestServer {
  readonly port: number;
  /** Messages that were delivered to joe; only without `lmtp`. */
  newMail(): string[];
}

export interface PostfixOptions extends ServerOptions {
  /** Deliver to this port of 127.0.0.1 instead of to a folder. */
  readonly lmtp?: number;
  /** Takes passwords, and has them checked at this socket of Dovecot. */
  readonly authSocket?: string;
  /** Awaits a PROXY header (version 1 or 2) on every connection. */
  readonly proxyProtocol?: boolean;
}

/** Name of the service, type, and the program behind it; private, not in a chroot. */
const services: readonly (readonly [name: string, type: string, limit: string, command: string])[] = [
  ['rewrite', 'unix', '-', 'trivial-rewrite'], ['bounce', 'unix', '0', 'bounce'], ['defer', 'unix', '0', 'bounce'], ['trace', 'unix', '0', 'bounce'],
  ['verify', 'unix', '1', 'verify'], ['proxymap', 'unix', '-', 'proxymap'], ['error', 'unix', '-', 'error'], ['retry', 'unix', '-', 'error'], ['virtual', 'unix', '-', 'virtual'],
  ['lmtp', 'unix', '-', 'lmtp'], ['anvil', 'unix', '1', 'anvil'], ['scache', 'unix', '1', 'scache'],
];

function masterFile(port: number): string {
  return [
    `127.0.0.1:${String(port)} inet n - n - - smtpd`, 'qmgr unix n - n 300 1 qmgr', 'tlsmgr unix - - n 1000? 1 tlsmgr', 'cleanup unix n - n - 0 cleanup', 'flush unix n - n 1000? 0 flush', 'showq unix n - n - - showq',
    'postlog unix-dgram n - n - 1 postlogd', ...services.map(([name, type, limit, command]) => `${name} ${type} - ${name === 'virtual' ? 'n' : '-'} n - ${limit} ${command}`), '',
  ].join('\n');
}

export async function startPostfix(options: PostfixOptions = {}): Promise<PostfixServer> {
  needRoot('Postfix');
  const place = makePlace(options);
  const { folder, tls } = place;
  chmodSync(folder, 0o755);
  const [port = 0] = await freePorts(1);
  const mail = userNamed('nobody');
  const mailOwner = userNamed('postfix');
  chownSync(place.makeFolder('data'), mailOwner.uid, mailOwner.gid);
  chownSync(place.makeFolder('mail'), mail.uid, mail.gid);
  place.makeFolder('queue');
  const main = [
    'compatibility_level = 3.6', `queue_directory = ${folder}/queue`, `data_directory = ${folder}/data`, `maillog_file = ${folder}/log`, `maillog_file_prefixes = ${folder}`,
    `myhostname = mail.${account.domain}`, 'mydestination =', 'mynetworks = 127.0.0.0/8', 'inet_interfaces = 127.0.0.1', 'inet_protocols = ipv4', 'alias_maps =', 'local_recipient_maps =',
    `virtual_mailbox_domains = ${account.domain}`, `virtual_mailbox_base = ${folder}/mail`, 'virtual_mailbox_maps = static:joe/',
    `virtual_uid_maps = static:${String(mail.uid)}`, `virtual_gid_maps = static:${String(mail.gid)}`, 'virtual_minimum_uid = 1',
    `virtual_transport = ${options.lmtp === undefined ? 'virtual' : `lmtp:inet:127.0.0.1:${String(options.lmtp)}`}`, 'smtpd_recipient_restrictions = reject_unauth_destination', 'smtpd_peername_lookup = no',
    ...(options.authSocket === undefined ? [] : ['smtpd_sasl_auth_enable = yes', 'smtpd_sasl_type = dovecot', `smtpd_sasl_path = ${options.authSocket}`]),
    ...(options.proxyProtocol === true ? ['smtpd_upstream_proxy_protocol = haproxy'] : []),
    ...(tls === undefined ? ['smtpd_tls_security_level = none'] : ['smtpd_tls_security_level = encrypt', `smtpd_tls_chain_files = ${tls.keyFile}, ${tls.certFile}`]), '',
  ];
  for (const [name, text] of [['main.cf', main.join('\n')], ['master.cf', masterFile(port)]] as const) chmodSync(place.write(`etc/${name}`, text), 0o644);
  const config = path.join(folder, 'etc');
  // Makes the folders of the queue. `start-fg` would only stay in the foreground as process 1.
  await run(needProgram('postfix', 'postfix'), ['-c', config, 'check'], { deadlineMs: 30_000 });
  const server = await startServer({
    // It signals its process group, so it needs one of its own.
    command: needProgram('setsid', 'util-linux'), args: ['/usr/lib/postfix/sbin/master', '-d', '-c', config], ports: [port], env: { MAIL_CONFIG: config },
  });
  const inbox = path.join(folder, 'mail/joe/new');
  const log = path.join(folder, 'log');
  return { ...server, port, log: () => `${server.log()}${existsSync(log) ? readFileSync(log, 'utf8') : ''}`, newMail: () => existsSync(inbox) ? readdirSync(inbox).map((name) => readFileSync(path.join(inbox, name), 'utf8')) : [] };
}
