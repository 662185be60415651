/** What is peculiar to each text protocol before TLS. The good dialogues, withheld commands and all bad input are in contract/preambles.test.ts. */
import assert from 'node:assert/strict';
import { preambles } from 'libtlspool/preamble';
import type { Dialogue, Face, Farewell, PreambleName, ServerOutcome, ServerRole, TlsMode } from 'libtlspool/preamble';
import { face, play, playFails, plays, serveOptions } from '../support/dialogue.js';

const role = (name: PreambleName): ServerRole => {
  const { server } = preambles[name];
  assert(server !== undefined);
  return server;
};
/** All that the server says to this, and its outcome. */
const said = (name: PreambleName, input: string, tls: TlsMode = 'required', more: Partial<Face> = {}): { result: ServerOutcome; output: string } =>
  plays(role(name).serve(serveOptions(tls, more)), input);
const text = (octets: Uint8Array): string => Buffer.from(octets).toString('latin1');
const mails = ['smtp', 'submission'] as const;

/** What brings a backend to where a client in plain text is. */
function introduction(name: PreambleName, input: string): (() => Dialogue<void>) | undefined {
  const { result } = said(name, input, 'optional');
  assert(result.next === 'plain');
  return result.introduce;
}

describe('preamble smtp, submission, lmtp', () => {
  it('without a backend to learn from, the greeting has our name, and the keywords are those that are true before TLS', () => {
    for (const name of mails) assert.equal(said(name, 'EHLO c\r\nQUIT\r\n').output, '220 mail.example.org ESMTP ready\r\n250-mail.example.org\r\n250-ENHANCEDSTATUSCODES\r\n250 STARTTLS\r\n221 2.0.0 mail.example.org closing the connection\r\n');
    assert.match(said('lmtp', 'QUIT\r\n').output, /^220 mail\.example\.org LMTP ready\r\n221 /u);
  });

  it('authentication is announced and passed on whole where TLS is optional, and nowhere else', () => {
    const capabilities = ['AUTH PLAIN LOGIN', 'AUTH=PLAIN LOGIN', 'AUTHX'];
    const ehlo = (tls: TlsMode): string => said('smtp', 'EHLO c\r\nQUIT\r\n', tls, { capabilities }).output;
    assert.match(ehlo('optional'), /250-AUTH PLAIN LOGIN\r\n250-AUTH=PLAIN LOGIN\r\n250-AUTHX\r\n250 STARTTLS\r\n/u);
    assert.match(ehlo('required'), /250-mail\.example\.org\r\n250-AUTHX\r\n250 STARTTLS\r\n/u);
    // What answers the challenge is not read: it is the backend's.
    const { result, left } = play(role('smtp').serve(serveOptions('optional')), 'EHLO c\r\nAUTH LOGIN\r\nam9l\r\n');
    assert(result?.next === 'plain');
    assert.deepEqual([text(result.ahead), text(left)], ['AUTH LOGIN\r\n', 'am9l\r\n']);
  });

  it('HELO gets one line where TLS is optional, and 530 where it is required', () => {
    assert.match(said('smtp', 'HELO c\r\nQUIT\r\n', 'optional').output, /\r\n250 mail\.example\.org\r\n221 /u);
    assert.match(said('smtp', 'HELO c\r\nQUIT\r\n').output, /\r\n530 5\.7\.0 .*\r\n221 /u);
    assert.match(said('lmtp', 'EHLO c\r\nQUIT\r\n').output, /\r\n530 5\.7\.0 .*\r\n221 /u);
  });

  it('introduce says the client\'s last hello to the backend as it was, and takes the answer and no more', () => {
    for (const hello of ['EHLO client.example.org', 'HELO client', 'ehlo  [127.0.0.1]']) {
      const introduce = introduction('smtp', `EHLO first\r\n${hello}\r\nMAIL FROM:<>\r\n`);
      assert(introduce !== undefined);
      assert.equal(plays(introduce(), '250-mail.example.org\r\n250-AUTH PLAIN\r\n250 SIZE\r\n').output, `${hello}\r\n`);
      playFails('PREAMBLE_REFUSED', introduce(), '550 not you\r\n');
      playFails('PEER_CLOSED', introduce(), '250-x\r\n');
    }
    const lhlo = introduction('lmtp', 'LHLO c\r\nMAIL FROM:<>\r\n');
    assert.equal(plays((lhlo ?? assert.fail())(), '250 x\r\n').output, 'LHLO c\r\n');
  });

  it('a client that said no hello is not introduced', () => {
    assert.equal(introduction('smtp', 'MAIL FROM:<>\r\n'), undefined);
    assert.equal(introduction('smtp', 'EHLO\r\nMAIL FROM:<>\r\n'), undefined);
  });

  it('AUTH with the longest initial response of RFC 4954 is passed on; one octet more is PREAMBLE', () => {
    const auth = (octets: number): string => `${'AUTH PLAIN '.padEnd(octets, 'A')}\r\n`;
    const { result } = said('submission', auth(12_288), 'optional');
    assert(result.next === 'plain' && result.ahead.length === 12_290);
    playFails('PREAMBLE', role('submission').serve(serveOptions('optional')), auth(12_289));
  });

  it('a character that is no octet is BAD_ARGUMENT: cut to one, U+010A would be a line end', () => {
    playFails('BAD_ARGUMENT', role('smtp').serve(serveOptions('required', { greeting: 'hi\u010a250 you are in' })), 'QUIT\r\n');
    assert.match(said('smtp', 'QUIT\r\n', 'required', { greeting: 'gr\xfc\xdf' }).output, /^220 gr\xfc\xdf\r\n/u);
  });

  it('the refusal in place of the go-ahead is 454', () => {
    const { result } = said('smtp', 'STARTTLS\r\n');
    assert(result.next === 'tls');
    assert.match(text(result.refusal), /^454 4\.7\.0 /u);
  });
});

describe('preamble pop3', () => {
  it('the time stamp of APOP is never shown: it would be another one behind TLS', () => {
    const { output } = said('pop3', 'QUIT\r\n', 'optional', { greeting: '<1.2@mail.example.org> ready <3@x> now' });
    assert.equal(output, '+OK ready now\r\n+OK bye\r\n');
  });

  it('USER and SASL are announced where TLS is optional, and nowhere else; STLS once', () => {
    const capa = (tls: TlsMode): string[] => said('pop3', 'CAPA\r\nQUIT\r\n', tls, { capabilities: ['USER', 'SASL PLAIN', 'STLS', 'USERS'] }).output.split('\r\n').slice(2, -3);
    assert.deepEqual(capa('required'), ['USERS', 'STLS']);
    assert.deepEqual(capa('optional'), ['USER', 'SASL PLAIN', 'USERS', 'STLS']);
    assert.match(said('pop3', 'CAPA\r\nQUIT\r\n').output, /\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nSTLS\r\n\.\r\n/u);
  });
});

describe('preamble sieve', () => {
  it('what RFC 5804 section 1.7 wants is announced without a backend to learn from', () => {
    const { output } = said('sieve', 'LOGOUT\r\n');
    assert.equal(output, '"IMPLEMENTATION" "tlspool"\r\n"SIEVE" ""\r\n"VERSION" "1.0"\r\n"SASL" ""\r\n"STARTTLS"\r\nOK "mail.example.org ready"\r\nOK "bye"\r\n');
  });

  it('mechanisms are announced where TLS is optional, and none where it is required', () => {
    const capabilities = ['"IMPLEMENTATION" "x"', '"sasl" "PLAIN"', '"SIEVE" "x"', '"VERSION" "1.0"', '"StartTLS"'];
    assert.match(said('sieve', 'LOGOUT\r\n', 'optional', { capabilities }).output, /^"IMPLEMENTATION" "x"\r\n"sasl" "PLAIN"\r\n"SIEVE" "x"\r\n"VERSION" "1\.0"\r\n"STARTTLS"\r\nOK /u);
    assert.match(said('sieve', 'LOGOUT\r\n', 'required', { capabilities }).output, /^"IMPLEMENTATION" "x"\r\n"SIEVE" "x"\r\n"VERSION" "1\.0"\r\n"SASL" ""\r\n"STARTTLS"\r\nOK /u);
  });

  it('behind TLS nothing of the backend is taken: its greeting is the capabilities that the client must see; in plain text it is', () => {
    assert.equal(role('sieve').settle, undefined);
    const introduce = introduction('sieve', 'AUTHENTICATE "PLAIN"\r\n');
    assert(introduce !== undefined);
    assert.equal(plays(introduce(), '"SIEVE" {3}\r\nOK \r\n"SASL" "PLAIN"\r\nOK "ready"\r\n').output, '');
    playFails('PREAMBLE_REFUSED', introduce(), 'BYE (TRYLATER) "full"\r\n');
  });

  it('a tag of NOOP comes back, and nothing can be put behind it', () => {
    const noop = (argument: string): string => said('sieve', `NOOP ${argument}\r\nLOGOUT\r\n`).output.split('\r\n').at(-3) ?? '';
    assert.equal(noop('"a\\"b"'), 'OK (TAG "a\\"b") "done"');
    for (const argument of ['"a" "b"', '"a', 'a', '"a"b"', '"\\x"']) assert.equal(noop(argument), 'NO "NOOP takes a string"', argument);
  });
});

describe('preamble nntp', () => {
  it('the greeting says whether articles may be posted, as the backend\'s capabilities do; 200 where nobody knows', () => {
    assert.match(said('nntp', 'QUIT\r\n').output, /^200 /u);
    assert.match(said('nntp', 'QUIT\r\n', 'required', { capabilities: ['READER', 'POST'] }).output, /^200 /u);
    assert.match(said('nntp', 'QUIT\r\n', 'required', { capabilities: ['READER'] }).output, /^201 /u);
  });

  it('AUTHINFO and SASL are announced where TLS is optional, and nowhere else; VERSION is first', () => {
    const listed = (tls: TlsMode): string => said('nntp', 'CAPABILITIES\r\nQUIT\r\n', tls, { capabilities: ['READER', 'AUTHINFO USER', 'SASL PLAIN', 'VERSION 2 3'] }).output;
    assert.match(listed('required'), /follow\r\nVERSION 2\r\nREADER\r\nSTARTTLS\r\n\.\r\n/u);
    assert.match(listed('optional'), /follow\r\nVERSION 2\r\nREADER\r\nAUTHINFO USER\r\nSASL PLAIN\r\nSTARTTLS\r\n\.\r\n/u);
  });
});

describe('preamble ftp', () => {
  it('AUTH TLS and its synonym TLS-C begin TLS; SSL and GSSAPI are 504, so that the client tries TLS next', () => {
    for (const mechanism of ['TLS', 'tls', 'TLS-C', 'TLS ']) assert.equal(said('ftp', `AUTH ${mechanism}\r\n`).result.next, 'tls', mechanism);
    for (const mechanism of ['SSL', 'TLS-P', 'GSSAPI', 'TLSX']) assert.match(said('ftp', `AUTH ${mechanism}\r\nQUIT\r\n`).output, /\r\n504 /u, mechanism);
  });

  it('a backend that has no features, or wants a login first, is learnt as one without features', () => {
    for (const answer of ['500 what?', '502 no', '530 Please login']) assert.deepEqual(plays((role('ftp').learn ?? assert.fail())('x'), `220 hi\r\n${answer}\r\n`).result, { greeting: 'hi', capabilities: [] });
  });

  it('an answer of several lines ends at its own code and a space, whatever is between', () => {
    assert.equal(plays((role('ftp').settle ?? assert.fail())(), '220-a\r\n220-b\r\n 220 c\r\n2200\r\n\r\n220\r\n').output, '');
  });
});

describe('farewells of text protocols', () => {
  const words: readonly (readonly [PreambleName, Readonly<Record<Farewell, RegExp>>])[] = [
    ...(['smtp', 'submission', 'lmtp'] as const).map((name) => [name, {
      unavailable: /^421 4\.3\.2 mail\.example\.org Service not available/u, timeout: /^421 4\.4\.2 /u, limit: /^421 4\.7\.0 /u, syntax: /^554 5\.5\.0 /u, early: /^554 5\.7\.0 /u,
    }] as const),
    ['imap', { unavailable: /^\* BYE \[UNAVAILABLE\] /u, timeout: /^\* BYE /u, limit: /^\* BYE \[LIMIT\] /u, syntax: /^\* BYE /u, early: /^\* BYE /u }],
    ['pop3', { unavailable: /^-ERR \[SYS\/TEMP\] /u, timeout: /^-ERR \[SYS\/TEMP\] /u, limit: /^-ERR \[SYS\/TEMP\] /u, syntax: /^-ERR /u, early: /^-ERR /u }],
    ['sieve', { unavailable: /^BYE \(TRYLATER\) "/u, timeout: /^BYE "/u, limit: /^BYE \(TRYLATER\) "/u, syntax: /^BYE "/u, early: /^BYE "/u }],
    ['nntp', { unavailable: /^400 /u, timeout: /^400 /u, limit: /^400 /u, syntax: /^400 /u, early: /^400 /u }],
    ['ftp', { unavailable: /^421 /u, timeout: /^421 /u, limit: /^421 /u, syntax: /^421 /u, early: /^421 /u }],
  ];
  for (const [name, expected] of words) {
    it(`${name}: one line each, with the code that says whether to come again`, () => {
      for (const [why, pattern] of Object.entries(expected)) {
        const farewell = text(role(name).farewell(why as Farewell, face));
        assert.match(farewell, pattern);
        assert.match(farewell, /^[^\r\n]+\r\n$/u);
      }
    });
  }
});
