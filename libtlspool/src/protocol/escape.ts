/** Text of a peer, made harmless for terminals, logs and error messages, and made to fit the fields of messages. */

/**
 * Everything but printable ASCII, and the backslash, as `\u{…}`: no control sequence, no right-to-left override, no look-alike reaches
 * a terminal. Cut to `maxChars` characters of the input.
 */
export function escapeText(value: string, maxChars = 64): string {
  const shown = value.length > maxChars ? value.slice(0, maxChars) : value;
  const escaped = shown.replace(/[^\x20-\x5b\x5d-\x7e]/gu, (char) => `\\u{${(char.codePointAt(0) as number).toString(16)}}`);
  return value.length > maxChars ? `${escaped}…` : escaped;
}

/**
 * Any string as a value for a text field of `maxOctets`: cut between characters, with NUL, lone surrogates and a leading byte order mark
 * replaced by U+FFFD. Nothing is dropped but the end, or one name could be made to look like another. For texts whose author we do not
 * control (server names, certificate subjects, error texts of libraries) and whose end may be lost.
 */
export function fitText(value: string, maxOctets: number): string {
  const fit = value.replace(/^\ufeff|[\0\p{Surrogate}]/gu, '\ufffd');
  if (fit.length * 3 <= maxOctets) return fit;
  const octets = Buffer.from(fit);
  if (octets.length <= maxOctets) return fit;
  let end = maxOctets;
  while (end > 0 && ((octets[end] as number) & 0xc0) === 0x80) end--;
  return octets.toString('utf8', 0, end);
}
