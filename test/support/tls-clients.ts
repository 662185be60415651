/** TLS clients that are not ours: OpenSSL's, GnuTLS's, curl and Node's own. */
import https from 'node:https';
import { readFileSync } from 'node:fs';
import tls from 'node:tls';
import { needProgram, Program, run } from './program.js';
import type { RunResult } from './program.js';
import { within } from './wait.js';

export interface Target {
  readonly port: number;
  /** PEM of the roots to trust. */
  readonly caFile: string;
  /** Name to verify and to send as SNI; localhost where absent. */
  readonly servername?: string;
  /** Client certificate and key in PEM. */
  readonly client?: { readonly certFile: string; readonly keyFile: string };
}

const nameOf = (target: Target): string => target.servername ?? 'localhost';

/** Arguments of `openssl s_client` that make it verify the server and fail when it cannot. */
export function sClientArgs(target: Target, args: readonly string[] = []): string[] {
  return [
    's_client', '-connect', `127.0.0.1:${String(target.port)}`, '-servername', nameOf(target), '-CAfile', target.caFile,
    '-verify_return_error', '-verify_hostname', nameOf(target),
    ...(target.client === undefined ? [] : ['-cert', target.client.certFile, '-key', target.client.keyFile]), ...args,
  ];
}

/** An interactive s_client. Its commands (K, k, R, Q at the start of a line) work unless -quiet is given. */
export function sClient(target: Target, args: readonly string[] = []): Program {
  return new Program(needProgram('openssl', 'openssl'), sClientArgs(target, args));
}

/** curl to https://<servername>:<port><path>, resolved to 127.0.0.1. Without --fail: the status is the test's to judge. */
export function curl(target: Target, path = '/', args: readonly string[] = [], check = true): Promise<RunResult> {
  const name = nameOf(target);
  return run(needProgram('curl', 'curl'), [
    '--silent', '--show-error', '--max-time', '20', '--noproxy', '*', '--cacert', target.caFile,
    ...(/^[0-9.]+$/u.test(name) ? [] : ['--resolve', `${name}:${String(target.port)}:127.0.0.1`]),
    ...(target.client === undefined ? [] : ['--cert', target.client.certFile, '--key', target.client.keyFile]),
    ...args, `https://${name}:${String(target.port)}${path}`,
  ], { deadlineMs: 30_000, check });
}

/** One request with node:https on a connection of its own. */
export function nodeGet(target: Target, path = '/', options: https.RequestOptions & Pick<tls.ConnectionOptions, 'ALPNProtocols'> = {}): Promise<{ status: number; body: string }> {
  return within(new Promise((resolve, reject) => {
    const request = https.get({
      host: '127.0.0.1', port: target.port, path, servername: nameOf(target), ca: readFileSync(target.caFile), agent: false,
      checkServerIdentity: (_host, certificate) => tls.checkServerIdentity(nameOf(target), certificate),
      ...(target.client === undefined ? {} : { cert: readFileSync(target.client.certFile), key: readFileSync(target.client.keyFile) }), ...options,
    }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk: string) => { body += chunk; });
      response.on('end', () => { resolve({ status: response.statusCode ?? 0, body }); });
      response.on('error', reject);
    });
    request.on('error', reject);
  }), `an answer to GET ${path}`, 20_000);
}

/** A connected TLS socket of Node's own client; rejects when the handshake fails. */
export function nodeConnect(target: Target, options: tls.ConnectionOptions = {}): Promise<tls.TLSSocket> {
  return within(new Promise<tls.TLSSocket>((resolve, reject) => {
    const socket = tls.connect({
      host: '127.0.0.1', port: target.port, servername: nameOf(target), ca: readFileSync(target.caFile),
      ...(target.client === undefined ? {} : { cert: readFileSync(target.client.certFile), key: readFileSync(target.client.keyFile) }), ...options,
    });
    socket.once('error', reject);
    socket.once('secureConnect', () => { socket.removeListener('error', reject); resolve(socket); });
  }), 'a TLS handshake', 20_000);
}
