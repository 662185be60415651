/** Proxies that take connections to ports of loopback: HTTP CONNECT (tinyproxy) and SOCKS version 5 (microsocks). */
import { needProgram } from '../program.js';
import { account, asUser, freePorts, makePlace, startServer } from './server.js';
import type { TestServer } from './server.js';

export interface OutwardProxy extends TestServer { readonly port: number }

/** tinyproxy for joe with password secret, to any port but 25. */
export async function startTinyproxy(): Promise<OutwardProxy> {
  const owner = asUser('nobody');
  const place = makePlace({}, owner);
  const [port = 0] = await freePorts(1);
  const config = place.write('tinyproxy.conf', [`Port ${String(port)}`, 'Listen 127.0.0.1', 'Timeout 60', 'MaxClients 10', `BasicAuth ${account.user} ${account.password}`, 'LogLevel Connect', ''].join('\n'));
  const server = await startServer({ command: needProgram('tinyproxy', 'tinyproxy-bin'), args: ['-d', '-c', config], ports: [port], ...owner });
  return { ...server, port };
}

/** microsocks, with user name and password or without. */
export async function startMicrosocks({ authenticated }: { readonly authenticated: boolean }): Promise<OutwardProxy> {
  const [port = 0] = await freePorts(1);
  const args = ['-i', '127.0.0.1', '-p', String(port), ...(authenticated ? ['-u', account.user, '-P', account.password] : [])];
  const server = await startServer({ command: needProgram('microsocks', 'microsocks'), args, ports: [port], ...asUser('nobody') });
  return { ...server, port };
}
