/** Names in certificates, which whoever was certified has written. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import fc from 'fast-check';
import { TlsPoolError } from 'libtlspool/protocol';
import { cutMark, derNamesOf, namesOf } from 'tlspool/dist/session/index.js';
import { der, derAltNames, derAttribute, derCertificate, derName, derOid } from '../support/der.js';
import { makeCert } from './identity-support.js';

const cn = '2.5.4.3';
const o = '2.5.4.10';
const subjectOf = (value: Uint8Array | string, type = cn): string => namesOf(derCertificate({ subject: derName([derAttribute(type, value)]) })).subject;
const altNames = (...names: readonly Uint8Array[]): readonly string[] => namesOf(derCertificate({ extensions: [derAltNames(...names)] })).subjectAltNames;
const dns = (name: string): Buffer => der(0x82, name);
const refused = (octets: Uint8Array, text: RegExp): void => {
  for (const read of [namesOf, derNamesOf]) {
    assert.throws(() => read(octets), (error: unknown) => {
      assert.ok(error instanceof TlsPoolError, String(error));
      assert.equal(error.code, 'BAD_ARGUMENT');
      assert.match(error.message, text);
      return true;
    });
  }
};

describe('subject and issuer of a certificate', () => {
  it('are in RFC 4514 form: most specific first, parts of one relative distinguished name joined by +', () => {
    const subject = derName([derAttribute('2.5.4.6', der(0x13, 'DE'))], [derAttribute(o, 'Example')], [derAttribute(cn, 'www'), derAttribute('0.9.2342.19200300.100.1.1', '7')]);
    const issuer = derName([derAttribute('0.9.2342.19200300.100.1.25', der(0x16, 'org'))], [derAttribute('0.9.2342.19200300.100.1.25', der(0x16, 'example'))]);
    const names = namesOf(derCertificate({ subject, issuer }));
    assert.equal(names.subject, 'CN=www+UID=7,O=Example,C=DE');
    assert.equal(names.issuer, 'DC=example,DC=org');
  });

  it('are empty where the certificate has none', () => {
    assert.deepEqual(namesOf(derCertificate()), { subject: '', issuer: '', subjectAltNames: [] });
  });

  for (const [value, shown] of [
    ['James "Jim" Smith, III', 'CN=James \\"Jim\\" Smith\\, III'], ['Before\rAfter', 'CN=Before\\0dAfter'], ['Lu\u010di\u0107', 'CN=Lu\u010di\u0107'], ['#hash', 'CN=\\#hash'],
    ['in#side', 'CN=in#side'], [' both ', 'CN=\\ both\\ '], ['  ', 'CN=\\ \\ '], [' ', 'CN=\\ '], ['a=b+c;d<e>f\\g', 'CN=a=b\\+c\\;d\\<e\\>f\\\\g'], ['nul\0', 'CN=nul\\00'],
    ['\u202egro.elpmaxe', 'CN=\\e2\\80\\aegro.elpmaxe'], ['\ufeffx', 'CN=\\ef\\bb\\bfx'], ['\u00a0', 'CN=\\c2\\a0'], ['\u001b[2J', 'CN=\\1b[2J'], ['', 'CN='], ['\ud83d\ude00', 'CN=\ud83d\ude00'],
  ] as const) {
    it(`the value ${JSON.stringify(value)} is escaped as RFC 4514 section 2.4 has it, and what cannot be seen is too`, () => {
      assert.equal(subjectOf(value), shown);
    });
  }

  it('a value cannot imitate another attribute', () => {
    assert.equal(subjectOf('x,O=Example'), 'CN=x\\,O=Example');
    assert.equal(subjectOf('x\\,O=Example'), 'CN=x\\\\\\,O=Example');
  });

  for (const [name, value, shown] of [
    ['PrintableString', der(0x13, 'abc'), 'CN=abc'], ['NumericString', der(0x12, '1 2'), 'CN=1 2'], ['IA5String', der(0x16, 'abc'), 'CN=abc'], ['VisibleString', der(0x1a, 'abc'), 'CN=abc'],
    ['TeletexString in ASCII', der(0x14, 'abc'), 'CN=abc'], ['TeletexString beyond ASCII', der(0x14, Buffer.from('e9', 'hex')), 'CN=#1401e9'],
    ['BMPString', der(0x1e, Buffer.from('004100e9', 'hex')), 'CN=A\u00e9'], ['BMPString of half a character', der(0x1e, Buffer.from('0041e9', 'hex')), 'CN=#1e030041e9'],
    ['BMPString with half a pair', der(0x1e, Buffer.from('d800', 'hex')), 'CN=#1e02d800'],
    ['UniversalString', der(0x1c, Buffer.from('000000410001f600', 'hex')), 'CN=A\ud83d\ude00'], ['UniversalString beyond Unicode', der(0x1c, Buffer.from('00110000', 'hex')), 'CN=#1c0400110000'],
    ['UniversalString with a surrogate', der(0x1c, Buffer.from('0000d800', 'hex')), 'CN=#1c040000d800'], ['UniversalString cut off', der(0x1c, Buffer.from('000000', 'hex')), 'CN=#1c03000000'],
    ['UTF8String that is none', der(0x0c, Buffer.from('c0af', 'hex')), 'CN=#0c02c0af'], ['PrintableString beyond ASCII', der(0x13, Buffer.from('e9', 'hex')), 'CN=#1301e9'],
    ['BIT STRING', der(0x03, Buffer.from('0001', 'hex')), 'CN=#03020001'], ['SEQUENCE', der(0x30), 'CN=#3000'],
  ] as const) {
    it(`a ${name} is ${shown}`, () => { assert.equal(subjectOf(value), shown); });
  }

  it('an attribute without a registered short name is shown by number, its value in octets', () => {
    assert.equal(subjectOf('abc', '1.3.6.1.4.1.311.60.2.1.3'), '1.3.6.1.4.1.311.60.2.1.3=#0c03616263');
    assert.equal(subjectOf('a', '2.25.340282366920938463463374607431768211455'), '2.25.340282366920938463463374607431768211455=#0c0161');
    assert.equal(subjectOf('a', '0.39.1'), '0.39.1=#0c0161');
    assert.equal(subjectOf('a', '1.39'), '1.39=#0c0161');
  });

  it('one of 1024 octets is complete; one more octet cuts it, and the cut can be told from every complete name', () => {
    assert.equal(subjectOf('x'.repeat(1021)), `CN=${'x'.repeat(1021)}`);
    const cut = subjectOf('x'.repeat(1022));
    assert.equal(cut, `CN=${'x'.repeat(1021 - cutMark.length)}${cutMark}`);
    assert.equal(subjectOf(`x${cutMark}`), `CN=x\\${cutMark}`, 'a value that imitates the cut is escaped');
  });

  it('a cut is between two characters, and never within an escape', () => {
    for (const unit of ['\u00e9', '\u20ac', '\ud83d\ude00', '\u202e', '+', '\0']) {
      for (let ahead = 0; ahead < 12; ahead += 1) {
        const whole = subjectOf('x'.repeat(ahead) + unit);
        const cut = subjectOf('x'.repeat(ahead) + unit.repeat(2000));
        assert.ok(Buffer.byteLength(cut) <= 1024 && Buffer.byteLength(cut) > 1024 - 16, `${Buffer.byteLength(cut)}`);
        const kept = cut.slice(`CN=${'x'.repeat(ahead)}`.length, -cutMark.length);
        const shown = whole.slice(`CN=${'x'.repeat(ahead)}`.length);
        assert.equal(kept, shown.repeat(kept.length / shown.length), 'whole units only');
      }
    }
  });

  it('thousands of attributes take no time worth speaking of, and are cut the same', () => {
    const many = derName(...Array.from({ length: 3000 }, (_, n) => [derAttribute(cn, String(n))]));
    const start = performance.now();
    const { subject } = namesOf(derCertificate({ subject: many }));
    assert.ok(performance.now() - start < 500);
    assert.ok(subject.startsWith('CN=2999,CN=2998,') && subject.endsWith(cutMark));
  });
});

describe('subjectAltName of a certificate', () => {
  it('is told in the order of the certificate, other kinds left out', () => {
    assert.deepEqual(altNames(
      dns('www.example.org'), der(0xa0, derOid('1.2.3'), der(0xa0, der(0x0c, 'other'))), der(0x86, 'spiffe://example.org/web'), der(0x87, Buffer.from([192, 0, 2, 1])),
      der(0xa4, derName()), der(0x81, '"a b"@example.org'), der(0x88, Buffer.from([42, 3])),
    ), ['DNS:www.example.org', 'URI:spiffe://example.org/web', 'IP:192.0.2.1', 'email:"a b"@example.org']);
  });

  for (const [octets, shown] of [
    ['20010db8000000000000000000000001', '2001:db8::1'], ['00000000000000000000000000000000', '::'], ['00000000000000000000ffffc0000201', '::ffff:192.0.2.1'], ['fe800000000000000001000000000001', 'fe80::1:0:0:1'],
  ] as const) {
    it(`the address ${shown} is as RFC 5952 has it`, () => { assert.deepEqual(altNames(der(0x87, Buffer.from(octets, 'hex'))), [`IP:${shown}`]); });
  }

  it('what is not as its kind says is left out: no name is made up from it', () => {
    assert.deepEqual(altNames(
      dns('good.example\0.evil.example'), dns('b\u00fccher.example'), dns('a\nb'), dns(''), dns('\x7f'), der(0x87, Buffer.alloc(3)), der(0x87, Buffer.alloc(8)), der(0x86, Buffer.from([0x80])), dns('left.example'),
    ), ['DNS:left.example']);
  });

  it('64 names are told and the 65th is not; only those that are told count', () => {
    const names = Array.from({ length: 65 }, (_, n) => `n${n}.example`);
    assert.deepEqual(altNames(...names.slice(0, 64).map(dns)), names.slice(0, 64).map((name) => `DNS:${name}`));
    assert.deepEqual(altNames(...names.flatMap((name) => [der(0x87, Buffer.alloc(5)), dns(name)])), names.slice(0, 64).map((name) => `DNS:${name}`));
  });

  it('one of 512 octets is told, and one of 513 left out rather than cut', () => {
    assert.deepEqual(altNames(dns('x'.repeat(508))), [`DNS:${'x'.repeat(508)}`]);
    assert.deepEqual(altNames(dns('x'.repeat(509))), []);
  });

  it('in DER is all of it: each name a complete GeneralName, of whatever kind and number', () => {
    const names = [dns('a.example'), der(0xa4, derName([derAttribute(cn, 'x')])), ...Array.from({ length: 100 }, () => dns('x'.repeat(600)))];
    const subject = derName([derAttribute(cn, 'x'.repeat(2000))]);
    const issuer = derName([derAttribute(o, 'y')]);
    const read = derNamesOf(derCertificate({ subject, issuer, extensions: [der(0x30, derOid('2.5.29.19'), der(0x01, Buffer.from([0xff])), der(0x04, der(0x30))), derAltNames(...names)] }));
    assert.deepEqual([Buffer.from(read.subject), Buffer.from(read.issuer)], [subject, issuer]);
    assert.deepEqual(read.subjectAltNames.map((one) => Buffer.from(one)), names);
  });
});

describe('a certificate of another library', () => {
  it('has the names that this library and Node see in it', async () => {
    const { certificate } = await makeCert('www.example.org', { dns: ['www.example.org', '*.example.org'] });
    const names = namesOf(certificate.raw);
    assert.deepEqual(names, { subject: 'CN=www.example.org', issuer: 'CN=www.example.org', subjectAltNames: ['DNS:www.example.org', 'DNS:*.example.org'] });
    assert.equal(names.subjectAltNames.join(', '), new X509Certificate(certificate.raw).subjectAltName);
  });
});

describe('what is no certificate in DER', () => {
  const good = derCertificate({ subject: derName([derAttribute(cn, 'x')]), extensions: [derAltNames(dns('a.example'))] });
  const extended = (...extensions: readonly Uint8Array[]): Buffer => derCertificate({ extensions });

  it('is accepted as long as it is one', () => { assert.equal(namesOf(good).subject, 'CN=x'); });

  for (const [what, octets, text] of [
    ['nothing', Buffer.alloc(0), /the certificate is missing/u], ['octets behind it', Buffer.concat([good, Buffer.alloc(1)]), /octets behind the certificate/u],
    ['a SET', der(0x31), /tag 0x31/u], ['an empty SEQUENCE', der(0x30), /tbsCertificate is missing/u],
    ['something behind the extensions', derCertificate({ extensions: [], more: der(0x05) }), /octets behind tbsCertificate/u],
    ['an indefinite length', Buffer.from('30800000', 'hex'), /indefinite/u], ['a length of five octets', Buffer.from('30850000000000', 'hex'), /indefinite/u],
    ['a length beyond the end', Buffer.from('3084ffffffff', 'hex'), /longer than/u], ['a length cut off', Buffer.from('3082ff', 'hex'), /cut off/u],
    ['a long length for a short one', Buffer.from('308100', 'hex'), /more octets than needed/u], ['a length with a leading zero', Buffer.concat([Buffer.from('30820080', 'hex'), Buffer.alloc(128)]), /more octets than needed/u],
    ['a tag of two octets', Buffer.from('1f8100', 'hex'), /more than one octet/u],
    ['two subjectAltNames', extended(derAltNames(dns('a.example')), derAltNames(dns('b.example'))), /two subjectAltName/u],
    ['a subjectAltName with something behind', extended(der(0x30, derOid('2.5.29.17'), der(0x04, der(0x30), der(0x05)))), /octets behind subjectAltName/u],
    ['an extension with something behind', extended(der(0x30, derOid('2.5.29.17'), der(0x04, der(0x30)), der(0x05))), /octets behind the value of an extension/u],
  ] as const) {
    it(`${what} is refused`, () => { refused(octets, text); });
  }

  for (const [what, name, text] of [
    ['an empty relative distinguished name', derName([]), /empty/u], ['an attribute without a value', derName([der(0x30, derOid(cn))]), /value of an attribute is missing/u],
    ['an attribute with two values', derName([der(0x30, derOid(cn), der(0x0c), der(0x0c))]), /octets behind the value/u], ['an attribute without a type', derName([der(0x30)]), /type of an attribute is missing/u],
    ['an empty object identifier', derName([der(0x30, der(0x06), der(0x0c))]), /empty or cut off/u], ['an object identifier that is cut off', derName([der(0x30, der(0x06, Buffer.from([0x55, 0x84])), der(0x0c))]), /empty or cut off/u],
    ['an object identifier with a leading 0x80', derName([der(0x30, der(0x06, Buffer.from([0x55, 0x80, 4])), der(0x0c))]), /more octets than needed/u],
    ['an object identifier with an arc of 21 octets', derName([der(0x30, der(0x06, Buffer.from([0x55, ...Array.from({ length: 20 }, () => 0xff), 1])), der(0x0c))]), /too large/u],
  ] as const) {
    it(`${what} is refused as text, and in octets it is left to whoever compares them`, () => {
      const octets = derCertificate({ subject: name });
      assert.throws(() => namesOf(octets), { code: 'BAD_ARGUMENT', message: text });
      assert.deepEqual(Buffer.from(derNamesOf(octets).subject), name);
    });
  }
});

describe('whatever octets a peer sends', () => {
  const seed = derCertificate({
    subject: derName([derAttribute(cn, 'x'), derAttribute(o, der(0x1e, Buffer.from('0041', 'hex')))], [derAttribute('1.2.3.4', der(0x1c, Buffer.from('00000041', 'hex')))]),
    issuer: derName([derAttribute(cn, 'y')]), extensions: [der(0x30, derOid('2.5.29.15'), der(0x04, der(0x03, Buffer.from([0])))), derAltNames(dns('a.example'), der(0x87, Buffer.alloc(16)))],
  });
  const behind = Buffer.from('SECRET-BEHIND-THE-CERTIFICATE-SECRET-BEHIND-THE-CERTIFICATE');

  /** Reads the octets out of the middle of a larger buffer: a read out of bounds would find something there. */
  function read(octets: Uint8Array): void {
    const inMemory = Buffer.concat([behind, octets, behind]);
    const view = inMemory.subarray(behind.length, behind.length + octets.length);
    const inside = (part: Uint8Array): boolean => part.buffer === view.buffer && part.byteOffset >= view.byteOffset && part.byteOffset + part.length <= view.byteOffset + view.length;
    try {
      const { subject, issuer, subjectAltNames } = derNamesOf(view);
      assert.ok([subject, issuer, ...subjectAltNames].every(inside), 'a view outside of the certificate');
      const names = namesOf(view);
      assert.ok(Buffer.byteLength(names.subject) <= 1024 && Buffer.byteLength(names.issuer) <= 1024 && names.subjectAltNames.length <= 64);
      assert.ok(names.subjectAltNames.every((name) => /^(?:DNS|URI|IP|email):[\x20-\x7e]+$/u.test(name) && name.length <= 512));
      for (const text of [names.subject, names.issuer]) {
        assert.ok(!/[^\P{C}]|[^\P{Z} ]/u.test(text), JSON.stringify(text));
        assert.ok(!text.includes('SECRET') || octets.includes(0x53), 'nothing from outside');
      }
    } catch (error) {
      assert.ok(error instanceof TlsPoolError && error.code === 'BAD_ARGUMENT', String(error));
    }
  }

  it('random octets are refused or read, within their bounds', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), read), { numRuns: 2000 });
  });

  it('a certificate with octets changed, cut out or put in is refused or read, within its bounds', () => {
    const change = fc.record({ at: fc.nat(seed.length), remove: fc.nat(6), insert: fc.uint8Array({ maxLength: 6 }) });
    let accepted = 0;
    fc.assert(fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
      let octets: Buffer = seed;
      for (const { at, remove, insert } of changes) octets = Buffer.concat([octets.subarray(0, at), insert, octets.subarray(at + remove)]);
      try { namesOf(octets); accepted += 1; } catch { /* read() looks at the error */ }
      read(octets);
    }), { numRuns: 5000 });
    assert.ok(accepted > 50, `only ${accepted} got through: too few to test anything`);
  });

  it('a certificate with one octet replaced, at each place and by each value that means something in DER', () => {
    for (let at = 0; at < seed.length; at += 1) {
      for (const value of [0x00, 0x1f, 0x30, 0x31, 0x7f, 0x80, 0x81, 0x82, 0x84, 0xa0, 0xff]) {
        const octets = Buffer.from(seed);
        octets[at] = value;
        read(octets);
      }
      read(seed.subarray(0, at));
    }
  });

  it('values of every string type are escaped, and come back when the escapes are undone', () => {
    const text = fc.string({ unit: 'binary', maxLength: 60 });
    fc.assert(fc.property(text, (value) => {
      const shown = subjectOf(value).slice(3);
      assert.ok(!/(?<!\\)(?:\\\\)*[,+;<>"]/u.test(shown), shown);
      const octets: Buffer[] = [];
      for (const [, pair, special, plain] of shown.matchAll(/\\([0-9a-f]{2})|\\(.)|(.)/gsu)) octets.push(pair === undefined ? Buffer.from(special ?? plain ?? '') : Buffer.from(pair, 'hex'));
      assert.equal(Buffer.concat(octets).toString(), value);
    }), { numRuns: 300 });
  });
});
