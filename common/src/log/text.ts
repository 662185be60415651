/** Log lines for people. One event is one line, whatever a peer has written into it. */
import type { LogFields } from './log.js';

/** What is no plain character of a word in ASCII: then the value is quoted. */
const needsQuotes = /[^\x21-\x7e]|["=\\]/u;
/** Control characters of all sorts, separators of lines, and what turns the direction of text. */
const unprintable = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Surrogate}]/gu;

const escaped = (text: string): string => text.replace(unprintable, (char) => `\\u{${(char.codePointAt(0) ?? 0).toString(16)}}`);

function shown(value: string | number | boolean): string {
  if (typeof value !== 'string') return String(value);
  // Quotation marks and backslashes first: those that escaping makes are ours.
  return value === '' || needsQuotes.test(value) ? `"${escaped(value.replace(/["\\]/g, '\\$&'))}"` : value;
}

/** `2026-01-31T12:00:00.000Z info the text name=value other="with spaces"` and a line feed. Fields that are undefined are left out. */
export function textLine(time: Date, level: string, text: string, fields: LogFields): string {
  const words = Object.entries(fields).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${shown(value)}`]));
  return `${[time.toISOString(), level, escaped(text), ...words].join(' ')}\n`;
}
