/**
 * Certificates for tests, made by the openssl command: what our own development PKI makes is then checked against
 * another implementation instead of against itself.
 */
import { chmodSync, chownSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { needProgram, run } from './program.js';

export interface TestCa {
  readonly folder: string;
  readonly certFile: string;
  readonly keyFile: string;
  readonly commonName: string;
}

export interface LeafOptions {
  readonly commonName: string;
  /** SANs in OpenSSL's spelling, such as `DNS:localhost` or `URI:spiffe://x/y`. */
  readonly sans: readonly string[];
  readonly keyType?: 'ec' | 'rsa';
  readonly usage?: 'serverAuth' | 'clientAuth';
  /** Valid from and to, in OpenSSL's YYYYMMDDHHMMSSZ; today and 90 days from now where absent. */
  readonly notBefore?: string;
  readonly notAfter?: string;
}

export interface TestLeaf { readonly certFile: string; readonly keyFile: string }

const openssl = (args: readonly string[]): Promise<unknown> => run(needProgram('openssl', 'openssl'), args, { deadlineMs: 60_000 });

const keyArgs = (keyType: 'ec' | 'rsa'): string[] =>
  keyType === 'ec' ? ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'] : ['-newkey', 'rsa:2048'];

/** A new CA in `folder` (made, 0700): ca.crt and ca.key. `levels`: of CAs that may be below it. `issuer`: who signs it, in place of itself. */
export async function makeCa(folder: string, commonName = 'tlspool test CA', { levels = 0, issuer }: { readonly levels?: number; readonly issuer?: TestCa } = {}): Promise<TestCa> {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const certFile = path.join(folder, 'ca.crt');
  const keyFile = path.join(folder, 'ca.key');
  await openssl([
    'req', '-x509', ...(issuer === undefined ? [] : ['-CA', issuer.certFile, '-CAkey', issuer.keyFile]), ...keyArgs('ec'), '-nodes', '-keyout', keyFile, '-out', certFile,
    '-days', '365', '-subj', `/CN=${commonName}`, '-addext', `basicConstraints=critical,CA:true,pathlen:${levels}`, '-addext', 'keyUsage=critical,keyCertSign,cRLSign',
  ]);
  chmodSync(keyFile, 0o600);
  // `openssl ca`, the only command that takes dates, wants a data base.
  writeFileSync(path.join(folder, 'index.txt'), '');
  writeFileSync(path.join(folder, 'ca.cnf'), [
    '[ca]', 'default_ca = d', '[d]', `database = ${folder}/index.txt`, `new_certs_dir = ${folder}`, `certificate = ${certFile}`,
    `private_key = ${keyFile}`, 'default_md = sha256', 'policy = p', 'unique_subject = no', 'rand_serial = yes', 'default_days = 90', '[p]', 'commonName = supplied', '',
  ].join('\n'));
  return { folder, certFile, keyFile, commonName };
}

/** Writes tls.crt and tls.key (0600) into `folder`, in the layout of a directory identity. */
export async function issue(ca: TestCa, folder: string, options: LeafOptions): Promise<TestLeaf> {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const certFile = path.join(folder, 'tls.crt');
  const keyFile = path.join(folder, 'tls.key');
  const request = path.join(folder, 'tls.csr');
  const extensions = path.join(folder, 'tls.ext');
  const keyUsage = options.keyType === 'rsa' ? 'digitalSignature,keyEncipherment' : 'digitalSignature';
  await openssl(['req', '-new', ...keyArgs(options.keyType ?? 'ec'), '-nodes', '-keyout', keyFile, '-out', request, '-subj', `/CN=${options.commonName}`]);
  writeFileSync(extensions, [
    'basicConstraints=critical,CA:false', `keyUsage=critical,${keyUsage}`, `extendedKeyUsage=${options.usage ?? 'serverAuth'}`,
    'subjectKeyIdentifier=hash', 'authorityKeyIdentifier=keyid', ...(options.sans.length > 0 ? [`subjectAltName=${options.sans.join(',')}`] : []), '',
  ].join('\n'));
  await openssl([
    'ca', '-batch', '-notext', '-config', path.join(ca.folder, 'ca.cnf'), '-in', request, '-out', certFile, '-extfile', extensions,
    ...(options.notBefore === undefined ? [] : ['-startdate', options.notBefore]), ...(options.notAfter === undefined ? [] : ['-enddate', options.notAfter]),
  ]);
  chmodSync(keyFile, 0o600);
  return { certFile, keyFile };
}

/** Makes `root` the trust of a directory identity (ca.crt). Several roots are concatenated. */
export function trust(folder: string, ...roots: readonly TestCa[]): void {
  const [only] = roots;
  if (roots.length === 1 && only !== undefined) copyFileSync(only.certFile, path.join(folder, 'ca.crt'));
  else writeFileSync(path.join(folder, 'ca.crt'), roots.map((root) => readFileSync(root.certFile, 'utf8')).join(''));
}

/** Gives a folder of credentials to another user, as a daemon that runs under that user needs it. */
export function giveTo(uid: number, gid: number, ...files: readonly string[]): void {
  for (const file of files) chownSync(file, uid, gid);
}
