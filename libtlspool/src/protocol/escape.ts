/** Text of a peer, made harmless for terminals, logs and error messages. */

/**
 * Everything but printable ASCII, and the backslash, as `\u{…}`: no control sequence, no right-to-left override, no look-alike reaches
 * a terminal. Cut to `maxChars` characters of the input.
 */
export function escapeText(value: string, maxChars = 64): string {
  const shown = value.length > maxChars ? value.slice(0, maxChars) : value;
  const escaped = shown.replace(/[^\x20-\x5b\x5d-\x7e]/gu, (char) => `\\u{${(char.codePointAt(0) as number).toString(16)}}`);
  return value.length > maxChars ? `${escaped}…` : escaped;
}
