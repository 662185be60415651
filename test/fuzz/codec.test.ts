import assert from 'node:assert/strict';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { Packr } from 'msgpackr';
import { decodeMessage, decodePacket, encodeMessage, formatMessage, maxPacketMessages, messageSpec, messageTypes, peekEnvelope, TlsPoolError } from 'libtlspool/protocol';
import type { Direction, Fields, Message, MessageType, Shape } from 'libtlspool/protocol';
import { messageArbitrary } from './message-arbitrary.js';

const numRuns = Number(process.env['TLSPOOL_FUZZ_RUNS'] ?? '400');
/** Far above what any packet takes (well under a millisecond), and far below what a quadratic mistake would take on 64 KiB. */
const slowMs = 500;
const maxOctets = 1 << 20;

const directions: readonly Direction[] = ['toPool', 'toClient'];
const cases: readonly (readonly [MessageType, Direction])[] = directions.flatMap((direction) => messageTypes[direction].map((type) => [type, direction] as const));
const anyMessage = fc.oneof(...cases.map(([type]) => messageArbitrary(type)));

/** Decodes; a refusal is fine when it is a TlsPoolError of the codec with a usable text. Returns the message, if it was one. */
function decodeAny(packet: Uint8Array, direction: Direction): Message | undefined {
  const start = performance.now();
  peekEnvelope(packet);
  try {
    return decodeMessage(packet, direction, maxOctets);
  } catch (error) {
    assert.ok(error instanceof TlsPoolError, `threw ${String(error)}`);
    assert.ok(['BAD_MESSAGE', 'UNKNOWN_OP', 'MESSAGE_TOO_LARGE'].includes(error.code), error.code);
    assert.ok(Buffer.byteLength(error.message) <= 2048 && Buffer.byteLength(error.field ?? '') <= 256, 'fits an error reply');
    return undefined;
  } finally {
    const took = performance.now() - start;
    assert.ok(took < slowMs, `took ${took} ms for ${packet.length} octets`);
  }
}

/** A copy of a value with every octet of its secrets changed. */
function withOtherSecrets(shape: Shape, value: unknown): unknown {
  if (value === undefined) return value;
  switch (shape.kind) {
    case 'bin': return shape.secret ? Buffer.from((value as Uint8Array).map((octet) => octet ^ 0xff)) : value;
    case 'optional': return withOtherSecrets(shape.of as Shape, value);
    case 'list': return (value as unknown[]).map((item) => withOtherSecrets(shape.of as Shape, item));
    case 'map': {
      const fields = Object.entries(shape.fields as Fields);
      const body = value as Record<string, unknown>;
      return Object.fromEntries(fields.flatMap(([key, field]) => (key in body ? [[key, withOtherSecrets(field, body[key])]] : [])));
    }
    default: return value;
  }
}

describe('codec under arbitrary input', function () {
  this.timeout(60_000);

  for (const [type, direction] of cases) {
    it(`every ${type} ${direction} that the table allows comes back equal, and re-encodes to the same octets`, () => {
      fc.assert(fc.property(messageArbitrary(type), (message) => {
        const packet = encodeMessage(message, maxOctets);
        const decoded = decodeMessage(Buffer.from(packet), direction, maxOctets);
        assert.deepEqual(decoded, message);
        assert.deepEqual(encodeMessage(decoded, maxOctets), packet);
      }), { numRuns: Math.ceil(numRuns / 2) });
    });
  }

  it('arbitrary octets are refused with an error of the table, in no time', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 2048 }), fc.constantFrom(...directions), (packet, direction) => {
      decodeAny(packet, direction);
    }), { numRuns: numRuns * 10 });
  });

  it('octets that begin like an envelope are refused with an error of the table, in no time', () => {
    const start = encodeMessage({ type: 'request', op: 'ping', id: 1, body: {} }).subarray(0, -1);
    fc.assert(fc.property(fc.uint8Array({ maxLength: 256 }), (rest) => { decodeAny(Buffer.concat([start, rest]), 'toPool'); }), { numRuns: numRuns * 10 });
  });

  it('valid packets with octets changed, cut or added decode to something of the table or are refused', () => {
    const mutation = fc.tuple(fc.nat(), fc.nat({ max: 2 }), fc.uint8Array({ minLength: 1, maxLength: 4 }));
    fc.assert(fc.property(anyMessage, fc.array(mutation, { minLength: 1, maxLength: 4 }), (message, mutations) => {
      let packet = encodeMessage(message, maxOctets);
      for (const [where, how, octets] of mutations) {
        const at = where % (packet.length + 1);
        const skip = how === 0 ? octets.length : how === 1 ? 0 : 2 * octets.length;
        packet = Buffer.concat([packet.subarray(0, at), octets, packet.subarray(at + skip)]);
      }
      // What is accepted is sound: it can be encoded, and that decodes to the same.
      for (const direction of directions) {
        const decoded = decodeAny(Buffer.from(packet), direction);
        if (decoded !== undefined) assert.deepEqual(decodeMessage(encodeMessage(decoded, maxOctets), direction, maxOctets), decoded);
      }
    }), { numRuns: numRuns * 5 });
  });

  /** Takes a packet of the pool apart; a refusal is fine when it is one of the codec. */
  function takeApart(packet: Uint8Array): readonly Message[] | undefined {
    const start = performance.now();
    try {
      return decodePacket(packet, maxOctets);
    } catch (error) {
      assert.ok(error instanceof TlsPoolError, `threw ${String(error)}`);
      assert.ok(['BAD_MESSAGE', 'UNKNOWN_OP', 'MESSAGE_TOO_LARGE'].includes(error.code), error.code);
      return undefined;
    } finally {
      assert.ok(performance.now() - start < slowMs);
    }
  }
  const mayShare = ({ type, op }: Message): boolean => type === 'event' && (op === 'connection' || op === 'closed');
  const toClient = fc.oneof(...messageTypes.toClient.map((type) => messageArbitrary(type)));

  it('messages back to back come apart as they were put together when all of them may share a packet, and are refused when one may not', () => {
    const events = messageArbitrary('event').filter(mayShare);
    let shared = 0;
    fc.assert(fc.property(fc.array(fc.oneof({ weight: 20, arbitrary: events }, { weight: 1, arbitrary: toClient }), { minLength: 1, maxLength: maxPacketMessages + 2 }), (messages) => {
      const taken = takeApart(Buffer.concat(messages.map((message) => encodeMessage(message, maxOctets))));
      if (messages.length === 1 || (messages.length <= maxPacketMessages && messages.every(mayShare))) assert.deepEqual(taken, messages);
      else assert.equal(taken, undefined);
      if (messages.length > 1 && taken !== undefined) shared++;
    }), { numRuns });
    assert.ok(shared > numRuns / 20, 'there were packets with several messages');
  });

  it('packets with octets changed, cut or added come apart into messages of the table that may share one, or are refused', () => {
    const edit = fc.tuple(fc.nat(), fc.nat({ max: 3 }), fc.uint8Array({ minLength: 1, maxLength: 4 }));
    fc.assert(fc.property(fc.array(messageArbitrary('event'), { minLength: 1, maxLength: 4 }), fc.array(edit, { minLength: 1, maxLength: 3 }), (messages, edits) => {
      let packet = Buffer.concat(messages.map((message) => encodeMessage(message, maxOctets)));
      for (const [where, skip, octets] of edits) {
        const at = where % (packet.length + 1);
        packet = Buffer.concat([packet.subarray(0, at), octets, packet.subarray(at + skip)]);
      }
      const taken = takeApart(Buffer.from(packet));
      if (taken === undefined) return;
      assert.ok(taken.length === 1 || taken.every(mayShare));
      assert.deepEqual(takeApart(Buffer.concat(taken.map((message) => encodeMessage(message, maxOctets)))), taken);
    }), { numRuns: numRuns * 3 });
  });

  it('a packet of 1 MiB of empty maps is refused in no time', () => {
    assert.equal(takeApart(Buffer.alloc(maxOctets, 0x80)), undefined);
  });

  it('any MessagePack value in a body is refused or sound', () => {
    const packr = new Packr({ useRecords: false, moreTypes: true });
    const anything = fc.object({ withDate: true, withBigInt: true, withMap: true, withSet: true, withTypedArray: true, withNullPrototype: false, maxDepth: 9 });
    fc.assert(fc.property(anything, fc.constantFrom('ping', 'listen', 'starttls', 'prng', 'sessions'), (body, op) => {
      let packet: Buffer;
      try { packet = packr.pack({ type: 'request', op, id: 1, body }); } catch { return; } // not every object of fast-check can be packed
      decodeAny(packet, 'toPool');
    }), { numRuns: numRuns * 2 });
  });

  for (const [name, octet] of [['maps', 0x81], ['lists', 0x91], ['texts', 0xa0], ['maps of many', 0x8f], ['long lists', 0xdd], ['long maps', 0xdf]] as const) {
    it(`a packet of 1 MiB of nothing but ${name} is refused in no time`, () => {
      for (const direction of directions) assert.equal(decodeAny(Buffer.alloc(maxOctets, octet), direction), undefined);
    });
  }

  it('a map with as many fields as can be made to look alike is refused in no time', () => {
    const keys = Buffer.concat(Array.from({ length: 63 }, (_, i) => Buffer.concat([Buffer.from([0xa3]), Buffer.from(String(100 + i)), Buffer.from([0])])));
    const oneMap = Buffer.concat([Buffer.from([0xde, 0, 63]), keys]);
    const items = Math.floor((maxOctets - 16) / oneMap.length);
    const list = Buffer.alloc(5);
    list[0] = 0xdd;
    list.writeUInt32BE(items, 1);
    const packet = Buffer.concat([Buffer.from([0x81, 0xa1, 0x61]), list, ...Array.from({ length: items }, () => oneMap)]);
    assert.equal(decodeAny(packet, 'toPool'), undefined);
  });

  it('a trace is one line of printable ASCII, and no octet of a secret has any influence on it', () => {
    let secrets = 0;
    fc.assert(fc.property(anyMessage, (message) => {
      const line = formatMessage(message);
      assert.match(line, /^[\x20-\x7e…]*$/);
      const other = { ...message, body: withOtherSecrets(messageSpec(message.type, message.op).body, message.body) } as Message;
      if (!isDeepStrictEqual(other, message)) secrets++;
      assert.equal(formatMessage(other), line);
    }), { numRuns: numRuns * 2 });
    assert.ok(secrets > numRuns / 20, 'there were secrets to hide');
  });
});
