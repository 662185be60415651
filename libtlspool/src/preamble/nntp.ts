/** NNTP: STARTTLS as in RFC 4642 section 2.2; capabilities of RFC 3977 section 5.2. */
import { broken, mostCommands, octets, readLine, refused, say } from './dialogue.js';
import { dotLines, expectCode, greetAndAsk, readDotLines } from './replies.js';
import type { Reply } from './replies.js';
import type { Dialogue, Face, Farewell, Preamble, ServeOptions, ServerOutcome } from './types.js';

const authentication = /^(?:AUTHINFO|SASL)(?: |$)/iu;

function* serve({ face, tls }: ServeOptions): Dialogue<ServerOutcome> {
  yield* say(`${mayPost(face) ? '200' : '201'} ${face.greeting ?? `${face.hostname} ready`}\r\n`);
  for (let count = 0; count < mostCommands; count++) {
    const line = yield* readLine();
    const [, verb = '', argument] = /^[ \t]*([A-Za-z][A-Za-z0-9.-]{0,31})(?:[ \t]+(.*?))?[ \t]*$/su.exec(line) ?? [];
    switch (verb.toUpperCase()) {
      case 'CAPABILITIES':
        yield* say(`101 capabilities follow\r\n${dotLines(announced(face, tls === 'required'))}`);
        break;
      case 'QUIT':
        yield* say('205 bye\r\n');
        return { next: 'end' };
      case 'STARTTLS':
        if (argument === undefined) return { next: 'tls', goAhead: octets('382 begin TLS negotiation now\r\n'), refusal: octets('580 TLS is not available now, try again later\r\n') };
        yield* say('501 STARTTLS takes no arguments\r\n');
        break;
      case '':
        yield* say('500 not a command\r\n');
        break;
      default:
        if (tls === 'optional') return { next: 'plain', ahead: octets(`${line}\r\n`) };
        yield* say('483 STARTTLS first\r\n');
    }
  }
  throw broken(`more than ${mostCommands} commands before STARTTLS`);
}

/** RFC 3977 section 5.1.1: 200 where the server takes articles by POST; without a list of a backend nobody knows better. */
const mayPost = ({ capabilities }: Face): boolean => capabilities?.some((line) => /^POST$/iu.test(line)) ?? true;

function announced({ capabilities = [] }: Face, isRequired: boolean): string[] {
  const shown = capabilities.filter((line) => !/^(?:VERSION|STARTTLS)(?: |$)/iu.test(line) && !(isRequired && authentication.test(line)));
  // RFC 3977 section 5.2: VERSION comes first, and we speak no other one here.
  return ['VERSION 2', ...shown, 'STARTTLS'];
}

/** NNTP has no answers of several lines with codes. */
function* readStatus(): Dialogue<Reply> {
  const line = yield* readLine();
  const [, code, text = ''] = /^([1-5][0-9]{2})(?: (.*))?$/su.exec(line) ?? [];
  if (code === undefined) throw broken('an answer without a code of three digits');
  return { code, lines: [text] };
}

function* readGreeting(who: string): Dialogue<string> {
  const { code, lines: [text] } = yield* readStatus();
  if (code !== '200' && code !== '201') throw refused(`the ${who} does not greet with 200 or 201`, `${code} ${text}`);
  return text;
}

function* learn(): Dialogue<Omit<Face, 'hostname'>> {
  const greeting = yield* readGreeting('backend');
  yield* say('CAPABILITIES\r\n');
  expectCode(yield* readStatus(), '101', 'the backend gives no capabilities');
  const capabilities = yield* readDotLines();
  yield* say('QUIT\r\n');
  return { greeting, capabilities };
}

/** RFC 3977 section 3.2.1: 400, as a greeting and at any time, says that the server closes the connection. */
const farewells: Readonly<Record<Farewell, string>> = {
  unavailable: '400 the service is not available now, try again later\r\n',
  timeout: '400 too slow\r\n',
  limit: '400 too many connections, try again later\r\n',
  syntax: '400 that is not NNTP\r\n',
  early: '400 commands behind STARTTLS\r\n',
};

/** RFC 4642 section 2.2.2: there is no second greeting under TLS. */
const { settle, client } = greetAndAsk({ readGreeting, request: 'STARTTLS', readAnswer: readStatus, code: '382' });

export const nntp: Preamble = {
  name: 'nntp',
  title: 'NNTP (RFC 4642 section 2.2)',
  server: { serve, learn, settle, farewell: (why) => octets(farewells[why]), plainBackend: true },
  client,
};
