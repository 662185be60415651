/** Places and what counts as one client. */
import assert from 'node:assert/strict';
import { TlsPoolError } from 'libtlspool';
import { Places, addressKey } from 'tlspool-proxy/dist/limits.js';

describe('proxy: limits', () => {
  it('a key has as many places as its limit, and one that is given back can be taken again', () => {
    const places = new Places('this address has', () => 2);
    const first = places.take('a');
    places.take('a');
    assert.throws(() => places.take('a'), (error: unknown) => error instanceof TlsPoolError && error.code === 'LIMIT_CLIENTS' && error.message.includes('2 connections'));
    places.take('b');
    first();
    places.take('a');
  });

  it('a place is given back once, however often that is asked', () => {
    const places = new Places('', () => 5);
    const first = places.take('a');
    places.take('a');
    first();
    first();
    assert.equal(places.of('a'), 1);
  });

  it('the limit is the one of now', () => {
    let max = 1;
    const places = new Places('', () => max);
    places.take('a');
    assert.throws(() => places.take('a'));
    max = 2;
    places.take('a');
  });

  it('an IPv6 client is its /64 however it is written, an IPv4 client its address, mapped or not', () => {
    const key = (family: 'IPv4' | 'IPv6', address: string): string => addressKey({ family, address, port: 1 });
    assert.equal(key('IPv6', '2001:db8::1'), key('IPv6', '2001:db8:0:0:ffff::2'));
    assert.notEqual(key('IPv6', '2001:db8::1'), key('IPv6', '2001:db8:0:1::1'));
    assert.equal(key('IPv4', '192.0.2.1'), key('IPv6', '::ffff:192.0.2.1'));
    assert.notEqual(key('IPv4', '192.0.2.1'), key('IPv4', '192.0.2.2'));
    assert.equal(addressKey({ family: 'unix', address: '/a', port: 0 }), addressKey(undefined));
  });
});
