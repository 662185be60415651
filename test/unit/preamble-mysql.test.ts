/** MySQL and MariaDB before TLS: octets from the documentation of the protocol. Bad input of all kinds is in contract/preambles.test.ts. */
import assert from 'node:assert/strict';
import { mysqlPackets, preambles } from 'libtlspool/preamble';
import { TlsPoolError } from 'libtlspool/protocol';
import { face, play, playFails, plays, required, serveOptions } from '../support/dialogue.js';

const { mysql } = preambles;
assert(mysql.server !== undefined && mysql.client !== undefined);
const { serve, farewell } = mysql.server;
const { client } = mysql;
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/gu, ''), 'hex');
const filler = '00'.repeat(23);
const sslRequest = hex(`200000 01 05ae0f00 00000001 2d ${filler}`);
/** As MariaDB's own clients send it: without CLIENT_MYSQL, with extended capabilities in the last four octets. */
const mariaRequest = hex(`200000 01 84aebf81 00000040 2d ${'00'.repeat(19)} 1d000000`);
const login = Buffer.concat([hex(`260000 01 05a60f00 00000001 2d ${filler}`), Buffer.from('joe\0\0\0')]);
const greetingOf = (options = required): Buffer => play(serve(options), sslRequest).output;

describe('preamble mysql', () => {
  it('the greeting is HandshakeV10 with TLS and twenty octets of salt, which are neither NUL nor $ and new for each connection', () => {
    const seen = new Set<string>();
    for (let count = 0; count < 200; count++) {
      const greeting = greetingOf();
      assert.equal(greeting.readUIntLE(0, 3), greeting.length - 4);
      assert.equal(greeting[3], 0);
      const body = greeting.subarray(4);
      assert.equal(body.subarray(0, 15).toString('latin1'), '\x0a5.7.0-tlspool\0');
      const rest = body.subarray(15 + 4);
      const salt = Buffer.concat([rest.subarray(0, 8), rest.subarray(27, 39)]);
      assert(salt.every((octet) => octet > 0 && octet < 128 && octet !== 0x24));
      assert.deepEqual(rest.subarray(8, 27), hex(`00 0daa 2d 0200 0800 15 ${'00'.repeat(10)}`));
      assert.equal(rest.subarray(39).toString('latin1'), '\0mysql_native_password\0');
      seen.add(salt.toString('hex'));
    }
    assert.equal(seen.size, 200);
  });

  it('what a backend goes on with is both packets, and nothing is said before TLS', () => {
    for (const request of [sslRequest, mariaRequest]) {
      const { result, output } = plays(serve(required), request);
      assert(result.next === 'tls' && result.state !== undefined);
      assert.equal(result.goAhead.length, 0);
      assert.deepEqual(Buffer.from(result.state), Buffer.concat([Buffer.from(output, 'latin1'), request]));
      assert.deepEqual(mysqlPackets(result.state), [Buffer.from(output, 'latin1').subarray(4), request.subarray(4)]);
    }
  });

  it('the state is never longer than 4096 octets, and what is no state is refused', () => {
    const greeting = greetingOf(serveOptions('required', { greeting: 'x'.repeat(5000) }));
    assert(greeting.length < 200);
    for (const wrong of ['ff', '05000000', '0100000a 02000001 00']) {
      assert.throws(() => mysqlPackets(hex(wrong)), (error) => error instanceof TlsPoolError && error.code === 'BAD_ARGUMENT');
    }
    assert.deepEqual(mysqlPackets(hex('0100000a 05 02000001 0000').subarray(0, 5)), [hex('05')]);
  });

  it('version and more capabilities are shown as the face has them; unknown names are not', () => {
    const greeting = greetingOf(serveOptions('required', { greeting: '8.4.2\x1b[0m', capabilities: ['CLIENT_DEPRECATE_EOF', 'CLIENT_NONSENSE', 'toString'] }));
    assert.equal(greeting.subarray(5, 14).toString('latin1'), '8.4.2[0m\0');
    assert.deepEqual(greeting.subarray(14 + 4 + 9, 14 + 4 + 17), hex('0daa 2d 0200 0801 15'));
  });

  it('with TLS required a client that does not ask for it is told error 3159', () => {
    const { result, output } = plays(serve(required), login);
    assert.deepEqual(result, { next: 'end', refused: 'the client did not ask for TLS' });
    const said = Buffer.from(output.slice(greetingOf().length), 'latin1');
    assert.deepEqual(said.subarray(3, 13), Buffer.concat([hex('02 ff 570c'), Buffer.from('#HY000')]));
    assert.match(said.toString(), /insecure transport are prohibited/u);
  });

  it('with TLS optional the login goes on at the backend, with the greeting that it answers', () => {
    const { result, output } = plays(serve(serveOptions('optional')), login);
    assert(result.next === 'plain' && result.state !== undefined);
    assert.deepEqual([Buffer.from(result.ahead), Buffer.from(result.state).toString('latin1')], [login, output]);
  });

  it('a farewell is an ERR packet with sequence id 0, without SQLSTATE, as before any greeting', () => {
    assert.deepEqual(farewell('limit', face), Buffer.concat([hex('170000 00 ff 1004'), Buffer.from('Too many connections')]));
  });

  it('a client asks with what the server promised and no more, and its application gets both packets', () => {
    const greeting = Buffer.concat([hex('220000 00 0a'), Buffer.from('5.5.5-x\0'), hex('01000000'), Buffer.from('abcdefgh'), hex('00 010a 2d 0200 0000 15 00000000')]);
    const { result, output } = plays(client({ hostname: 'c', remoteid: 'd' }), greeting);
    assert.deepEqual(Buffer.from(output, 'latin1'), hex(`200000 01 010a0000 00000001 2d ${filler}`));
    assert.deepEqual(Buffer.from(result.state!), Buffer.concat([greeting, Buffer.from(output, 'latin1')]));
  });

  it('a server that turns us away is quoted', () => {
    const text = Buffer.from('Host \'x\' is blocked');
    const { error } = playFails('PREAMBLE_REFUSED', client({ hostname: 'c', remoteid: 'd' }), Buffer.concat([Buffer.of(text.length + 3), hex('0000 00 ff 6904'), text]));
    assert.match(error.message, /Host 'x' is blocked$/u);
  });
});
