/** Rows of the table of preamble-scripts.ts: XMPP and IRC. */
import type { PreambleScripts } from './preamble-scripts.js';

const streams = 'http://etherx.jabber.org/streams';
const tls = 'urn:ietf:params:xml:ns:xmpp-tls';
const starttls = `<starttls xmlns='${tls}'/>`;
const auth = '<auth xmlns=\'urn:ietf:params:xml:ns:xmpp-sasl\' mechanism=\'PLAIN\'>AGpvZQBzZWNyZXQ=</auth>';
const mechanisms = '<mechanisms xmlns=\'urn:ietf:params:xml:ns:xmpp-sasl\'><mechanism>PLAIN</mechanism></mechanisms>';

function xmpp(content: string): PreambleScripts {
  const declaration = '<?xml version=\'1.0\' encoding="UTF-8"?>';
  const header = `<stream:stream xmlns='${content}' xmlns:stream='${streams}' to='im.example.org' version='1.0'>`;
  const features = (inside: string): string => `${declaration}${header}<stream:features>${inside}</stream:features>`;
  const padded = (length: number): string => header.replace(' to=', `${' '.repeat(length - header.length)} to=`);
  const wide = (length: number): string => `<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>${'<a/>'.repeat(10)}${'<b>'.padEnd(4096, 'x')}</b>${'<b>'.padEnd(4096, 'x')}</b>${'<b>'.padEnd(length - 8192 - 100, 'x')}</b></auth>`;
  return {
    server: {
      good: `${declaration}\n${header}\n ${starttls}`,
      says: new RegExp(`^<\\?xml version='1\\.0'\\?><stream:stream xmlns='${content}' xmlns:stream='${streams}' id='[A-Za-z0-9_-]{16}' from='im\\.example\\.org' xml:lang='en' version='1\\.0'>`
        + `<stream:features><starttls xmlns='${tls}'><required/></starttls></stream:features><proceed xmlns='${tls}'/>$`, 'u'),
      injection: '<presence/>',
      goodbye: `${header}</stream:stream>`,
      // Nothing can be said before the header with which `good` begins; preamble-xmpp.test.ts has these.
      withheld: [],
      plain: { input: `${header}\n<auth mechanism='PLAIN'>`, ahead: '<auth mechanism=\'PLAIN\'>' },
      broken: [
        'HELO mail\r\n', header.replace(content, 'jabber:other'), header.replace(' version=\'1.0\'', ''), header.replace('1.0', '0.9'), header.replaceAll('stream:stream', 'x:stream'), header.replace('>', '/>'),
        `<!DOCTYPE x [<!ENTITY a "b">]>${header}`, `<?xml version='1.0' encoding='UTF-16'?>${header}`, `<?php x?>${header}`, ` ${declaration}${header}`, `${header}${declaration}`, `${header}<!-- x -->`, `${header}<![CDATA[x]]>`,
        header.replace('im.example', '&lt;'), header.replace('im.example', '\xff'), header.replace('im.example', '\x01'), header.replace('to=', 'to=\'a\' to='), `${header}text${starttls}`, `${header}</other>`,
        `${header}<starttls xmlns='${tls}'><a/></starttls>`, `${header}<starttls xmlns='${tls}'></other>`, `${header}${starttls} `, `${header}${starttls}<presence/>`, `${header}<a <b>`,
        `${header}<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>${'<a>'.repeat(10)}`,
      ],
      limits: [
        { what: 'the octets of a tag', at: padded(8192) + starttls, over: padded(8193) + starttls },
        { what: 'the octets of an element', at: header + wide(16_384) + starttls, over: header + wide(16_800) + starttls },
        { what: 'the number of elements', at: header + auth.repeat(63) + starttls, over: header + auth.repeat(64) + starttls },
      ],
      hasFarewell: true,
      backend: {
        learn: features(`<register xmlns='http://jabber.org/features/iq-register'/>${mechanisms}`),
        asks: `${header.replace('im.example', 'mail.example')}</stream:stream>`,
        learnt: { capabilities: ['<register xmlns=\'http://jabber.org/features/iq-register\'/>', mechanisms] },
        refusals: [`${header}<stream:error><resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>`, `${header}<presence/>`],
      },
    },
    client: {
      good: `${features(`<starttls xmlns="${tls}"><required/></starttls>${mechanisms}`)}<proceed xmlns='${tls}'/>`,
      says: new RegExp(`^<\\?xml version='1\\.0'\\?><stream:stream xmlns='${content}' xmlns:stream='${streams}' ${content === 'jabber:server' ? 'from=\'[a-z.]+\' ' : ''}to='[a-z.]+' version='1\\.0'>${starttls}$`, 'u'),
      injection: '<stream:features/>',
      refusals: [
        features(''), features('<starttls xmlns=\'other\'/>'), `${features(starttls)}<failure xmlns='${tls}'/></stream:stream>`, `${header}</stream:stream>`,
        `${header}<stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>`, `${features(starttls)}</stream:stream>`,
      ],
      broken: ['220 mail\r\n', `${header}<presence/>`, `${features(starttls)}<other/>`, `${features(starttls)}<proceed xmlns='${tls}'/> `, `${header}<stream:features><a></b></stream:features>`],
      limits: [{ what: 'the octets of a tag', at: `${padded(8192)}<stream:features>${starttls}</stream:features><proceed xmlns='${tls}'/>`, over: `${padded(8193)}<stream:features>${starttls}</stream:features><proceed xmlns='${tls}'/>` }],
    },
  };
}

const line = (length: number, start: string): string => `${start.padEnd(length, 'x')}\r\n`;

const irc: PreambleScripts = {
  server: {
    good: 'CAP LS 302\r\nPING x\r\nSTARTTLS\r\n',
    says: ':mail.example.org CAP * LS :tls\r\n:mail.example.org PONG mail.example.org :x\r\n:mail.example.org 670 * :STARTTLS successful, proceed with TLS handshake\r\n',
    injection: 'PASS mallory\r\n',
    goodbye: 'QUIT :bye\r\n',
    withheld: [['NICK joe\r\n', / 451 \* :STARTTLS first, then NICK\r\n/u], ['PASS secret\r\n', / 451 /u], ['USER joe 0 * :Joe\r\n', / 451 /u], ['AUTHENTICATE PLAIN\r\n', / 451 /u], ['STARTTLS now\r\n', / 691 /u], ['CAP REQ :sasl\r\n', / CAP \* NAK :sasl\r\n/u]],
    plain: { input: 'CAP LS\r\n\r\nCAP END\r\nNICK joe\r\n', ahead: 'NICK joe\r\n' },
    broken: ['\x16\x03\x01\r\n', ':from NICK joe\r\n', 'NICK\0joe\r\n', 'NICK joe\rUSER\r\n', 'PING x\r\n'.repeat(64)],
    limits: [
      { what: 'the length of a line', at: `${line(510, 'PING ')}STARTTLS\r\n`, over: `${line(511, 'PING ')}STARTTLS\r\n` },
      { what: 'the number of commands', at: `${'PING x\r\n'.repeat(63)}STARTTLS\r\n`, over: `${'PING x\r\n'.repeat(64)}STARTTLS\r\n` },
    ],
    hasFarewell: true,
  },
  client: {
    good: ':irc.example.org NOTICE * :*** Looking up your hostname\r\n:irc.example.org CAP * LS * :multi-prefix tls\r\n:irc.example.org CAP * LS :away-notify\r\n:irc.example.org 670 * :go\r\n',
    says: 'CAP LS 302\r\nCAP END\r\nSTARTTLS\r\n',
    injection: ':irc.example.org 001 joe :Welcome\r\n',
    refusals: [
      ':x CAP * LS :multi-prefix tlsx\r\n', ':x CAP * LS :tls\r\n:irc.example.org 691 * :no\r\n', ':x 421 * CAP :Unknown command\r\n:x 421 * STARTTLS :Unknown command\r\n', ':x 451 * :no\r\n:x 451 * :no\r\n', 'ERROR :Closing Link\r\n',
    ],
    broken: ['* OK [READY]\r\n', ':x NOTICE * :y\r\n'.repeat(256), ':irc.example.org\r\n', `:x CAP * LS tls\r\n${':x NOTICE * :y\r\n'.repeat(256)}`],
    limits: [
      { what: 'the length of a line', at: `${line(8192, 'NOTICE * :')}:x 451 * :no\r\n:x 670 * :go\r\n`, over: `${line(8193, 'NOTICE * :')}:x 451 * :no\r\n:x 670 * :go\r\n` },
      { what: 'the lines before an answer', at: `${':x NOTICE * :y\r\n'.repeat(255)}:x CAP * LS :tls\r\n:x 670 * :go\r\n`, over: `${':x NOTICE * :y\r\n'.repeat(256)}:x CAP * LS :tls\r\n:x 670 * :go\r\n` },
    ],
  },
};

/** By name. */
export const xmppScripts: Readonly<Record<string, PreambleScripts>> = { 'xmpp-client': xmpp('jabber:client'), 'xmpp-server': xmpp('jabber:server'), irc };
