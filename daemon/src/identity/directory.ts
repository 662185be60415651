/**
 * Source: a folder with `tls.crt`, `tls.key`, `ca.crt`, the layout of Kubernetes Secrets and of Skupper. Further pairs
 * `NAME.crt` + `NAME.key` give the identity further key types. With `ca.crt` alone it serves only to trust peers.
 */
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { TlsPoolError } from 'libtlspool/protocol';
import { openReason, unsafePlaceReason, watchPaths } from 'tlspool-common/files';
import { maxPairs, readMaterial, type MaterialFiles, type PairFiles } from './read.js';
import type { IdentitySource } from './types.js';

function bad(text: string): TlsPoolError {
  return new TlsPoolError('IDENTITY_BAD', { text });
}

async function listFolder(folder: string): Promise<MaterialFiles> {
  let names: string[];
  try {
    // Hidden entries are Kubernetes' own (..data) and half-written files.
    names = (await readdir(folder)).filter((name) => !name.startsWith('.')).sort();
  } catch (error) {
    throw bad(openReason(folder, error));
  }
  // Each file is asked for its own place; this is about the folder as a whole.
  const unsafe = unsafePlaceReason(folder);
  if (unsafe !== undefined) throw bad(unsafe);
  const present = new Set(names);
  const keys = names.filter((name) => name.endsWith('.key') && name !== 'ca.key').map((name) => name.slice(0, -4));
  if (present.has('ca.key')) throw bad(`${path.join(folder, 'ca.key')}: the key of an authority does not belong in an identity; move it away`);
  if (present.has('tls.crt') && !present.has('tls.key')) throw bad(`${folder} has tls.crt without tls.key; add the key`);
  const alone = keys.find((base) => !present.has(`${base}.crt`));
  if (alone !== undefined) throw bad(`${folder} has ${alone}.key without ${alone}.crt; add the certificate`);
  if (keys.length > maxPairs) throw bad(`${folder} has ${keys.length} pairs of certificate and key; at most ${maxPairs} are used`);
  if (keys.length === 0 && !present.has('ca.crt')) throw bad(`${folder} has neither tls.crt and tls.key nor ca.crt; put the credentials there, for example with: tlspool pki issue`);
  const pairs: PairFiles[] = keys.map((base) => ({ certificate: path.join(folder, `${base}.crt`), key: path.join(folder, `${base}.key`) }));
  return { pairs, ...(present.has('ca.crt') ? { trust: path.join(folder, 'ca.crt') } : {}) };
}

/** Credentials in a folder. Nothing is read before `load`. */
export function directorySource(folder: string): IdentitySource {
  return {
    description: folder,
    load: (pin) => readMaterial(() => listFolder(folder), folder, pin),
    watch: (changed) => watchPaths([{ folder }], changed),
  };
}
