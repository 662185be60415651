/** A configuration file to checked data: read, parse, check. Every mistake of a file is reported in one error. */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { TlsPoolError } from 'libtlspool/protocol';
import { openReason, self, unsafeReason } from '../files/owner.js';
import { unsafePlaceReason } from '../files/place.js';
import { checkConfig, type ConfigFormat } from './check.js';
import { parseYaml, type Problem } from './yaml.js';

export const maxConfigOctets = 1_048_576;
/** sun_path of unix(7), less the final NUL. */
const maxSocketPathOctets = 107;

/** Why no UNIX socket can have this path, if none can. */
export function socketPathReason(file: string): string | undefined {
  const octets = Buffer.byteLength(file);
  return octets <= maxSocketPathOctets ? undefined : `${file} has ${octets} octets; a UNIX socket's path has at most ${maxSocketPathOctets}; choose a shorter one`;
}

/** Who has more mistakes than that has the wrong file, or one mistake in something that makes files. */
const maxProblemLines = 100;

/** CONFIG_BAD with every problem, for tools that show them one by one. */
export class ConfigError extends TlsPoolError {
  readonly file: string;
  readonly problems: readonly Problem[];

  /** The text is one line `file:line:column: field: what was seen and what is allowed` per problem, and says how many there are beyond the first hundred. */
  constructor(file: string, problems: readonly Problem[]) {
    const lines = problems.slice(0, maxProblemLines).map(({ line, column, field, text }) => `${file}:${line}:${column}: ${field === '' ? '' : `${field}: `}${text}`);
    if (problems.length > maxProblemLines) lines.push(`${file}: and ${problems.length - maxProblemLines} more mistakes`);
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
  const reason = unsafeReason(file, stat, 'public', self()) ?? unsafePlaceReason(file);
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

/**
 * Reads a configuration file of at most 1 MiB, which nobody but root and the process's own user may be able to write or replace. `name` is how
 * errors speak of it. Throws TlsPoolError CONFIG_BAD: a ConfigError with all mistakes and their places, or a text that names file and cure.
 */
export function loadChecked<Parsed>(file: string, format: ConfigFormat<Parsed>, name: string = file): Parsed {
  const checked = checkConfig(parseYaml(readText(file), format.spelled), format);
  if ('problems' in checked) throw new ConfigError(name, checked.problems);
  return checked.config;
}
