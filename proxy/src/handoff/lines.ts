/** Text of a program that we did not write, made fit for a log. */
import { StringDecoder } from 'node:string_decoder';
import type { Readable } from 'node:stream';
import { escapeText } from 'libtlspool/protocol';

/** Characters of a line that are shown. */
export const lineChars = 1000;
/** Lines of one program that are shown; it may write more, and does not have to wait. */
export const linesShown = 1000;

/** Calls `tell` for each line, escaped and cut. Reads to the end of the stream and keeps never more than one line. */
export function eachLine(stream: Readable, tell: (line: string) => void): void {
  const decoder = new StringDecoder('utf8');
  let line = '';
  let told = 0;
  const say = (text: string): void => {
    told++;
    if (told <= linesShown) tell(escapeText(text.replace(/\r$/u, ''), lineChars));
    else if (told === linesShown + 1) tell(`more than ${linesShown} lines; the rest is not shown`);
  };
  const take = (text: string): void => {
    const [first = '', ...rest] = text.split('\n');
    // One more than is shown, so that the cut is seen.
    line = (line + first).slice(0, lineChars + 1);
    for (const next of rest) {
      say(line);
      line = next.slice(0, lineChars + 1);
    }
  };
  stream.on('data', (octets: Buffer) => take(decoder.write(octets)));
  stream.once('end', () => {
    take(decoder.end());
    if (line !== '') say(line);
  });
  // The end of the program is what tells of its failures.
  stream.on('error', () => undefined);
}
