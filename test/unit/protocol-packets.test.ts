/** Packets of the pool that hold several events, as a client takes them apart. */
import assert from 'node:assert/strict';
import { decodeMessage, decodePacket, encodeMessage, maxPacketMessages, TlsPoolError } from 'libtlspool/protocol';
import type { ErrorCode, Message, ToClientMessage } from 'libtlspool/protocol';
import { Packr } from 'msgpackr';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd } from 'libtlspool/native';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { countDescriptors } from '../support/native-fds.js';
import { repoRoot } from '../support/program.js';
import type { Inlet as InletClass } from '../../libtlspool/dist/inlet.js';
import { key, sessionInfo } from './lib-fake-pool.js';

// Not a part of the package's interface.
const { Inlet } = await import(pathToFileURL(path.join(repoRoot, 'libtlspool/dist/inlet.js')).href) as { Inlet: typeof InletClass };

const packr = new Packr({ useRecords: false, variableMapSize: true });
const closed = (n: number): Message => ({ type: 'event', op: 'closed', body: { ctlkey: key(n), how: 'closed', octetsReceived: n, octetsSent: 0 } });
const connection = (n: number): Message => ({ type: 'event', op: 'connection', body: { listener: 1, ctlkey: key(n), info: sessionInfo } });
const packet = (...messages: readonly Message[]): Buffer => Buffer.concat(messages.map((message) => encodeMessage(message)));
const many = (count: number, make: (n: number) => Message): Message[] => Array.from({ length: count }, (_, n) => make(n + 1));
const refused = (octets: Uint8Array, code: ErrorCode, text?: RegExp): void => {
  assert.throws(() => decodePacket(octets), (error) => {
    assert.ok(error instanceof TlsPoolError, String(error));
    assert.equal(error.code, code, error.message);
    if (text !== undefined) assert.match(error.message, text);
    return true;
  });
};

describe('protocol: packets with several events', () => {
  it('one message of any kind is what decodeMessage makes of it', () => {
    const messages: Message[] = [
      closed(1), connection(1), { type: 'event', op: 'drain', body: { deadlineMs: 5 } }, { type: 'reply', op: 'ping', id: 1, body: { pool: 'p', pid: 1, uptimeMs: 2 } },
      { type: 'error', op: 'anything', id: 0, body: { code: 'INTERNAL', text: 'x' } },
    ];
    for (const message of messages) assert.deepEqual(decodePacket(packet(message)), [decodeMessage(packet(message), 'toClient')]);
  });

  it(`${maxPacketMessages} events come apart in their order; ${maxPacketMessages + 1} are refused`, () => {
    const events = many(maxPacketMessages, (n) => (n % 3 === 0 ? closed(n) : connection(n)));
    assert.deepEqual(decodePacket(packet(...events)), events);
    refused(packet(...events, closed(99)), 'BAD_MESSAGE', /more than 32 messages/);
  });

  it('a packet of as many octets as are allowed is taken, one more is MESSAGE_TOO_LARGE', () => {
    const octets = packet(closed(1), connection(2));
    assert.equal(decodePacket(octets, octets.length).length, 2);
    assert.throws(() => decodePacket(octets, octets.length - 1), { code: 'MESSAGE_TOO_LARGE' });
  });

  const strangers: readonly (readonly [string, Message])[] = [
    ['reply', { type: 'reply', op: 'ping', id: 1, body: { pool: 'p', pid: 1, uptimeMs: 2 } }], ['error', { type: 'error', op: 'closed', id: 1, body: { code: 'INTERNAL', text: 'x' } }],
    ['callback', { type: 'callback', op: 'servername', id: 1, body: { alpn: [] } }], ['drain', { type: 'event', op: 'drain', body: { deadlineMs: 1 } }],
    ['listenerClosed', { type: 'event', op: 'listenerClosed', body: { listener: 1, code: 'X', text: 'y' } }],
  ];
  for (const [name, message] of strangers) {
    it(`${name}: refused beside events, first, between or last`, () => {
      for (const order of [[message, closed(1)], [connection(1), message, closed(1)], [closed(1), message]]) refused(packet(...order), 'BAD_MESSAGE', /^op is of a message that may not share a packet/);
    });
  }

  it('an unknown event is UNKNOWN_OP alone, which may be overlooked, and BAD_MESSAGE beside a connection, which may not', () => {
    const unknown = packr.pack({ type: 'event', op: 'later', body: {} });
    refused(unknown, 'UNKNOWN_OP');
    refused(Buffer.concat([packet(connection(1)), unknown]), 'BAD_MESSAGE');
    refused(Buffer.concat([unknown, packet(connection(1))]), 'BAD_MESSAGE');
  });

  it('octets behind the events, and an event that is cut short, refuse the packet', () => {
    const whole = packet(connection(1), closed(2));
    refused(Buffer.concat([whole, Buffer.from([0])]), 'BAD_MESSAGE', /not a map/);
    refused(Buffer.concat([whole, Buffer.from([0x80])]), 'BAD_MESSAGE');
    const first = packet(connection(1)).length;
    for (let octets = 0; octets < whole.length; octets += 1) {
      if (octets === first) assert.equal(decodePacket(whole.subarray(0, octets)).length, 1);
      else refused(whole.subarray(0, octets), 'BAD_MESSAGE');
    }
  });

  it('one event that is not as the table says refuses all', () => {
    const wrong = packr.pack({ type: 'event', op: 'closed', body: { ctlkey: key(1), how: 'somehow', octetsReceived: 1, octetsSent: 1 } });
    refused(Buffer.concat([packet(connection(1)), wrong]), 'BAD_MESSAGE', /^body\.how/);
  });
});

describe('library: descriptors of packets with several events', () => {
  countDescriptors();

  /** Sends the packet with so many descriptors and looks at what the inlet makes of it; all is closed afterwards. */
  function through(octets: Uint8Array, descriptors: number, look: (inlet: InletClass) => void): void {
    const [ours, theirs] = sockets.socketpair('seqpacket');
    const held = Array.from({ length: descriptors }, () => sockets.socketpair('stream')).flat();
    const inlet = new Inlet(ours);
    try {
      assert.equal(sockets.send(theirs, octets, held.filter((_, n) => n % 2 === 0) as readonly BorrowedFd[]), octets.length);
      look(inlet);
    } finally {
      inlet.close();
      for (const fd of [ours, theirs, ...held]) sockets.close(fd);
    }
  }

  function taken(inlet: InletClass): { message: ToClientMessage; fds: readonly OwnedFd[] } {
    const next = inlet.take();
    assert.ok(next !== undefined && next !== 'end' && 'message' in next, JSON.stringify(next));
    return next;
  }

  it('each connection gets its own, in order, and the others none', () => {
    const events = [connection(1), closed(9), connection(2), connection(3), closed(8)];
    const [ours, theirs] = sockets.socketpair('seqpacket');
    const pairs = [1, 2, 3].map(() => sockets.socketpair('stream'));
    const inlet = new Inlet(ours);
    sockets.send(theirs, packet(...events), pairs.map(([left]) => left));
    for (const event of events) {
      const { message, fds } = taken(inlet);
      assert.deepEqual(message, event);
      assert.equal(fds.length, event.op === 'connection' ? 1 : 0);
      for (const fd of fds) {
        // What is sent at the other end says whose it is.
        const n = (event.body as { ctlkey: Uint8Array }).ctlkey[0] as number;
        sockets.send((pairs[n - 1] as [OwnedFd, OwnedFd])[1], Buffer.from([n]));
        assert.deepEqual(sockets.receive(fd, 10, 0)?.data, Buffer.from([n]));
        sockets.close(fd);
      }
    }
    assert.equal(inlet.take(), undefined);
    for (const fd of [ours, theirs, ...pairs.flat()]) sockets.close(fd);
  });

  it(`${maxPacketMessages} descriptors arrive with ${maxPacketMessages} connections`, () => {
    through(packet(...many(maxPacketMessages, connection)), maxPacketMessages, (inlet) => {
      for (let n = 0; n < maxPacketMessages; n += 1) for (const fd of taken(inlet).fds) sockets.close(fd);
      assert.equal(inlet.waiting, 0);
    });
  });

  it('what was not taken is closed with the inlet', () => {
    through(packet(connection(1), connection(2), closed(3)), 2, (inlet) => {
      for (const fd of taken(inlet).fds) sockets.close(fd);
      assert.equal(inlet.waiting, 2);
    });
  });

  for (const [descriptors, name] of [[0, 'none'], [1, 'one too few'], [3, 'one too many']] as const) {
    it(`two connections with ${name} are refused with FD_COUNT and all descriptors are closed`, () => {
      through(packet(connection(1), connection(2), closed(3)), descriptors, (inlet) => {
        const next = inlet.take();
        assert.ok(next !== undefined && next !== 'end' && 'refused' in next);
        assert.equal((next.refused as TlsPoolError).code, 'FD_COUNT');
        assert.equal(inlet.waiting, 0);
      });
    });
  }

  it('descriptors of a packet that is refused are closed', () => {
    const reply: Message = { type: 'reply', op: 'ping', id: 1, body: { pool: 'p', pid: 1, uptimeMs: 2 } };
    through(packet(connection(1), reply), 1, (inlet) => {
      const next = inlet.take();
      assert.ok(next !== undefined && next !== 'end' && 'refused' in next);
      assert.equal((next.refused as TlsPoolError).code, 'BAD_MESSAGE');
    });
  });
});
