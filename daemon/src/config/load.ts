/** Configuration file to Config: read, parse, check, fill in. Every mistake of a file is reported in one error. */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import path from 'node:path';
import { TlsPoolError } from 'libtlspool/protocol';
import { openReason, self, unsafeReason } from '../identity/files.js';
import type { Permission } from '../policy/access.js';
import { checkConfig } from './check.js';
import { defaultAccess, defaultSocket, defaultState, surroundings, type Surroundings } from './defaults.js';
import { configSchema, type ParsedConfig, type ParsedIdentity, type ParsedRule } from './schema.js';
import type { AccessRule, Config, IdentityConfig, Overrides, SourceConfig } from './types.js';
import { parseYaml, type Problem } from './yaml.js';

export const maxConfigOctets = 1_048_576;
/** sun_path of unix(7), less the final NUL. */
const maxSocketPathOctets = 107;

/** CONFIG_BAD with every problem, for tools that show them one by one. */
export class ConfigError extends TlsPoolError {
  readonly file: string;
  readonly problems: readonly Problem[];

  /** The text is one line `file:line:column: field: what was seen and what is allowed` per problem. */
  constructor(file: string, problems: readonly Problem[]) {
    const lines = problems.map(({ line, column, field, text }) => `${file}:${line}:${column}: ${field === '' ? '' : `${field}: `}${text}`);
    super('CONFIG_BAD', { text: lines.join('\n'), ...(problems[0]?.field ? { field: problems[0].field } : {}) });
    this.file = file;
    this.problems = problems;
  }
}

function bad(text: string, cause?: unknown): TlsPoolError {
  return new TlsPoolError('CONFIG_BAD', { text, ...(cause === undefined ? {} : { cause }) });
}

function readOpened(fd: number, file: string): Buffer {
  const stat = fstatSync(fd);
  if (!stat.isFile()) throw bad(`${file} is not a regular file`);
  if (stat.size > maxConfigOctets) throw bad(`${file} has ${stat.size} octets; a configuration has at most ${maxConfigOctets}`);
  // Whoever can write the configuration decides which keys are used, and by whom.
  const reason = unsafeReason(file, stat, 'public', self());
  if (reason !== undefined) throw bad(reason);
  const octets = Buffer.alloc(stat.size);
  let length = 0;
  for (let count = -1; length < octets.length && count !== 0; length += count) count = readSync(fd, octets, length, octets.length - length, null);
  return octets.subarray(0, length);
}

function readText(file: string): string {
  let octets: Buffer;
  try {
    const fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    try {
      octets = readOpened(fd, file);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw error instanceof TlsPoolError ? error : bad(openReason(file, error), error);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(octets);
  } catch (error) {
    throw bad(`${file} is not UTF-8 text`, error);
  }
}

/** `parent` is identitiesDirectory; checkConfig has seen to it that one of the places is there. */
function toSource(identity: ParsedIdentity, absolute: (file: string) => string, parent = ''): SourceConfig {
  const { directory, certificate, key, pkcs12, trust } = identity;
  if (pkcs12 !== undefined) {
    return { kind: 'pkcs12', file: absolute(pkcs12.file), passwordFile: absolute(pkcs12.passwordFile), ...(trust === undefined ? {} : { trust: absolute(trust) }) };
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
  if (rule.operator) permissions.push('operator');
  return {
    ...(rule.uid === undefined ? {} : { uids: rule.uid }), ...(rule.gid === undefined ? {} : { gids: rule.gid }), ...(rule.unit === undefined ? {} : { units: rule.unit }),
    identities: rule.identities, permissions,
  };
}

function toConfig(parsed: ParsedConfig, file: string | undefined, overrides: Overrides, host: Surroundings): Config {
  const absolute = (name: string) => path.resolve(file === undefined ? host.cwd : path.dirname(file), name);
  const state = overrides.state !== undefined ? path.resolve(host.cwd, overrides.state) : parsed.state !== undefined ? absolute(parsed.state) : defaultState(host);
  const socketPath = overrides.socket !== undefined ? path.resolve(host.cwd, overrides.socket) : parsed.socket.path !== undefined ? absolute(parsed.socket.path) : defaultSocket(host, state);
  const octets = Buffer.byteLength(socketPath);
  if (octets > maxSocketPathOctets) throw bad(`socket.path: ${socketPath} has ${octets} octets; a UNIX socket's path has at most ${maxSocketPathOctets}; choose a shorter one`);
  // Only root may give a file to a group it is not in; as a default that must not become an error.
  const gid = parsed.socket.group ?? (host.uid === 0 ? host.tlspoolGid : undefined);
  const identitiesDirectory = parsed.identitiesDirectory === undefined ? undefined : absolute(parsed.identitiesDirectory);
  return {
    ...(file === undefined ? {} : { file }),
    development: file === undefined,
    socket: { path: socketPath, mode: parsed.socket.mode, ...(gid === undefined ? {} : { gid }) },
    state,
    workers: parsed.workers ?? host.workers,
    log: parsed.log, limits: parsed.limits, drainMs: parsed.drainMs,
    trust: { roots: parsed.trust.roots?.map(absolute) ?? (host.systemRoots === undefined ? [] : [host.systemRoots]) },
    identities: parsed.identities.map((identity) => toIdentity(identity, toSource(identity, absolute, identitiesDirectory))),
    ...(identitiesDirectory === undefined ? {} : { identitiesDirectory }),
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
  const absolute = path.resolve(host.cwd, file);
  const { config, problems } = checkConfig(parseYaml(readText(absolute)));
  if (config === undefined) throw new ConfigError(file, problems);
  return toConfig(config, absolute, overrides, host);
}
