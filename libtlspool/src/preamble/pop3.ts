/** POP3: STLS as in RFC 2595 section 4; capabilities of RFC 2449. */
import { broken, mostCommands, octets, readLine, refused, say } from './dialogue.js';
import { dotLines, readDotLines } from './replies.js';
import type { Dialogue, Face, Farewell, Preamble, ServeOptions, ServerOutcome } from './types.js';

/** USER and SASL are all that a capability says about authentication; APOP shows in the greeting only. */
const authentication = /^(?:USER|SASL)(?: |$)/iu;
/**
 * RFC 1939 section 7: what looks like a message-id in the greeting invites to APOP, with a digest over this very text. Each connection to a
 * backend has another one, so a client that used ours would be refused; and RFC 2595 section 4 has it forgotten under TLS anyway.
 */
const apopTimestamp = / *<[^<>]*@[^<>]*>/gu;
const withoutTimestamp = (greeting: string): string => greeting.replace(apopTimestamp, '').trim();

function* serve({ face, tls }: ServeOptions): Dialogue<ServerOutcome> {
  yield* say(`+OK ${withoutTimestamp(face.greeting ?? `${face.hostname} ready`)}\r\n`);
  for (let count = 0; count < mostCommands; count++) {
    const line = yield* readLine();
    const [, verb = '', argument] = /^([A-Za-z]{1,32})(?: (.*))?$/su.exec(line) ?? [];
    switch (verb.toUpperCase()) {
      case 'CAPA':
        yield* say(`+OK capabilities follow\r\n${dotLines(announced(face, tls === 'required'))}`);
        break;
      case 'QUIT':
        yield* say('+OK bye\r\n');
        return { next: 'end' };
      case 'STLS':
        if (argument === undefined) return { next: 'tls', goAhead: octets('+OK begin TLS negotiation now\r\n'), refusal: octets('-ERR [SYS/TEMP] TLS is not available now, try again later\r\n') };
        yield* say('-ERR STLS takes no arguments\r\n');
        break;
      case '':
        yield* say('-ERR not a command\r\n');
        break;
      default:
        if (tls === 'optional') return { next: 'plain', ahead: octets(`${line}\r\n`) };
        // RFC 3206 section 5: [AUTH] says that nothing but how one logs in is wrong.
        yield* say('-ERR [AUTH] STLS first\r\n');
    }
  }
  throw broken(`more than ${mostCommands} commands before STLS`);
}

function announced({ capabilities = ['RESP-CODES', 'AUTH-RESP-CODE'] }: Face, isRequired: boolean): string[] {
  return [...capabilities.filter((line) => !/^STLS(?: |$)/iu.test(line) && !(isRequired && authentication.test(line))), 'STLS'];
}

/** Text behind +OK. */
function* readOk(what: string): Dialogue<string> {
  const line = yield* readLine();
  const [, text = ''] = /^\+OK(?: (.*))?$/su.exec(line) ?? [];
  if (!/^\+OK(?: |$)/u.test(line)) throw refused(what, line);
  return text;
}

function* learn(): Dialogue<Omit<Face, 'hostname'>> {
  const greeting = yield* readOk('the backend does not greet with +OK');
  yield* say('CAPA\r\n');
  yield* readOk('the backend gives no capabilities');
  const capabilities = yield* readDotLines();
  yield* say('QUIT\r\n');
  return { greeting: withoutTimestamp(greeting), capabilities };
}

function* settle(): Dialogue<void> {
  yield* readOk('the backend does not greet with +OK');
}

/** Codes of RFC 3206; in place of a greeting too, since POP3 has no other word for that. */
const farewells: Readonly<Record<Farewell, string>> = {
  unavailable: '-ERR [SYS/TEMP] the service is not available now, try again later\r\n',
  timeout: '-ERR [SYS/TEMP] too slow\r\n',
  limit: '-ERR [SYS/TEMP] too many connections, try again later\r\n',
  syntax: '-ERR that is not POP3\r\n',
  early: '-ERR commands behind STLS\r\n',
};

function* client(): Dialogue<object> {
  yield* readOk('the server does not greet with +OK');
  yield* say('STLS\r\n');
  yield* readOk('the server does not begin TLS');
  return {};
}

export const pop3: Preamble = {
  name: 'pop3',
  title: 'POP3 (RFC 2595 section 4)',
  server: { serve, learn, settle, farewell: (why) => octets(farewells[why]), plainBackend: true },
  client,
};
