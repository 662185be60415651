/**
 * For servers that greet every connection, behind a proxy that has greeted already.
 *
 * In SMTP, IMAP, POP3 and their kin the server speaks first, once, in plain text. After STARTTLS it does not speak again before it is asked (RFC 3207
 * section 4.2, RFC 9051 section 6.2.1, RFC 2595 section 4, RFC 4642 section 2.2.2, RFC 4217 section 4.2), but a server that was written for connections of its own does.
 */
import type net from 'node:net';
import { holdReading } from './handle.js';
import { preambleNames } from './preamble/registry.js';
import { TlsPoolError, escapeText } from './protocol/index.js';

const lf = 10;

/** How a greeting looks: its first line, and whether further lines belong to it. */
interface Greeting {
  readonly begins: RegExp;
  /** Does the greeting go on behind a line that begins so? Undefined: it is one line. */
  readonly goesOn?: (line: string, first: string) => boolean;
}

/** RFC 5321 section 4.2: all lines but the last have a hyphen behind the code. */
const smtp: Greeting = { begins: /^220[ \r\n-]/u, goesOn: (line) => line[3] === '-' };
const greetings: ReadonlyMap<string, Greeting> = new Map<string, Greeting>([
  ['smtp', smtp], ['submission', smtp], ['lmtp', smtp],
  // RFC 959 section 4.2: the lines between may be anything; the last one begins with the code and a space.
  ['ftp', { begins: /^220[ \r\n-]/u, goesOn: (line, first) => first[3] === '-' && !line.startsWith('220 ') }],
  // PREAUTH and BYE are no greetings that another one could stand for: the client shall see them.
  ['imap', { begins: /^\* OK[ \r\n]/iu }],
  ['pop3', { begins: /^\+OK[ \r\n]/iu }],
  ['nntp', { begins: /^20[01][ \r\n]/u }],
]);
/** Longest beginning of a line that any of them looks at. */
const looksAt = 5;

type Write = (chunk: unknown, encoding: BufferEncoding, callback: (error?: Error | null) => void) => void;
/** What a Writable is written with; own properties stand before those of the class. */
interface WritableInside { _write: Write; _writev?: unknown }

/** Follows the lines of what a server says until its greeting is over. */
class Swallower {
  readonly #greeting: Greeting;
  #first: string | undefined;
  /** Beginning of the present line. */
  #line = '';
  #isOver = false;

  constructor(greeting: Greeting) { this.#greeting = greeting; }

  /** The greeting has passed, or there was none. */
  get isOver(): boolean { return this.#isOver; }

  /** What of these octets is to be sent. */
  rest(octets: Buffer): Buffer {
    for (let at = 0; at < octets.length; at++) {
      if (this.#line.length < looksAt) this.#line += String.fromCharCode(octets[at] as number);
      const ends = octets[at] === lf;
      if (this.#first === undefined && (ends || this.#line.length === looksAt)) {
        if (!this.#greeting.begins.test(this.#line)) {
          this.#isOver = true;
          // All of it was held back so far, and is in #line up to here.
          return Buffer.concat([Buffer.from(this.#line, 'latin1'), octets.subarray(at + 1)]);
        }
        this.#first = this.#line;
      }
      if (!ends) continue;
      if (this.#greeting.goesOn?.(this.#line, this.#first ?? '') !== true) {
        this.#isOver = true;
        return octets.subarray(at + 1);
      }
      this.#line = '';
    }
    return Buffer.alloc(0);
  }
}

/**
 * Keeps the greeting of a server from its client: the first reply that is written to the socket is swallowed, in whatever pieces it is written, when it is the protocol's
 * ordinary greeting (220; `* OK`; `+OK`; 200 or 201). Any other first reply, such as a refusal, passes unchanged. Call it before the server gets the socket; returns the socket.
 * Until then the server hears nothing of its client, so it is only for servers that greet.
 *
 * `protocol` is the name of the preamble, as in `socket.preamble.protocol`. Nothing is swallowed for protocols in which a server does not speak first behind TLS, or has to
 * (`none`, where TLS came at once; `sieve`, RFC 5804 section 2.2; `xmpp-client`, `ldap`, ...). Throws BAD_ARGUMENT for a name that is unknown.
 */
export function withoutGreeting<S extends net.Socket>(socket: S, protocol: string): S {
  const greeting = greetings.get(protocol);
  if (greeting === undefined) {
    if ((preambleNames as readonly string[]).includes(protocol) || protocol === 'none') return socket;
    throw new TlsPoolError('BAD_ARGUMENT', { text: `there is no protocol "${escapeText(protocol)}"; give the name of a preamble, such as imap`, field: 'protocol' });
  }
  const swallower = new Swallower(greeting);
  // Servers that mistrust clients which speak before the greeting would mistrust all of them: behind STARTTLS it is the client's turn.
  const release = holdReading(socket);
  const inside = socket as unknown as WritableInside;
  const write = inside._write.bind(socket);
  inside._write = (chunk, encoding, callback) => {
    const octets = typeof chunk === 'string' ? Buffer.from(chunk, encoding) : Buffer.from(chunk as Uint8Array);
    const rest = swallower.rest(octets);
    if (swallower.isOver) {
      // The class's own are in force again.
      Reflect.deleteProperty(inside, '_write');
      Reflect.deleteProperty(inside, '_writev');
      release();
    }
    if (rest.length > 0) write(rest, 'buffer' as BufferEncoding, callback);
    // A Writable expects its callback on a later turn.
    else process.nextTick(callback);
  };
  // Without it a Writable writes chunk by chunk.
  inside._writev = undefined;
  return socket;
}
