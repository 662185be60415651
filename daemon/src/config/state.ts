/** What the pool makes on first start: its state folder, and the development identity where no configuration was given. */
import { existsSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { X509Certificate } from 'node:crypto';
import path from 'node:path';
import { TlsPoolError } from 'libtlspool/protocol';
import { self } from 'tlspool-common/files';
import { initCa, issue } from '../pki/index.js';
import { makePrivateFolder } from '../pki/write.js';
import type { Config } from './types.js';

const dayMs = 86_400_000;
/** A development certificate is renewed at start when it has less than this left. */
const renewBeforeMs = 30 * dayMs;

export interface PreparedState {
  /** The development authority's certificate, for browsers and `curl --cacert`. Absent where a configuration was given. */
  readonly caFile?: string;
  /** True when this start made or renewed the development identity. */
  readonly issued: boolean;
}

/** Throws CONFIG_BAD when the state folder belongs to somebody else, can be written by others, or is no folder. */
export async function checkStateFolder(folder: string): Promise<void> {
  const attributes = await stat(folder);
  const { uid, mode } = attributes;
  if (!attributes.isDirectory()) throw new TlsPoolError('CONFIG_BAD', { text: `the state folder ${folder} is no folder; name another one by "state"` });
  const me = self();
  if (uid !== me.uid && uid !== 0) throw new TlsPoolError('CONFIG_BAD', { text: `the state folder ${folder} belongs to uid ${uid}; it must belong to uid ${me.uid}, which runs the pool` });
  if ((mode & 0o022) !== 0) throw new TlsPoolError('CONFIG_BAD', { text: `the state folder ${folder} has mode 0${(mode & 0o777).toString(8)}: others can write to it; run: chmod 0700 ${folder}` });
}

/** Is there a certificate from this authority with enough time left? Anything unreadable counts as no. */
async function isGoodFor(folder: string, caFile: string): Promise<boolean> {
  try {
    const leaf = new X509Certificate(await readFile(path.join(folder, 'tls.crt')));
    await stat(path.join(folder, 'tls.key'));
    const ca = new X509Certificate(await readFile(caFile));
    return leaf.verify(ca.publicKey) && Date.parse(leaf.validTo) - Date.now() > renewBeforeMs;
  } catch {
    return false;
  }
}

/**
 * Makes the state folder (mode 0700), and for the development default a CA in `<state>/ca` and the identity `localhost`
 * in `<state>/identities/localhost`, renewed when less than 30 days are left.
 * Throws SYSTEM, or CONFIG_BAD when the folder belongs to somebody else or can be written by others.
 */
export async function prepareState(config: Config): Promise<PreparedState> {
  if (!existsSync(config.state)) await makePrivateFolder(config.state);
  await checkStateFolder(config.state);
  if (!config.development) return { issued: false };
  const caFolder = path.join(config.state, 'ca');
  const { certificateFile } = await initCa(caFolder);
  const out = path.join(config.state, 'identities', 'localhost');
  if (await isGoodFor(out, certificateFile)) return { caFile: certificateFile, issued: false };
  await issue(caFolder, { name: 'localhost', dns: ['localhost', '*.localhost'], ip: ['127.0.0.1', '::1'], out });
  return { caFile: certificateFile, issued: true };
}
