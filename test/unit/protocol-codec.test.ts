import assert from 'node:assert/strict';
import { Packr } from 'msgpackr';
import { decodeMessage, encodeMessage, maxDepth, maxKeyOctets, maxMapFields, peekEnvelope, TlsPoolError } from 'libtlspool/protocol';
import type { Direction, ErrorCode, Message } from 'libtlspool/protocol';

const packr = new Packr({ useRecords: false, variableMapSize: true, moreTypes: true });
const pack = (value: unknown): Buffer => packr.pack(value);
const request = (op: string, body: unknown): Buffer => pack({ type: 'request', op, id: 7, body });
const event = (op: string, body: unknown): Buffer => pack({ type: 'event', op, body });
/** A ping with these MessagePack octets as its payload: `{type, op, id, body: {payload: …}}`. */
const pingWith = (hex: string): Buffer => Buffer.concat([
  Buffer.from('84', 'hex'), pack('type'), pack('request'), pack('op'), pack('ping'), pack('id'), pack(7),
  pack('body'), Buffer.from('81', 'hex'), pack('payload'), Buffer.from(hex, 'hex'),
]);
const ctlkey = Buffer.alloc(16, 7);
const many = (count: number, make: (i: number) => string = (i) => `p${i}`): string[] => Array.from({ length: count }, (_, i) => make(i));

function refused(packet: Uint8Array, expected: { code?: ErrorCode; field?: string; text?: RegExp }, direction: Direction = 'toPool'): void {
  assert.throws(() => decodeMessage(packet, direction), (error) => {
    assert.ok(error instanceof TlsPoolError, String(error));
    assert.equal(error.code, expected.code ?? 'BAD_MESSAGE', error.message);
    assert.equal(error.field, expected.field, error.message);
    if (expected.text !== undefined) assert.match(error.message, expected.text);
    return true;
  });
}

const accepted = (packet: Uint8Array, direction: Direction = 'toPool'): Message => decodeMessage(packet, direction);

describe('protocol: what is not MessagePack of the subset is refused', () => {
  it('an octet behind the message is refused; the message without it is accepted', () => {
    const packet = request('ping', {});
    accepted(packet);
    refused(Buffer.concat([packet, Buffer.from([0])]), { text: /1 octets follow/ });
    refused(Buffer.concat([packet, packet]), { text: new RegExp(`${packet.length} octets follow`) });
  });

  it('an empty packet, and every packet that ends early, is refused; the whole one is accepted', () => {
    const packet = request('prng', { ctlkey, label: 'EXPORTER-x', length: 300 });
    for (let octets = 0; octets < packet.length; octets++) assert.throws(() => decodeMessage(packet.subarray(0, octets), 'toPool'), { code: 'BAD_MESSAGE' });
    accepted(packet);
  });

  it('anything but a map is refused', () => {
    for (const value of [1, 'request', true, [], ['request'], Buffer.from('x')]) refused(pack(value), { text: /not a map/ });
  });

  const formats: readonly (readonly [string, string, RegExp])[] = [
    ['nil', 'c0', /nil/], ['the unused format 0xc1', 'c1', /0xc1/], ['float32', 'ca3f800000', /float/], ['float64', 'cb3ff0000000000000', /float/],
    ['NaN', 'cb7ff8000000000000', /float/], ['a negative fixint', 'ff', /negative/], ['a negative int8', 'd0ff', /negative/], ['a negative int16', 'd1ffff', /negative/],
    ['a negative int32', 'd2ffffffff', /negative/], ['a negative int64', 'd3ffffffffffffffff', /negative/], ['an integer over 2^53 - 1', 'cf0020000000000000', /2\^53/],
    ['ext8', 'c70000', /extension/], ['ext16', 'c8000000', /extension/], ['ext32', 'c90000000000', /extension/], ['fixext1 (undefined of msgpackr)', 'd40000', /extension/],
    ['fixext2', 'd5010000', /extension/], ['a timestamp', 'd6ff00000000', /extension/], ['fixext8', `d701${'00'.repeat(8)}`, /extension/], ['fixext16', `d801${'00'.repeat(16)}`, /extension/],
  ];
  for (const [name, hex, text] of formats) {
    it(`${name} is refused by name of the field`, () => { refused(pingWith(hex), { field: 'body.payload', text }); });
  }

  it('a binary payload is accepted in each of its three formats', () => {
    for (const hex of ['c40141', 'c5000141', 'c60000000141']) assert.deepEqual(accepted(pingWith(hex)).body, { payload: Buffer.from('A') });
  });

  it('an integer is accepted in every format that can hold it, up to 2^53 - 1', () => {
    const afters: [string, number][] = [['05', 5], ['cc05', 5], ['cd0005', 5], ['ce00000005', 5], ['cf0000000000000005', 5], ['d005', 5], ['d10005', 5], ['d200000005', 5], ['d30000000000000005', 5], ['ceffffffff', 0xffff_ffff]];
    for (const [hex, after] of afters) {
      const packet = Buffer.concat([request('sessions', { after: 0 }).subarray(0, -1), Buffer.from(hex, 'hex')]);
      assert.deepEqual(accepted(packet).body, { after });
    }
    const closed = (hex: string): Buffer => Buffer.concat([event('closed', { ctlkey, how: 'closed', octetsSent: 1, octetsReceived: 0 }).subarray(0, -1), Buffer.from(hex, 'hex')]);
    assert.equal((accepted(closed('cf001fffffffffffff'), 'toClient').body as { octetsReceived: number }).octetsReceived, Number.MAX_SAFE_INTEGER);
    refused(closed('cf0020000000000000'), { field: 'body.octetsReceived' }, 'toClient');
  });

  it('a field that is there twice is refused, wherever it is; two different fields are accepted', () => {
    const twice = Buffer.concat([Buffer.from('84', 'hex'), ...['type', 'request', 'op', 'ping', 'op', 'ping', 'id'].map(pack), pack(1)]);
    refused(twice, { field: 'op', text: /twice/ });
    const listen = (second: string): Buffer => Buffer.concat([request('listen', {}).subarray(0, -1), Buffer.from([0x82]), pack('localid'), pack('a'), pack(second), pack('b')]);
    refused(listen('localid'), { field: 'body.localid', text: /twice/ });
    accepted(listen('share'));
  });

  it('names that JavaScript objects know are refused in both directions', () => {
    for (const key of ['__proto__', 'constructor', 'prototype']) {
      const body = Buffer.concat([Buffer.from([0x81]), pack(key), Buffer.from([0x80])]);
      refused(Buffer.concat([request('ping', {}).subarray(0, -1), body]), { field: 'body', text: /reserved/ });
      refused(Buffer.concat([event('drain', {}).subarray(0, -1), body]), { field: 'body', text: /reserved/ }, 'toClient');
    }
    assert.equal((Object.prototype as Record<string, unknown>)['polluted'], undefined);
  });

  it('a field name that is no text is refused', () => {
    for (const key of ['01', '90', '80', 'c40161']) refused(Buffer.concat([Buffer.from('81', 'hex'), Buffer.from(key, 'hex'), Buffer.from([1])]), { text: /not text/ });
  });

  it(`a field name of ${maxKeyOctets} octets is read (and ignored by a client), one more octet is refused`, () => {
    accepted(event('drain', { deadlineMs: 1, ['x'.repeat(maxKeyOctets)]: 1 }), 'toClient');
    refused(event('drain', { deadlineMs: 1, ['x'.repeat(maxKeyOctets + 1)]: 1 }), { field: 'body', text: /65 octets/ }, 'toClient');
  });

  it(`a map of ${maxMapFields} fields is read (and ignored by a client), one more field is refused`, () => {
    const wide = (count: number): Buffer => event('drain', { deadlineMs: 1, wide: Object.fromEntries(many(count).map((key) => [key, 1])) });
    accepted(wide(maxMapFields), 'toClient');
    refused(wide(maxMapFields + 1), { field: 'body.wide', text: /65 fields/ }, 'toClient');
  });

  it(`nesting of ${maxDepth} is read (and ignored by a client), one deeper is refused`, () => {
    const nested = (depth: number): Buffer => event('drain', { deadlineMs: 1, deep: Array.from({ length: depth - 2 }).reduce((inner) => [inner], 1) });
    accepted(nested(maxDepth), 'toClient');
    refused(nested(maxDepth + 1), { field: 'body.deep[0][0][0][0][0][0]', text: /nesting/ }, 'toClient');
  });

  it('declared lengths beyond the packet are refused before anything is allocated', () => {
    for (const hex of ['ddffffffff', 'dfffffffff', 'dbffffffff', 'c6ffffffff', 'dcffff', 'daffff', 'c5ffff']) {
      const before = process.memoryUsage();
      refused(pingWith(hex), { field: 'body.payload' });
      assert.ok(process.memoryUsage().rss - before.rss < 64 * 1024 * 1024);
    }
  });

  it('a packet of the cap is accepted, one octet more is refused', () => {
    const packet = request('ping', { payload: Buffer.alloc(512) });
    assert.ok(decodeMessage(packet, 'toPool', packet.length));
    assert.throws(() => decodeMessage(packet, 'toPool', packet.length - 1), { code: 'MESSAGE_TOO_LARGE' });
  });
});

describe('protocol: text', () => {
  const listenWith = (octets: Buffer): Buffer => Buffer.concat([request('listen', {}).subarray(0, -1), Buffer.from([0x81]), pack('localid'), Buffer.from([0xd9, octets.length]), octets]);
  const bad: readonly (readonly [string, string])[] = [
    ['a NUL', '610062'], ['a lone continuation octet', '80'], ['an overlong form', 'c0af'], ['a surrogate', 'eda080'], ['a cut character', 'e282'], ['a code point over U+10FFFF', 'f4908080'],
    ['a byte order mark', 'efbbbf61'],
  ];
  for (const [name, hex] of bad) {
    it(`${name} is refused`, () => { refused(listenWith(Buffer.from(hex, 'hex')), { field: 'body.localid' }); });
  }
  it('the same holds for an op that is only repeated, and for names of fields that are ignored', () => {
    const error = (op: string): Buffer => pack({ type: 'error', op, id: 1, body: { code: 'X', text: '' } });
    accepted(error('an op'));
    for (const op of ['a\0b', '\ufeffa']) refused(error(op), { field: 'op' });
    accepted(event('drain', { deadlineMs: 1, 'a field': 1 }), 'toClient');
    for (const key of ['a\0b', '\ufeffa']) refused(event('drain', { deadlineMs: 1, [key]: 1 }), { field: 'body' }, 'toClient');
  });
  it('UTF-8 of one to four octets is accepted as it is, also beyond 64 octets', () => {
    for (const text of ['aé€😀', '\u{10ffff}', 'é'.repeat(60), 'a\ufeff', '\u001b[0m']) {
      assert.deepEqual(accepted(listenWith(Buffer.from(text))).body, { localid: text });
    }
  });
});

describe('protocol: what is not in the message table is refused by field', () => {
  it('the envelope needs its type, op, id and body, each of its kind', () => {
    const whole = { type: 'request', op: 'ping', id: 0, body: {} };
    accepted(pack(whole));
    accepted(pack({ ...whole, id: 0xffff_ffff }));
    const wrong: [string, unknown][] = [['type', 'demand'], ['type', 1], ['type', undefined], ['op', 1], ['op', ''], ['op', 'x'.repeat(65)], ['op', undefined], ['id', '1'], ['id', undefined], ['body', undefined], ['body', []], ['body', 'x']];
    for (const [field, value] of wrong) {
      const rest = Object.fromEntries(Object.entries(whole).filter(([key]) => key !== field));
      refused(pack(value === undefined ? rest : { ...rest, [field]: value }), { field });
    }
    refused(Buffer.concat([Buffer.from([0x84]), ...['type', 'request', 'op', 'ping', 'body'].map(pack), Buffer.from([0x80]), pack('id'), Buffer.from('cf0000000100000000', 'hex')]), { field: 'id' });
  });

  it('a type that does not travel in this direction is refused', () => {
    const reply = pack({ type: 'reply', op: 'detach', id: 1, body: {} });
    accepted(reply, 'toClient');
    refused(reply, { field: 'type' });
    accepted(request('ping', {}));
    refused(request('ping', {}), { field: 'type' }, 'toClient');
  });

  it('an event with an id is refused, the same without is accepted', () => {
    accepted(event('drain', { deadlineMs: 1 }), 'toClient');
    refused(pack({ type: 'event', op: 'drain', id: 1, body: { deadlineMs: 1 } }), { field: 'id' }, 'toClient');
  });

  it('an unknown op is UNKNOWN_OP, and its envelope can be read for the answer; an op of 64 octets counts as one', () => {
    for (const op of ['nosuch', 'constructor', '__proto__', 'toString', 'x'.repeat(64)]) {
      const packet = request(op, {});
      refused(packet, { code: 'UNKNOWN_OP', field: 'op' });
      assert.deepEqual(peekEnvelope(packet), { type: 'request', op, id: 7 });
    }
  });

  it('the text of an unknown op is escaped in the error', () => {
    refused(request('\u001b[2J\u202e', {}), { code: 'UNKNOWN_OP', field: 'op', text: /"\\u\{1b\}\[2J\\u\{202e\}"/ });
  });

  it('an unknown field in a request or an answer is refused; in what a client reads it is dropped at every level', () => {
    accepted(request('ping', { payload: Buffer.alloc(1) }));
    refused(request('ping', { payload: Buffer.alloc(1), extra: 1 }), { field: 'body.extra' });
    refused(pack({ type: 'request', op: 'ping', id: 1, body: {}, extra: 1 }), { field: 'extra' });
    refused(request('listen', { backend: { host: 'h', por: 1 } }), { field: 'body.backend.por' });
    refused(pack({ type: 'answer', op: 'servername', id: 1, body: { refused: true } }), { field: 'body.refused' });
    const newer = pack({ type: 'reply', op: 'listen', id: 1, extra: [1], body: { listener: 1, more: { a: [] }, local: { family: 'IPv4', address: '::', port: 1, zone: 'x' } } });
    assert.deepEqual(accepted(newer, 'toClient'), { type: 'reply', op: 'listen', id: 1, body: { listener: 1, local: { family: 'IPv4', address: '::', port: 1 } } });
  });

  it('a missing field is refused, a missing optional one is accepted', () => {
    refused(request('prng', { ctlkey, label: 'x' }), { field: 'body.length', text: /missing/ });
    accepted(request('prng', { ctlkey, label: 'x', length: 1 }));
    refused(pack({ type: 'reply', op: 'listen', id: 1, body: { listener: 1, local: { family: 'IPv4', port: 1 } } }), { field: 'body.local.address' }, 'toClient');
  });

  it('a value of another kind is refused', () => {
    const wrong: [string, unknown][] = [['localid', 1], ['localid', Buffer.from('x')], ['localid', {}], ['alpn', 'h2'], ['alpn', {}], ['askServername', 1], ['askServername', 'true'], ['clientAuth', true], ['backend', []]];
    for (const [field, value] of wrong) refused(request('listen', { [field]: value }), { field: `body.${field}` });
    refused(request('ping', { payload: 'text' }), { field: 'body.payload', text: /binary/ });
    refused(request('unlisten', { listener: '1' }), { field: 'body.listener', text: /integer/ });
    accepted(request('listen', { localid: 'x', alpn: ['h2'], askServername: true, clientAuth: 'require', backend: {} }));
  });

  it('limits hold at the limit: integers, words, text, binary and lists', () => {
    const backend = (port: number): Buffer => request('listen', { backend: { port } });
    accepted(backend(65_535));
    refused(backend(65_536), { field: 'body.backend.port', text: /0 to 65535/ });
    refused(request('listen', { clientAuth: 'optional' }), { field: 'body.clientAuth', text: /none, request, require/ });
    accepted(request('listen', { localid: 'x'.repeat(255) }));
    refused(request('listen', { localid: 'x'.repeat(256) }), { field: 'body.localid', text: /256 octets; at most 255/ });
    accepted(request('join', { share: 'é'.repeat(32) }));
    refused(request('join', { share: 'é'.repeat(33) }), { field: 'body.share', text: /66 octets/ });
    accepted(request('ping', { payload: Buffer.alloc(1024) }));
    refused(request('ping', { payload: Buffer.alloc(1025) }), { field: 'body.payload' });
    accepted(request('listen', { alpn: many(32) }));
    refused(request('listen', { alpn: many(33) }), { field: 'body.alpn', text: /33 items/ });
    accepted(request('listen', { alpn: ['a', 'b', 'c'.repeat(255)] }));
    refused(request('listen', { alpn: ['a', 'b', 'c'.repeat(256)] }), { field: 'body.alpn[2]' });
  });

  it('a control key has 16 octets: 15 and 17 are refused, and the error does not show it', () => {
    accepted(request('detach', { ctlkey }));
    for (const octets of [0, 15, 17]) refused(request('detach', { ctlkey: Buffer.alloc(octets, 'k') }), { field: 'body.ctlkey', text: /^body\.ctlkey has \d+ octets; exactly 16 are accepted$/ });
  });
});

describe('protocol: peekEnvelope', () => {
  it('tells what came before the trouble', () => {
    const packet = pingWith('c0');
    assert.deepEqual(peekEnvelope(packet), { type: 'request', op: 'ping', id: 7 });
    assert.deepEqual(peekEnvelope(packet.subarray(0, 6)), {});
    assert.deepEqual(peekEnvelope(packet.subarray(0, 14)), { type: 'request' });
  });
  it('tells only what an error reply can carry', () => {
    assert.deepEqual(peekEnvelope(pack({ type: 'demand', op: 'x'.repeat(65), id: 'x' })), {});
    assert.deepEqual(peekEnvelope(pack({ type: 1, op: 2, id: Buffer.alloc(4) })), {});
    assert.deepEqual(peekEnvelope(Buffer.alloc(0)), {});
    assert.deepEqual(peekEnvelope(Buffer.from([0xc1])), {});
  });
});

describe('protocol: encodeMessage', () => {
  const encode = (message: unknown): Buffer => encodeMessage(message as Message);
  const fails = (message: unknown, code: ErrorCode, field?: string): void => {
    assert.throws(() => encode(message), (error) => error instanceof TlsPoolError && error.code === code && error.field === field);
  };
  it('what the peer would refuse is not sent: BAD_ARGUMENT names the field', () => {
    encode({ type: 'request', op: 'listen', id: 1, body: { localid: 'x' } });
    fails({ type: 'request', op: 'listen', id: 1, body: { localid: 'x'.repeat(256) } }, 'BAD_ARGUMENT', 'body.localid');
    fails({ type: 'request', op: 'listen', id: 1, body: { localid: undefined } }, 'BAD_ARGUMENT', 'body.localid');
    fails({ type: 'request', op: 'listen', id: 1, body: { localid: null } }, 'BAD_ARGUMENT', 'body.localid');
    fails({ type: 'request', op: 'listen', id: 1, body: { loaclid: 'x' } }, 'BAD_ARGUMENT', 'body.loaclid');
    for (const localid of ['a\0b', '\ud800', 'x\udc00y', '\ufeffx']) fails({ type: 'request', op: 'listen', id: 1, body: { localid } }, 'BAD_ARGUMENT', 'body.localid');
    for (const deadlineMs of [-1, 0.5, NaN, Infinity, 0x1_0000_0000, 1n]) fails({ type: 'event', op: 'drain', body: { deadlineMs } }, 'BAD_ARGUMENT', 'body.deadlineMs');
    for (const id of [-1, 0.5, 0x1_0000_0000, undefined]) fails({ type: 'request', op: 'ping', id, body: {} }, 'BAD_ARGUMENT', 'id');
    fails({ type: 'request', op: 'ping', id: 1, body: new Map() }, 'BAD_ARGUMENT', 'body');
    fails({ type: 'request', op: 'ping', id: 1 }, 'BAD_ARGUMENT', 'body');
    fails({ type: 'request', op: 'nosuch', id: 1, body: {} }, 'UNKNOWN_OP', 'op');
    encode({ type: 'error', op: 'x'.repeat(64), id: 1, body: { code: 'INTERNAL', text: '' } });
    for (const op of ['x'.repeat(65), '', 'a\0', undefined]) fails({ type: 'error', op, id: 1, body: { code: 'INTERNAL', text: '' } }, 'BAD_ARGUMENT', 'op');
  });
  it('a message of the cap is sent, one octet more is MESSAGE_TOO_LARGE', () => {
    const message: Message = { type: 'request', op: 'ping', id: 1, body: { payload: Buffer.alloc(100) } };
    const { length } = encodeMessage(message);
    assert.equal(encodeMessage(message, length).length, length);
    assert.throws(() => encodeMessage(message, length - 1), { code: 'MESSAGE_TOO_LARGE' });
  });
  it('integers over 2^32 - 1 travel as integers, and the message that was given is not changed', () => {
    const body = { ctlkey, how: 'closed' as const, octetsReceived: 2 ** 32, octetsSent: Number.MAX_SAFE_INTEGER };
    const message: Message = Object.freeze({ type: 'event', op: 'closed', body: Object.freeze(body) });
    assert.deepEqual(accepted(encodeMessage(message), 'toClient'), message);
  });
  it('a plain Uint8Array and an object without prototype travel like their likes', () => {
    const body = Object.assign(Object.create(null) as { payload?: Uint8Array }, { payload: new Uint8Array([1, 2]) });
    assert.deepEqual(accepted(encode({ type: 'request', op: 'ping', id: 1, body })).body, { payload: Buffer.from([1, 2]) });
  });
});
