/** InspIRCd: an IRC server with STARTTLS. */
import { needProgram } from '../program.js';
import { asUser, freePorts, makePlace, startServer } from './server.js';
import type { ServerOptions, TestServer } from './server.js';

export interface InspircdServer extends TestServer { readonly port: number }

export async function startInspircd(options: ServerOptions = {}): Promise<InspircdServer> {
  const owner = asUser('irc');
  const place = makePlace(options, owner);
  const { tls } = place;
  const [port = 0] = await freePorts(1);
  const config = place.write('inspircd.conf', [
    '<server name="irc.example.org" description="test" network="test">', '<admin name="joe" nick="joe" email="joe@example.org">', `<bind address="127.0.0.1" port="${String(port)}" type="clients">`,
    '<connect allow="*" resolvehostnames="no" useident="no" timeout="60">', `<pid file="${place.folder}/pid">`, '<log method="stdout" type="*" level="default">',
    '<module name="cap">',
    ...(tls === undefined ? [] : ['<module name="ssl_gnutls">', '<module name="starttls">', `<sslprofile name="Clients" provider="gnutls" certfile="${tls.certFile}" keyfile="${tls.keyFile}">`, '<starttls ssl="Clients">']), '',
  ].join('\n'));
  const server = await startServer({ command: needProgram('inspircd', 'inspircd'), args: ['--nofork', '--config', config], ports: [port], ...owner });
  return { ...server, port };
}
