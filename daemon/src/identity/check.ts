/** `tlspoold --check` and `tlspool check`: would the credentials of this configuration be accepted? */
import { TlsPoolError } from 'libtlspool/protocol';
import type { Config } from '../config/types.js';
import { readAuthority } from './authority.js';
import { leafDoubts, rootDoubts } from './doubts.js';
import { checkDates, parseCertificates } from './inspect.js';
import { nameTable, servedNames, type Named } from './names.js';
import { checkPeerRules, isForClientRoleOnly } from './peers.js';
import { identitySettings, readDefaultTrust } from './settings.js';
import type { IdentitySettings } from './types.js';
import type { KeyPairSpec } from '../engine.js';

export interface CheckReport {
  readonly identities: number;
  /** One text per mistake, with file and cure; empty: the pool would start. */
  readonly problems: readonly string[];
  /** Server names in more than one certificate, keys that are locked, certificates that peers will refuse. */
  readonly warnings: readonly string[];
}

interface Checked extends Named { readonly isLocked: boolean; readonly doubts: readonly string[] }

async function checkOne(settings: IdentitySettings, checkKeyPair: (pair: KeyPairSpec) => void): Promise<Checked> {
  const material = await settings.source.load();
  try {
    const doubts: string[] = [];
    const leaves = material.keyPairs.map(({ chain }, index) => {
      const file = material.certificateFiles[index] ?? '';
      const { leaf, certificates } = parseCertificates(chain, file);
      checkDates(certificates, file, Date.now());
      doubts.push(...leafDoubts(leaf, file));
      return leaf;
    });
    for (const pair of material.keyPairs) if (pair.key.length > 0) checkKeyPair(pair);
    checkPeerRules(settings, leaves, `identity ${settings.localid} (${settings.source.description})`);
    if (settings.clientAuth !== 'none' && material.trust === undefined) {
      throw new TlsPoolError('IDENTITY_BAD', { text: `identity ${settings.localid}: clientAuth ${settings.clientAuth} needs roots; add ca.crt (or "trust")` });
    }
    if (material.trust !== undefined) doubts.push(...rootDoubts(material.trust, `identity ${settings.localid} (${settings.source.description})`));
    // As in draft.ts: what serves nobody has no name to quarrel about.
    const canServe = (leaves.length > 0 || material.isLocked === true) && !isForClientRoleOnly(settings);
    return { localid: settings.localid, names: canServe ? servedNames(settings.names, leaves, settings.localid) : [], isConfigured: settings.names.length > 0, isLocked: material.isLocked === true, doubts };
  } finally {
    for (const { key } of material.keyPairs) key.fill(0);
  }
}

/** Reads and checks all credentials, and reports every mistake at once. `checkKeyPair` is the engine's; without it the key is checked by Node alone. Never throws for bad files. */
export async function checkCredentials(config: Config, checkKeyPair: (pair: KeyPairSpec) => void = () => undefined): Promise<CheckReport> {
  const problems: string[] = [];
  const named: Checked[] = [];
  const attempt = async (step: () => Promise<unknown>) => {
    try {
      await step();
    } catch (error) {
      problems.push((error as Error).message);
    }
  };
  await attempt(() => readDefaultTrust(config));
  await attempt(async () => { if (config.onTheFly !== undefined) await readAuthority(config.onTheFly, undefined, Date.now()); });
  let settings: readonly IdentitySettings[] = [];
  await attempt(async () => { settings = await identitySettings(config); });
  for (const one of settings) await attempt(async () => { named.push(await checkOne(one, checkKeyPair)); });
  const warnings = named.filter(({ isLocked }) => isLocked).map(({ localid }) => `identity ${localid}: its key is locked; it cannot be used before somebody gives its PIN, with: tlspool unlock`);
  warnings.push(...new Set(named.flatMap(({ doubts }) => doubts)));
  await attempt(async () => {
    warnings.push(...nameTable(named).ambiguous.map(({ name, localids }) => `${name} is in the certificates of ${localids.join(' and ')}; clients that may use both must ask for a localid; or put it under "names" of one`));
  });
  return { identities: settings.length, problems, warnings };
}
