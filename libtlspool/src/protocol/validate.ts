/** Shapes compiled to checks: one closure per node of the message table, made once, run for every message. */
import type { BinShape, Fields, ListShape, MapShape, Shape, TextShape, UintShape, WordShape } from './schema.js';
import { escapeText } from './escape.js';

/** What is wrong with a value: the path below it (`.alpn[2]`), and a sentence. Never holds the value itself. */
export interface Fault { readonly path: string; readonly text: string }

/** Undefined when the value has the shape. */
export type Check = (value: unknown) => Fault | undefined;

/**
 * What a map may hold beside its fields. `refuse`: nothing. `drop`: anything; it is deleted from the value, so that nothing
 * unchecked is ever read from a decoded message.
 */
export type UnknownFields = 'refuse' | 'drop';

const fault = (text: string): Fault => ({ path: '', text });

/** What makes a closer look necessary: NUL, surrogates (paired or not), byte order mark. Rare, and cheap to look for. */
const suspicious = /[\0\ud800-\udfff\ufeff]/;
/** NUL, a surrogate without its other half (it has no UTF-8 form), a leading byte order mark (decoders drop it). */
const notText = /[\0\p{Surrogate}]|^\ufeff/u;

function checkUint({ max }: UintShape): Check {
  const wrong = fault(`must be an integer from 0 to ${max}`);
  return (value) => (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= max ? undefined : wrong);
}

function checkText({ maxOctets }: TextShape): Check {
  return (value) => {
    if (typeof value !== 'string') return fault('must be text');
    // UTF-16 to UTF-8 grows by a factor of 3 at most, so most texts are not measured.
    const octets = value.length * 3 <= maxOctets ? 0 : Buffer.byteLength(value);
    if (octets > maxOctets) return fault(`has ${octets} octets; at most ${maxOctets} are accepted`);
    return suspicious.test(value) && notText.test(value) ? fault('must be valid Unicode without NUL or byte order mark') : undefined;
  };
}

function checkBin({ minOctets, maxOctets }: BinShape): Check {
  const range = minOctets === maxOctets ? `exactly ${maxOctets}` : minOctets === 0 ? `at most ${maxOctets}` : `${minOctets} to ${maxOctets}`;
  return (value) => {
    if (!(value instanceof Uint8Array)) return fault('must be binary');
    return value.length >= minOctets && value.length <= maxOctets ? undefined : fault(`has ${value.length} octets; ${range} are accepted`);
  };
}

function checkWord({ words }: WordShape): Check {
  const wrong = fault(`must be one of ${words.join(', ')}`);
  return (value) => (typeof value === 'string' && words.includes(value) ? undefined : wrong);
}

function checkList({ of, maxItems }: ListShape<Shape>, unknownFields: UnknownFields): Check {
  const item = compile(of, unknownFields);
  return (value) => {
    if (!Array.isArray(value)) return fault('must be a list');
    if (value.length > maxItems) return fault(`has ${value.length} items; at most ${maxItems} are accepted`);
    for (let i = 0; i < value.length; i++) {
      const found = item(value[i]);
      if (found !== undefined) return { path: `[${i}]${found.path}`, text: found.text };
    }
    return undefined;
  };
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function handleUnknown(value: Record<string, unknown>, fields: Fields, unknownFields: UnknownFields): Fault | undefined {
  for (const key of Object.keys(value)) {
    const known = Object.hasOwn(fields, key);
    if (known && value[key] !== undefined) continue;
    const text = known ? 'is undefined; leave it out instead' : 'is not a field of this message';
    if (unknownFields === 'refuse') return { path: `.${escapeText(key)}`, text };
    delete value[key];
  }
  return undefined;
}

function checkMap({ fields }: MapShape<Fields>, unknownFields: UnknownFields): Check {
  const entries = Object.entries(fields).map(([key, shape]) => ({ key, check: compile(shape, unknownFields), isOptional: shape.kind === 'optional' }));
  return (value) => {
    if (!isPlainObject(value)) return fault('must be a map');
    let present = 0;
    for (const { key, check, isOptional } of entries) {
      const field = value[key];
      if (field === undefined) {
        if (isOptional) continue;
        return { path: `.${key}`, text: 'is missing' };
      }
      const found = check(field);
      if (found !== undefined) return { path: `.${key}${found.path}`, text: found.text };
      present++;
    }
    return Object.keys(value).length === present ? undefined : handleUnknown(value, fields, unknownFields);
  };
}

/** Compiles a shape. The check allocates only when it finds a fault. */
export function compile(shape: Shape, unknownFields: UnknownFields): Check {
  switch (shape.kind) {
    case 'uint': return checkUint(shape);
    case 'text': return checkText(shape);
    case 'bin': return checkBin(shape);
    case 'bool': return (value) => (typeof value === 'boolean' ? undefined : fault('must be true or false'));
    case 'word': return checkWord(shape);
    case 'list': return checkList(shape as ListShape<Shape>, unknownFields);
    case 'map': return checkMap(shape as MapShape<Fields>, unknownFields);
    case 'optional': return compile(shape.of as Shape, unknownFields);
  }
}

/**
 * A copy of a checked value with its integers over 2^32 - 1 as bigint, which the encoder writes as integers where it would make floats of numbers.
 * Undefined for shapes that cannot hold one: those are encoded as they are.
 */
export function widener(shape: Shape): ((value: unknown) => unknown) | undefined {
  switch (shape.kind) {
    case 'uint': return shape.max > 0xffff_ffff ? (value) => ((value as number) > 0xffff_ffff ? BigInt(value as number) : value) : undefined;
    case 'optional': return widener(shape.of as Shape);
    case 'list': {
      const item = widener(shape.of as Shape);
      return item === undefined ? undefined : (value) => (value as unknown[]).map(item);
    }
    case 'map': return mapWidener(shape as MapShape<Fields>);
    default: return undefined;
  }
}

function mapWidener({ fields }: MapShape<Fields>): ((value: unknown) => unknown) | undefined {
  const wide = Object.entries(fields).flatMap(([key, shape]) => {
    const widen = widener(shape);
    return widen === undefined ? [] : [{ key, widen }];
  });
  if (wide.length === 0) return undefined;
  return (value) => {
    const copy: Record<string, unknown> = { ...(value as Record<string, unknown>) };
    for (const { key, widen } of wide) if (copy[key] !== undefined) copy[key] = widen(copy[key]);
    return copy;
  };
}
