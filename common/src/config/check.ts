/** Checks configuration data against a schema, and says every mistake at once in words for people. */
import type { z } from 'zod';
import { nearest } from './suggest.js';
import { byPlace, fieldName, type FieldPath, type Problem, type Yaml } from './yaml.js';

/** One kind of configuration file. */
export interface ConfigFormat<Parsed> {
  readonly schema: z.ZodType<Parsed>;
  /** Checks keys that depend on each other, once each of them is right; `report` places a mistake at a field, or at the nearest thing that is there. */
  readonly check?: (config: Parsed, report: (path: FieldPath, text: string) => void) => void;
  /** Keys whose numbers are wanted as they were written (permissions). */
  readonly spelled?: ReadonlySet<string>;
}

type Issue = z.core.$ZodIssue;

/** What was seen, short and on one line. */
export function show(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object' && value !== null) return 'a map';
  const text = typeof value === 'bigint' || typeof value === 'symbol' ? value.toString() : JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

/** What the file has at a path. A single value may stand for a list (`uid: me` for `uid: [me]`), and also for a map, where the path then ends. */
function find(data: unknown, path: FieldPath): { readonly path: FieldPath; readonly seen: unknown } {
  let value = data;
  for (const [index, part] of path.entries()) {
    if (typeof part === 'number' && !Array.isArray(value)) continue;
    if (typeof value !== 'object' || value === null) return { path: path.slice(0, index), seen: value };
    // Own properties only: "constructor" is no key of the file.
    if (!Object.hasOwn(value, part)) return { path, seen: undefined };
    value = (value as Record<string | number, unknown>)[part];
  }
  return { path, seen: value };
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
function knownKeys(root: unknown, path: FieldPath): readonly string[] {
  let schema = root;
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

function unknownKeyProblems(root: unknown, issue: Issue & { code: 'unrecognized_keys' }, path: FieldPath, yaml: Yaml): Problem[] {
  const known = knownKeys(root, path);
  return issue.keys.map((key) => {
    const guess = nearest(key, known);
    const cure = guess === undefined ? `the keys here are ${known.join(', ')}` : `did you mean ${JSON.stringify(guess)}?`;
    return { ...yaml.position([...path, key], 'key'), field: fieldName([...path, key]), text: `unknown key ${show(key)}; ${cure}` };
  });
}

function problemsOf(root: unknown, issue: Issue, yaml: Yaml): Problem[] {
  const issuePath = issue.path.map((part) => (typeof part === 'symbol' ? String(part) : part));
  if (issue.code === 'unrecognized_keys') return unknownKeyProblems(root, issue, issuePath, yaml);
  const { path, seen } = find(yaml.data, issuePath);
  let text = seen === undefined ? `required key is missing; it takes ${allowed(issue)}` : `${show(seen)} is not ${allowed(issue)}`;
  if (issue.code === 'invalid_value' && typeof seen === 'string') {
    const guess = nearest(seen, issue.values.map(String));
    if (guess !== undefined) text += `; did you mean ${JSON.stringify(guess)}?`;
  }
  return [{ ...yaml.position(path), field: fieldName(path), text }];
}

/** All problems of parsed YAML, in the order of the file, or the checked data. */
export function checkConfig<Parsed>(yaml: Yaml, { schema, check }: ConfigFormat<Parsed>): { readonly config: Parsed } | { readonly problems: readonly Problem[] } {
  if (yaml.problems.length > 0) return { problems: yaml.problems };
  const result = schema.safeParse(yaml.data);
  const problems = result.success ? [] : result.error.issues.flatMap((issue) => problemsOf(schema, issue, yaml));
  if (result.success) check?.(result.data, (path, text) => { problems.push({ ...yaml.position(path), field: fieldName(path), text }); });
  problems.sort(byPlace);
  return result.success && problems.length === 0 ? { config: result.data } : { problems };
}
