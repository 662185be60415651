/** Lists of addresses that may send PROXY headers. */
import assert from 'node:assert/strict';
import { addressList } from 'tlspool-proxy/dist/proxyprotocol/index.js';
import { throwsCode } from '../support/native-fds.js';

const v4 = (address: string) => ({ family: 'IPv4' as const, address });
const v6 = (address: string) => ({ family: 'IPv6' as const, address });

describe('PROXY protocol: who may send a header', () => {
  it('networks hold their first and last address, and not the ones beside them', () => {
    const list = addressList(['10.0.0.0/8', '192.0.2.128/25', '2001:db8::/33']);
    for (const address of ['10.0.0.0', '10.255.255.255', '192.0.2.128', '192.0.2.255']) assert(list.has(v4(address)), address);
    for (const address of ['9.255.255.255', '11.0.0.0', '192.0.2.127', '192.0.3.0', '0.0.0.0']) assert(!list.has(v4(address)), address);
    for (const address of ['2001:db8::', '2001:db8:7fff:ffff:ffff:ffff:ffff:ffff']) assert(list.has(v6(address)), address);
    for (const address of ['2001:db8:8000::', '2001:db7:ffff::', '::1']) assert(!list.has(v6(address)), address);
  });

  it('single addresses in any spelling', () => {
    const list = addressList(['192.0.2.7', '2001:DB8:0:0::7', 'fe80::1']);
    assert(list.has(v4('192.0.2.7')) && list.has(v6('2001:db8::7')) && list.has(v6('fe80::1%eth0')));
    assert(!list.has(v4('192.0.2.8')) && !list.has(v6('2001:db8::8')));
  });

  it('an IPv4-mapped address is the IPv4 address, in the list and of a peer', () => {
    const list = addressList(['10.0.0.0/8', '::ffff:192.0.2.0/120']);
    assert(list.has(v6('::ffff:10.1.2.3')) && list.has(v6('::ffff:a01:203')) && list.has(v4('192.0.2.200')) && list.has(v6('::ffff:192.0.2.200')));
    assert(!list.has(v6('::ffff:11.0.0.0')) && !list.has(v4('192.0.3.0')) && !list.has(v6('::10.1.2.3')));
  });

  it('/0 holds its whole family and nothing of the other', () => {
    const four = addressList(['0.0.0.0/0']);
    assert(four.has(v4('255.255.255.255')) && four.has(v6('::ffff:1.2.3.4')) && !four.has(v6('::1')));
    const six = addressList(['::/0']);
    assert(six.has(v6('ffff::1')) && !six.has(v4('1.2.3.4')) && !six.has(v6('::ffff:1.2.3.4')));
  });

  it('UNIX sockets are held by the word unix alone', () => {
    const peer = { family: 'unix' as const, address: '' };
    assert(addressList(['unix']).has(peer));
    assert(!addressList(['0.0.0.0/0', '::/0']).has(peer) && !addressList(['unix']).has(v4('127.0.0.1')));
  });

  it('fails closed: an empty list, a peer that is not known, an address that is none', () => {
    assert(!addressList([]).has(v4('127.0.0.1')));
    const all = addressList(['0.0.0.0/0', '::/0']);
    assert(!all.has(undefined) && !all.has(v4('')) && !all.has(v4('127.0.0.1.')) && !all.has(v6('::g')));
  });

  for (const [entry, why] of [
    ['', /no numeric address/u], ['localhost', /no numeric address/u], ['10.0.0.0/', /no numeric address/u], ['10.0.0.0/x', /no numeric address/u], ['10.0.0/8', /no numeric address/u],
    ['10.0.0.0/08', /no numeric address/u], ['10.0.0.0/8/8', /no numeric address/u], ['fe80::1%eth0', /no numeric address/u], ['010.0.0.0/8', /no numeric address/u],
    ['10.0.0.0/33', /more than 32 bits/u], ['::1/129', /more than 128 bits/u], ['10.0.0.1/8', /the network is 10\.0\.0\.0\/8/u], ['2001:db8::1/32', /the network is 2001:db8::\/32/u],
  ] as const) {
    it(`refused with the entry and the cure: ${JSON.stringify(entry)}`, () => {
      const error = throwsCode(() => addressList(['::1', entry]), 'CONFIG_BAD');
      assert.equal(error.field, 'proxyFrom[1]');
      assert.match(error.message, why);
      assert.match(error.message, /such as 192\.0\.2\.7/u);
    });
  }

  it('prefixes at their limits are read', () => {
    assert(addressList(['192.0.2.1/32', '::1/128']).has(v6('::1')));
  });
});
