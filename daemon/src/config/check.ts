/** The configuration as a format: the schema, and the keys that depend on each other. */
import { show, socketPathReason, type ConfigFormat, type FieldPath } from 'tlspool-common/config';
import { usableProcessors } from './processors.js';
import { configSchema, type ParsedConfig } from './schema.js';

/** Checks the keys that depend on each other. */
function checkTogether(config: ParsedConfig, add: (path: FieldPath, text: string) => void): void {
  const seen = new Map<string, number>();
  let defaultAt: number | undefined;
  for (const [index, identity] of config.identities.entries()) {
    const at = ['identities', index];
    const first = seen.get(identity.localid);
    if (first !== undefined) add([...at, 'localid'], `${show(identity.localid)} is the localid of identities[${first}] already; each needs its own`);
    else seen.set(identity.localid, index);
    const { directory, certificate, key, pkcs12, trust } = identity;
    if (directory !== undefined && (certificate ?? key ?? pkcs12 ?? trust) !== undefined) add(at, 'has a directory and also files; keep either directory, or certificate, key and trust, or pkcs12 and trust');
    else if (pkcs12 !== undefined && (certificate ?? key) !== undefined) add(at, 'has pkcs12 and also certificate or key; keep one of the two');
    else if ((certificate === undefined) !== (key === undefined)) add(at, certificate === undefined ? 'has a key without certificate; add the certificate' : 'has a certificate without key; add the key');
    else if (trust !== undefined && (certificate ?? pkcs12) === undefined) add([...at, 'trust'], 'goes with certificate and key, or with pkcs12; in a directory the roots are in ca.crt');
    else if ((directory ?? certificate ?? pkcs12 ?? config.identitiesDirectory) === undefined) add(at, 'says nowhere where its credentials are; add directory, or certificate and key, or pkcs12, or identitiesDirectory at the top');
    if (identity.default && defaultAt !== undefined) add([...at, 'default'], `identities[${defaultAt}] is the default already; only one can be`);
    if (identity.default) defaultAt ??= index;
  }
  checkProcessors(config.workerCpus ?? [], add);
  const { onTheFly } = config;
  if (onTheFly !== undefined && onTheFly.clientAuth !== 'none' && onTheFly.trust === undefined) add(['onTheFly', 'clientAuth'], `${onTheFly.clientAuth} needs roots to check client certificates against; add trust, or set clientAuth to none`);
  for (const [index, rule] of (config.access ?? []).entries()) {
    if ((rule.uid ?? rule.gid ?? rule.unit) === undefined) add(['access', index], 'matches nobody; add at least one of uid, gid and unit');
  }
}

function checkProcessors(wanted: readonly number[], add: (path: FieldPath, text: string) => void): void {
  if (wanted.length === 0) return;
  const usable = usableProcessors();
  for (const [index, cpu] of wanted.entries()) {
    const first = wanted.indexOf(cpu);
    if (first !== index) add(['workerCpus', index], `${cpu} is workerCpus[${first}] already; name each processor once`);
    else if (!usable.has(cpu)) add(['workerCpus', index], `processor ${cpu} is not one that the pool may use; those are ${[...usable].join(', ')}`);
  }
}

/** The format of files whose relative paths become `absolute`. */
export function configFormat(absolute: (file: string) => string): ConfigFormat<ParsedConfig> {
  const check: ConfigFormat<ParsedConfig>['check'] = (config, add) => {
    for (const [at, file] of [[['socket', 'path'], config.socket.path], [['v2', 'socket', 'path'], config.v2?.socket.path]] as const) {
      const reason = file === undefined ? undefined : socketPathReason(absolute(file));
      if (reason !== undefined) add(at, reason);
    }
    checkTogether(config, add);
  };
  return { schema: configSchema, check, spelled: new Set(['mode']) };
}
