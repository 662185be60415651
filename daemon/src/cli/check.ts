/** `tlspool check` and `tlspoold --check`: would a pool start with this configuration? Starts nothing and makes nothing. */
import { existsSync } from 'node:fs';
import { TlsPoolError } from 'libtlspool/protocol';
import { checkStateFolder, loadConfig } from '../config/index.js';
import type { Config, Overrides } from '../config/index.js';
import { engine } from '../engine.js';
import { checkCredentials } from '../identity/index.js';
import type { Shown } from './commands.js';
import { printable } from './format.js';

/** Throws CONFIG_BAD with every mistake in the file or for a state folder that cannot be used, or IDENTITY_BAD with every mistake in the credentials. */
export async function checkConfiguration(file: string | undefined, overrides: Overrides): Promise<Shown> {
  const config = loadConfig(file, overrides);
  const name = config.file ?? 'the development default';
  if (existsSync(config.state)) await checkStateFolder(config.state);
  if (config.development && isUnmade(config)) {
    const text = `${name}: good; its CA and identity will be made in ${config.state} by the first start`;
    return { value: { configuration: name, identities: config.identities.length, warnings: [] }, text };
  }
  const { identities, problems, warnings } = await checkCredentials(config, (pair) => { engine.checkKeyPair(pair); });
  if (problems.length > 0) throw new TlsPoolError('IDENTITY_BAD', { text: problems.join('\n') });
  const lines = [...warnings.map((warning) => `warning: ${warning}`), `${name}: good, ${identities} ${identities === 1 ? 'identity' : 'identities'}`];
  return { value: { configuration: name, identities, warnings }, text: lines.map(printable).join('\n') };
}

function isUnmade({ identities }: Config): boolean {
  return identities.every(({ source }) => source.kind === 'directory' && !existsSync(source.directory));
}
