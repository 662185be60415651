/** Certificates of every kind, good and bad, and an engine that only remembers what it was asked. */
import 'reflect-metadata';
import { generateKeyPairSync, webcrypto, X509Certificate, type KeyObject } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import * as x509 from '@peculiar/x509';
import type { Context, ContextSpec, Selector, SelectorSpec } from 'tlspool/dist/engine.js';

const dayMs = 86_400_000;

export interface CertOptions {
  readonly issuer?: Cert;
  readonly ca?: boolean;
  /** DNS names; none: no subjectAltName. */
  readonly dns?: readonly string[];
  readonly notBefore?: Date;
  readonly notAfter?: Date;
  readonly usages?: readonly string[];
  /** x509.KeyUsageFlags; none: no keyUsage. */
  readonly keyUsage?: number;
  readonly rsaBits?: number;
  readonly curve?: string;
}

export interface Cert { readonly name: string; readonly pem: string; readonly key: KeyObject; readonly keyPem: string; readonly certificate: X509Certificate }

const signing = (key: KeyObject) => (key.asymmetricKeyType === 'rsa' ? { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' } : { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' });

function generate({ rsaBits, curve = 'P-256' }: CertOptions): { publicKey: KeyObject; privateKey: KeyObject } {
  return rsaBits === undefined ? generateKeyPairSync('ec', { namedCurve: curve }) : generateKeyPairSync('rsa', { modulusLength: rsaBits });
}

/** A certificate with just what the options say, signed by its issuer or by itself. */
export async function makeCert(name: string, options: CertOptions = {}): Promise<Cert> {
  const { publicKey, privateKey } = generate(options);
  const { issuer, ca = false, dns = [], usages = [] } = options;
  const signer = issuer?.key ?? privateKey;
  const signingKey = await webcrypto.subtle.importKey('pkcs8', signer.export({ format: 'der', type: 'pkcs8' }), signing(signer), false, ['sign']);
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: '40', subject: `CN=${name}`, issuer: `CN=${issuer?.name ?? name}`,
    notBefore: options.notBefore ?? new Date(Date.now() - dayMs), notAfter: options.notAfter ?? new Date(Date.now() + 30 * dayMs),
    publicKey: new x509.PublicKey(publicKey.export({ format: 'der', type: 'spki' })), signingKey, signingAlgorithm: signing(signer),
    extensions: [
      new x509.BasicConstraintsExtension(ca, undefined, true),
      ...(dns.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(dns.map((value) => ({ type: 'dns', value })))]),
      ...(options.keyUsage === undefined ? [] : [new x509.KeyUsagesExtension(options.keyUsage, true)]),
      ...(usages.length === 0 ? [] : [new x509.ExtendedKeyUsageExtension([...usages])]),
    ],
  }, webcrypto);
  const pem = `${certificate.toString('pem')}\n`;
  return { name, pem, key: privateKey, keyPem: privateKey.export({ format: 'pem', type: 'pkcs8' }).toString(), certificate: new X509Certificate(pem) };
}

/** Writes files (mode 0600) into a folder that is made where it is missing. */
export function writeFolder(folder: string, files: Readonly<Record<string, string | Buffer>>): void {
  mkdirSync(folder, { recursive: true });
  for (const [name, content] of Object.entries(files)) writeFileSync(path.join(folder, name), content, { mode: 0o600 });
}

export interface MadeContext extends Context { readonly spec: ContextSpec; readonly keys: readonly Buffer[]; readonly keysAtCall: readonly string[] }
export interface MadeSelector extends Selector { readonly spec: SelectorSpec }

/** Remembers every call; refuses the localids in `refuse` as the real one refuses a bad key. */
export class FakeEngine {
  readonly contexts: MadeContext[] = [];
  readonly selectors: MadeSelector[] = [];
  readonly refuse = new Set<string>();

  context(spec: ContextSpec): Context {
    if (this.refuse.has(spec.localid)) throw Object.assign(new Error('the engine says no'), { code: 'IDENTITY_BAD' });
    const keys = spec.keyPairs.map(({ key }) => key);
    const made = { spec, keys, keysAtCall: keys.map(String) } as unknown as MadeContext;
    this.contexts.push(made);
    return made;
  }

  selector(spec: SelectorSpec): Selector {
    const made = { spec } as unknown as MadeSelector;
    this.selectors.push(made);
    return made;
  }
}

/** The value, which the test cannot go on without. */
export function defined<T>(value: T | undefined): T {
  if (value === undefined) throw new TypeError('a value that the test needs is undefined');
  return value;
}
