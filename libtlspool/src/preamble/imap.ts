/** IMAP: STARTTLS as in RFC 9051 section 6.2.1 (RFC 3501 section 6.2.1), LOGINDISABLED as in section 7.2.2. */
import { broken, mostAnswerLines, mostCommands, octets, readLine, refused, say } from './dialogue.js';
import type { Dialogue, Face, Farewell, Preamble, ServeOptions, ServerOutcome } from './types.js';

/** What a client may see before TLS of what a backend announces: nothing about TLS, nothing that takes a password. */
const withheld = /^(?:STARTTLS|LOGINDISABLED|AUTH=.*|SASL-IR)$/iu;
/** RFC 9051 section 9: a tag is printable ASCII without what has a meaning elsewhere. */
const commandLine = /^([!#$&',\-./0-9:;<=>?@A-Z[\]^_`a-z|}~]{1,64}) ([A-Za-z]{1,32})(?: (.*))?$/u;

function* serve({ face, tls }: ServeOptions): Dialogue<ServerOutcome> {
  const capabilities = announced(face, tls === 'required');
  yield* say(`* OK [CAPABILITY ${capabilities}] ${face.greeting ?? `${face.hostname} ready`}\r\n`);
  for (let count = 0; count < mostCommands; count++) {
    const line = yield* readLine();
    const [, tag = '*', name = ''] = commandLine.exec(line) ?? [];
    switch (name.toUpperCase()) {
      case 'CAPABILITY':
        yield* say(`* CAPABILITY ${capabilities}\r\n${tag} OK CAPABILITY completed\r\n`);
        break;
      case 'NOOP':
        yield* say(`${tag} OK NOOP completed\r\n`);
        break;
      case 'ID':
        // RFC 2971: a literal would be octets that are no command; nobody sends one before TLS.
        if (line.endsWith('}')) throw broken('a literal before TLS');
        yield* say(`* ID NIL\r\n${tag} OK ID completed\r\n`);
        break;
      case 'LOGOUT':
        yield* say(`* BYE logging out\r\n${tag} OK LOGOUT completed\r\n`);
        return { next: 'end' };
      case 'STARTTLS':
        if (line.length > tag.length + 9) {
          yield* say(`${tag} BAD STARTTLS takes no arguments\r\n`);
          break;
        }
        return { next: 'tls', goAhead: octets(`${tag} OK begin TLS negotiation now\r\n`), refusal: octets(`${tag} NO [UNAVAILABLE] TLS is not available now\r\n* BYE try again later\r\n`) };
      case '':
        yield* say(`${tag} BAD not a command\r\n`);
        break;
      default:
        if (tls === 'optional') return { next: 'plain', ahead: octets(`${line}\r\n`) };
        if (line.endsWith('}')) throw broken('a literal before TLS');
        yield* say(`${tag} NO [PRIVACYREQUIRED] STARTTLS first\r\n`);
    }
  }
  throw broken(`more than ${mostCommands} commands before STARTTLS`);
}

function announced({ capabilities = ['IMAP4rev1'] }: Face, isRequired: boolean): string {
  const shown = capabilities.filter((word) => !withheld.test(word));
  const auth = isRequired ? ['LOGINDISABLED'] : capabilities.filter((word) => /^(?:AUTH=.*|SASL-IR)$/iu.test(word));
  return [...shown, 'STARTTLS', ...auth].join(' ');
}

function* learn(): Dialogue<Omit<Face, 'hostname'>> {
  const greeting = yield* greetingLine();
  yield* say('a1 CAPABILITY\r\n');
  let words: readonly string[] = [];
  for (let count = 0; count < mostAnswerLines; count++) {
    const line = yield* readLine();
    const [, listed] = /^\* CAPABILITY (.+)$/iu.exec(line) ?? [];
    if (listed !== undefined) words = listed.split(' ').filter((word) => word !== '');
    if (line.startsWith('* ')) continue;
    if (!/^a1 OK\b/iu.test(line) || words.length === 0) throw refused('the backend gives no capabilities', line);
    yield* say('a2 LOGOUT\r\n');
    return { greeting: greeting.replace(/^\* OK (?:\[CAPABILITY [^\]]*\] ?)?/iu, ''), capabilities: words };
  }
  throw broken('the backend\'s answer to CAPABILITY does not end');
}

/** RFC 9051 section 7.1: OK, or PREAUTH, or BYE. */
function* greetingLine(): Dialogue<string> {
  const line = yield* readLine();
  if (/^\* OK\b/iu.test(line)) return line;
  // PREAUTH leaves no state in which STARTTLS is allowed, and would let anybody in as that user.
  throw refused('the server does not greet with OK', line);
}

function* settle(): Dialogue<void> {
  yield* greetingLine();
}

const farewells: Readonly<Record<Farewell, string>> = {
  unavailable: '* BYE [UNAVAILABLE] the service is not available now, try again later\r\n',
  timeout: '* BYE too slow\r\n',
  limit: '* BYE [LIMIT] too many connections, try again later\r\n',
  syntax: '* BYE that is not IMAP\r\n',
  early: '* BYE commands behind STARTTLS\r\n',
};

function* client(): Dialogue<object> {
  yield* greetingLine();
  yield* say('a1 STARTTLS\r\n');
  for (let count = 0; count < mostAnswerLines; count++) {
    const line = yield* readLine();
    if (/^\* BYE\b/iu.test(line)) throw refused('the server says BYE', line);
    if (line.startsWith('* ')) continue;
    if (/^a1 OK\b/iu.test(line)) return {};
    throw refused('the server does not begin TLS', line);
  }
  throw broken('the server\'s answer to STARTTLS does not end');
}

export const imap: Preamble = {
  name: 'imap',
  title: 'IMAP (RFC 9051 section 6.2.1)',
  server: { serve, learn, settle, farewell: (why) => octets(farewells[why]), plainBackend: true },
  client,
};
