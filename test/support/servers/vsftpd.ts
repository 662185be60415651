/** vsftpd: anonymous FTP with one file. */
import { chmodSync } from 'node:fs';
import { needProgram } from '../program.js';
import { freePorts, makePlace, needRoot, startServer } from './server.js';
import type { ServerOptions, TestServer } from './server.js';

export interface VsftpdServer extends TestServer {
  readonly port: number;
  /** Name and contents of the file. */
  readonly file: { readonly name: string; readonly text: string };
}

export async function startVsftpd(options: ServerOptions = {}): Promise<VsftpdServer> {
  needRoot('vsftpd');
  const place = makePlace(options);
  chmodSync(place.folder, 0o755);
  const { tls } = place;
  const file = { name: 'hello.txt', text: 'hello from vsftpd\n' };
  const files = place.makeFolder('files');
  chmodSync(place.write(`files/${file.name}`, file.text), 0o644);
  const [port = 0, data = 0] = await freePorts(2);
  const config = place.write('vsftpd.conf', [
    'listen=YES', 'listen_address=127.0.0.1', `listen_port=${String(port)}`, 'background=NO', 'anonymous_enable=YES', 'local_enable=NO', `anon_root=${files}`, 'no_anon_password=YES',
    `pasv_min_port=${String(data)}`, `pasv_max_port=${String(data)}`, `secure_chroot_dir=${place.makeFolder('empty')}`, 'seccomp_sandbox=NO', 'isolate=NO', 'isolate_network=NO',
    `xferlog_file=${place.folder}/xferlog`, `vsftpd_log_file=${place.folder}/log`,
    ...(tls === undefined ? ['ssl_enable=NO'] : [
      'ssl_enable=YES', 'allow_anon_ssl=YES', 'force_anon_logins_ssl=YES', 'force_anon_data_ssl=NO', 'require_ssl_reuse=NO', 'ssl_ciphers=HIGH', `rsa_cert_file=${tls.certFile}`, `rsa_private_key_file=${tls.keyFile}`,
    ]), '',
  ].join('\n'));
  const server = await startServer({ command: needProgram('vsftpd', 'vsftpd'), args: [config], ports: [port] });
  return { ...server, port, file };
}
