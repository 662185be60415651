/** Awaits a header on a connection. */
import type { Dialogue } from 'libtlspool/preamble';
import { parse } from './parse.js';
import type { Header } from './types.js';

/** Takes exactly the header, and leaves what follows it to the next reader. Throws PREAMBLE as parse() does. */
export function* readProxyHeader(): Dialogue<Header> {
  for (let seen = Buffer.alloc(0); ;) {
    const parsed = parse(seen);
    if (parsed.kind === 'header') return parsed.header;
    seen = Buffer.concat([seen, yield { do: 'octets', count: parsed.need }]);
  }
}
