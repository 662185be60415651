/** Prosody, an XMPP server, for the domain example.org. */
import { needProgram } from '../program.js';
import { account, asUser, freePorts, makePlace, startServer } from './server.js';
import type { ServerOptions, TestServer } from './server.js';

export interface ProsodyServer extends TestServer {
  /** Ports for clients, and for other servers. */
  readonly c2s: number;
  readonly s2s: number;
}

export async function startProsody(options: ServerOptions = {}): Promise<ProsodyServer> {
  const owner = asUser('prosody');
  const place = makePlace(options, owner);
  const { tls } = place;
  const [c2s = 0, s2s = 0] = await freePorts(2);
  const data = place.makeFolder('data');
  place.makeFolder(`data/${account.domain.replace('.', '%2e')}/accounts`);
  place.write(`data/${account.domain.replace('.', '%2e')}/accounts/${account.user}.dat`, `return { ["password"] = "${account.password}" };\n`);
  const config = place.write('prosody.cfg.lua', `
daemonize = false
pidfile = "${place.folder}/prosody.pid"
data_path = "${data}"
log = { { levels = { min = "info" }, to = "console" } }
interfaces = { "127.0.0.1" }
c2s_ports = { ${String(c2s)} }
s2s_ports = { ${String(s2s)} }
c2s_direct_tls_ports = {}
s2s_direct_tls_ports = {}
http_ports = {}
https_ports = {}
modules_enabled = { "roster", "saslauth", "disco", "dialback", "ping", "s2s"${tls === undefined ? '' : ', "tls"'} }
modules_disabled = { "offline"${tls === undefined ? ', "tls"' : ''} }
authentication = "internal_plain"
allow_unencrypted_plain_auth = true
c2s_require_encryption = ${String(tls !== undefined)}
s2s_require_encryption = ${String(tls !== undefined)}
${tls === undefined ? '' : `ssl = { certificate = "${tls.certFile}", key = "${tls.keyFile}" }`}
VirtualHost "${account.domain}"
`);
  const server = await startServer({ command: needProgram('prosody', 'prosody'), args: ['-F', '--config', config], ports: [c2s, s2s], cwd: place.folder, ...owner });
  return { ...server, c2s, s2s };
}
