/** The table of keys in docs/configuration.md, made from the schema: `node dist/config/table.js` prints it. */
import { fileURLToPath } from 'node:url';
import { unwrap } from './check.js';
import { configSchema } from './schema.js';

export interface KeyRow { readonly key: string; readonly text: string }

interface Schema { readonly description?: string; readonly def: { readonly shape?: Record<string, Schema>; readonly element?: Schema } }

/** Every key of the schema in the order of the file; items of a list are written `list[].key`. */
export function keyRows(schema: Schema = configSchema as unknown as Schema, prefix = ''): KeyRow[] {
  return Object.entries(schema.def.shape ?? {}).flatMap(([name, child]) => {
    let description = child.description;
    let inner = child;
    for (let next = unwrap(inner) as Schema | undefined; next !== undefined; next = unwrap(inner) as Schema | undefined) {
      inner = next;
      description ??= inner.description;
    }
    const key = `${prefix}${name}`;
    const below = inner.def.element === undefined ? keyRows(inner, `${key}.`) : keyRows(inner.def.element, `${key}[].`);
    return [{ key, text: description ?? '' }, ...below];
  });
}

/** The table as Markdown. */
export function keyTable(): string {
  return ['| key | meaning |', '|---|---|', ...keyRows().map(({ key, text }) => `| \`${key}\` | ${text.replaceAll('|', '\\|')} |`)].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) process.stdout.write(`${keyTable()}\n`);
