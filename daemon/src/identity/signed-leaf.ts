/** One key pair and one certificate, made for one name. */
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import { generateKeyPair, randomBytes, type KeyObject } from 'node:crypto';
import { promisify } from 'node:util';
import { signLeaf } from '../pki/leaf.js';
import type { Authority } from './authority.js';
import { toPem } from './pem.js';
import type { SignedName } from './signed-names.js';

/** What a context is made from. */
export interface Signed {
  /** PEM: leaf, CA, its issuers. */
  readonly chain: Buffer;
  /** PEM; the caller wipes it. */
  readonly key: Buffer;
  /** Hexadecimal. */
  readonly serial: string;
  readonly notAfterMs: number;
  /** Tickets are good for this certificate alone. */
  readonly ticketTag: string;
}

export interface Wanted {
  readonly name: SignedName;
  readonly role: 'server' | 'client';
  readonly nowMs: number;
  /** To the second. */
  readonly notAfterMs: number;
}

/** Clocks differ: what is made now must be valid on a machine that is a little behind. */
const backdateMs = 300_000;
/** ub-common-name of RFC 5280 appendix A.1. */
const maxCommonNameOctets = 64;

const newKeys = promisify(generateKeyPair) as (type: 'ec', options: { namedCurve: string }) => Promise<{ publicKey: KeyObject; privateKey: KeyObject }>;

/**
 * For people, where it fits. Not an address: OpenSSL would take it for a host name and hold it against name constraints. None at all where the CA is limited in
 * distinguished names: an empty subject is within every limit.
 */
function commonNameOf({ type, value }: SignedName, { constraints }: Authority): string | undefined {
  const isFit = type !== 'ip' && value.length <= maxCommonNameOctets && !value.startsWith('#');
  return isFit && !constraints.some(({ limitsSubjects }) => limitsSubjects) ? value : undefined;
}

/** ECDSA P-256, whatever the CA has: fast to make, and every client takes it. That the name may be signed is the caller's to know. */
export async function signFor(authority: Authority, { name, role, nowMs, notAfterMs }: Wanted): Promise<Signed> {
  const { publicKey, privateKey } = await newKeys('ec', { namedCurve: 'prime256v1' });
  const commonName = commonNameOf(name, authority);
  const leaf = await signLeaf(authority.issuer, {
    ...(commonName === undefined ? {} : { commonName }), names: [name], server: role === 'server', client: role === 'client',
    publicKey: new x509.PublicKey(publicKey.export({ format: 'der', type: 'spki' })),
    notBefore: new Date(Math.max(nowMs - backdateMs, authority.notBeforeMs)), notAfter: new Date(notAfterMs),
  });
  const der = privateKey.export({ format: 'der', type: 'pkcs8' });
  try {
    return {
      chain: Buffer.concat([Buffer.from(`${leaf.toString('pem')}\n`), authority.chain]), key: toPem('PRIVATE KEY', der), serial: leaf.serialNumber, notAfterMs,
      ticketTag: randomBytes(16).toString('hex'),
    };
  } finally {
    der.fill(0);
  }
}
