/** ngIRCd, which has no STARTTLS: plain text only. */
import { needProgram } from '../program.js';
import { asUser, freePorts, makePlace, startServer } from './server.js';
import type { TestServer } from './server.js';

export interface NgircdServer extends TestServer { readonly port: number }

export async function startNgircd(): Promise<NgircdServer> {
  const owner = asUser('nobody');
  const place = makePlace({}, owner);
  const [port = 0] = await freePorts(1);
  const config = place.write('ngircd.conf', [
    '[Global]', 'Name = irc.example.org', 'Info = test', 'AdminInfo1 = test', 'AdminEMail = joe@example.org', 'Listen = 127.0.0.1', `Ports = ${String(port)}`, 'MotdPhrase = hello', '[Limits]', 'MaxConnectionsIP = 0', 'MaxPenaltyTime = 0',
    '[Options]', 'DNS = no', 'Ident = no', 'PAM = no', 'SyslogFacility = local1', '',
  ].join('\n'));
  const server = await startServer({ command: needProgram('ngircd', 'ngircd'), args: ['-n', '-f', config], ports: [port], ...owner });
  return { ...server, port };
}
