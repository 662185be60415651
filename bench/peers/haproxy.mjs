/** HAProxy: one thread, mode tcp. */
import { writeFileSync } from 'node:fs';
import path from 'node:path';

/** tune.bufsize by row: 64 KiB is the best of 16 to 128 KiB for transfers; elsewhere the default of 16 KiB is. */
const buffers = { 'download-1': 65_536, 'download-16': 65_536, 'upload-1': 65_536, 'upload-16': 65_536 };

export const haproxy = {
  name: 'haproxy',
  packages: ['haproxy'],
  program: '/usr/sbin/haproxy',
  versionArgs: ['-v'],
  configure({ folder, certificate, port, backendPort, row }) {
    const file = path.join(folder, 'haproxy.cfg');
    writeFileSync(file, `
global
  nbthread 1
  maxconn 6000
  ssl-default-bind-options ssl-min-ver TLSv1.2
  ssl-default-bind-curves X25519:P-256:P-384
  tune.bufsize ${buffers[row.id] ?? 16_384}
  tune.listener.multi-queue off
defaults
  mode tcp
  timeout connect 10s
  timeout client 1h
  timeout server 1h
  maxconn 6000
frontend tls
  bind 127.0.0.1:${port} ssl crt ${certificate.both} backlog 4096
  default_backend plain
backend plain
  server plain 127.0.0.1:${backendPort}
`);
    return ['/usr/sbin/haproxy', '-db', '-q', '-f', file];
  },
};
