/** Source: a certificate file, a key file and perhaps a file of trust roots, wherever they are. */
import { watchPaths } from 'tlspool-common/files';
import { readMaterial, type MaterialFiles } from './read.js';
import type { IdentitySource } from './types.js';

export interface PemFiles { readonly certificate: string; readonly key: string; readonly trust?: string }

/** Credentials in PEM files. Nothing is read before `load`. */
export function pemFilesSource({ certificate, key, trust }: PemFiles): IdentitySource {
  const files: MaterialFiles = { pairs: [{ certificate, key }], ...(trust === undefined ? {} : { trust }) };
  return {
    description: certificate,
    load: (pin) => readMaterial(() => Promise.resolve(files), certificate, pin),
    watch: (changed) => watchPaths([certificate, key, ...(trust === undefined ? [] : [trust])].map((file) => ({ file })), changed),
  };
}
