/**
 * FTP, the control connection: AUTH TLS as in RFC 4217 section 4; features of RFC 2389.
 *
 * PBSZ and PROT come after TLS and are therefore the backend's; data connections are too. A backend that does not know of TLS refuses PROT P, and its
 * data connections stay in plain text: a client that insists on more is refused by the backend, not by us.
 */
import { broken, mostCommands, octets, readLine, refused, say } from './dialogue.js';
import { expectCode, greetAndAsk, readFtpReply } from './replies.js';
import type { Reply } from './replies.js';
import type { Dialogue, Face, Farewell, Preamble, ServeOptions, ServerOutcome } from './types.js';

/** Features of a backend that are about security (RFC 2228, RFC 4217 section 6). */
const withheld = /^(?:AUTH|PBSZ|PROT|CCC|ADAT|MIC|CONF|ENC)(?: |$)/iu;

function* serve({ face, tls }: ServeOptions): Dialogue<ServerOutcome> {
  yield* say(`220 ${face.greeting ?? `${face.hostname} ready`}\r\n`);
  for (let count = 0; count < mostCommands; count++) {
    const line = yield* readLine();
    const [, verb = '', argument = ''] = /^([A-Za-z]{1,32})(?: (.*?))?[ \t]*$/su.exec(line) ?? [];
    const isTls = /^TLS(?:-C)?$/iu.test(argument);
    switch (verb.toUpperCase()) {
      case 'FEAT':
        yield* say(`211-Features:\r\n${announced(face).map((line) => ` ${line}\r\n`).join('')}211 End\r\n`);
        break;
      case 'NOOP':
        yield* say('200 OK\r\n');
        break;
      case 'QUIT':
        yield* say('221 bye\r\n');
        return { next: 'end' };
      case 'AUTH':
        if (isTls) return { next: 'tls', goAhead: octets('234 begin TLS negotiation now\r\n'), refusal: octets('431 TLS is not available now, try again later\r\n') };
        // RFC 2228 section 3 (AUTH): 504 for a mechanism that is not understood, so that the client tries the next one.
        yield* say(argument === '' ? '501 AUTH needs a mechanism\r\n' : '504 the mechanism is TLS\r\n');
        break;
      case 'PBSZ':
      case 'PROT':
      case 'CCC':
        // RFC 2228 section 3: a bad sequence of commands without a security data exchange before.
        yield* say('503 AUTH TLS first\r\n');
        break;
      case '':
        yield* say('500 not a command\r\n');
        break;
      default:
        if (tls === 'optional') return { next: 'plain', ahead: octets(`${line}\r\n`) };
        yield* say('530 AUTH TLS first\r\n');
    }
  }
  throw broken(`more than ${mostCommands} commands before AUTH TLS`);
}

function announced({ capabilities = [] }: Face): string[] {
  return [...capabilities.filter((line) => !withheld.test(line)), 'AUTH TLS'];
}

/** RFC 959 section 5.4: 120 may come first, when it takes longer. */
function* readGreeting(who: string): Dialogue<string> {
  let reply: Reply = yield* readFtpReply();
  if (reply.code === '120') reply = yield* readFtpReply();
  return expectCode(reply, '220', `the ${who} does not greet with 220`).lines[0];
}

function* learn(): Dialogue<Omit<Face, 'hostname'>> {
  const greeting = yield* readGreeting('backend');
  yield* say('FEAT\r\n');
  const { code, lines: [text, ...features] } = yield* readFtpReply();
  // RFC 2389 section 3: a server without features may not know the command, and some want a login first.
  if (!/^(?:211|500|502|530)$/u.test(code)) throw refused('the backend does not answer FEAT', `${code} ${text}`);
  yield* say('QUIT\r\n');
  return { greeting, capabilities: code === '211' ? features.map((line) => line.trim()).filter((line) => line !== '') : [] };
}

/** RFC 959 section 5.4: 421 may answer any command, and stand in place of the greeting. */
const farewells: Readonly<Record<Farewell, string>> = {
  unavailable: '421 Service not available, try again later\r\n',
  timeout: '421 too slow\r\n',
  limit: '421 too many connections, try again later\r\n',
  syntax: '421 that is not FTP\r\n',
  early: '421 commands behind AUTH TLS\r\n',
};

const { settle, client } = greetAndAsk({ readGreeting, request: 'AUTH TLS', readAnswer: readFtpReply, code: '234' });

export const ftp: Preamble = {
  name: 'ftp',
  title: 'FTP, control connection (RFC 4217 section 4)',
  server: { serve, learn, settle, farewell: (why) => octets(farewells[why]), plainBackend: true },
  client,
};
