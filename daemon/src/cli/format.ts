/** Tables for people. Peers choose some of the text in them, so whatever could steer a terminal is escaped. */

/** Replaces control characters, bidirectional overrides and other invisible steering by \u{...}. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`);
}

export type Cell = string | number | boolean | undefined;

function cellText(cell: Cell): string {
  if (cell === undefined || cell === '') return '-';
  if (typeof cell === 'boolean') return cell ? 'yes' : 'no';
  return printable(String(cell));
}

/** Rows under a header, columns padded to the widest cell, numbers to the right. */
export function table(header: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const texts = [header.map((name) => name.toUpperCase()), ...rows.map((row) => row.map(cellText))];
  // No Math.max(...): a table of a hundred thousand rows would not fit on the stack.
  const widths = header.map((_, column) => texts.reduce((widest, row) => Math.max(widest, [...row[column] ?? ''].length), 0));
  const isNumeric = header.map((_, column) => rows.some((row) => typeof row[column] === 'number') && rows.every((row) => typeof row[column] === 'number' || row[column] === undefined));
  return texts.map((row) => row.map((text, column) => pad(text, widths[column] ?? 0, isNumeric[column] === true)).join('  ').trimEnd()).join('\n');
}

/** One `name  value` line per pair; pairs without a value are left out. */
export function list(pairs: readonly (readonly [string, Cell])[]): string {
  const shown = pairs.filter(([, value]) => value !== undefined);
  const width = Math.max(0, ...shown.map(([name]) => name.length));
  return shown.map(([name, value]) => `${name.padEnd(width)}  ${cellText(value)}`).join('\n');
}

function pad(text: string, width: number, isRight: boolean): string {
  const fill = ' '.repeat(Math.max(0, width - [...text].length));
  return isRight ? fill + text : text + fill;
}

/** 1536 -> `1.5 KiB`. */
export function octets(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? String(value) : value.toFixed(1)} ${units[unit] ?? ''}`;
}

/** 93784000 -> `1d 2h 3m 4s`, two largest units. */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const parts: [number, string][] = [
    [Math.floor(seconds / 86_400), 'd'], [Math.floor(seconds / 3600) % 24, 'h'], [Math.floor(seconds / 60) % 60, 'm'], [seconds % 60, 's'],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  return first < 0 ? '0s' : parts.slice(first, first + 2).map(([count, unit]) => `${count}${unit}`).join(' ');
}

/** A wall-clock moment, UTC, to the second. */
export function moment(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');
}
