/** YAML text to plain data, and back from a path in the data to the place in the text. */
import { isAlias, isCollection, isMap, isScalar, isSeq, LineCounter, parseDocument, Parser, visit, type CST, type Document, type Node, type Pair, type YAMLMap } from 'yaml';

/** Aliases that one document may expand to: honest files use a handful, a bomb needs millions. */
const maxAliases = 100;

/** Maps and lists within each other: honest files have half a dozen. Composing takes the stack for each, and Node may end the process where that is full. */
const maxDepth = 64;

export interface Problem {
  /** 1-based. */
  readonly line: number;
  readonly column: number;
  /** Path of the field, such as `identities[0].policy`; empty for the document. */
  readonly field: string;
  readonly text: string;
}

/** In the order of the file. */
export const byPlace = (left: Problem, right: Problem): number => left.line - right.line || left.column - right.column;

export type FieldPath = readonly (string | number)[];

/** `identities[0].policy` */
export function fieldName(path: FieldPath): string {
  return path.map((part, index) => (typeof part === 'number' ? `[${part}]` : index === 0 ? part : `.${part}`)).join('');
}

export interface Yaml {
  /** Plain data; undefined when there are problems. An empty document is an empty map. */
  readonly data: unknown;
  readonly problems: readonly Problem[];
  /** The nearest place in the text for a path: the value, or for `key` the key itself; what is missing is at its parent. */
  position(path: FieldPath, what?: 'key' | 'value'): { readonly line: number; readonly column: number };
}

function resolve(document: Document, node: unknown): unknown {
  return isAlias(node) ? node.resolve(document) : node;
}

/** Where the text first nests deeper than is read, by its tokens, which need no stack. */
function tooDeep(text: string, lineCounter: LineCounter): number | undefined {
  let first: number | undefined;
  const open: { readonly token: CST.Token; readonly depth: number }[] = [];
  for (const token of new Parser(lineCounter.addNewLine).parse(text)) open.push({ token, depth: 1 });
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const { token, depth } = next;
    if (token.type === 'document' && token.value !== undefined) open.push({ token: token.value, depth });
    if (!('items' in token)) continue;
    if (depth > maxDepth) first = Math.min(first ?? token.offset, token.offset);
    else for (const { key, value } of token.items) for (const inner of [key, value]) if (inner !== undefined && inner !== null) open.push({ token: inner, depth: depth + 1 });
  }
  return first;
}

type PairsByKey = ReadonlyMap<string, Pair>;

/**
 * The pairs of each map by key. What the parser leaves open is reported: keys given twice (its own check compares each key with all others),
 * and aliases of nothing, which mostly are text that wants quotes.
 */
function inspect(document: Document, report: (offset: number, text: string) => void): ReadonlyMap<YAMLMap, PairsByKey> {
  const index = new Map<YAMLMap, PairsByKey>();
  const anchors = new Set<string>();
  visit(document, (_key, node) => {
    if (isAlias(node) && !anchors.has(node.source)) report(node.range?.[0] ?? 0, `*${node.source} is an alias of nothing; text that begins with * needs quotes: "*${node.source}"`);
    if ((isScalar(node) || isCollection(node)) && node.anchor !== undefined) anchors.add(node.anchor);
    if (!isMap(node)) return;
    const pairs = new Map<string, Pair>();
    for (const pair of node.items) {
      if (!isScalar(pair.key)) continue;
      const key = String(pair.key.value);
      if (pairs.has(key)) report(pair.key.range?.[0] ?? 0, 'this map has the key already; keep one of the two');
      else pairs.set(key, pair);
    }
    index.set(node, pairs);
  });
  return index;
}

function locate(document: Document, index: ReadonlyMap<YAMLMap, PairsByKey>, path: FieldPath, what: 'key' | 'value'): number {
  let offset = document.contents?.range?.[0] ?? 0;
  let node: unknown = document.contents;
  for (const [depth, part] of path.entries()) {
    node = resolve(document, node);
    let next: unknown;
    if (isMap(node)) {
      const pair = index.get(node)?.get(String(part));
      const wantsKey = what === 'key' && depth === path.length - 1;
      next = wantsKey || pair?.value === null ? pair?.key : pair?.value;
    } else if (isSeq(node) && typeof part === 'number') {
      next = node.items[part];
    }
    const start = (next as Node | undefined)?.range?.[0];
    if (start === undefined) break;
    offset = start;
    node = next;
  }
  return offset;
}

/**
 * Permissions are octal to people: 0660, 0o660 and "0660" mean the same, while YAML 1.2 reads the first as six hundred
 * and sixty. So the values of these keys, wherever they are, keep the spelling of the file.
 */
function keepSpelling(document: Document, keys: ReadonlySet<string>): void {
  visit(document, {
    Pair: (_key, { key, value }) => {
      const isMeant = isScalar(key) && typeof key.value === 'string' && keys.has(key.value);
      if (isMeant && isScalar(value) && typeof value.value === 'number' && value.source !== undefined) value.value = value.source;
    },
  });
}

/** The library's words where they speak to a programmer. */
const words: Readonly<Record<string, string>> = {
  MULTIPLE_DOCS: 'a second document begins here; a configuration is one document',
  TAG_RESOLVE_FAILED: 'a tag that is not known here; configurations need no tags',
};

/**
 * Parses one YAML 1.2 document. Never throws; duplicate keys, unknown tags and alias bombs are problems. Numbers under a key of `spelled`
 * come as the text that was written.
 */
export function parseYaml(text: string, spelled: ReadonlySet<string> = new Set()): Yaml {
  const lineCounter = new LineCounter();
  const deep = tooDeep(text, lineCounter);
  const place = (offset: number) => {
    const { line, col } = lineCounter.linePos(offset);
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  };
  if (deep !== undefined) {
    const problem = { ...place(deep), field: '', text: `this is more than ${maxDepth} maps and lists within each other; no key takes that` };
    return { data: undefined, problems: [problem], position: () => problem };
  }
  const document = parseDocument(text, { prettyErrors: false, uniqueKeys: false, strict: true, stringKeys: true });
  const problems: Problem[] = [...document.errors, ...document.warnings].map((error) => ({ ...place(error.pos[0]), field: '', text: words[error.code] ?? error.message }));
  const index = inspect(document, (offset, reason) => { problems.push({ ...place(offset), field: '', text: reason }); });
  const position = (path: FieldPath, what: 'key' | 'value' = 'value') => place(locate(document, index, path, what));
  if (problems.length > 0) return { data: undefined, problems: problems.sort(byPlace), position };
  keepSpelling(document, spelled);
  try {
    return { data: (document.toJS({ maxAliasCount: maxAliases }) as unknown) ?? {}, problems, position };
  } catch (error) {
    return { data: undefined, problems: [{ line: 1, column: 1, field: '', text: `${(error as Error).message}; write the values out instead of using so many aliases` }], position };
  }
}
