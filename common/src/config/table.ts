/** The table of keys in the documentation, made from a schema. */
import { unwrap } from './check.js';

export interface KeyRow { readonly key: string; readonly text: string }

interface Schema { readonly description?: string; readonly def: { readonly shape?: Record<string, Schema>; readonly element?: Schema } }

/** The map, list or value itself, and the first description on the way to it. */
function peel(schema: Schema): { readonly inner: Schema; readonly description: string | undefined } {
  let { description } = schema;
  let inner = schema;
  for (let next = unwrap(inner) as Schema | undefined; next !== undefined; next = unwrap(inner) as Schema | undefined) {
    inner = next;
    description ??= inner.description;
  }
  return { inner, description };
}

/** Every key of a zod schema in the order of the file; items of a list are written `list[].key`. */
export function keyRows(root: unknown, prefix = ''): KeyRow[] {
  return Object.entries(peel(root as Schema).inner.def.shape ?? {}).flatMap(([name, child]) => {
    const { inner, description } = peel(child);
    const key = `${prefix}${name}`;
    const below = inner.def.element === undefined ? keyRows(inner, `${key}.`) : keyRows(inner.def.element, `${key}[].`);
    return [{ key, text: description ?? '' }, ...below];
  });
}

/** The table as Markdown. */
export function keyTable(root: unknown): string {
  return ['| key | meaning |', '|---|---|', ...keyRows(root).map(({ key, text }) => `| \`${key}\` | ${text.replaceAll('|', '\\|')} |`)].join('\n');
}
