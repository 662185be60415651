import assert from 'node:assert/strict';
import { isWithin, parseNameConstraints } from 'tlspool/dist/identity/name-constraints.js';
import { isListed, isSameName, parseSignedName, type SignedName } from 'tlspool/dist/identity/signed-names.js';
import { der, derAttribute, derName } from '../support/der.js';
import { generalName, nameConstraints } from './signing-support.js';

const host = (value: string): SignedName => ({ type: 'dns', value });

describe('names for certificates on the fly', () => {
  describe('what a name may look like', () => {
    const label63 = 'a'.repeat(63);
    const longest = `${label63}.${label63}.${label63}.${'b'.repeat(61)}`;

    it('host names are letters, digits and hyphens; case and a final dot do not count', () => {
      for (const [text, value] of [['www.example.org', 'www.example.org'], ['WWW.Example.ORG.', 'www.example.org'], ['localhost', 'localhost'], ['xn--bcher-kva.example', 'xn--bcher-kva.example'],
        ['1.example', '1.example'], ['3com.example', '3com.example'], [`${label63}.example`, `${label63}.example`], [longest, longest]] as const) {
        assert.deepEqual(parseSignedName(text, 'server'), host(value), text);
      }
      assert.equal(longest.length, 253);
    });
    it('nothing else is one: wildcards, underscores, empty and long labels, what is not ASCII, control characters, numbers at the end', () => {
      const bad = ['', '.', '*', '*.example.org', 'a.*.org', 'a_b.example', 'a..b', '.example', 'example..', '-a.example', 'a-.example', `${label63}a.example`, `${longest}b`,
        'bücher.example', 'a b.example', 'a\0.example', 'a\n.example', 'a/b', 'a:443', 'a,DNS:b.example', 'x@example.org', '1.2.3', 'a.1', '0x7f.1', 'a.0x7f', '0x', '256.0.0.1', '010.0.0.1'];
      for (const text of bad) assert.equal(parseSignedName(text, 'server'), undefined, JSON.stringify(text));
    });
    it('addresses have one spelling each, and no zone', () => {
      assert.deepEqual(parseSignedName('192.0.2.1', 'server'), { type: 'ip', value: '192.0.2.1' });
      for (const text of ['2001:db8::1', '2001:DB8:0:0:0:0:0:1', '2001:db8:0::1']) assert.deepEqual(parseSignedName(text, 'server'), { type: 'ip', value: '2001:db8::1' }, text);
      for (const text of ['fe80::1%eth0', '::g', '1:2', '[::1]']) assert.equal(parseSignedName(text, 'server'), undefined, text);
    });
    it('e-mail addresses are for clients', () => {
      assert.deepEqual(parseSignedName('John.Doe+x@Example.ORG', 'client'), { type: 'email', value: 'John.Doe+x@example.org' });
      assert.deepEqual(parseSignedName(`${'a'.repeat(64)}@e.org`, 'client')?.type, 'email');
      assert.deepEqual(parseSignedName('www.example.org', 'client'), host('www.example.org'));
      for (const text of ['@example.org', 'a@', 'a@b@example.org', '.a@example.org', 'a.@example.org', 'a..b@example.org', '"a b"@example.org', 'a@192.0.2.1', 'a@*.org', 'ü@example.org', `${'a'.repeat(65)}@e.org`]) {
        assert.equal(parseSignedName(text, 'client'), undefined, text);
      }
    });
    it('two spellings are the same name when they mean the same host', () => {
      assert.equal(isSameName('A.example.', 'a.EXAMPLE'), true);
      assert.equal(isSameName('::1', '0:0:0:0:0:0:0:1'), true);
      for (const [one, other] of [['a.example', 'b.example'], ['*.example', '*.example'], ['', '']] as const) assert.equal(isSameName(one, other), false);
    });
  });

  describe('which the operator allows', () => {
    it('a glob covers what it matches, dots included, and nothing else', () => {
      for (const name of ['a.example.org', 'a.b.example.org']) assert.equal(isListed(['*.example.org'], host(name)), true, name);
      for (const name of ['example.org', 'aexample.org', 'a.example.org.evil']) assert.equal(isListed(['*.example.org'], host(name)), false, name);
      assert.equal(isListed(['other', 'www?.example'], host('www1.example')), true);
      assert.equal(isListed([], host('a')), false);
    });
    it('an entry without @ covers no e-mail address, one with covers those it matches in any case', () => {
      const email: SignedName = { type: 'email', value: 'John@mail.example.org' };
      for (const glob of ['*', '*.example.org', '*mail.example.org']) assert.equal(isListed([glob], email), false, glob);
      for (const glob of ['*@*', '*@mail.example.org', 'john@*']) assert.equal(isListed([glob], email), true, glob);
    });
    it('an entry with @ covers no host', () => { assert.equal(isListed(['*@*'], host('a.example.org')), false); });
  });

  describe('name constraints (RFC 5280 section 4.2.1.10)', () => {
    const may = (constraints: Parameters<typeof nameConstraints>[0], ...names: SignedName[]): boolean[] => names.map((name) => isWithin(parseNameConstraints(nameConstraints(constraints)), name));
    const ip = (value: string): SignedName => ({ type: 'ip', value });
    const email = (value: string): SignedName => ({ type: 'email', value });

    it('a DNS name covers itself and what is below it; with a leading dot only what is below', () => {
      const names = [host('example.org'), host('a.b.example.org'), host('aexample.org'), host('example.org.evil')];
      assert.deepEqual(may({ permitted: [generalName.dns('example.org')] }, ...names), [true, true, false, false]);
      assert.deepEqual(may({ permitted: [generalName.dns('Example.ORG')] }, ...names), [true, true, false, false]);
      assert.deepEqual(may({ permitted: [generalName.dns('.example.org')] }, ...names), [false, true, false, false]);
      assert.deepEqual(may({ excluded: [generalName.dns('example.org')] }, ...names), [false, false, true, true]);
    });
    it('what is excluded is excluded also where it is permitted', () => {
      assert.deepEqual(may({ permitted: [generalName.dns('example.org')], excluded: [generalName.dns('secret.example.org')] }, host('a.example.org'), host('x.secret.example.org')), [true, false]);
    });
    it('the empty DNS name covers all', () => { assert.deepEqual(may({ excluded: [generalName.dns('')] }, host('a'), ip('192.0.2.1')), [false, true]); });
    it('kinds that are not permitted by name are not limited', () => {
      assert.deepEqual(may({ permitted: [generalName.dns('example.org')] }, ip('192.0.2.1'), email('a@evil.example')), [true, true]);
      assert.deepEqual(may({ permitted: [generalName.uri('example.org'), generalName.directory(derName())] }, host('a.example')), [true]);
    });
    it('networks cover the addresses in them, of their own family', () => {
      const v4 = generalName.ip(192, 0, 2, 0, 255, 255, 255, 128);
      assert.deepEqual(may({ permitted: [v4] }, ip('192.0.2.127'), ip('192.0.2.128'), ip('2001:db8::1')), [true, false, false]);
      assert.deepEqual(may({ excluded: [generalName.ip(0, 0, 0, 0, 0, 0, 0, 0)] }, ip('192.0.2.1'), ip('::1')), [false, true]);
      const v6 = generalName.ip(0x20, 1, 0xd, 0xb8, ...Array<number>(12).fill(0), 255, 255, 255, 255, ...Array<number>(12).fill(0));
      assert.deepEqual(may({ permitted: [v6] }, ip('2001:db8:1::1'), ip('2001:db9::1')), [true, false]);
    });
    it('e-mail: one mailbox, one host, or all hosts below', () => {
      const names = [email('a@example.org'), email('b@example.org'), email('a@x.example.org')];
      assert.deepEqual(may({ permitted: [generalName.email('A@example.org')] }, ...names), [true, false, false]);
      assert.deepEqual(may({ permitted: [generalName.email('example.org')] }, ...names), [true, true, false]);
      assert.deepEqual(may({ permitted: [generalName.email('.example.org')] }, ...names), [false, false, true]);
    });
    it('limits on distinguished names are seen', () => {
      const directory = generalName.directory(derName([derAttribute('2.5.4.10', 'Example')]));
      for (const side of ['permitted', 'excluded']) assert.equal(parseNameConstraints(nameConstraints({ [side]: [directory] })).limitsSubjects, true);
      assert.equal(parseNameConstraints(nameConstraints({ permitted: [generalName.dns('a')] })).limitsSubjects, false);
    });
    it('what cannot be read is an error', () => {
      const base = generalName.dns('a');
      const bad = [
        Buffer.alloc(0), Buffer.from([0x30]), der(0x31), Buffer.concat([der(0x30), Buffer.from([0])]), der(0x30, der(0xa2)), der(0x30, der(0xa0, der(0x30))),
        // minimum 1; maximum 2; a mask that is not as long as its address; a name that is not ASCII
        der(0x30, der(0xa0, der(0x30, base, der(0x80, Buffer.from([1]))))), der(0x30, der(0xa0, der(0x30, base, der(0x81, Buffer.from([2]))))),
        nameConstraints({ permitted: [generalName.ip(192, 0, 2, 0)] }), nameConstraints({ excluded: [generalName.dns('bücher.example')] }),
      ];
      for (const octets of bad) assert.throws(() => parseNameConstraints(octets), Error, octets.toString('hex'));
      assert.ok(parseNameConstraints(der(0x30)));
    });
  });
});
