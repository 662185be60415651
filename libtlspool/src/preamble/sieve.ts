/**
 * ManageSieve: STARTTLS as in RFC 5804 section 2.2.
 *
 * Under TLS the server must send its capabilities anew, which is just what a fresh server says. So there is no settle(): a plain-text backend's own
 * greeting goes to the client, and a backend that is handed the descriptor greets as if the connection were new. In plain text, where that is
 * allowed, the client has had its greeting, so introduce() takes the backend's.
 */
import { broken, mostAnswerLines, mostCommands, octets, readLine, readOctets, refused, say } from './dialogue.js';
import type { Dialogue, Face, Farewell, Preamble, ServeOptions, ServerOutcome } from './types.js';

/** Octets of a literal in a server's answer; its line has the limit of all lines. */
const literalOctets = 4096;
const text = (value: string): string => `"${value.replace(/["\\]/gu, '\\$&')}"`;

function* serve({ face, tls }: ServeOptions): Dialogue<ServerOutcome> {
  const capabilities = announced(face, tls === 'required').map((line) => `${line}\r\n`).join('');
  yield* say(`${capabilities}OK ${text(face.greeting ?? `${face.hostname} ready`)}\r\n`);
  for (let count = 0; count < mostCommands; count++) {
    const line = yield* readLine();
    const [, verb = '', argument] = /^([A-Za-z]{1,32})(?: +(.*?))? *$/su.exec(line) ?? [];
    switch (verb.toUpperCase()) {
      case 'CAPABILITY':
        yield* say(`${capabilities}OK\r\n`);
        break;
      case 'NOOP':
        yield* say(noop(argument));
        break;
      case 'LOGOUT':
        yield* say('OK "bye"\r\n');
        return { next: 'end' };
      case 'STARTTLS':
        if (argument === undefined) return { next: 'tls', goAhead: octets('OK "begin TLS negotiation now"\r\n'), refusal: octets('NO (TRYLATER) "TLS is not available now"\r\n') };
        yield* say('NO "STARTTLS takes no arguments"\r\n');
        break;
      case '':
        yield* say('NO "not a command"\r\n');
        break;
      default:
        if (tls === 'optional') return { next: 'plain', ahead: octets(`${line}\r\n`), introduce };
        // Its octets would be taken for commands, or would have to be taken for nothing.
        if (line.endsWith('}')) throw broken('a literal before TLS');
        yield* say('NO (ENCRYPT-NEEDED) "STARTTLS first"\r\n');
    }
  }
  throw broken(`more than ${mostCommands} commands before STARTTLS`);
}

/** RFC 5804 section 2.13: the argument is repeated. */
function noop(argument: string | undefined): string {
  if (argument === undefined) return 'OK\r\n';
  if (/\{[0-9]+\+?\}$/u.test(argument)) throw broken('a literal before TLS');
  return /^"(?:[^"\\]|\\["\\])*"$/su.test(argument) ? `OK (TAG ${argument}) "done"\r\n` : 'NO "NOOP takes a string"\r\n';
}

/** RFC 5804 section 1.7: IMPLEMENTATION, SASL, SIEVE and VERSION must be there; SASL may be empty beside STARTTLS only. */
function announced({ capabilities = [] }: Face, isRequired: boolean): string[] {
  const names = new Set(capabilities.map(nameOf));
  const shown = capabilities.filter((line) => nameOf(line) !== 'STARTTLS' && !(isRequired && nameOf(line) === 'SASL'));
  const missing = [['IMPLEMENTATION', '"IMPLEMENTATION" "tlspool"'], ['SIEVE', '"SIEVE" ""'], ['VERSION', '"VERSION" "1.0"']] as const;
  return [
    ...missing.filter(([name]) => !names.has(name)).map(([, line]) => line), ...shown,
    ...(isRequired || !names.has('SASL') ? ['"SASL" ""'] : []), '"STARTTLS"',
  ];
}

const nameOf = (line: string): string => /^"([^"]*)"/u.exec(line)?.[1]?.toUpperCase() ?? '';

/** A line with the literals in it, which have line ends of their own. */
function* readWholeLine(): Dialogue<string> {
  let whole = '';
  for (let literals = 0; ; literals++) {
    const line = yield* readLine();
    whole += line;
    // Of this line alone: what is in a literal announces nothing.
    const [, octetCount] = /\{([0-9]{1,9})\}$/u.exec(line) ?? [];
    if (octetCount === undefined) return whole;
    if (Number(octetCount) > literalOctets || literals === 4) throw broken(`a literal of ${octetCount} octets; at most ${literalOctets} are taken before TLS, and few of them`);
    const literal = yield* readOctets(Number(octetCount));
    whole += `\r\n${literal.toString('latin1')}`;
  }
}

/** What a server says up to and with OK. */
function* readAnswer(what: string): Dialogue<{ capabilities: readonly string[]; said: string }> {
  const capabilities: string[] = [];
  while (capabilities.length < mostAnswerLines) {
    const line = yield* readWholeLine();
    const [, outcome] = /^(OK|NO|BYE)(?: |$)/iu.exec(line) ?? [];
    if (outcome?.toUpperCase() === 'OK') return { capabilities, said: quotedText(line) };
    if (outcome !== undefined) throw refused(what, line);
    if (!line.startsWith('"')) throw broken('neither a capability nor OK, NO or BYE');
    capabilities.push(line);
  }
  throw broken(`an answer of more than ${mostAnswerLines} lines`);
}

/** Text of an OK, where it is quoted and not a literal. */
const quotedText = (line: string): string => / "((?:[^"\\]|\\["\\])*)"$/su.exec(line)?.[1]?.replace(/\\(["\\])/gu, '$1') ?? '';

function* learn(): Dialogue<Omit<Face, 'hostname'>> {
  const { capabilities, said } = yield* readAnswer('the backend does not greet with OK');
  yield* say('LOGOUT\r\n');
  return { ...(said === '' ? {} : { greeting: said }), capabilities };
}

function* introduce(): Dialogue<void> {
  yield* readAnswer('the backend does not greet with OK');
}

/** RFC 5804 section 1.3: BYE may come at any time, in place of the greeting too. */
const farewells: Readonly<Record<Farewell, string>> = {
  unavailable: 'BYE (TRYLATER) "the service is not available now"\r\n',
  timeout: 'BYE "too slow"\r\n',
  limit: 'BYE (TRYLATER) "too many connections"\r\n',
  syntax: 'BYE "that is not ManageSieve"\r\n',
  early: 'BYE "commands behind STARTTLS"\r\n',
};

function* client(): Dialogue<object> {
  const { capabilities } = yield* readAnswer('the server does not greet with OK');
  if (!capabilities.some((line) => nameOf(line) === 'STARTTLS')) throw refused('the server does not announce STARTTLS, or somebody on the way has removed it');
  yield* say('STARTTLS\r\n');
  const { capabilities: [surplus] } = yield* readAnswer('the server does not begin TLS');
  if (surplus !== undefined) throw broken('capabilities before the OK of STARTTLS');
  return {};
}

export const sieve: Preamble = {
  name: 'sieve',
  title: 'ManageSieve (RFC 5804 section 2.2)',
  server: { serve, learn, farewell: (why) => octets(farewells[why]), plainBackend: true },
  client,
};
