/** Rows of the table of preamble-scripts.ts: protocols of packets, of XML, and ways through a proxy. */
import type { Octets } from './dialogue.js';
import type { PreambleScripts } from './preamble-scripts.js';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/gu, ''), 'hex');
const join = (...parts: readonly Octets[]): Buffer => Buffer.concat(parts.map((part) => typeof part === 'string' ? Buffer.from(part, 'latin1') : part));
const times = (count: number, octets: Octets): Buffer => join(...Array.from({ length: count }, () => octets));

/** A ClientHello's record header and the beginning of the message. */
export const clientHello = hex('16 03 01 00 05 01 00 00 01 03');

// LDAP: octets computed by hand from RFC 4511 section 4.14 and X.690.
const startTlsOid = Buffer.from('1.3.6.1.4.1.1466.20037').toString('hex');
const startTls = hex(`30 1d 02 01 01 77 18 80 16 ${startTlsOid}`);
/** A simple bind with a name of so many octets, in the long form of lengths; 22 octets of contents beside the name. */
const bind = (nameOctets: number): Buffer => {
  const length = (count: number): string => `84 ${count.toString(16).padStart(8, '0')}`;
  return hex(`30 ${length(nameOctets + 22)} 02 01 02 60 ${length(nameOctets + 13)} 02 01 03 04 ${length(nameOctets)} ${'78'.repeat(nameOctets)} 80 02 7077`);
};
const ldapAnswer = (code: string): Buffer => hex(`30 0c 02 01 01 78 07 0a 01 ${code} 04 00 04 00`);

const ldap: PreambleScripts = {
  server: {
    good: startTls,
    says: hex(`30 24 02 01 01 78 1f 0a 01 00 04 00 04 00 8a 16 ${startTlsOid}`).toString('latin1'),
    injection: bind(10),
    goodbye: hex('30 05 02 01 01 42 00'),
    withheld: [[bind(10), /^0.\x02\x01\x02a.\x0a\x01\x0d/su]],
    plain: { input: bind(10), ahead: bind(10) },
    broken: [
      'HELO\r\n', hex('30 80'), hex('30 85 00 00 00 00 05'), hex('30 03 02 01 01'), hex('30 05 02 01 00 42 00'), hex('30 05 02 01 01 43 00'), hex('30 05 02 01 01 42 01'), hex('30 05 04 01 01 42 00'),
      hex('30 07 02 01 01 42 00 42 00'), hex('30 07 02 01 01 77 02 81 00'), hex('30 05 02 01 ff 42 00'),
    ],
    limits: [
      { what: 'the octets of a message', at: join(bind(16_384 - 22), startTls), over: join(bind(16_385 - 22), startTls) },
      { what: 'the number of operations', at: join(times(63, bind(1)), startTls), over: join(times(64, bind(1)), startTls) },
    ],
    hasFarewell: true,
  },
  client: {
    good: ldapAnswer('00'),
    says: startTls.toString('latin1'),
    injection: bind(10),
    // The last two are notices of disconnection, one of them with `success`.
    refusals: [ldapAnswer('02'), ldapAnswer('34'), hex('30 0c 02 01 00 78 07 0a 01 00 04 00 04 00'), hex(`30 24 02 01 00 78 1f 0a 01 34 04 00 04 00 8a 16 ${Buffer.from('1.3.6.1.4.1.1466.20036').toString('hex')}`)],
    broken: ['* OK ready\r\n', hex('30 0c 02 01 02 78 07 0a 01 00 04 00 04 00'), hex('30 0c 02 01 01 61 07 0a 01 00 04 00 04 00'), hex('30 05 02 01 01 78 00'), hex('30 0a 02 01 01 78 05 0a 02 00 04 00')],
    limits: [{
      what: 'the octets of a message', at: hex(`30 82 4000 02 01 01 78 82 3ff9 0a 01 00 04 00 04 82 3ff0 ${'78'.repeat(0x3ff0)}`),
      over: hex(`30 82 4001 02 01 01 78 82 3ffa 0a 01 00 04 00 04 82 3ff1 ${'78'.repeat(0x3ff1)}`),
    }],
  },
};

const sslRequest = hex('00000008 04d2162f');
const gssRequest = hex('00000008 04d21630');
/** Version 3.0, user joe. */
const startup = join(hex('00000012 00030000'), 'user\0joe\0\0');

const postgres: PreambleScripts = {
  server: {
    good: join(gssRequest, sslRequest),
    says: 'NS',
    injection: startup,
    // A client that does not ask for TLS is told so, and that is the end: no command goes before the request.
    withheld: [],
    // The rest is left in the kernel.
    plain: { input: startup.subarray(0, 8), ahead: startup.subarray(0, 8) },
    mayBeDirect: true,
    broken: ['HELO mail\r\n', hex('00000007 04d2162f'), hex('00000009 04d2162f 00'), hex('00000008 04d21631'), hex('00000008 00020000'), hex('00002711 00030000')],
    limits: [{ what: 'the number of requests', at: join(gssRequest, gssRequest, sslRequest), over: join(gssRequest, gssRequest, gssRequest, sslRequest) }],
    hasFarewell: true,
  },
  client: { good: 'S', says: sslRequest.toString('latin1'), injection: 'E', refusals: ['N', 'E'], broken: ['s', '\0', 'HTTP/1.1 400'], limits: [] },
};

/** Capabilities with CLIENT_PROTOCOL_41 and CLIENT_SSL, 16 MiB, utf8mb4, filler. */
const mysqlRequest = hex(`200000 01 05ae0f00 00000001 2d ${'00'.repeat(23)}`);
/** The same without CLIENT_SSL, with a user name. */
const mysqlLogin = join(hex(`260000 01 05a60f00 00000001 2d ${'00'.repeat(23)}`), 'joe\0', hex('00 00'));
/** HandshakeV10 of a MariaDB server, with so many octets of version. */
const mysqlGreeting = (versionOctets = 16): Buffer => join(
  hex((68 + versionOctets).toString(16).padStart(4, '0')).reverse(), hex('00 00 0a'), '5.5.5-10.11.14-M'.padEnd(versionOctets, 'x').slice(0, versionOctets), hex('00 2a000000'),
  'abcdefgh', hex('00 feff 2d 0200 ff81 15 000000000000 1d000000'), 'ijklmnopqrst\0', 'mysql_native_password\0',
);

const mysql: PreambleScripts = {
  server: {
    good: mysqlRequest,
    withoutGoAhead: true,
    says: /^[^]\0\0\0\x0a5\.7\.0-tlspool\0[^]{4}[^\0$]{8}\0\x0d\xaa\x2d\x02\0\x08\0\x15\0{10}[^\0$]{12}\0mysql_native_password\0$/u,
    injection: mysqlLogin,
    withheld: [],
    plain: { input: mysqlLogin, ahead: mysqlLogin },
    broken: [
      'HELO mail\r\n', hex('000000 01'), hex(`200000 00 05ae0f00 00000001 2d ${'00'.repeat(23)}`), hex(`210000 01 05ae0f00 00000001 2d ${'00'.repeat(24)}`), hex(`1f0000 01 05ae0f00 00000001 2d ${'00'.repeat(22)}`),
      hex('050000 01 0008 ffffff'), hex('020000 01 0008'), hex('a10f00 01'),
    ],
    limits: [],
    hasFarewell: true,
  },
  client: {
    good: mysqlGreeting(),
    says: hex(`200000 01 0caa0800 00000001 2d ${'00'.repeat(23)}`).toString('latin1'),
    injection: hex('01000002 00'),
    refusals: [join(hex('170000 00 ff 1004'), 'Too many connections'), join(hex('1b0000 00 0a'), '5.5\0', hex('2a000000'), 'abcdefgh', hex('00 fff7 2d 0200 0000 00 00')), join(hex('140000 00 0a'), '5.5\0', hex('2a000000'), 'abcdefgh', hex('00 0008'))],
    broken: ['220 mail\r\n', hex('000000 00'), hex('010000 00 0a'), join(hex('120000 00 0a'), '5.5\0', hex('2a000000'), 'abcdefgh\0'), hex('020000 01 0a00'), join(hex('050000 00 09'), '5.5\0')],
    limits: [{ what: 'the octets of a greeting', at: mysqlGreeting(4000 - 68), over: mysqlGreeting(4001 - 68) }],
  },
};

const none: PreambleScripts = {
  server: { good: clientHello, says: '', direct: true, withheld: [], broken: ['GET / HTTP/1.1\r\n\r\n', hex('80 2e 01 03 01')], limits: [], hasFarewell: false },
  client: { good: '', says: '', injection: 'HTTP/1.1 400 Bad Request\r\n\r\n', refusals: [], broken: [], limits: [] },
};

const fields = (count: number): string => 'A: b\r\n'.repeat(count);

const httpConnect: PreambleScripts = {
  client: {
    options: { port: 443 },
    good: 'HTTP/1.1 200 Connection established\r\nContent-Length: 5\r\n\r\n',
    says: 'CONNECT mail.example.org:443 HTTP/1.1\r\nHost: mail.example.org:443\r\n\r\n',
    injection: 'hello',
    refusals: ['HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n', 'HTTP/1.0 503\r\n\r\n', 'HTTP/1.1 301 Moved\r\n\r\n'],
    broken: ['SSH-2.0-x\r\n', 'HTTP/2 200\r\n\r\n', 'HTTP/1.1 2000 x\r\n\r\n', 'HTTP/1.1 20\r\n\r\n', 'HTTP/1.1 100 Continue\r\n\r\n'.repeat(9)],
    limits: [
      { what: 'the number of fields', at: `HTTP/1.1 200 x\r\n${fields(128)}\r\n`, over: `HTTP/1.1 200 x\r\n${fields(129)}\r\n` },
      { what: 'the length of a field', at: `HTTP/1.1 200 x\r\n${'A: '.padEnd(8192, 'x')}\r\n\r\n`, over: `HTTP/1.1 200 x\r\n${'A: '.padEnd(8193, 'x')}\r\n\r\n` },
      { what: 'the number of interim answers', at: `${'HTTP/1.1 100 x\r\n\r\n'.repeat(8)}HTTP/1.1 200 x\r\n\r\n`, over: `${'HTTP/1.1 100 x\r\n\r\n'.repeat(9)}HTTP/1.1 200 x\r\n\r\n` },
    ],
  },
};

const socks5: PreambleScripts = {
  client: {
    options: { port: 8080 },
    good: hex('05 00 05 00 00 01 7f000001 1f90'),
    says: '\x05\x01\0\x05\x01\0\x03\x10mail.example.org\x1f\x90',
    injection: 'hello',
    refusals: [hex('05 ff'), hex('05 00 05 02'), hex('05 00 05 05 00 01 00000000 0000'), hex('05 00 05 63')],
    broken: ['HTTP/1.1 400\r\n', hex('04 00'), hex('05 02'), hex('05 01'), hex('05 00 04 00'), hex('05 00 05 00 00 02 7f000001 1f90')],
    limits: [],
  },
};

/** By name. */
export const binaryScripts: Readonly<Record<string, PreambleScripts>> = { ldap, postgres, mysql, none, 'http-connect': httpConnect, socks5 };
