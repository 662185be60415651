/** TLSPOOL_TRACE=wire: decoded messages as text, for people. Secrets are masked by the schema, peer text is escaped. */
import { escapeText } from './escape.js';
import type { Message } from './messages.js';
import type { BinShape, Fields, ListShape, MapShape, Shape } from './schema.js';
import { messageSpec } from './table.js';

/** Octets of a binary value that are shown, and characters of a text. */
const shownOctets = 16;
const shownChars = 256;

function formatBin({ secret }: BinShape, value: Uint8Array): string {
  if (secret) return `<secret, ${value.length} octets>`;
  const hex = Buffer.from(value.buffer, value.byteOffset, Math.min(value.length, shownOctets)).toString('hex');
  return value.length > shownOctets ? `<${hex}…, ${value.length} octets>` : `<${hex}>`;
}

function formatMap(shape: MapShape<Fields>, value: Readonly<Record<string, unknown>>): string {
  const fields = Object.entries(shape.fields).filter(([key]) => value[key] !== undefined);
  return `{${fields.map(([key, field]) => `${key}: ${formatValue(field, value[key])}`).join(', ')}}`;
}

/** One value as text. Only what the shape names is shown. `value` must have the shape. */
function formatValue(shape: Shape, value: unknown): string {
  switch (shape.kind) {
    case 'optional': return formatValue(shape.of as Shape, value);
    case 'bin': return formatBin(shape, value as Uint8Array);
    case 'text': case 'word': return `"${escapeText(value as string, shownChars).replaceAll('"', '\\"')}"`;
    case 'list': return `[${(value as unknown[]).map((item) => formatValue((shape as ListShape<Shape>).of, item)).join(', ')}]`;
    case 'map': return formatMap(shape as MapShape<Fields>, value as Record<string, unknown>);
    case 'uint': case 'bool': return String(value);
  }
}

/** One message on one line of printable ASCII (and `…`), without any octet of a `secret` field. The message must be valid. */
export function formatMessage(message: Message): string {
  const id = message.type === 'event' ? '' : ` #${message.id}`;
  return `${message.type} ${escapeText(message.op)}${id} ${formatValue(messageSpec(message.type, message.op).body, message.body)}`;
}

/** Shows one message. */
export type WireTracer = (direction: 'sent' | 'received', message: Message) => void;

/**
 * The tracer that a TLSPOOL_TRACE value asks for (a comma-separated list of topics; ours is `wire`), or undefined for none.
 * @param write receives whole lines; standard error by default
 */
export function wireTracer(topics: string | undefined, write: (line: string) => void = (line) => process.stderr.write(line)): WireTracer | undefined {
  if (topics?.split(',').includes('wire') !== true) return undefined;
  return (direction, message) => { write(`tlspool[${process.pid}] ${direction === 'sent' ? '->' : '<-'} ${formatMessage(message)}\n`); };
}
