/** LDAP before TLS: octets from RFC 4511, computed by hand. Bad input of all kinds is in contract/preambles.test.ts. */
import assert from 'node:assert/strict';
import { preambles } from 'libtlspool/preamble';
import { face, optional, play, playFails, plays, required } from '../support/dialogue.js';

const { ldap } = preambles;
assert(ldap.server !== undefined && ldap.client !== undefined);
const { serve, farewell } = ldap.server;
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/gu, ''), 'hex');
const oid = Buffer.from('1.3.6.1.4.1.1466.20037').toString('hex');
const noticeOid = Buffer.from('1.3.6.1.4.1.1466.20036').toString('hex');
const startTls = hex(`30 1d 02 01 01 77 18 80 16 ${oid}`);
const unbind = hex('30 05 02 01 07 42 00');

describe('preamble ldap', () => {
  it('the go-ahead is the extended response of RFC 4511 section 4.14.2, the refusal the same with `unavailable`', () => {
    const { result } = plays(serve(required), startTls);
    assert(result.next === 'tls');
    assert.deepEqual(result.goAhead, hex(`30 24 02 01 01 78 1f 0a 01 00 04 00 04 00 8a 16 ${oid}`));
    const text = Buffer.from('TLS is not available now').toString('hex');
    assert.deepEqual(result.refusal, hex(`30 3c 02 01 01 78 37 0a 01 34 04 00 04 18 ${text} 8a 16 ${oid}`));
  });

  it('the message ID of the request is that of the answer, up to the largest', () => {
    const { result } = plays(serve(required), hex(`30 20 02 04 7fffffff 77 18 80 16 ${oid}`));
    assert(result.next === 'tls');
    assert.deepEqual(result.goAhead, hex(`30 27 02 04 7fffffff 78 1f 0a 01 00 04 00 04 00 8a 16 ${oid}`));
    playFails('PREAMBLE', serve(required), hex(`30 21 02 05 0080000000 77 18 80 16 ${oid}`));
  });

  const refusals: readonly (readonly [name: string, request: string, response: string])[] = [
    ['bind', '60 07 02 01 03 04 00 80 00', '61'], ['search', '63 00', '65'], ['modify', '66 00', '67'], ['add', '68 00', '69'], ['delete', '4a 03 633d78', '6b'], ['modify DN', '6c 00', '6d'], ['compare', '6e 00', '6f'],
    ['extended (Who am I?)', `77 19 80 17 ${Buffer.from('1.3.6.1.4.1.4203.1.11.3').toString('hex')}`, '78'],
  ];
  for (const [name, request, response] of refusals) {
    it(`with TLS required, ${name} gets its own response with confidentialityRequired, and nothing is passed on`, () => {
      const body = hex(request);
      const text = Buffer.from('StartTLS first').toString('hex');
      const { result, output } = plays(serve(required), Buffer.concat([hex('30'), Buffer.of(body.length + 3), hex('02 01 05'), body, unbind]));
      assert.deepEqual(Buffer.from(output, 'latin1'), hex(`30 1a 02 01 05 ${response} 15 0a 01 0d 04 00 04 0e ${text}`));
      assert.deepEqual(result, { next: 'end' });
    });
  }

  it('abandon has no response; unbind ends without one', () => {
    assert.deepEqual(plays(serve(required), hex('30 06 02 01 05 50 01 04'), unbind), { result: { next: 'end' }, output: '' });
  });

  it('StartTLS with a value is a protocolError, and may be asked again without', () => {
    const { result, output } = plays(serve(optional), hex(`30 20 02 01 01 77 1b 80 16 ${oid} 81 01 00`), startTls);
    assert.deepEqual(Buffer.from(output, 'latin1').subarray(0, 10), hex('30 3b 02 01 01 78 36 0a 01 02'));
    assert.equal(result.next, 'tls');
  });

  it('controls of the request do not matter (section 4.1.11: only critical ones could, and none is defined for it)', () => {
    assert.equal(plays(serve(required), hex(`30 21 02 01 01 77 18 80 16 ${oid} a0 02 30 00`)).result.next, 'tls');
    playFails('PREAMBLE', serve(required), hex(`30 21 02 01 01 77 18 80 16 ${oid} a1 02 30 00`));
  });

  it('a farewell is the notice of disconnection of section 4.4.1', () => {
    const text = 'the service is not available now';
    assert.deepEqual(farewell('unavailable', face), hex(`30 44 02 01 00 78 3f 0a 01 34 04 00 04 20 ${Buffer.from(text).toString('hex')} 8a 16 ${noticeOid}`));
    assert.equal(farewell('syntax', face)[9], 2);
  });

  it('what a server says when it refuses is in the error, escaped', () => {
    const { error } = playFails('PREAMBLE_REFUSED', ldap.client!({ hostname: 'c', remoteid: 'd' }), hex('30 0f 02 01 01 78 0a 0a 01 34 04 00 04 03 1b5b48'));
    assert.match(error.message, /result 52 \\u\{1b\}\[H$/u);
  });

  it('a client takes nothing behind the answer', () => {
    const { left } = play(ldap.client!({ hostname: 'c', remoteid: 'd' }), hex('30 0c 02 01 01 78 07 0a 01 00 04 00 04 00 16'));
    assert.deepEqual(left, hex('16'));
  });
});
