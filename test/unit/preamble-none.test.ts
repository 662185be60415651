/** TLS from the first octet. */
import assert from 'node:assert/strict';
import { preambles } from 'libtlspool/preamble';
import { face, optional, play, plays, required } from '../support/dialogue.js';

const { none } = preambles;
assert(none.server !== undefined && none.client !== undefined);

describe('preamble none', () => {
  it('the ClientHello is looked at and left to the pool; nothing is said', () => {
    const { result, output, left } = play(none.server!.serve(required), '\x16\x03\x01');
    assert(result?.next === 'tls');
    assert.deepEqual([result.direct, result.goAhead.length, result.refusal.length, output.length, left.toString('latin1')], [true, 0, 0, 0, '\x16\x03\x01']);
  });

  it('with TLS optional, what does not begin as TLS does is the backend\'s, to the first octet', () => {
    const { result, left } = play(none.server!.serve(optional), 'GET / HTTP/1.1\r\n');
    assert(result?.next === 'plain');
    assert.deepEqual([result.ahead.length, left.toString()], [0, 'GET / HTTP/1.1\r\n']);
    assert.equal(none.server!.farewell('limit', face).length, 0);
  });

  it('a client says nothing, and waits for nothing', () => {
    assert.deepEqual(plays(none.client!({ hostname: 'c', remoteid: 'd' })), { result: {}, output: '' });
  });
});
