/** Ways out through a proxy: http-connect and socks5. Bad input of all kinds is in contract/preambles.test.ts. */
import assert from 'node:assert/strict';
import { preambles } from 'libtlspool/preamble';
import type { ClientOptions } from 'libtlspool/preamble';
import { play, playFails, plays } from '../support/dialogue.js';

const http = preambles['http-connect'].client!;
const socks = preambles.socks5.client!;
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/gu, ''), 'hex');
const to = (remoteid: string, more: Partial<ClientOptions> = {}): ClientOptions => ({ hostname: 'c', remoteid, port: 443, ...more });
const credentials = { user: 'joe', password: 'sécret' };

describe('preamble http-connect', () => {
  it('names, IPv4 and IPv6 addresses are written as RFC 9112 section 3.2.3 says', () => {
    for (const [remoteid, authority] of [['www.example.org', 'www.example.org:443'], ['192.0.2.1', '192.0.2.1:443'], ['2001:db8::1', '[2001:db8::1]:443']] as const) {
      assert.equal(plays(http(to(remoteid)), 'HTTP/1.1 200 OK\r\n\r\n').output, `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`);
    }
  });

  it('credentials are Basic, in UTF-8 (RFC 7617)', () => {
    const { output } = plays(http(to('x.example', { credentials })), 'HTTP/1.1 200 OK\r\n\r\n');
    assert.match(output, /^Proxy-Authorization: Basic am9lOnPDqWNyZXQ=\r$/mu);
  });

  it('what would break out of the request is BAD_ARGUMENT before anything is said', () => {
    for (const remoteid of ['', 'x y', 'x\r\nEvil: 1', 'x/y', 'x:1:y', `${'x'.repeat(256)}`, '[::1]']) assert.equal(playFails('BAD_ARGUMENT', http(to(remoteid)), '').output, '');
    for (const [user, password] of [['a:b', 'c'], ['a\n', 'c'], ['a', 'c\0']] as const) assert.equal(playFails('BAD_ARGUMENT', http(to('x', { credentials: { user, password } })), '').output, '');
    assert.equal(playFails('BAD_ARGUMENT', http({ hostname: 'c', remoteid: 'x' }), '').error.message, 'an HTTP proxy needs to know which port to connect to');
  });

  it('any 2xx connects, interim answers are passed over, and Content-Length is not believed', () => {
    const { left } = play(http(to('x')), 'HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.0 204 Fine\r\nContent-Length: 100\r\nTransfer-Encoding: chunked\r\n\r\nnext');
    assert.equal(left.toString(), 'next');
  });

  it('a refusal is quoted, and credentials are not', () => {
    const { error } = playFails('PREAMBLE_REFUSED', http(to('x', { credentials })), 'HTTP/1.1 407 Proxy Authentication \x1b Required\r\n\r\n');
    assert.match(error.message, /HTTP\/1\.1 407 Proxy Authentication \\u\{1b\} Required$/u);
    assert.doesNotMatch(error.message, /joe|cret/u);
  });
});

describe('preamble socks5', () => {
  const done = '0500 0500000100000000 0000';

  it('names, IPv4 and IPv6 addresses are sent as RFC 1928 section 4 says', () => {
    const address: readonly (readonly [string, string])[] = [
      ['www.example.org', `03 0f ${Buffer.from('www.example.org').toString('hex')}`], ['192.0.2.1', '01 c0000201'], ['2001:db8::1', '04 20010db8000000000000000000000001'],
      ['::', `04 ${'00'.repeat(16)}`], ['1:2:3:4:5:6:7:8', '04 00010002000300040005000600070008'], ['::ffff:192.0.2.1', '04 00000000000000000000ffffc0000201'],
    ];
    for (const [remoteid, octets] of address) assert.deepEqual(Buffer.from(plays(socks(to(remoteid)), hex(done)).output, 'latin1'), hex(`05 01 00 05 01 00 ${octets} 01bb`));
  });

  it('replies with names and IPv6 addresses are taken to their end, and not further', () => {
    for (const reply of [`0500 05000003 05 ${'61'.repeat(5)} 0001`, `0500 05000004 ${'00'.repeat(16)} 0001`, `0500 05000003 00 0001`]) {
      assert.equal(play(socks(to('x')), hex(reply), 'next').left.toString(), 'next');
    }
  });

  it('user name and password are sent if the proxy chooses so (RFC 1929), and not if it does not', () => {
    const { output } = plays(socks(to('x', { credentials })), hex('0502 0100 0500000100000000 0000'));
    assert.deepEqual(Buffer.from(output, 'latin1'), hex('05 02 00 02 01 03 6a6f65 07 73c3a963726574 05 01 00 03 01 78 01bb'));
    assert.deepEqual(Buffer.from(plays(socks(to('x', { credentials })), hex(done)).output, 'latin1'), hex('05 02 00 02 05 01 00 03 01 78 01bb'));
  });

  it('wrong credentials are PREAMBLE_REFUSED; a method that was not offered is PREAMBLE', () => {
    assert.equal(playFails('PREAMBLE_REFUSED', socks(to('x', { credentials })), hex('0502 0101')).error.message, 'the proxy does not accept our user name and password');
    playFails('PREAMBLE', socks(to('x')), hex('0502'));
    playFails('PREAMBLE', socks(to('x', { credentials })), hex('0502 0500'));
  });

  it('255 octets of name, user and password can be said, 256 and none cannot', () => {
    const long = 'x'.repeat(255);
    plays(socks(to(long, { credentials: { user: long, password: long } })), hex('0502 0100 0500000100000000 0000'));
    const wrong = [to(`${long}x`), to(''), to('fe80::1%eth0'), to('x', { credentials: { user: `${long}x`, password: 'y' } }), to('x', { credentials: { user: 'y', password: '' } })];
    for (const options of [...wrong, { hostname: 'c', remoteid: 'x' }]) assert.equal(playFails('BAD_ARGUMENT', socks(options), '').output, '');
  });

  it('the reason of a refusal is named', () => {
    assert.equal(playFails('PREAMBLE_REFUSED', socks(to('x')), hex('0500 0505')).error.message, 'the proxy does not connect: connection refused');
  });
});
