import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { arms, codec, commands, frameOctets, makeCodec } from 'tlspool/dist/v2/frames.js';
import type { Arm, Codec, Fields } from 'tlspool/dist/v2/frames.js';
import { V2Error, messageOf, numberOf, tableErrors } from 'tlspool/dist/v2/errors.js';
import { domainOf, roleOf } from 'tlspool/dist/v2/flags.js';

interface Vector { readonly arm: Arm; readonly head: Fields<'head'>; readonly fields: Fields<Arm>; readonly LE: string; readonly BE: string }

const file = path.resolve(import.meta.dirname, '../../../test/vectors/v2.json');

/** JSON has no binary: {"$bin": "hex"} stands for it. */
function revive(_key: string, value: unknown): unknown {
  return typeof value === 'object' && value !== null && '$bin' in value ? Buffer.from(String(value.$bin), 'hex') : value;
}

const vectors = JSON.parse(readFileSync(file, 'utf8'), revive) as readonly Vector[];
const codecs: Readonly<Record<'LE' | 'BE', Codec>> = { LE: makeCodec('LE'), BE: makeCodec('BE') };
const armNames = (Object.keys(arms) as Arm[]).filter((arm) => arm !== 'head');

describe('V2 frames: golden vectors', () => {
  it('every arm has one', () => {
    assert.deepEqual([...new Set(vectors.map(({ arm }) => arm))].sort(), [...armNames].sort());
  });

  for (const [index, { arm, head, fields, ...octets }] of vectors.entries()) {
    for (const order of ['LE', 'BE'] as const) {
      it(`${arm} (${index}) has the octets that Python's struct makes of it, ${order}`, () => {
        const frame = Buffer.from(octets[order], 'hex');
        assert.equal(frame.length, frameOctets);
        assert.deepEqual({ ...codecs[order].read(frame, 'head') }, head);
        assert.deepEqual({ ...codecs[order].read(frame, arm) }, fields);
        const made = Buffer.alloc(frameOctets);
        codecs[order].patch(made, 'head', head);
        codecs[order].patch(made, arm, fields);
        assert.equal(made.toString('hex'), octets[order]);
      });
    }
  }

  it('this host speaks the order of its processor', () => {
    const frame = Buffer.alloc(frameOctets);
    new Uint32Array(frame.buffer, frame.byteOffset + 4, 1)[0] = commands.STARTTLS;
    assert.equal(codec.read(frame, 'head').cmd, commands.STARTTLS);
  });
});

describe('V2 frames: the schema', () => {
  it('no two fields of an arm overlap, none touches the head, and all are within the frame', () => {
    for (const arm of armNames) {
      let end = 8;
      for (const { at, size } of Object.values(arms[arm]).sort((a, b) => a.at - b.at)) {
        assert.ok(at >= end && at + size <= frameOctets, `${arm} at ${at}`);
        end = at + size;
      }
    }
  });

  const frames = fc.uint8Array({ minLength: frameOctets, maxLength: frameOctets }).map((octets) => Buffer.from(octets));
  it('every frame can be read as every arm, and written back as it was', () => {
    fc.assert(fc.property(frames, fc.constantFrom(...armNames), fc.constantFrom('LE' as const, 'BE' as const), (frame, arm, order) => {
      const before = Buffer.from(frame);
      const { ...fields } = codecs[order].read(frame, arm);
      // Octets and integers give back every octet; text may be no UTF-8.
      const exact = Object.fromEntries(Object.entries(fields).filter(([, value]) => typeof value !== 'string'));
      codecs[order].patch(frame, arm, exact);
      assert.deepEqual(frame, before);
    }));
  });
  it('writing a field changes no octet of another', () => {
    fc.assert(fc.property(frames, fc.string({ unit: 'grapheme', maxLength: 200 }), (frame, text) => {
      const before = Buffer.from(frame);
      codec.patch(frame, 'starttls', { localid: text });
      assert.deepEqual(frame.subarray(0, 20), before.subarray(0, 20));
      assert.deepEqual(frame.subarray(148), before.subarray(148));
      const written = codec.read(frame, 'starttls').localid;
      assert.ok(Buffer.byteLength(written) <= 127);
      assert.ok(text.startsWith(written), 'text is cut at a character');
    }));
  });
  it('text is cut between characters, and always has its NUL', () => {
    const frame = Buffer.alloc(frameOctets, 0xff);
    codec.patch(frame, 'starttls', { localid: 'é'.repeat(64) });
    assert.equal(codec.read(frame, 'starttls').localid, 'é'.repeat(63));
    codec.patch(frame, 'starttls', { localid: 'a'.repeat(127) });
    assert.equal(codec.read(frame, 'starttls').localid, 'a'.repeat(127));
    assert.equal(frame[147], 0);
    codec.patch(frame, 'starttls', { localid: 'a\0b' });
    assert.equal(codec.read(frame, 'starttls').localid, 'a');
  });
  it('text without a NUL ends with its field', () => {
    const frame = Buffer.alloc(frameOctets, 0x61);
    assert.equal(codec.read(frame, 'starttls').remoteid, 'a'.repeat(128));
  });
  it('octets that do not fit, and integers out of range, are refused', () => {
    const frame = Buffer.alloc(frameOctets);
    assert.throws(() => { codec.patch(frame, 'control', { ctlkey: Buffer.alloc(17) }); }, RangeError);
    codec.patch(frame, 'control', { ctlkey: Buffer.alloc(16, 1) });
    assert.throws(() => { codec.patch(frame, 'head', { reqid: 65_536 }); }, RangeError);
    codec.patch(frame, 'head', { reqid: 65_535 });
  });
});

describe('V2 errors', () => {
  it('the numbers are those of the com_err table tlsP', () => {
    assert.equal(tableErrors.length, 30);
    for (const [name, number] of [
      ['OUT_OF_MEMORY', -1167372288], ['CLIENT_DISCONNECT', -1167372286], ['SUPERFLUOUS_SOCKET', -1167372283], ['COMMAND_UNKNOWN', -1167372280],
      ['COMMAND_BAD_CALLBACK_RESPONSE', -1167372278], ['CTLKEY_NOT_FOUND', -1167372273], ['CTLKEY_ATTACHED', -1167372270], ['RENOGIATE_WOULD_BE_INSECURE', -1167372267],
      ['STIRRED_NOT_SHAKEN', -1167372264], ['PINENTRY_NOT_VACANT', -1167372261], ['INFO_NOT_FOUND', -1167372259],
    ] as const) assert.equal(numberOf(name), number, name);
    // et_base of "tlsP": six bits a character, eight bits of numbers.
    assert.equal(numberOf('OUT_OF_MEMORY') >>> 0, 0xba6b5000);
    assert.equal(numberOf('EACCES'), 13);
    assert.equal(numberOf('ENOTSOCK'), 88);
  });
  it('what a peer has sent is escaped, and cut to what fits', () => {
    const message = messageOf(new V2Error('STIRRED_NOT_SHAKEN', `\u001b[31m${'x'.repeat(300)}`));
    assert.match(message, /^TLS Pool could not complete the TLS handshake: \\u\{1b\}\[31mx+$/u);
    assert.equal(message.length, 127);
  });
});

describe('V2 flags', () => {
  const roles = { none: [0x0, 0x1, 0x2, 0x3, 0x4, 0x5, 0x8, 0xa, 0xc], client: [0x9, 0xb, 0xd], server: [0x6, 0x7, 0xe], peer: [0xf] } as const;
  it('a role is dropped without its counterpart', () => {
    for (const [role, flags] of Object.entries(roles)) for (const flag of flags) assert.equal(roleOf(flag | 0x7_ff00), role, `0x${flag.toString(16)}`);
    assert.equal(Object.values(roles).flat().length, 16);
  });
  it('the domain is what follows the last @', () => {
    for (const [identity, domain] of [['a@b', 'b'], ['b', 'b'], ['a@b@c', 'c'], ['a@', ''], ['', '']] as const) assert.equal(domainOf(identity), domain);
  });
});
