/** OpenLDAP's slapd with a directory of one person. */
import { needProgram, run } from '../program.js';
import { account, asUser, freePorts, makePlace, startServer } from './server.js';
import type { ServerOptions, TestServer } from './server.js';

export interface SlapdServer extends TestServer {
  readonly port: number;
  readonly base: string;
  readonly admin: string;
  /** Distinguished name of joe, whose password is `secret`. */
  readonly person: string;
}

const base = 'dc=example,dc=org';
const admin = `cn=admin,${base}`;
const person = `uid=${account.user},${base}`;

const entries = `dn: ${base}
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: ${person}
objectClass: inetOrgPerson
uid: ${account.user}
cn: Joe
sn: Joe
mail: ${account.address}
userPassword: ${account.password}
`;

export async function startSlapd(options: ServerOptions = {}): Promise<SlapdServer> {
  const owner = asUser('openldap');
  const place = makePlace(options, owner);
  const { tls, folder } = place;
  const config = place.write('slapd.conf', [
    ...['core', 'cosine', 'inetorgperson'].map((name) => `include /etc/ldap/schema/${name}.schema`),
    'modulepath /usr/lib/ldap', 'moduleload back_mdb', `pidfile ${folder}/slapd.pid`,
    ...(tls === undefined ? [] : [`TLSCertificateFile ${tls.certFile}`, `TLSCertificateKeyFile ${tls.keyFile}`]),
    'database mdb', 'maxsize 4194304', `suffix "${base}"`, `rootdn "${admin}"`, `rootpw ${account.password}`, `directory ${place.makeFolder('db')}`, '',
  ].join('\n'));
  const slapd = needProgram('slapd', 'slapd');
  await run(needProgram('slapadd', 'slapd'), ['-f', config], { ...owner, input: entries });
  const [port = 0] = await freePorts(1);
  // SIGINT: at once, also with clients connected.
  const server = await startServer({ command: slapd, args: ['-f', config, '-h', `ldap://127.0.0.1:${String(port)}/`, '-d', 'none'], ports: [port], ...owner });
  return { ...server, port, base, admin, person };
}
