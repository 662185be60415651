/** hitch: one worker. */
import { writeFileSync } from 'node:fs';
import path from 'node:path';

export const hitch = {
  name: 'hitch',
  packages: ['hitch'],
  program: '/usr/sbin/hitch',
  versionArgs: ['--version'],
  configure({ folder, certificate, port, backendPort }) {
    const file = path.join(folder, 'hitch.conf');
    // As root, hitch wants to be told whom its worker runs as.
    const user = process.getuid() === 0 ? 'user = "nobody"\ngroup = "nogroup"\n' : '';
    writeFileSync(file, `
frontend = "[127.0.0.1]:${port}"
backend = "[127.0.0.1]:${backendPort}"
pem-file = "${certificate.both}"
workers = 1
backlog = 4096
daemon = off
quiet = on
log-level = 0
syslog = off
tls-protos = TLSv1.2 TLSv1.3
ocsp-dir = ""
${user}`);
    return ['/usr/sbin/hitch', `--config=${file}`];
  },
};
