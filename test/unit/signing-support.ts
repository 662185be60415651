/** Signing authorities of every kind, good and bad, and an OnTheFly on an engine that remembers. */
import 'reflect-metadata';
import { generateKeyPairSync, webcrypto, X509Certificate, type KeyObject } from 'node:crypto';
import path from 'node:path';
import * as x509 from '@peculiar/x509';
import type { Config, OnTheFlyConfig } from 'tlspool/dist/config/types.js';
import { OnTheFly } from 'tlspool/dist/identity/index.js';
import type { Client, Permission } from 'tlspool/dist/policy/index.js';
import { der } from '../support/der.js';
import { defined, FakeEngine, writeFolder, type MadeContext } from './identity-support.js';

const dayMs = 86_400_000;

export interface CaOptions {
  readonly issuer?: TestAuthority;
  /** false: an end entity. */
  readonly ca?: boolean;
  readonly pathLength?: number;
  /** Default keyCertSign; null: no keyUsage. */
  readonly keyUsage?: number | null;
  readonly usages?: readonly string[];
  /** Value of the extension. */
  readonly nameConstraints?: Uint8Array;
  readonly key?: 'P-256' | 'P-384' | 'P-521' | 'rsa' | 'ed25519' | 'rsa1024';
  readonly notBefore?: Date;
  readonly notAfter?: Date;
  /** Subject; default CN=<name>. */
  readonly subject?: x509.Name;
  /** subjectKeyIdentifier in hexadecimal, when it is not the usual digest of the key; null: none. */
  readonly keyId?: string | null;
}

export interface TestAuthority { readonly certificate: x509.X509Certificate; readonly node: X509Certificate; readonly pem: string; readonly keyPem: string; readonly key: KeyObject }

const algorithms = {
  'P-256': { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }, 'P-384': { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-384' },
  'P-521': { name: 'ECDSA', namedCurve: 'P-521', hash: 'SHA-512' }, rsa: { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' },
  rsa1024: { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }, ed25519: { name: 'Ed25519' },
} as const;

function newKeys(kind: keyof typeof algorithms): { publicKey: KeyObject; privateKey: KeyObject } {
  if (kind === 'ed25519') return generateKeyPairSync('ed25519');
  if (kind === 'rsa' || kind === 'rsa1024') return generateKeyPairSync('rsa', { modulusLength: kind === 'rsa' ? 2048 : 1024 });
  return generateKeyPairSync('ec', { namedCurve: kind });
}

/** An authority with just what the options say, signed by its issuer or by itself. */
export async function makeAuthority(name: string, options: CaOptions = {}): Promise<TestAuthority> {
  const { issuer, ca = true, key = 'P-256', keyUsage = x509.KeyUsageFlags.keyCertSign, usages = [], keyId } = options;
  const { publicKey, privateKey } = newKeys(key);
  const signer = issuer?.key ?? privateKey;
  const algorithm = issuer === undefined ? algorithms[key] : algorithms['P-256'];
  const signingKey = await webcrypto.subtle.importKey('pkcs8', signer.export({ format: 'der', type: 'pkcs8' }), algorithm, false, ['sign']);
  const spki = new x509.PublicKey(publicKey.export({ format: 'der', type: 'spki' }));
  const subject = options.subject ?? new x509.Name([{ CN: [name] }]);
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: '40', subject, issuer: issuer?.certificate.subjectName ?? subject,
    notBefore: options.notBefore ?? new Date(Date.now() - 30 * dayMs), notAfter: options.notAfter ?? new Date(Date.now() + 300 * dayMs),
    publicKey: spki, signingKey, signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(ca, options.pathLength, true),
      ...(keyUsage === null ? [] : [new x509.KeyUsagesExtension(keyUsage, true)]),
      ...(usages.length === 0 ? [] : [new x509.ExtendedKeyUsageExtension([...usages])]),
      ...(keyId === null ? [] : keyId === undefined ? [await x509.SubjectKeyIdentifierExtension.create(spki, false, webcrypto)] : [new x509.SubjectKeyIdentifierExtension(keyId)]),
      ...(options.nameConstraints === undefined ? [] : [new x509.Extension('2.5.29.30', true, options.nameConstraints)]),
    ],
  }, webcrypto);
  const pem = `${certificate.toString('pem')}\n`;
  return { certificate, node: new X509Certificate(pem), pem, key: privateKey, keyPem: privateKey.export({ format: 'pem', type: 'pkcs8' }).toString() };
}

/** GeneralName, for name constraints. */
export const generalName = {
  dns: (name: string) => der(0x82, name), email: (name: string) => der(0x81, name), uri: (name: string) => der(0x86, name),
  ip: (...octets: number[]) => der(0x87, Buffer.from(octets)), directory: (name: Uint8Array) => der(0xa4, name),
} as const;

/** The value of NameConstraints. */
export function nameConstraints({ permitted, excluded }: { readonly permitted?: readonly Uint8Array[]; readonly excluded?: readonly Uint8Array[] }): Buffer {
  const subtrees = (tag: number, bases: readonly Uint8Array[] | undefined) => (bases === undefined ? [] : [der(tag, ...bases.map((base) => der(0x30, base)))]);
  return der(0x30, ...subtrees(0xa0, permitted), ...subtrees(0xa1, excluded));
}

export const userA: Client = { pid: 10, uid: 1000, gid: 1000, groups: [] };
export const userB: Client = { pid: 11, uid: 1001, gid: 1001, groups: [], unit: 'proxy.service' };

/** A signer on files in a folder, with a clock and rules that the test sets. */
export class SigningBench {
  readonly engine = new FakeEngine();
  readonly lines: { readonly text: string; readonly fields: Readonly<Record<string, unknown>> }[] = [];
  readonly errors: string[] = [];
  nowMs = Math.floor(Date.now() / 1000) * 1000;
  permissions: (client: Client, permission: Permission) => boolean = () => true;
  readonly signer = new OnTheFly({
    engine: this.engine, access: { may: (client, permission) => this.permissions(client, permission) }, now: () => this.nowMs,
    log: {
      info: (text, fields) => { this.lines.push({ text, fields }); },
      error: (text, fields) => { this.errors.push(`${text} ${JSON.stringify(fields)}`); },
    },
  });

  constructor(private readonly folder: string) {}

  /** Writes the CA (and its issuers) and puts it in force, like a reload. */
  async use(...given: Parameters<SigningBench['ready']>): Promise<void> {
    (await this.ready(...given))();
  }

  /** Up to what is done at once at the end. */
  async ready(authority: TestAuthority, changed: Partial<OnTheFlyConfig> = {}, more: { readonly chain?: readonly TestAuthority[]; readonly keyPem?: string; readonly trust?: { pem: Buffer; digest: string } } = {}): Promise<() => void> {
    writeFolder(this.folder, { 'ca.crt': [authority, ...more.chain ?? []].map(({ pem }) => pem).join(''), 'ca.key': more.keyPem ?? authority.keyPem });
    const config = { onTheFly: this.settings(changed) } as Config;
    const prepared = await this.signer.prepare(config);
    return () => { this.signer.publish(prepared, more.trust); };
  }

  settings(changed: Partial<OnTheFlyConfig> = {}): OnTheFlyConfig {
    const at = (name: string) => path.join(this.folder, name);
    return { certificate: at('ca.crt'), key: at('ca.key'), names: ['*', '*@*'], lifetimeS: 86_400, cache: 1000, policy: 'intermediate', clientAuth: 'none', ...changed };
  }

  /** Names that certificates were made for, in order. */
  get made(): unknown[] { return this.lines.map(({ fields }) => fields['name']); }

  get specs() { return this.engine.contexts.map(({ spec }) => spec); }

  /** The certificates that the newest context was made with, leaf first. */
  get chain(): x509.X509Certificate[] {
    const { spec } = defined<MadeContext>(this.engine.contexts.at(-1));
    const pem = defined(spec.keyPairs[0]).chain.toString();
    return pem.split(/(?<=-----END CERTIFICATE-----\n)/u).map((one) => new x509.X509Certificate(one));
  }
}
