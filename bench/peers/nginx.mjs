/** nginx stream: one worker, TLS in, plain TCP out. */
import { writeFileSync } from 'node:fs';
import path from 'node:path';

/** proxy_buffer_size by row, each the best of 4k to 256k for it (see README.md); it is one buffer each way and connection. */
const buffers = { 'memory': '4k', 'upload-1': '64k', 'upload-16': '64k' };

export const nginx = {
  name: 'nginx',
  packages: ['nginx-light', 'libnginx-mod-stream'],
  program: '/usr/sbin/nginx',
  versionArgs: ['-v'],
  configure({ folder, certificate, port, backendPort, row }) {
    const file = path.join(folder, 'nginx.conf');
    writeFileSync(file, `
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
${process.getuid() === 0 ? 'user root;' : ''}
worker_processes 1;
daemon off;
pid ${folder}/nginx.pid;
error_log stderr crit;
worker_rlimit_nofile 16384;
events { worker_connections 8192; multi_accept on; }
stream {
  access_log off;
  server {
    listen 127.0.0.1:${port} ssl backlog=4096;
    tcp_nodelay on;
    ssl_certificate ${certificate.chain};
    ssl_certificate_key ${certificate.key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ecdh_curve X25519:prime256v1:secp384r1;
    ssl_session_cache off;
    proxy_buffer_size ${buffers[row.id] ?? '16k'};
    proxy_timeout 1h;
    proxy_pass 127.0.0.1:${backendPort};
  }
}
`);
    return ['/usr/sbin/nginx', '-e', 'stderr', '-p', folder, '-c', file];
  },
};
