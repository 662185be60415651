/** stunnel: a thread per connection; it has no notion of workers. */
import { writeFileSync } from 'node:fs';
import path from 'node:path';

export const stunnel = {
  name: 'stunnel',
  packages: ['stunnel4'],
  program: '/usr/bin/stunnel4',
  versionArgs: ['-version'],
  /** `protocol`: of the plain-text part before TLS (stunnel(8)), if there is one. */
  configure({ folder, certificate, port, backendPort, protocol }) {
    const file = path.join(folder, 'stunnel.conf');
    writeFileSync(file, `
foreground = yes
pid =
debug = crit
syslog = no
[bench]
accept = 127.0.0.1:${port}
connect = 127.0.0.1:${backendPort}
cert = ${certificate.chain}
key = ${certificate.key}
sslVersionMin = TLSv1.2
curves = X25519:P-256:P-384
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
${protocol === undefined ? '' : `protocol = ${protocol}\n`}`);
    return ['/usr/bin/stunnel4', file];
  },
};
