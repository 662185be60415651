/**
 * SMTP: STARTTLS as in RFC 3207, on port 25 as on the submission port (RFC 6409). lmtp.ts shares it.
 *
 * PIPELINING of a backend stays announced: before TLS each command that is answered here must be the last one of its group anyway (RFC 2920
 * section 3.1 and RFC 3207 section 4), and in plain text, where that is allowed, it is true. What a client pipelines behind STARTTLS is found by quiet().
 */
import { broken, mostCommands, octets, readLine, refused, say } from './dialogue.js';
import { codedLines, expectCode, readReply } from './replies.js';
import type { ClientOptions, ClientRole, Dialogue, Face, Farewell, Preamble, ServeOptions, ServerOutcome, ServerRole } from './types.js';

/** RFC 4954 section 4: AUTH with an initial response is the longest command; it may come first where TLS is optional. */
const commandOctets = 12_288;
/** RFC 5321 section 4.5.3.1.4, for a command that takes a domain name. */
const helloOctets = 510;
/**
 * Keywords of a backend that a client must not see before TLS: those about TLS and authentication, those by which a proxy and not a client
 * speaks (XCLIENT, XFORWARD), and REQUIRETLS, which RFC 8689 section 2 has announced under TLS only.
 */
const withheld = /^(?:STARTTLS|XCLIENT|XFORWARD|REQUIRETLS)(?:[ =]|$)/iu;
const authentication = /^AUTH(?:[ =]|$)/iu;

/** What SMTP and LMTP differ in. */
export interface MailProtocol {
  readonly name: 'smtp' | 'submission' | 'lmtp';
  readonly title: string;
  /** As the greeting of a server calls it. */
  readonly word: 'ESMTP' | 'LMTP';
  /** The commands by which a client says its name; the first one is answered with keywords. */
  readonly hellos: readonly [string, ...string[]];
}

/** The preamble of a mail protocol. */
export function mailPreamble(protocol: MailProtocol): Preamble {
  const server: ServerRole = {
    serve: (options) => serve(protocol, options),
    learn: (hostname) => learn(protocol, hostname),
    settle,
    farewell: (why, { hostname }) => octets(farewells[why](hostname)),
    plainBackend: true,
  };
  return { name: protocol.name, title: protocol.title, server, client: clientOf(protocol) };
}

function* serve({ word, hellos }: MailProtocol, { face, tls }: ServeOptions): Dialogue<ServerOutcome> {
  const { hostname, greeting = `${hostname} ${word} ready` } = face;
  const [hello] = hellos;
  /** The last one that was answered: what a backend must hear before it hears the rest. */
  let introduced: string | undefined;
  yield* say(`220 ${greeting}\r\n`);
  for (let count = 0; count < mostCommands; count++) {
    const line = yield* readLine(commandOctets);
    const [, verb = '', argument] = /^([A-Za-z]{1,32})(?: +(.*?))?[ \t]*$/su.exec(line) ?? [];
    const name = verb.toUpperCase();
    if (name === hello || (tls === 'optional' && hellos.includes(name))) {
      if (line.length > helloOctets) yield* say(`501 5.5.4 ${name} with a name that is too long\r\n`);
      else if (argument === undefined || argument === '') yield* say(`501 5.5.4 ${name} needs the name of the client\r\n`);
      else {
        introduced = line;
        yield* say(codedLines('250', name === hello ? [hostname, ...announced(face, tls === 'required')] : [hostname]));
      }
      continue;
    }
    switch (name) {
      case 'NOOP':
        yield* say('250 2.0.0 OK\r\n');
        break;
      case 'QUIT':
        yield* say(`221 2.0.0 ${hostname} closing the connection\r\n`);
        return { next: 'end' };
      case 'STARTTLS':
        if (argument === undefined) return { next: 'tls', goAhead: octets('220 2.0.0 Ready to start TLS\r\n'), refusal: octets('454 4.7.0 TLS is not available now, try again later\r\n') };
        yield* say('501 5.5.4 STARTTLS takes no parameters\r\n');
        break;
      case '':
        yield* say('500 5.5.2 not a command\r\n');
        break;
      default:
        if (tls === 'optional') return { next: 'plain', ahead: octets(`${line}\r\n`), ...(introduced === undefined ? {} : { introduce: introduction(introduced), state: octets(introduced) }) };
        // RFC 3207 section 4: for every command but EHLO, NOOP, QUIT and STARTTLS.
        yield* say('530 5.7.0 Must issue a STARTTLS command first\r\n');
    }
  }
  throw broken(`more than ${mostCommands} commands before STARTTLS`);
}

function announced({ capabilities = ['ENHANCEDSTATUSCODES'] }: Face, isRequired: boolean): string[] {
  const shown = capabilities.filter((line) => !withheld.test(line) && !(isRequired && authentication.test(line)));
  return [...shown, 'STARTTLS'];
}

/** The client's hello again, to a backend that the client did not speak with yet; it has had its answer. */
const introduction = (line: string) => function* introduce(): Dialogue<void> {
  yield* say(`${line}\r\n`);
  expectCode(yield* readReply(), '250', 'the backend does not take the client\'s hello');
};

function* learn({ hellos: [hello] }: MailProtocol, hostname: string): Dialogue<Omit<Face, 'hostname'>> {
  const greeting = expectCode(yield* readReply(), '220', 'the backend does not greet with 220');
  yield* say(`${hello} ${hostname}\r\n`);
  const { lines: [, ...capabilities] } = expectCode(yield* readReply(), '250', `the backend does not answer ${hello} with 250`);
  yield* say('QUIT\r\n');
  return { greeting: greeting.lines[0], capabilities };
}

/** The client says its name anew after TLS (RFC 3207 section 4.2), so the greeting is all that it must not see again. */
function* settle(): Dialogue<void> {
  expectCode(yield* readReply(), '220', 'the backend does not greet with 220');
}

/** 421 is for what may go away by waiting; RFC 5321 section 3.8 and 4.2.4 allow it at any time, and 554 for the rest. */
const farewells: Readonly<Record<Farewell, (hostname: string) => string>> = {
  unavailable: (hostname) => `421 4.3.2 ${hostname} Service not available, try again later\r\n`,
  timeout: (hostname) => `421 4.4.2 ${hostname} too slow\r\n`,
  limit: (hostname) => `421 4.7.0 ${hostname} too many connections, try again later\r\n`,
  syntax: (hostname) => `554 5.5.0 ${hostname} that is not the protocol spoken here\r\n`,
  early: (hostname) => `554 5.7.0 ${hostname} commands behind STARTTLS\r\n`,
};

const clientOf = ({ hellos: [hello] }: MailProtocol): ClientRole => function* client({ hostname }: ClientOptions) {
  expectCode(yield* readReply(), '220', 'the server does not greet with 220');
  yield* say(`${hello} ${hostname}\r\n`);
  const { lines: [, ...keywords] } = expectCode(yield* readReply(), '250', `the server does not answer ${hello} with 250`);
  if (!keywords.some((line) => /^STARTTLS *$/iu.test(line))) throw refused('the server does not announce STARTTLS, or somebody on the way has removed it');
  yield* say('STARTTLS\r\n');
  expectCode(yield* readReply(), '220', 'the server does not begin TLS');
  return {};
};

export const smtp = mailPreamble({ name: 'smtp', title: 'SMTP (RFC 3207)', word: 'ESMTP', hellos: ['EHLO', 'HELO'] });
export const submission = mailPreamble({ name: 'submission', title: 'SMTP submission (RFC 3207, RFC 6409)', word: 'ESMTP', hellos: ['EHLO', 'HELO'] });
