/**
 * The development certificate authority: one ECDSA P-256 root in a folder (ca.crt, ca.key). It is for development and
 * closed networks: there is no revocation and no intermediate, and whoever can read ca.key can be anybody.
 */
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import { createPrivateKey, randomBytes, webcrypto } from 'node:crypto';
import { readFile, stat, unlink } from 'node:fs/promises';
import path from 'node:path';
import { TlsPoolError } from 'libtlspool/protocol';
import { readKeyFile } from '../identity/files.js';
import { toPem } from '../identity/pem.js';
import { serialNumber } from './leaf.js';
import { checkCommonName } from './names.js';
import { makePrivateFolder, stagePrivateFile, systemError } from './write.js';

export const ecdsa = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const caDays = 3650;
const dayMs = 86_400_000;
/** Clocks differ: a certificate made now must be valid on a machine that is a little behind. */
export const backdateMs = 300_000;

export interface CaOptions {
  /** Common name, 1 to 64 octets; default `tlspool development CA`, with random digits so that browsers tell two apart. */
  readonly name?: string;
}

export interface Authority {
  /** PEM certificate of the root, for browsers and `curl --cacert`. */
  readonly certificateFile: string;
  /** PEM PKCS#8 key, mode 0600. Never needed by the pool itself. */
  readonly keyFile: string;
  /** False when the folder had an authority already; then nothing was written. */
  readonly created: boolean;
}

/** PEM of a private key. The intermediate DER is wiped; the returned buffer is the caller's to wipe. */
export async function exportKey(key: webcrypto.CryptoKey): Promise<Buffer> {
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key));
  try {
    return toPem('PRIVATE KEY', der);
  } finally {
    der.fill(0);
  }
}

async function exists(file: string): Promise<boolean> {
  try {
    await stat(file);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw systemError(error, `look at ${file}`);
  }
}

/**
 * Makes a certificate authority in `folder` (made with mode 0700 where it is missing), or finds the one that is there.
 * Throws BAD_ARGUMENT for a name that cannot be used, a folder with only one of the two files, or somebody else who makes one there at the same time,
 * SYSTEM for the rest; then nothing is left behind.
 */
export async function initCa(folder: string, options: CaOptions = {}): Promise<Authority> {
  const certificateFile = path.join(folder, 'ca.crt');
  const keyFile = path.join(folder, 'ca.key');
  const [hasCertificate, hasKey] = [await exists(certificateFile), await exists(keyFile)];
  if (hasCertificate && hasKey) return { certificateFile, keyFile, created: false };
  if (hasCertificate || hasKey) {
    const [there, missing] = hasKey ? [keyFile, certificateFile] : [certificateFile, keyFile];
    throw new TlsPoolError('BAD_ARGUMENT', { text: `${there} exists without ${missing}; restore the missing file, or move the other away to make a new authority` });
  }
  const name = checkCommonName(options.name ?? `tlspool development CA ${randomBytes(3).toString('hex')}`);
  const keys = await webcrypto.subtle.generateKey(ecdsa, true, ['sign', 'verify']);
  const notBefore = new Date(Date.now() - backdateMs);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(), name: [{ CN: [name] }], keys, signingAlgorithm: ecdsa,
    notBefore, notAfter: new Date(notBefore.getTime() + caDays * dayMs),
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
    ],
  }, webcrypto);
  await makePrivateFolder(folder);
  const key = await exportKey(keys.privateKey);
  try {
    await writeAuthority({ certificateFile, keyFile }, key, `${certificate.toString('pem')}\n`);
  } finally {
    key.fill(0);
  }
  return { certificateFile, keyFile, created: true };
}

/** Both files or none, and never over those of somebody who makes an authority there at the same moment. */
async function writeAuthority({ certificateFile, keyFile }: Pick<Authority, 'certificateFile' | 'keyFile'>, key: Buffer, certificate: string): Promise<void> {
  const stagedKey = await stagePrivateFile(keyFile, key);
  let isKeyOurs = false;
  try {
    const stagedCertificate = await stagePrivateFile(certificateFile, certificate);
    isKeyOurs = await stagedKey.create();
    if (isKeyOurs && await stagedCertificate.create()) return;
    await stagedCertificate.discard();
    throw new TlsPoolError('BAD_ARGUMENT', { text: `${isKeyOurs ? certificateFile : keyFile} has appeared meanwhile: somebody else makes an authority there; try again` });
  } catch (error) {
    await stagedKey.discard();
    // Half an authority would be refused above for ever.
    if (isKeyOurs) await unlink(keyFile).catch(() => undefined);
    throw error;
  }
}

export interface Signer { readonly certificate: x509.X509Certificate; readonly pem: string; readonly key: webcrypto.CryptoKey }

/** Opens the authority in `folder` for signing. Throws BAD_ARGUMENT where there is none, IDENTITY_BAD for unsafe or damaged files. */
export async function openCa(folder: string): Promise<Signer> {
  const certificateFile = path.join(folder, 'ca.crt');
  let pem: string;
  let certificate: x509.X509Certificate;
  try {
    pem = await readFile(certificateFile, 'utf8');
  } catch (error) {
    throw new TlsPoolError('BAD_ARGUMENT', { text: `there is no certificate authority in ${folder} (${(error as NodeJS.ErrnoException).code ?? 'unreadable'}); make one with: tlspool pki init`, cause: error });
  }
  const keyFile = path.join(folder, 'ca.key');
  const octets = await readKeyFile(keyFile);
  try {
    certificate = new x509.X509Certificate(pem);
    const der = createPrivateKey(octets).export({ format: 'der', type: 'pkcs8' });
    const key = await webcrypto.subtle.importKey('pkcs8', der, ecdsa, false, ['sign']);
    der.fill(0);
    return { certificate, pem, key };
  } catch (error) {
    throw new TlsPoolError('IDENTITY_BAD', { text: `${folder}: ca.crt and ca.key are not an ECDSA P-256 certificate authority; make a new one in an empty folder with: tlspool pki init`, cause: error });
  } finally {
    octets.fill(0);
  }
}
