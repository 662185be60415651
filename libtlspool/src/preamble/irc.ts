/** IRC: STARTTLS, as in the IRCv3 extension `tls` (deprecated there in favour of TLS at once, and still what clients and servers have). */
import { broken, mostAnswerLines, mostCommands, octets, readLine, refused, say } from './dialogue.js';
import type { Dialogue, Farewell, Preamble, ServeOptions, ServerOutcome } from './types.js';

/** RFC 2812 section 2.3: 512 with CRLF. Message tags, which make lines longer, need a negotiation. */
const lineOctets = 510;
/** Command and parameters; clients send no prefix. */
const commandLine = /^ *([A-Za-z]{1,32}|[0-9]{3})(?: +(.*?))? *$/u;
/** Prefix, numeric or command, rest. */
const serverLine = /^(?:@[^ ]+ +)?(?::[^ ]+ +)?([A-Za-z]{1,32}|[0-9]{3})(?: +(.*))?$/u;

function* serve({ face, tls }: ServeOptions): Dialogue<ServerOutcome> {
  const from = `:${face.hostname}`;
  for (let count = 0; count < mostCommands; count++) {
    const line = yield* readLine(lineOctets);
    const [, name = '', parameters = ''] = commandLine.exec(line) ?? [];
    switch (name.toUpperCase()) {
      case 'STARTTLS':
        if (parameters === '') return { next: 'tls', goAhead: octets(`${from} 670 * :STARTTLS successful, proceed with TLS handshake\r\n`), refusal: octets(`${from} 691 * :STARTTLS failed: TLS is not available now\r\n`) };
        yield* say(`${from} 691 * :STARTTLS takes no parameters\r\n`);
        break;
      case 'CAP':
        yield* capabilities(from, parameters);
        break;
      case 'PING':
        yield* say(`${from} PONG ${face.hostname} :${parameters.replace(/^:/u, '')}\r\n`);
        break;
      case 'QUIT':
        yield* say('ERROR :Closing Link: (Quit)\r\n');
        return { next: 'end' };
      case '':
        // RFC 2812 section 2.3.1: empty messages are silently ignored; the rest is no message.
        if (line.trim() !== '') throw broken('not an IRC message');
        break;
      default:
        if (tls === 'optional') return { next: 'plain', ahead: octets(`${line}\r\n`) };
        // ERR_NOTREGISTERED. Nicknames and passwords of before TLS are forgotten: whoever was on the way could have put them there.
        yield* say(`${from} 451 * :STARTTLS first, then ${name.toUpperCase()}\r\n`);
    }
  }
  throw broken(`more than ${mostCommands} commands before STARTTLS`);
}

/** Nothing but `tls`: what is negotiated here is void behind the handshake, and is negotiated anew with the backend. */
function* capabilities(from: string, parameters: string): Dialogue<void> {
  const [verb = '', ...rest] = parameters.split(/ +/u);
  switch (verb.toUpperCase()) {
    case 'LS':
      yield* say(`${from} CAP * LS :tls\r\n`);
      break;
    case 'LIST':
      yield* say(`${from} CAP * LIST :\r\n`);
      break;
    case 'REQ': {
      const asked = rest.join(' ').replace(/^:/u, '').trim();
      // "a client may request the tls capability with CAP REQ", without effect.
      yield* say(`${from} CAP * ${asked.toLowerCase() === 'tls' ? 'ACK' : 'NAK'} :${asked}\r\n`);
      break;
    }
    case 'END':
      break;
    default:
      yield* say(`${from} 410 * :Invalid CAP command\r\n`);
  }
}

const farewells: Readonly<Record<Farewell, string>> = {
  unavailable: 'The service is not available now, try again later',
  timeout: 'Too slow',
  limit: 'Too many connections, try again later',
  syntax: 'That is not IRC',
  early: 'Commands behind STARTTLS',
};

/** Numerics that say that a command is not understood, or not now: unknown, not registered, too few parameters. */
const notThat: ReadonlySet<string> = new Set(['421', '451', '461']);

function* client(): Dialogue<object> {
  // Asked first, because many servers say nothing at all to a command that they do not know before registration.
  yield* say('CAP LS 302\r\n');
  // What is negotiated here is void behind the handshake; without END some servers would wait for it there.
  const isNegotiating = yield* expectTls();
  yield* say(isNegotiating ? 'CAP END\r\nSTARTTLS\r\n' : 'STARTTLS\r\n');
  yield* answerTo('STARTTLS', ({ name, rest }) => {
    if (name === '691' || notThat.has(name)) throw refused('the server does not begin TLS', rest);
    return name === '670';
  });
  return {};
}

/** Capabilities without `tls` mean that there is no STARTTLS; a server without capabilities may have it. Does it have them? */
function* expectTls(): Dialogue<boolean> {
  let hasTls = false;
  let hasCapabilities = true;
  yield* answerTo('CAP LS', ({ name, rest }) => {
    if (notThat.has(name)) hasCapabilities = false;
    if (!hasCapabilities) return true;
    // Nickname, LS, an asterisk if there are more lines, the list.
    const [, more = '', list = ''] = /^[^ ]+ +LS +(\* +)?:?(.*)$/iu.exec(name === 'CAP' ? rest : '') ?? [];
    hasTls ||= /(?:^| )tls(?:[= ]|$)/u.test(list);
    if (name !== 'CAP' || more !== '') return false;
    if (!hasTls) throw refused('the server has no STARTTLS among its capabilities', list);
    return true;
  });
  return hasCapabilities;
}

/** Reads lines until one of them is the answer. Notices about looking up our name, and the like, are passed over. */
function* answerTo(command: string, isAnswer: (message: { readonly name: string; readonly rest: string }) => boolean): Dialogue<void> {
  for (let count = 0; count < mostAnswerLines; count++) {
    const line = yield* readLine();
    const [, name = '', rest = ''] = serverLine.exec(line) ?? [];
    if (name === '' && line !== '') throw broken('not an IRC message');
    if (name.toUpperCase() === 'ERROR') throw refused('the server closes the connection', rest);
    if (isAnswer({ name: name.toUpperCase(), rest })) return;
  }
  throw broken(`the server does not answer ${command}`);
}

export const irc: Preamble = {
  name: 'irc',
  title: 'IRC (STARTTLS of IRCv3.1 tls)',
  server: { serve, farewell: (why) => octets(`ERROR :Closing Link: ${farewells[why]}\r\n`), plainBackend: true },
  client,
};
