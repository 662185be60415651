/**
 * Wrong (and some right) first flights of a TLS client, each made from a real ClientHello by one named mutation and a seed.
 * A mutation says what it breaks; the comparison of servers says what has to happen then.
 */
import { alertDescription, clientHello, contentType, encodeExtensions, extension, handshake, handshakeType, record, u16, vector } from '../support/tls-wire.js';
import type { ClientHello, Extension } from '../support/tls-wire.js';
import type { Random } from '../support/random.js';

/** Octets to send, in writes that are separate records of TCP's stream. */
export type Flight = readonly Buffer[];
type Mutation = (hello: ClientHello, random: Random) => Flight;

const asRecord = (message: Buffer): Buffer => record(contentType.handshake, message, 0x0301);
const sent = (hello: ClientHello): Flight => [asRecord(clientHello(hello))];
const alert = (level: number, description: number): Buffer => record(contentType.alert, Buffer.from([level, description]));
const ccs = record(contentType.changeCipherSpec, Buffer.from([1]));
const warnings = [90, 41, 100, 0, 112];

function change(hello: ClientHello, type: number, edit: (data: Buffer) => Buffer | undefined): ClientHello {
  const extensions = (hello.extensions ?? []).flatMap((item): Extension[] => {
    if (item.type !== type) return [item];
    const data = edit(item.data);
    return data === undefined ? [] : [extension(type, data)];
  });
  return { ...hello, extensions };
}

const edited = (hello: ClientHello, random: Random, edit: (data: Buffer) => Buffer): Flight => {
  const { type } = random.pick(hello.extensions ?? []);
  return sent(change(hello, type, edit));
};

/** Cuts one handshake message into records of the given sizes. */
function split(message: Buffer, random: Random, largest: number): Buffer[] {
  const records: Buffer[] = [];
  for (let at = 0; at < message.length;) {
    const size = 1 + random.below(largest);
    records.push(asRecord(message.subarray(at, at + size)));
    at += size;
  }
  return records;
}

export const mutations: Readonly<Record<string, Mutation>> = {
  'nothing wrong': (hello) => sent(hello),
  'split in many records': (hello, random) => split(clientHello(hello), random, 200),
  'split in records of 1 to 4 octets': (hello, random) => [Buffer.concat(split(clientHello(hello), random, 4))],
  'an empty handshake record in front': (hello) => [record(contentType.handshake, Buffer.alloc(0)), ...sent(hello)],
  'many empty handshake records': (hello, random) => [...Array.from({ length: 1 + random.below(64) }, () => record(contentType.handshake, Buffer.alloc(0))), ...sent(hello)],
  'an empty record of another type in front': (hello, random) => [record(random.pick([20, 21, 23]), Buffer.alloc(0)), ...sent(hello)],
  'a wrong content type': (hello, random) => [record(random.below(256), clientHello(hello), 0x0301)],
  'a wrong record version': (hello, random) => [record(contentType.handshake, clientHello(hello), random.below(65_536))],
  'a record version of SSL 3 to TLS 1.5': (hello, random) => [record(contentType.handshake, clientHello(hello), 0x0300 + random.below(6))],
  'a record length too large': (hello, random) => { const [octets] = sent(hello); const bad = Buffer.from(octets ?? []); bad.writeUInt16BE(16_385 + random.below(49_150), 3); return [bad]; },
  'a record one octet over the limit': (_hello, random) => [record(contentType.handshake, Buffer.concat([Buffer.from([1, 0, 64, 0]), random.octets(16_384 - 3)]), 0x0301)],
  'a full record of zeros': () => [record(contentType.handshake, Buffer.alloc(16_384), 0x0301)],
  'a record length off by a little': (hello, random) => { const [octets] = sent(hello); const bad = Buffer.from(octets ?? []); bad.writeUInt16BE(bad.length - 5 + random.pick([-3, -2, -1, 1, 2, 3]), 3); return [bad]; },
  'a handshake length off by a little': (hello, random) => { const message = Buffer.from(clientHello(hello)); message.writeUIntBE(message.length - 4 + random.pick([-9, -2, -1, 1, 2, 9]), 1, 3); return [asRecord(message)]; },
  'a handshake length far too large': (hello, random) => { const message = Buffer.from(clientHello(hello)); message.writeUIntBE(random.pick([0xffffff, 0x20001, 0x100000 + random.below(0xe00000)]), 1, 3); return [asRecord(message)]; },
  'a truncated message': (hello, random) => { const message = clientHello(hello); return [asRecord(handshake(handshakeType.clientHello, message.subarray(4, 4 + random.below(message.length - 4))))]; },
  'a truncated record': (hello, random) => { const [octets] = sent(hello); return [(octets ?? Buffer.alloc(0)).subarray(0, random.below(octets?.length ?? 0))]; },
  'octets after the message': (hello, random) => [asRecord(handshake(handshakeType.clientHello, Buffer.concat([clientHello(hello).subarray(4), random.octets(1 + random.below(40))])))],
  'another handshake type': (hello, random) => [asRecord(handshake(random.pick([0, 2, 4, 5, 8, 11, 12, 13, 14, 15, 16, 20, 24, 67, 254, random.below(256)]), clientHello(hello).subarray(4)))],
  'no extensions': (hello) => sent({ ...hello, extensions: undefined }),
  'an empty list of extensions': (hello) => sent({ ...hello, extensions: [] }),
  'one extension missing': (hello, random) => { const { type } = random.pick(hello.extensions ?? []); return sent(change(hello, type, () => undefined)); },
  'one extension twice': (hello, random) => sent({ ...hello, extensions: [...(hello.extensions ?? []), random.pick(hello.extensions ?? [])] }),
  'extensions in another order': (hello, random) => { const list = [...(hello.extensions ?? [])]; const [moved] = list.splice(random.below(list.length), 1); return sent({ ...hello, extensions: moved === undefined ? list : [moved, ...list] }); },
  'an unknown extension': (hello, random) => sent({ ...hello, extensions: [extension(random.pick([0x0a0a, 0x6a6a, 30_000, 65_000]), random.octets(random.below(300))), ...(hello.extensions ?? [])] }),
  'an extension cut short': (hello, random) => edited(hello, random, (data) => data.subarray(0, random.below(data.length))),
  'an extension made longer': (hello, random) => edited(hello, random, (data) => Buffer.concat([data, random.octets(1 + random.below(9))])),
  'an extension of noise': (hello, random) => edited(hello, random, (data) => random.octets(data.length)),
  'one octet of an extension changed': (hello, random) => edited(hello, random, (data) => { const bad = Buffer.from(data); if (bad.length > 0) bad[random.below(bad.length)] = random.below(256); return bad; }),
  'an empty extension': (hello, random) => edited(hello, random, () => Buffer.alloc(0)),
  'a wrong length of the extensions': (hello, random) => {
    const body = clientHello({ ...hello, extensions: undefined }).subarray(4);
    const list = Buffer.from(encodeExtensions(hello.extensions ?? []));
    list.writeUInt16BE(Math.max(0, list.length - 2 + random.pick([-100, -4, -1, 1, 4, 100])), 0);
    return [asRecord(handshake(handshakeType.clientHello, Buffer.concat([body, list])))];
  },
  'a wrong client version': (hello, random) => sent({ ...hello, version: random.pick([0x0002, 0x0200, 0x0300, 0x0301, 0x0302, 0x0304, 0x0305, 0x7f1c, 0xfefd, random.below(65_536)]) }),
  'wrong supported versions': (hello, random) => sent(change(hello, 43, () => vector(1, Buffer.concat(Array.from({ length: random.below(4) }, () => u16(random.pick([0x0300, 0x0301, 0x0302, 0x0303, 0x0304, 0x0305, 0x7f1c, 0x2a2a]))))))),
  'an odd length of versions': (hello) => sent(change(hello, 43, () => vector(1, Buffer.from([3, 4, 3])))),
  'no suites': (hello) => sent({ ...hello, suites: [] }),
  'unknown suites only': (hello, random) => sent({ ...hello, suites: Array.from({ length: 1 + random.below(5) }, () => random.pick([0x0a0a, 0x1399, 0xc0ff, 0x0000])) }),
  'an odd length of suites': (hello) => { const body = Buffer.concat([u16(0x0303), hello.random, vector(1, hello.sessionId), vector(2, Buffer.from([0x13, 0x01, 0x13])), vector(1, hello.compression), encodeExtensions(hello.extensions ?? [])]); return [asRecord(handshake(handshakeType.clientHello, body))]; },
  'the fallback suite': (hello) => sent({ ...hello, suites: [...hello.suites, 0x5600] }),
  'the fallback suite and TLS 1.1': (hello) => sent({ ...change(hello, 43, () => undefined), version: 0x0302, suites: [...hello.suites, 0x5600] }),
  'other compression methods': (hello, random) => sent({ ...hello, compression: random.pick([Buffer.alloc(0), Buffer.from([1]), Buffer.from([1, 0]), Buffer.from([0, 1, 64]), random.octets(20)]) }),
  'a long session id': (hello, random) => sent({ ...hello, sessionId: random.octets(random.pick([0, 1, 31, 32, 33, 64, 255])) }),
  'a short random': (hello, random) => sent({ ...hello, random: random.octets(random.below(32)) }),
  'a bad key share': (hello, random) => sent(change(hello, 51, () => { const group = random.pick([29, 23, 24, 30, 0x11ec, 0x0a0a]); return vector(2, Buffer.concat([u16(group), vector(2, random.octets(random.pick([0, 1, 31, 32, 33, 64, 65, 97, 133])))])); })),
  'a key share of zeros': (hello) => sent(change(hello, 51, () => vector(2, Buffer.concat([u16(29), vector(2, Buffer.alloc(32))])))),
  'a point that is not on the curve': (hello, random) => sent(change(hello, 51, () => vector(2, Buffer.concat([u16(23), vector(2, Buffer.concat([Buffer.from([4]), random.octets(64)]))])))),
  'the same key share twice': (hello) => sent(change(hello, 51, (data) => vector(2, Buffer.concat([data.subarray(2), data.subarray(2)])))),
  'an empty list of key shares': (hello) => sent(change(hello, 51, () => Buffer.from([0, 0]))),
  'unknown groups only': (hello, random) => sent(change(hello, 10, () => vector(2, Buffer.concat([u16(0x2a2a), u16(random.below(16))])))),
  'wrong signature algorithms': (hello, random) => sent(change(hello, 13, () => vector(2, Buffer.concat(Array.from({ length: 1 + random.below(3) }, () => u16(random.pick([0x0201, 0x0101, 0x0401, 0x0804, 0x0503, 0x2a2a, 0x0707]))))))),
  'a name with a NUL octet': (hello) => sent(change(hello, 0, () => vector(2, Buffer.concat([Buffer.from([0]), vector(2, Buffer.from('local\0host'))])))),
  'an empty name': (hello) => sent(change(hello, 0, () => vector(2, Buffer.from([0, 0, 0])))),
  'a name of 256 octets': (hello) => sent(change(hello, 0, () => vector(2, Buffer.concat([Buffer.from([0]), vector(2, Buffer.alloc(256, 'a'))])))),
  'a warning in front': (hello, random) => [alert(1, random.pick(warnings)), ...sent(hello)],
  'a flood of warnings': (hello, random) => [Buffer.concat(Array.from({ length: random.pick([2, 4, 5, 6, 64]) }, () => alert(1, 90))), ...sent(hello)],
  'a fatal alert in front': (hello, random) => [alert(2, random.pick([10, 40, 50, 80, 86, 255])), ...sent(hello)],
  'a fatal alert after': (hello, random) => [...sent(hello), alert(2, random.pick([10, 40, 42, 48, 80]))],
  'a warning after': (hello, random) => [...sent(hello), alert(1, random.pick(warnings))],
  'close_notify after': (hello) => [...sent(hello), alert(1, alertDescription.closeNotify)],
  'an alert of a wrong level': (_hello, random) => [alert(random.pick([0, 3, 255]), random.below(256))],
  'an alert of one octet': (hello) => [record(contentType.alert, Buffer.from([2])), ...sent(hello)],
  'an alert of three octets': (hello) => [record(contentType.alert, Buffer.from([1, 90, 1])), ...sent(hello)],
  'a ChangeCipherSpec in front': (hello) => [ccs, ...sent(hello)],
  'a flood of ChangeCipherSpec after': (hello, random) => [...sent(hello), Buffer.concat(Array.from({ length: random.pick([1, 2, 31, 32, 33, 64]) }, () => ccs))],
  'a wrong ChangeCipherSpec after': (hello, random) => [...sent(hello), record(contentType.changeCipherSpec, random.pick([Buffer.from([2]), Buffer.from([1, 1]), Buffer.alloc(0)]))],
  'application data in front': (hello, random) => [record(contentType.applicationData, random.octets(1 + random.below(60))), ...sent(hello)],
  'application data after': (hello, random) => [...sent(hello), record(contentType.applicationData, random.octets(random.pick([1, 15, 16, 17, 60, 16_640])))],
  'a second hello': (hello) => [...sent(hello), ...sent(hello)],
  'a Finished that is early': (hello, random) => [...sent(hello), record(contentType.handshake, handshake(handshakeType.finished, random.octets(32)))],
  'a client key exchange of noise': (hello, random) => [...sent(hello), record(contentType.handshake, handshake(16, random.octets(random.below(80)))), ccs, record(contentType.handshake, random.octets(40))],
  'noise': (_hello, random) => [random.octets(1 + random.below(400))],
  'noise in a handshake record': (_hello, random) => [asRecord(random.octets(1 + random.below(400)))],
  'noise in the hello': (hello, random) => { const message = Buffer.from(clientHello(hello)); for (let count = 1 + random.below(4); count > 0; count--) message[4 + random.below(message.length - 4)] = random.below(256); return [asRecord(message)]; },
  'an HTTP request': () => [Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')],
  'an HTTP proxy request': () => [Buffer.from('CONNECT localhost:443 HTTP/1.1\r\n\r\n')],
  'an SSH banner': () => [Buffer.from('SSH-2.0-OpenSSH_9.2\r\n')],
  'an SSL 2 hello': (_hello, random) => [Buffer.concat([Buffer.from([0x80, 0x2e, 1, 3, 3, 0, 21, 0, 0, 0, 16]), random.octets(37)])],
};
