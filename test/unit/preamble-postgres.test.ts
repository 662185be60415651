/** PostgreSQL before TLS: octets from the documentation's "Message Formats". Bad input of all kinds is in contract/preambles.test.ts. */
import assert from 'node:assert/strict';
import { preambles } from 'libtlspool/preamble';
import { face, optional, play, playFails, plays, required } from '../support/dialogue.js';

const { postgres } = preambles;
assert(postgres.server !== undefined && postgres.client !== undefined);
const { serve, farewell } = postgres.server;
const { client } = postgres;
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/gu, ''), 'hex');
const sslRequest = hex('00000008 04d2162f');
const cancel = hex('00000010 04d2162e 000004d2 0000162e');
const startup = Buffer.concat([hex('00000012 00030000'), Buffer.from('user\0joe\0\0')]);
const errorOf = (sqlstate: string, text: string): string => {
  const fields = `SFATAL\0VFATAL\0C${sqlstate}\0M${text}\0\0`;
  return `E\0\0\0${String.fromCharCode(fields.length + 4)}${fields}`;
};

describe('preamble postgres', () => {
  it('SSLRequest is answered with S and nothing else', () => {
    const { result, output } = plays(serve(required), sslRequest);
    assert(result.next === 'tls');
    assert.deepEqual([output, Buffer.from(result.goAhead).toString(), result.alpn], ['', 'S', undefined]);
    assert.equal(Buffer.from(result.refusal).toString(), errorOf('57P03', 'the service is not available now, try again later'));
  });

  it('a ClientHello as the first octet is TLS at once, stays where it is, and must offer the ALPN name postgresql', () => {
    for (const options of [required, optional]) {
      const { result, left } = play(serve(options), hex('16 0301'));
      assert(result?.next === 'tls');
      assert.deepEqual([result.direct, result.alpn, result.goAhead.length, left], [true, 'postgresql', 0, hex('16 0301')]);
    }
  });

  it('a ClientHello behind the refusal of GSSAPI is no packet', () => {
    playFails('PREAMBLE', serve(required), hex('00000008 04d21630'), hex('16030100 05010000'));
  });

  it('with TLS required a start-up packet is read to its end and answered with SQLSTATE 28000', () => {
    const { result, output } = plays(serve(required), startup);
    assert.deepEqual(result, { next: 'end', refused: 'the client did not ask for TLS' });
    assert.equal(output, errorOf('28000', 'TLS is required: connect with sslmode=require or stronger'));
  });

  it('a start-up packet of 10,000 octets is read, one of 10,001 is not', () => {
    const packet = (length: number): Buffer => {
      const made = Buffer.alloc(length);
      made.writeUInt32BE(length, 0);
      made.writeUInt32BE(0x3_0000, 4);
      return made;
    };
    assert.equal(plays(serve(required), packet(10_000)).result.next, 'end');
    playFails('PREAMBLE', serve(required), packet(10_001));
  });

  it('a CancelRequest in plain text is passed on only where TLS is optional, and is never answered', () => {
    const { result, output } = plays(serve(required), cancel);
    assert.deepEqual([result.next, output], ['end', '']);
    const { result: passed, left } = play(serve(optional), cancel);
    assert(passed?.next === 'plain');
    assert.deepEqual(Buffer.concat([passed.ahead, left]), cancel);
  });

  it('with TLS optional, GSSAPI is refused and the start-up packet is the backend\'s', () => {
    const { result, output, left } = play(serve(optional), hex('00000008 04d21630'), startup);
    assert(result?.next === 'plain');
    assert.equal(output.toString(), 'N');
    assert.deepEqual(Buffer.concat([result.ahead, left]), startup);
  });

  it('farewells are ErrorResponses with the SQLSTATE of the matter', () => {
    assert.equal(Buffer.from(farewell('limit', face)).toString(), errorOf('53300', 'too many connections, try again later'));
    assert.equal(Buffer.from(farewell('unavailable', face)).toString(), errorOf('57P03', 'the service is not available now, try again later'));
  });

  it('a client takes one octet, and repeats nothing of an error that anybody could have sent', () => {
    const { output, left } = play(client({ hostname: 'c', remoteid: 'd' }), 'Sx');
    assert.deepEqual([output, left.toString()], [sslRequest, 'x']);
    const { error } = playFails('PREAMBLE_REFUSED', client({ hostname: 'c', remoteid: 'd' }), errorOf('XX000', 'go to https://evil.example'));
    assert.doesNotMatch(error.message, /evil/u);
  });
});
