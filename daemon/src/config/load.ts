/** Configuration file to Config: read, parse, check, fill in. Every mistake of a file is reported in one error. */
import path from 'node:path';
import { TlsPoolError } from 'libtlspool/protocol';
import { loadChecked, socketPathReason } from 'tlspool-common/config';
import type { Permission } from '../policy/access.js';
import { configFormat } from './check.js';
import { defaultAccess, defaultSocket, defaultState, surroundings, type Surroundings } from './defaults.js';
import { configSchema, type ParsedConfig, type ParsedIdentity, type ParsedOnTheFly, type ParsedRule, type ParsedV2 } from './schema.js';
import type { AccessRule, Config, IdentityConfig, OnTheFlyConfig, Overrides, SocketConfig, SourceConfig, V2Config } from './types.js';

/** `parent` is identitiesDirectory; checkConfig has seen to it that one of the places is there. */
function toSource(identity: ParsedIdentity, absolute: (file: string) => string, parent = ''): SourceConfig {
  const { directory, certificate, key, pkcs12, trust } = identity;
  if (pkcs12 !== undefined) {
    const { file, passwordFile } = pkcs12;
    return { kind: 'pkcs12', file: absolute(file), ...(passwordFile === undefined ? {} : { passwordFile: absolute(passwordFile) }), ...(trust === undefined ? {} : { trust: absolute(trust) }) };
  }
  if (certificate !== undefined && key !== undefined) {
    return { kind: 'files', certificate: absolute(certificate), key: absolute(key), ...(trust === undefined ? {} : { trust: absolute(trust) }) };
  }
  return { kind: 'directory', directory: directory !== undefined ? absolute(directory) : path.join(parent, identity.localid) };
}

function toIdentity(identity: ParsedIdentity, source: SourceConfig): IdentityConfig {
  const { localid, names, policy, clientAuth, ticketLifetime, peers, priorRevisions } = identity;
  return {
    localid, source, names, policy, clientAuth, isDefault: identity.default, ticketLifetimeS: ticketLifetime,
    ...(peers === undefined ? {} : { peers }), ...(priorRevisions === undefined ? {} : { priorRevisions }),
  };
}

function toRule(rule: ParsedRule): AccessRule {
  const permissions: Permission[] = [...new Set(rule.roles)];
  if (rule.backend) permissions.push('backend');
  if (rule.sign) permissions.push('sign');
  if (rule.operator) permissions.push('operator');
  return {
    ...(rule.uid === undefined ? {} : { uids: rule.uid }), ...(rule.gid === undefined ? {} : { gids: rule.gid }), ...(rule.unit === undefined ? {} : { units: rule.unit }),
    identities: rule.identities, permissions,
  };
}

function toOnTheFly({ ca, names, lifetime, cache, policy, clientAuth, trust }: ParsedOnTheFly, absolute: (file: string) => string): OnTheFlyConfig {
  return {
    certificate: absolute(ca.certificate), key: absolute(ca.key), names, lifetimeS: lifetime, cache, policy, clientAuth,
    ...(trust === undefined ? {} : { trust: absolute(trust) }),
  };
}

function toSocket({ mode, group }: { readonly mode: number; readonly group?: number | undefined }, key: string, file: string, host: Surroundings): SocketConfig {
  // One that the file names was checked with its place; this one may be an override or the default.
  const reason = socketPathReason(file);
  if (reason !== undefined) throw new TlsPoolError('CONFIG_BAD', { text: `${key}.path: ${reason}`, field: `${key}.path` });
  // Only root may give a file to a group it is not in; as a default that must not become an error.
  const gid = group ?? (host.uid === 0 ? host.tlspoolGid : undefined);
  return { path: file, mode, ...(gid === undefined ? {} : { gid }) };
}

function toV2({ socket, pidFile }: ParsedV2, absolute: (file: string) => string, state: string, host: Surroundings): V2Config {
  const file = socket.path === undefined ? defaultSocket(host, state, 'tlspool.sock') : absolute(socket.path);
  return { socket: toSocket(socket, 'v2.socket', file, host), ...(pidFile === undefined ? {} : { pidFile: absolute(pidFile) }) };
}

function toConfig(parsed: ParsedConfig, file: string | undefined, overrides: Overrides, host: Surroundings): Config {
  const absolute = (name: string) => path.resolve(file === undefined ? host.cwd : path.dirname(file), name);
  const state = overrides.state !== undefined ? path.resolve(host.cwd, overrides.state) : parsed.state !== undefined ? absolute(parsed.state) : defaultState(host);
  const socketPath = overrides.socket !== undefined ? path.resolve(host.cwd, overrides.socket) : parsed.socket.path !== undefined ? absolute(parsed.socket.path) : defaultSocket(host, state);
  const identitiesDirectory = parsed.identitiesDirectory === undefined ? undefined : absolute(parsed.identitiesDirectory);
  return {
    ...(file === undefined ? {} : { file }),
    development: file === undefined,
    socket: toSocket(parsed.socket, 'socket', socketPath, host),
    ...(parsed.v2 === undefined ? {} : { v2: toV2(parsed.v2, absolute, state, host) }),
    state,
    workers: parsed.workers ?? parsed.workerCpus?.length ?? host.workers,
    ...(parsed.workerCpus === undefined ? {} : { workerCpus: parsed.workerCpus }),
    log: parsed.log, limits: parsed.limits, drainMs: parsed.drainMs,
    trust: { roots: parsed.trust.roots?.map(absolute) ?? (host.systemRoots === undefined ? [] : [host.systemRoots]) },
    identities: parsed.identities.map((identity) => toIdentity(identity, toSource(identity, absolute, identitiesDirectory))),
    ...(identitiesDirectory === undefined ? {} : { identitiesDirectory }),
    ...(parsed.onTheFly === undefined ? {} : { onTheFly: toOnTheFly(parsed.onTheFly, absolute) }),
    access: parsed.access?.map(toRule) ?? defaultAccess(host),
  };
}

/** The development default: the identities in the state folder, `localhost` (made by prepareState) for unknown names. */
function developmentConfig(overrides: Overrides, host: Surroundings): Config {
  const base = toConfig(configSchema.parse({}), undefined, overrides, host);
  const identitiesDirectory = path.join(base.state, 'identities');
  return {
    ...base, identitiesDirectory,
    identities: [{
      localid: 'localhost', source: { kind: 'directory', directory: path.join(identitiesDirectory, 'localhost') },
      names: [], policy: 'intermediate', clientAuth: 'none', isDefault: true, ticketLifetimeS: 3600,
    }],
  };
}

/**
 * Reads the configuration `file` (at most 1 MiB; relative paths in it are relative to its folder), or makes the
 * development default without one. Overrides win. Reads no credentials; prepareState makes what is missing.
 * Throws TlsPoolError CONFIG_BAD: a ConfigError with all mistakes and their places, or a text that names file and cure.
 */
export function loadConfig(file: string | undefined, overrides: Overrides = {}, host: Surroundings = surroundings()): Config {
  if (file === undefined) return developmentConfig(overrides, host);
  const place = path.resolve(host.cwd, file);
  const format = configFormat((name) => path.resolve(path.dirname(place), name));
  return toConfig(loadChecked(place, format, file), place, overrides, host);
}
