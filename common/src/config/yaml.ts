/** YAML text to plain data, and back from a path in the data to the place in the text. */
import { isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument, visit, type Document, type Node } from 'yaml';

/** Aliases that one document may expand to: honest files use a handful, a bomb needs millions. */
const maxAliases = 100;

export interface Problem {
  /** 1-based. */
  readonly line: number;
  readonly column: number;
  /** Path of the field, such as `identities[0].policy`; empty for the document. */
  readonly field: string;
  readonly text: string;
}

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

function locate(document: Document, path: FieldPath, what: 'key' | 'value'): number {
  let offset = document.contents?.range?.[0] ?? 0;
  let node: unknown = document.contents;
  for (const [index, part] of path.entries()) {
    node = resolve(document, node);
    let next: unknown;
    if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === String(part));
      const wantsKey = what === 'key' && index === path.length - 1;
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
  DUPLICATE_KEY: 'this map has the key already; keep one of the two',
  MULTIPLE_DOCS: 'a second document begins here; a configuration is one document',
  TAG_RESOLVE_FAILED: 'a tag that is not known here; configurations need no tags',
};

/**
 * Parses one YAML 1.2 document. Never throws; duplicate keys, unknown tags and alias bombs are problems. Numbers under a key of `spelled`
 * come as the text that was written.
 */
export function parseYaml(text: string, spelled: ReadonlySet<string> = new Set()): Yaml {
  const lineCounter = new LineCounter();
  const document = parseDocument(text, { lineCounter, prettyErrors: false, uniqueKeys: true, strict: true, stringKeys: true });
  const place = (offset: number) => {
    const { line, col } = lineCounter.linePos(offset);
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  };
  const problems: Problem[] = [...document.errors, ...document.warnings].map((error) => ({ ...place(error.pos[0]), field: '', text: words[error.code] ?? error.message }));
  const position = (path: FieldPath, what: 'key' | 'value' = 'value') => place(locate(document, path, what));
  if (problems.length > 0) return { data: undefined, problems, position };
  keepSpelling(document, spelled);
  try {
    return { data: (document.toJS({ maxAliasCount: maxAliases }) as unknown) ?? {}, problems, position };
  } catch (error) {
    return { data: undefined, problems: [{ line: 1, column: 1, field: '', text: `${(error as Error).message}; write the values out instead of using so many aliases` }], position };
  }
}
