/** Arbitrary messages, made from the message table: a new op is fuzzed without a line of test code. */
import fc from 'fast-check';
import { errorBody, messageSpecs } from 'libtlspool/protocol';
import type { BinShape, Fields, Message, MessageType, Shape, TextShape, UintShape } from 'libtlspool/protocol';

/** Lists longer than this only make the run slow; the caps have their own unit tests. */
const shownItems = 4;
const shownOctets = 96;

function uintArbitrary({ max }: UintShape): fc.Arbitrary<number> {
  const edges = [0, 127, 128, 255, 256, 65_535, 65_536, 0xffff_ffff, 0x1_0000_0000, max].filter((edge) => edge <= max);
  return fc.oneof(fc.constantFrom(...edges), fc.integer({ min: 0, max: Math.min(max, Number.MAX_SAFE_INTEGER) }));
}

function textArbitrary({ maxOctets }: TextShape): fc.Arbitrary<string> {
  const fits = (value: string): boolean => Buffer.byteLength(value) <= maxOctets && !value.includes('\0') && !value.startsWith('\ufeff');
  const maxLength = Math.min(maxOctets, shownOctets);
  return fc.oneof(fc.string({ maxLength }), fc.string({ unit: 'binary', maxLength }), fc.constant('x'.repeat(maxOctets))).filter(fits);
}

function binArbitrary({ minOctets, maxOctets }: BinShape): fc.Arbitrary<Buffer> {
  return fc.uint8Array({ minLength: minOctets, maxLength: Math.min(maxOctets, Math.max(minOctets, shownOctets)) }).map((octets) => Buffer.from(octets));
}

/** Values of a shape. */
export function valueArbitrary(shape: Shape): fc.Arbitrary<unknown> {
  switch (shape.kind) {
    case 'uint': return uintArbitrary(shape);
    case 'text': return textArbitrary(shape);
    case 'bin': return binArbitrary(shape);
    case 'bool': return fc.boolean();
    case 'word': return fc.constantFrom(...shape.words);
    case 'list': return fc.array(valueArbitrary(shape.of as Shape), { maxLength: Math.min(shape.maxItems, shownItems) });
    case 'optional': return valueArbitrary(shape.of as Shape);
    case 'map': {
      const fields = Object.entries(shape.fields as Fields);
      const required = fields.filter(([, field]) => field.kind !== 'optional').map(([key]) => key);
      return fc.record(Object.fromEntries(fields.map(([key, field]) => [key, valueArbitrary(field)])), { requiredKeys: required, noNullPrototype: true });
    }
  }
}

const id = uintArbitrary({ kind: 'uint', max: 0xffff_ffff });

/** Messages of one type, of every op. */
export function messageArbitrary(type: MessageType): fc.Arbitrary<Message> {
  if (type === 'error') {
    const op = textArbitrary({ kind: 'text', maxOctets: 64 }).filter((value) => value !== '');
    return fc.record({ type: fc.constant(type), op, id, body: valueArbitrary(errorBody) }, { noNullPrototype: true }) as fc.Arbitrary<Message>;
  }
  const ops = [...messageSpecs[type]].map(([op, { body }]) => {
    const envelope: Record<string, fc.Arbitrary<unknown>> = { type: fc.constant(type), op: fc.constant(op), body: valueArbitrary(body) };
    return fc.record(type === 'event' ? envelope : { ...envelope, id }, { noNullPrototype: true });
  });
  return fc.oneof(...ops) as fc.Arbitrary<unknown> as fc.Arbitrary<Message>;
}
