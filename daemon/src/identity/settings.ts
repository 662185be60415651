/** Configuration to identities: which there are, and where their credentials come from. */
import { createHash } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { TlsPoolError } from 'libtlspool/protocol';
import { localid as localidSchema } from 'tlspool-common/config';
import { openReason } from 'tlspool-common/files';
import type { Config, SourceConfig } from '../config/types.js';
import { directorySource } from './directory.js';
import { readPublicFile } from './files.js';
import { parseTrust } from './inspect.js';
import { pemFilesSource } from './pemfiles.js';
import { pkcs12Source } from './pkcs12.js';
import type { IdentitySettings, IdentitySource } from './types.js';

/** The cap of the `identities` reply. */
const maxIdentities = 1000;

function bad(text: string, cause?: unknown): TlsPoolError {
  return new TlsPoolError('CONFIG_BAD', { text, ...(cause === undefined ? {} : { cause }) });
}

/** Kind of source -> how it is made. A new source is one file and one line here. */
const makers: { readonly [K in SourceConfig['kind']]: (config: Extract<SourceConfig, { kind: K }>) => IdentitySource } = {
  directory: ({ directory }) => directorySource(directory),
  files: (files) => pemFilesSource(files),
  pkcs12: (files) => pkcs12Source(files),
};

function sourceOf<K extends SourceConfig['kind']>(config: Extract<SourceConfig, { kind: K }>): IdentitySource {
  return (makers[config.kind] as (config: Extract<SourceConfig, { kind: K }>) => IdentitySource)(config);
}

async function subFolders(parent: string): Promise<string[]> {
  const folders: string[] = [];
  let at = parent;
  try {
    for (const name of (await readdir(parent)).sort()) {
      if (name.startsWith('.')) continue;
      at = path.join(parent, name);
      // stat, not the entry's own type: a link to a folder is one.
      if ((await stat(at)).isDirectory()) folders.push(name);
    }
  } catch (error) {
    throw bad(`identitiesDirectory: ${openReason(at, error)}`, error);
  }
  return folders;
}

/**
 * All identities of the configuration, with the sub-folders of identitiesDirectory as they are now. Reads no credentials.
 * Throws CONFIG_BAD.
 */
export async function identitySettings(config: Config): Promise<readonly IdentitySettings[]> {
  const settings: IdentitySettings[] = config.identities.map(({ source, ...rest }) => ({ ...rest, source: sourceOf(source) }));
  const { identitiesDirectory: parent } = config;
  if (parent !== undefined) {
    const configured = new Set(settings.map(({ localid }) => localid));
    for (const localid of await subFolders(parent)) {
      if (configured.has(localid)) continue;
      if (!localidSchema.safeParse(localid).success) throw bad(`${path.join(parent, localid)}: the folder's name cannot be a localid; use 1 to 255 octets without control characters`);
      settings.push({ localid, source: directorySource(path.join(parent, localid)), names: [], policy: 'intermediate', clientAuth: 'none', isDefault: false, ticketLifetimeS: 3600 });
    }
  }
  if (settings.length > maxIdentities) throw bad(`there are ${settings.length} identities; a pool has at most ${maxIdentities}`);
  return settings;
}

/** Trust of the pool itself: all roots as one PEM. */
export interface DefaultTrust { readonly pem: Buffer; readonly digest: string }

/** Reads the trust roots of the configuration; undefined when there are none. What was read `before` is not parsed again. Throws IDENTITY_BAD. */
export async function readDefaultTrust(config: Config, before?: DefaultTrust): Promise<DefaultTrust | undefined> {
  const { roots } = config.trust;
  if (roots.length === 0) return undefined;
  const files = await Promise.all(roots.map(async (file) => ({ file, octets: await readPublicFile(file) })));
  const hash = createHash('sha256');
  for (const { file, octets } of files) hash.update(JSON.stringify([file, octets.length])).update(octets);
  const digest = hash.digest('hex');
  if (before?.digest === digest) return before;
  return { pem: Buffer.concat(files.map(({ file, octets }) => parseTrust(octets, file).pem)), digest };
}
