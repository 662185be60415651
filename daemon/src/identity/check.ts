/** `tlspoold --check` and `tlspool check`: would the credentials of this configuration be accepted? */
import { TlsPoolError } from 'libtlspool/protocol';
import type { Config } from '../config/types.js';
import { checkDates, parseCertificates } from './inspect.js';
import { nameTable, servedNames, type Named } from './names.js';
import { checkPeerRules } from './peers.js';
import { identitySettings, readDefaultTrust } from './settings.js';
import type { IdentitySettings } from './types.js';
import type { KeyPairSpec } from '../engine.js';

export interface CheckReport {
  readonly identities: number;
  /** One text per mistake, with file and cure; empty: the pool would start. */
  readonly problems: readonly string[];
  /** Server names in more than one certificate. */
  readonly warnings: readonly string[];
}

async function checkOne(settings: IdentitySettings, checkKeyPair: (pair: KeyPairSpec) => void): Promise<Named> {
  const material = await settings.source.load();
  try {
    const leaves = material.keyPairs.map(({ chain }, index) => {
      const file = material.certificateFiles[index] ?? '';
      const { leaf, certificates } = parseCertificates(chain, file);
      checkDates(certificates, file, Date.now());
      return leaf;
    });
    for (const pair of material.keyPairs) checkKeyPair(pair);
    checkPeerRules(settings, leaves, `identity ${settings.localid} (${settings.source.description})`);
    if (settings.clientAuth !== 'none' && material.trust === undefined) {
      throw new TlsPoolError('IDENTITY_BAD', { text: `identity ${settings.localid}: clientAuth ${settings.clientAuth} needs roots; add ca.crt (or "trust")` });
    }
    return { localid: settings.localid, names: leaves.length === 0 ? [] : servedNames(settings.names, leaves, settings.localid), isConfigured: settings.names.length > 0 };
  } finally {
    for (const { key } of material.keyPairs) key.fill(0);
  }
}

/** Reads and checks all credentials, and reports every mistake at once. `checkKeyPair` is the engine's; without it the key is checked by Node alone. Never throws for bad files. */
export async function checkCredentials(config: Config, checkKeyPair: (pair: KeyPairSpec) => void = () => undefined): Promise<CheckReport> {
  const problems: string[] = [];
  const named: Named[] = [];
  const attempt = async (step: () => Promise<unknown>) => {
    try {
      await step();
    } catch (error) {
      problems.push((error as Error).message);
    }
  };
  await attempt(() => readDefaultTrust(config));
  let settings: readonly IdentitySettings[] = [];
  await attempt(async () => { settings = await identitySettings(config); });
  for (const one of settings) await attempt(async () => { named.push(await checkOne(one, checkKeyPair)); });
  let warnings: string[] = [];
  await attempt(async () => {
    warnings = nameTable(named).ambiguous.map(({ name, localids }) => `${name} is in the certificates of ${localids.join(' and ')}; clients that may use both must ask for a localid; or put it under "names" of one`);
  });
  return { identities: settings.length, problems, warnings };
}
