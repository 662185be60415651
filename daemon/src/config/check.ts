/** Checks configuration data against the schema, and says every mistake at once in words for people. */
import type { z } from 'zod';
import { configSchema, type ParsedConfig } from './schema.js';
import { nearest } from './suggest.js';
import { fieldName, type FieldPath, type Problem, type Yaml } from './yaml.js';

type Issue = z.core.$ZodIssue;

/** What was seen, short and on one line. */
function show(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object' && value !== null) return 'a map';
  const text = typeof value === 'bigint' || typeof value === 'symbol' ? value.toString() : JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

function valueAt(data: unknown, path: FieldPath): unknown {
  let value = data;
  for (const part of path) {
    // Own properties only: "constructor" is no key of the file.
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, part)) return undefined;
    value = (value as Record<string | number, unknown>)[part];
  }
  return value;
}

const typeNames: Readonly<Record<string, string>> = {
  string: 'text', int: 'a whole number', number: 'a whole number', boolean: 'true or false', array: 'a list', object: 'a map of keys and values',
};

/** The words for what is allowed where the issue is. */
function allowed(issue: Issue): string {
  switch (issue.code) {
    case 'invalid_type': return typeNames[issue.expected] ?? issue.expected;
    case 'invalid_value': return `one of ${issue.values.map(String).join(', ')}`;
    case 'too_small': return issue.origin === 'string' ? 'text that is not empty' : issue.origin === 'array' ? `a list of at least ${issue.minimum}` : `a number of at least ${issue.minimum}`;
    case 'too_big': return issue.origin === 'string' ? `text of at most ${issue.maximum} characters` : issue.origin === 'array' ? `a list of at most ${issue.maximum}` : `a number of at most ${issue.maximum}`;
    default: return issue.message;
  }
}

/** The keys that a map of the schema has, for suggestions. */
function knownKeys(path: FieldPath): readonly string[] {
  let schema: unknown = configSchema;
  for (const part of [...path, undefined]) {
    // Peel wrappers (optional, default, preprocess) off until a map or list shows.
    for (let inner = unwrap(schema); inner !== undefined; inner = unwrap(schema)) schema = inner;
    const { def } = schema as { def: { shape?: Record<string, unknown>; element?: unknown } };
    if (part === undefined) return Object.keys(def.shape ?? {});
    schema = typeof part === 'number' ? def.element : def.shape?.[part];
    if (schema === undefined) return [];
  }
  return [];
}

/** The schema inside an optional, a default or a preprocess step. */
export function unwrap(schema: unknown): unknown {
  const { def } = schema as { def: { type: string; innerType?: unknown; out?: unknown } };
  if (def.innerType !== undefined) return def.innerType;
  return def.type === 'pipe' && (def.out as { def: { type: string } }).def.type !== 'transform' ? def.out : undefined;
}

function unknownKeyProblems(issue: Issue & { code: 'unrecognized_keys' }, path: FieldPath, yaml: Yaml): Problem[] {
  const known = knownKeys(path);
  return issue.keys.map((key) => {
    const guess = nearest(key, known);
    const cure = guess === undefined ? `the keys here are ${known.join(', ')}` : `did you mean ${JSON.stringify(guess)}?`;
    return { ...yaml.position([...path, key], 'key'), field: fieldName([...path, key]), text: `unknown key ${show(key)}; ${cure}` };
  });
}

function problemsOf(issue: Issue, yaml: Yaml): Problem[] {
  const path = issue.path.map((part) => (typeof part === 'symbol' ? String(part) : part));
  if (issue.code === 'unrecognized_keys') return unknownKeyProblems(issue, path, yaml);
  const seen = valueAt(yaml.data, path);
  let text = seen === undefined ? `required key is missing; it takes ${allowed(issue)}` : `${show(seen)} is not ${allowed(issue)}`;
  if (issue.code === 'invalid_value' && typeof seen === 'string') {
    const guess = nearest(seen, issue.values.map(String));
    if (guess !== undefined) text += `; did you mean ${JSON.stringify(guess)}?`;
  }
  return [{ ...yaml.position(path), field: fieldName(path), text }];
}

/** Checks the keys that depend on each other. */
function crossProblems(config: ParsedConfig, yaml: Yaml): Problem[] {
  const problems: Problem[] = [];
  const add = (path: FieldPath, text: string) => problems.push({ ...yaml.position(path), field: fieldName(path), text });
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
  for (const [index, rule] of (config.access ?? []).entries()) {
    if ((rule.uid ?? rule.gid ?? rule.unit) === undefined) add(['access', index], 'matches nobody; add at least one of uid, gid and unit');
  }
  return problems;
}

/** All problems of parsed YAML, in the order of the file, or the checked data. */
export function checkConfig(yaml: Yaml): { readonly config?: ParsedConfig; readonly problems: readonly Problem[] } {
  if (yaml.problems.length > 0) return { problems: yaml.problems };
  const result = configSchema.safeParse(yaml.data);
  const problems = result.success ? crossProblems(result.data, yaml) : result.error.issues.flatMap((issue) => problemsOf(issue, yaml));
  problems.sort((left, right) => left.line - right.line || left.column - right.column);
  return problems.length === 0 && result.success ? { config: result.data, problems } : { problems };
}
