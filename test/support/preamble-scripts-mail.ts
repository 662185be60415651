/** Scripts of the text protocols: what a peer says in each. */
import type { LimitScript, PreambleScripts } from './preamble-scripts.js';

const line = (length: number, start: string, end = ''): string => `${start.padEnd(length - end.length, 'x')}${end}\r\n`;

const imap: PreambleScripts = {
  server: {
    good: 'a CAPABILITY\r\nb STARTTLS\r\n',
    says: '* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] mail.example.org ready\r\n* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\na OK CAPABILITY completed\r\nb OK begin TLS negotiation now\r\n',
    injection: 'c LOGIN mallory x\r\n',
    goodbye: 'a LOGOUT\r\n',
    withheld: [['a LOGIN joe secret\r\n', /^a NO \[PRIVACYREQUIRED\]/mu], ['a AUTHENTICATE PLAIN\r\n', /^a NO \[PRIVACYREQUIRED\]/mu], ['a SELECT INBOX\r\n', /^a NO /mu]],
    plain: { input: 'a NOOP\r\na LOGIN {3}\r\n', ahead: 'a LOGIN {3}\r\n' },
    broken: ['a LOGIN {3}\r\n', 'a ID ("name" {3}\r\n', 'a NOOP\r\n'.repeat(64)],
    limits: [
      { what: 'the length of a line', at: `${line(8192, 'a NOOP')}a STARTTLS\r\n`, over: `${line(8193, 'a NOOP')}a STARTTLS\r\n` },
      { what: 'the number of commands', at: `${'a NOOP\r\n'.repeat(63)}a STARTTLS\r\n`, over: `${'a NOOP\r\n'.repeat(64)}a STARTTLS\r\n` },
    ],
    hasFarewell: true,
    backend: {
      learn: '* OK [CAPABILITY IMAP4rev1 STARTTLS] Dovecot ready.\r\n* CAPABILITY IMAP4rev1 IDLE AUTH=PLAIN\r\na1 OK done\r\n',
      asks: 'a1 CAPABILITY\r\na2 LOGOUT\r\n',
      learnt: { greeting: 'Dovecot ready.', capabilities: ['IMAP4rev1', 'IDLE', 'AUTH=PLAIN'] },
      refusals: ['* BYE full\r\n', '* PREAUTH hi\r\n', '* OK\r\na1 NO\r\n', '* OK\r\na1 OK nothing listed\r\n'],
      settles: '* OK ready\r\n',
    },
  },
  client: {
    good: '* OK ready\r\n* CAPABILITY IMAP4rev1\r\na1 OK go\r\n',
    says: 'a1 STARTTLS\r\n',
    injection: '* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n',
    refusals: ['* PREAUTH hello\r\n', '* BYE\r\n', '* OK\r\na1 BAD what?\r\n', '* OK\r\na1 NO\r\n', '* OK\r\n* BYE\r\n'],
    broken: [`* OK\r\n${'* 1 EXISTS\r\n'.repeat(256)}`],
    limits: [
      { what: 'the length of a line', at: `${line(8192, '* OK ')}a1 OK\r\n`, over: `${line(8193, '* OK ')}a1 OK\r\n` },
      { what: 'the lines of an answer', at: `* OK\r\n${'* 1 EXISTS\r\n'.repeat(255)}a1 OK\r\n`, over: `* OK\r\n${'* 1 EXISTS\r\n'.repeat(256)}a1 OK\r\n` },
    ],
  },
};

/** For a protocol whose no-op and request for TLS these are: the length of a line and the number of commands. */
const commandLimits = (noop: string, ask: string, most = 8192): LimitScript[] => [
  { what: 'the length of a line', at: `${line(most, `${noop} `)}${ask}`, over: `${line(most + 1, `${noop} `)}${ask}` },
  { what: 'the number of commands', at: `${`${noop}\r\n`.repeat(63)}${ask}`, over: `${`${noop}\r\n`.repeat(64)}${ask}` },
];
/** For a server that answers by code, in as many lines as it likes. */
const codedLimits = (before: string, code: string, after: string): LimitScript[] => [
  { what: 'the length of a line', at: `${before}${line(8192, `${code} `)}${after}`, over: `${before}${line(8193, `${code} `)}${after}` },
  { what: 'the lines of an answer', at: `${before}${`${code}-x\r\n`.repeat(255)}${code} x\r\n${after}`, over: `${before}${`${code}-x\r\n`.repeat(256)}${code} x\r\n${after}` },
];

const mail = (hello: string, word: string): PreambleScripts => ({
  server: {
    face: { capabilities: ['PIPELINING', 'SIZE 1000', 'STARTTLS', 'AUTH PLAIN', 'AUTH=PLAIN', 'XCLIENT NAME ADDR', 'XFORWARD', 'REQUIRETLS', 'CHUNKING'] },
    good: `${hello} client.example.org\r\nSTARTTLS\r\n`,
    says: `220 mail.example.org ${word} ready\r\n250-mail.example.org\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-CHUNKING\r\n250 STARTTLS\r\n220 2.0.0 Ready to start TLS\r\n`,
    injection: 'MAIL FROM:<mallory@example.net>\r\nRCPT TO:<joe@example.org>\r\nDATA\r\n',
    goodbye: 'QUIT\r\n',
    withheld: [
      ['AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n', /^530 5\.7\.0 Must issue a STARTTLS command first\r$/mu], ['MAIL FROM:<joe@example.org>\r\n', /^530 5\.7\.0 /mu],
      ['HELO client.example.org\r\n', /^530 5\.7\.0 /mu], ['XCLIENT ADDR=127.0.0.1\r\n', /^530 5\.7\.0 /mu], ['VRFY joe\r\n', /^530 5\.7\.0 /mu], ['RSET\r\n', /^530 5\.7\.0 /mu],
      [`${hello}\r\n`, /^501 5\.5\.4 /mu], ['STARTTLS now\r\n', /^501 5\.5\.4 /mu], ['\r\n', /^500 5\.5\.2 /mu], ['{\r\n', /^500 5\.5\.2 /mu], ['NOOP x\r\n', /^250 2\.0\.0 /mu],
    ],
    plain: { input: `${hello} c.example.org\r\nNOOP\r\nAUTH PLAIN AGpvZQBzZWNyZXQ=\r\n`, ahead: 'AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n' },
    broken: ['NOOP\r\n'.repeat(64), 'NO\rOP\r\n', 'NOOP \0\r\n'],
    limits: commandLimits('NOOP', 'STARTTLS\r\n', 12_288),
    hasFarewell: true,
    backend: {
      learn: '220-mail.example.org ESMTP Postfix\r\n220 be nice\r\n250-mail.example.org at your service\r\n250-SIZE 1000\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n',
      asks: `${hello} mail.example.org\r\nQUIT\r\n`,
      learnt: { greeting: 'mail.example.org ESMTP Postfix', capabilities: ['SIZE 1000', 'AUTH PLAIN', '8BITMIME'] },
      refusals: ['421 4.3.2 full\r\n', '554 no\r\n', '220 x\r\n502 what?\r\n', '220 x\r\n421-bye\r\n421 bye\r\n'],
      settles: '220-mail.example.org ESMTP\r\n220\r\n',
    },
  },
  client: {
    good: '220-mail.example.org ESMTP\r\n220 ready\r\n250-mail.example.org\r\n250-SIZE 1000\r\n250 starttls\r\n220 go\r\n',
    says: `${hello} client.example.org\r\nSTARTTLS\r\n`,
    injection: '250-mail.example.org\r\n250 AUTH PLAIN\r\n',
    refusals: ['421 full\r\n', '554 no\r\n', '220 x\r\n500 what?\r\n', '220 x\r\n250 x\r\n', '220 x\r\n250-STARTTLS\r\n250 SIZE\r\n', '220 x\r\n250-x\r\n250 STARTTLS\r\n454 later\r\n', '220 x\r\n250-x\r\n250 XSTARTTLS\r\n220 go\r\n'],
    broken: ['220-x\r\n250 x\r\n', 'HTTP/1.1 400 Bad Request\r\n', '22 x\r\n', '220x\r\n', '\r\n'],
    limits: codedLimits('', '220', '250-x\r\n250 STARTTLS\r\n220 go\r\n'),
  },
});

const pop3: PreambleScripts = {
  server: {
    face: { greeting: 'Dovecot ready. <1896.697170952@mail.example.org>', capabilities: ['TOP', 'USER', 'SASL PLAIN', 'STLS', 'UIDL'] },
    good: 'CAPA\r\nSTLS\r\n',
    says: '+OK Dovecot ready.\r\n+OK capabilities follow\r\nTOP\r\nUIDL\r\nSTLS\r\n.\r\n+OK begin TLS negotiation now\r\n',
    injection: 'USER mallory\r\n',
    goodbye: 'QUIT\r\n',
    withheld: [
      ['USER joe\r\n', /^-ERR \[AUTH\] /mu], ['PASS secret\r\n', /^-ERR \[AUTH\] /mu], ['APOP joe c4c9334bac560ecc979e58001b3e22fb\r\n', /^-ERR \[AUTH\] /mu], ['AUTH PLAIN\r\n', /^-ERR \[AUTH\] /mu],
      ['STLS now\r\n', /^-ERR STLS /mu], ['\r\n', /^-ERR not /mu],
    ],
    plain: { input: 'CAPA\r\nUSER joe\r\n', ahead: 'USER joe\r\n' },
    broken: ['CAPA\r\n'.repeat(64), 'CA\rPA\r\n'],
    limits: commandLimits('CAPA', 'STLS\r\n'),
    hasFarewell: true,
    backend: {
      learn: '+OK Dovecot ready. <1896.697170952@mail.example.org>\r\n+OK list\r\nTOP\r\nUSER\r\n..dotted\r\n.\r\n',
      asks: 'CAPA\r\nQUIT\r\n',
      learnt: { greeting: 'Dovecot ready.', capabilities: ['TOP', 'USER', '.dotted'] },
      refusals: ['-ERR full\r\n', '+OK\r\n-ERR what?\r\n', '+OKAY\r\n'],
      settles: '+OK ready <1@x>\r\n',
    },
  },
  client: {
    good: '+OK ready\r\n+OK\r\n',
    says: 'STLS\r\n',
    injection: '+OK list\r\nSASL PLAIN\r\n.\r\n',
    refusals: ['-ERR full\r\n', '+OK\r\n-ERR no\r\n', '+OKAY\r\n', '* OK wrong door\r\n'],
    broken: ['+OK\0\r\n', '+O\rK\r\n'],
    limits: [{ what: 'the length of a line', at: `${line(8192, '+OK ')}+OK\r\n`, over: `${line(8193, '+OK ')}+OK\r\n` }],
  },
};

const sieve: PreambleScripts = {
  server: {
    face: { greeting: 'say "hello"', capabilities: ['"IMPLEMENTATION" "Dovecot"', '"SIEVE" "fileinto"', '"SASL" "PLAIN"', '"STARTTLS"', '"VERSION" "1.0"'] },
    good: 'CAPABILITY\r\nNOOP "x"\r\nSTARTTLS\r\n',
    says: '"IMPLEMENTATION" "Dovecot"\r\n"SIEVE" "fileinto"\r\n"VERSION" "1.0"\r\n"SASL" ""\r\n"STARTTLS"\r\nOK "say \\"hello\\""\r\n' +
      '"IMPLEMENTATION" "Dovecot"\r\n"SIEVE" "fileinto"\r\n"VERSION" "1.0"\r\n"SASL" ""\r\n"STARTTLS"\r\nOK\r\nOK (TAG "x") "done"\r\nOK "begin TLS negotiation now"\r\n',
    injection: 'DELETESCRIPT "all"\r\n',
    goodbye: 'LOGOUT\r\n',
    withheld: [
      ['AUTHENTICATE "PLAIN" "AGpvZQBzZWNyZXQ="\r\n', /^NO \(ENCRYPT-NEEDED\) /mu], ['LISTSCRIPTS\r\n', /^NO \(ENCRYPT-NEEDED\) /mu], ['STARTTLS now\r\n', /^NO "STARTTLS /mu],
      ['NOOP x"\r\n', /^NO "NOOP /mu], ['\r\n', /^NO "not a command"/mu],
    ],
    plain: { input: 'NOOP\r\nAUTHENTICATE "PLAIN" {3+}\r\n', ahead: 'AUTHENTICATE "PLAIN" {3+}\r\n' },
    broken: ['NOOP\r\n'.repeat(64), 'NOOP {3+}\r\n', 'PUTSCRIPT "x" {3+}\r\n', 'AUTHENTICATE "PLAIN" {3}\r\n'],
    limits: commandLimits('NOOP', 'STARTTLS\r\n'),
    hasFarewell: true,
    backend: {
      learn: '"IMPLEMENTATION" "x"\r\n"SIEVE" {10}\r\na\r\nb "}{9}\r\n"VERSION" "1.0"\r\nOK "ready \\"now\\""\r\n',
      asks: 'LOGOUT\r\n',
      learnt: { greeting: 'ready "now"', capabilities: ['"IMPLEMENTATION" "x"', '"SIEVE" {10}\r\na\r\nb "}{9}', '"VERSION" "1.0"'] },
      refusals: ['BYE\r\n', 'BYE (TRYLATER) "full"\r\n', '"SIEVE" ""\r\nNO "x"\r\n'],
    },
  },
  client: {
    good: '"IMPLEMENTATION" {3}\r\nOK!\r\n"STARTTLS"\r\nOK "ready"\r\nOK\r\n',
    says: 'STARTTLS\r\n',
    injection: '"SASL" "PLAIN"\r\nOK\r\n',
    refusals: ['BYE "full"\r\n', '"SASL" "PLAIN"\r\nOK\r\n', '"STARTTLS"\r\nOK\r\nNO "later"\r\n', '"STARTTLS"\r\nOK\r\nBYE\r\n', '"X" "STARTTLS"\r\nOK\r\nOK\r\n'],
    broken: ['* OK wrong door\r\n', '"STARTTLS"\r\nOK\r\n"SASL" "PLAIN"\r\nOK\r\n', '\r\n'],
    limits: [
      { what: 'the length of a line', at: `${line(8192, '"X" "', '"')}"STARTTLS"\r\nOK\r\nOK\r\n`, over: `${line(8193, '"X" "', '"')}"STARTTLS"\r\nOK\r\nOK\r\n` },
      { what: 'the length of a literal', at: `"X" {4096}\r\n${'x'.repeat(4096)}\r\n"STARTTLS"\r\nOK\r\nOK\r\n`, over: `"X" {4097}\r\n${'x'.repeat(4097)}\r\n"STARTTLS"\r\nOK\r\nOK\r\n` },
      { what: 'the number of literals', at: `"X" ${'{1}\r\nx '.repeat(4)}\r\n"STARTTLS"\r\nOK\r\nOK\r\n`, over: `"X" ${'{1}\r\nx '.repeat(5)}\r\n"STARTTLS"\r\nOK\r\nOK\r\n` },
      { what: 'the lines of an answer', at: `${'"X"\r\n'.repeat(254)}"STARTTLS"\r\nOK\r\nOK\r\n`, over: `${'"X"\r\n'.repeat(256)}"STARTTLS"\r\nOK\r\nOK\r\n` },
    ],
  },
};

const nntp: PreambleScripts = {
  server: {
    face: { capabilities: ['VERSION 2', 'READER', 'AUTHINFO USER SASL', 'SASL PLAIN', 'STARTTLS', 'OVER MSGID'] },
    good: 'CAPABILITIES\r\nSTARTTLS\r\n',
    says: '201 mail.example.org ready\r\n101 capabilities follow\r\nVERSION 2\r\nREADER\r\nOVER MSGID\r\nSTARTTLS\r\n.\r\n382 begin TLS negotiation now\r\n',
    injection: 'POST\r\n',
    goodbye: 'QUIT\r\n',
    withheld: [
      ['AUTHINFO USER joe\r\n', /^483 /mu], ['AUTHINFO SASL PLAIN AGpvZQBzZWNyZXQ=\r\n', /^483 /mu], ['GROUP misc.test\r\n', /^483 /mu], ['MODE READER\r\n', /^483 /mu],
      ['STARTTLS now\r\n', /^501 /mu], ['\r\n', /^500 /mu], ['1\r\n', /^500 /mu],
    ],
    plain: { input: 'CAPABILITIES\r\nGROUP misc.test\r\n', ahead: 'GROUP misc.test\r\n' },
    broken: ['CAPABILITIES\r\n'.repeat(64)],
    limits: commandLimits('CAPABILITIES', 'STARTTLS\r\n'),
    hasFarewell: true,
    backend: {
      learn: '200 news ready\r\n101 list\r\nVERSION 2\r\nREADER\r\nPOST\r\n..x\r\n.\r\n',
      asks: 'CAPABILITIES\r\nQUIT\r\n',
      learnt: { greeting: 'news ready', capabilities: ['VERSION 2', 'READER', 'POST', '.x'] },
      refusals: ['400 full\r\n', '502 no\r\n', '200 x\r\n500 what?\r\n'],
      settles: '201 ready\r\n',
    },
  },
  client: {
    good: '200 ready\r\n382 go\r\n',
    says: 'STARTTLS\r\n',
    injection: '101 list\r\n',
    refusals: ['400 full\r\n', '502 no\r\n', '200 x\r\n580 no\r\n', '201 x\r\n502 no\r\n', '200 x\r\n200 x\r\n'],
    broken: ['+OK wrong door\r\n', '200-x\r\n', '\r\n'],
    limits: [{ what: 'the length of a line', at: `${line(8192, '200 ')}382\r\n`, over: `${line(8193, '200 ')}382\r\n` }],
  },
};

const ftp: PreambleScripts = {
  server: {
    face: { greeting: '(vsFTPd 3.0.3)', capabilities: ['EPRT', 'PBSZ', 'PROT', 'AUTH SSL', 'CCC', 'UTF8'] },
    good: 'FEAT\r\nAUTH SSL\r\nauth tls\r\n',
    says: '220 (vsFTPd 3.0.3)\r\n211-Features:\r\n EPRT\r\n UTF8\r\n AUTH TLS\r\n211 End\r\n504 the mechanism is TLS\r\n234 begin TLS negotiation now\r\n',
    injection: 'USER mallory\r\n',
    goodbye: 'QUIT\r\n',
    withheld: [
      ['USER joe\r\n', /^530 /mu], ['PASS secret\r\n', /^530 /mu], ['SYST\r\n', /^530 /mu], ['AUTH GSSAPI\r\n', /^504 /mu], ['AUTH\r\n', /^501 /mu],
      ['PBSZ 0\r\n', /^503 /mu], ['PROT P\r\n', /^503 /mu], ['CCC\r\n', /^503 /mu], ['\r\n', /^500 /mu], ['\xff\xf4\xf2ABOR\r\n', /^500 /mu],
    ],
    plain: { input: 'FEAT\r\nUSER joe\r\n', ahead: 'USER joe\r\n' },
    broken: ['NOOP\r\n'.repeat(64)],
    limits: commandLimits('NOOP', 'AUTH TLS\r\n'),
    hasFarewell: true,
    backend: {
      learn: '120 wait\r\n220-Welcome\r\n220 x\r\n211-Features:\r\n EPRT\r\n 211 is no end\r\n211-nor this\r\n\r\n211 End\r\n',
      asks: 'FEAT\r\nQUIT\r\n',
      learnt: { greeting: 'Welcome', capabilities: ['EPRT', '211 is no end', '211-nor this'] },
      refusals: ['421 full\r\n', '120 wait\r\n120 wait\r\n', '220 x\r\n421 bye\r\n'],
      settles: '120 wait\r\n220-Welcome\r\n\r\nanything\r\n220 x\r\n',
    },
  },
  client: {
    good: '220-Welcome\r\n221 is no end\r\n220 x\r\n234 go\r\n',
    says: 'AUTH TLS\r\n',
    injection: '230 logged in\r\n',
    refusals: ['421 full\r\n', '220 x\r\n500 what?\r\n', '220 x\r\n334 more\r\n', '220 x\r\n431 later\r\n', '220 x\r\n504 no\r\n', '220 x\r\n534 no\r\n'],
    broken: ['* OK wrong door\r\n', '22\r\n', '999 x\r\n'],
    limits: codedLimits('', '220', '234 go\r\n'),
  },
};

/** Rows of the table, by name. */
export const mailScripts: Readonly<Record<string, PreambleScripts>> = {
  imap, smtp: mail('EHLO', 'ESMTP'), submission: mail('EHLO', 'ESMTP'), lmtp: mail('LHLO', 'LMTP'), pop3, sieve, nntp, ftp,
};
