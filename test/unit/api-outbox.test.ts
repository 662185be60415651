/** The way out to one client: what shares a packet, in which order, and who closes the descriptors. */
import assert from 'node:assert/strict';
import { decodePacket, encodeMessage, maxPacketMessages } from 'libtlspool/protocol';
import type { Message } from 'libtlspool/protocol';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { Outbox } from 'tlspool/dist/api/outbox.js';
import { countDescriptors } from '../support/native-fds.js';
import { key, sessionInfo } from './lib-fake-pool.js';

const closedEvent = (n: number): Message => ({ type: 'event', op: 'closed', body: { ctlkey: key(n), how: 'closed', octetsReceived: n, octetsSent: 0 } });
const connectionEvent = (n: number): Message => ({ type: 'event', op: 'connection', body: { listener: n, ctlkey: key(n % 256), info: sessionInfo } });
const reply = (id: number): Message => ({ type: 'reply', op: 'ping', id, body: { pool: 'p', pid: 1, uptimeMs: 2 } });

interface Came { readonly messages: number; readonly octets: number; readonly fds: number; readonly names: readonly string[] }

describe('outbox', () => {
  // Outermost, so that its hook comes after the one that closes.
  countDescriptors();
  describe('to one client', toOneClient);
});

function toOneClient(): void {
  let ours: OwnedFd;
  let theirs: OwnedFd;
  let outbox: Outbox;
  let writable: boolean;
  let failures: unknown[];
  /** Ends that stay with the test. */
  let kept: OwnedFd[];

  function make(maxPacketOctets = 65_536): void {
    outbox = new Outbox(ours, { writable: (wanted) => { writable = wanted; }, failed: (error) => { failures.push(error); } }, maxPacketOctets);
  }
  beforeEach(() => {
    [ours, theirs] = sockets.socketpair('seqpacket');
    [writable, failures, kept] = [false, [], []];
    make();
  });
  afterEach(() => {
    outbox.close();
    for (const fd of [ours, theirs, ...kept]) sockets.close(fd);
  });

  function plain(): OwnedFd {
    const [mine, sent] = sockets.socketpair('stream');
    kept.push(mine);
    return sent;
  }
  function connection(n: number): number {
    const data = encodeMessage(connectionEvent(n));
    outbox.push({ data, kind: 'connection', sendFd: plain(), closeFd: -1, sharesPacket: true });
    return data.length;
  }
  const closed = (n: number, closeFd = -1): void => { outbox.push({ data: encodeMessage(closedEvent(n)), kind: 'other', sendFd: -1, closeFd, sharesPacket: true }); };
  const answer = (id: number): void => { outbox.push({ data: encodeMessage(reply(id)), kind: 'reply', sendFd: -1, closeFd: -1, sharesPacket: false }); };

  const nameOf = (message: { readonly op: string; readonly body: object }): string => {
    const { listener, octetsReceived } = message.body as { listener?: number; octetsReceived?: number };
    return `${message.op} ${listener ?? octetsReceived ?? ''}`.trim();
  };
  /** The next packet; undefined when there is none. */
  function receive(): Came | undefined {
    const received = sockets.receive(theirs, 65_536, maxPacketMessages);
    if (received === null || received.eof) return undefined;
    for (const fd of received.fds) sockets.close(fd);
    const messages = decodePacket(received.data);
    return { messages: messages.length, octets: received.data.length, fds: received.fds.length, names: messages.map(nameOf) };
  }
  function receiveAll(): Came[] {
    const all: Came[] = [];
    for (let next = receive(); next !== undefined; next = receive()) all.push(next);
    return all;
  }
  /** Is every end that the outbox had closed, whether or not it was sent? */
  const assertAllClosed = (): void => {
    for (const fd of kept) assert.equal(sockets.receive(fd, 1, 0)?.eof, true, 'an end is still open');
  };

  it('without a cork each event is a packet, sent at once', () => {
    connection(1);
    closed(2);
    assert.deepEqual(receiveAll().map(({ names }) => names), [['connection 1'], ['closed 2']]);
  });

  it('corked events share packets, in order, each connection with its descriptor', () => {
    assert.equal(outbox.cork(), true);
    assert.equal(outbox.cork(), false);
    connection(1);
    closed(2);
    connection(3);
    assert.equal(receive(), undefined, 'nothing goes before uncork');
    outbox.uncork();
    assert.deepEqual(receiveAll().map(({ names, fds }) => ({ names, fds })), [{ names: ['connection 1', 'closed 2', 'connection 3'], fds: 2 }]);
    assert.equal(outbox.isEmpty, true);
    assertAllClosed();
  });

  it(`a packet holds ${maxPacketMessages} events and no more`, () => {
    outbox.cork();
    for (let n = 1; n <= maxPacketMessages * 2 + 1; n += 1) connection(n);
    outbox.uncork();
    assert.deepEqual(receiveAll().map(({ messages, fds }) => [messages, fds]), [[32, 32], [32, 32], [1, 1]]);
    assertAllClosed();
  });

  it('what fills a packet to the octet shares it, and one octet less room splits it', () => {
    const octets = encodeMessage(connectionEvent(1)).length;
    for (const [room, packets] of [[octets * 3, [3, 3]], [octets * 3 - 1, [2, 2, 2]]] as const) {
      make(room);
      outbox.cork();
      for (let n = 1; n <= 6; n += 1) connection(n);
      outbox.uncork();
      const came = receiveAll();
      assert.deepEqual(came.map(({ messages }) => messages), packets);
      assert.ok(came.every((one) => one.octets <= room));
    }
  });

  it('a reply between events travels alone and keeps its place', () => {
    outbox.cork();
    connection(1);
    closed(2);
    answer(7);
    closed(3);
    connection(4);
    outbox.uncork();
    assert.deepEqual(receiveAll().map(({ names }) => names), [['connection 1', 'closed 2'], ['ping'], ['closed 3', 'connection 4']]);
  });

  it('a socket that fills in the middle loses nothing, changes no order, and asks for writability', () => {
    outbox.cork();
    const count = 4000;
    for (let n = 1; n <= count; n += 1) closed(n, n % 100 === 0 ? plain() : -1);
    assert.equal(writable, false);
    assert.equal(outbox.isBlocked, false, 'what waits for uncork is not blocked');
    outbox.uncork();
    assert.equal(writable, true);
    assert.equal(outbox.isBlocked, true);
    const names: string[] = [];
    for (let rounds = 0; !outbox.isEmpty; rounds += 1) {
      assert.ok(rounds < count, 'it comes to an end');
      for (const came of receiveAll()) names.push(...came.names);
      outbox.flush();
    }
    for (const came of receiveAll()) names.push(...came.names);
    assert.deepEqual(names, Array.from({ length: count }, (_, n) => `closed ${n + 1}`));
    assert.equal(writable, false);
    assertAllClosed();
  });

  it('what is pushed while the socket is full goes behind what waits, corked or not', () => {
    for (let n = 1; !outbox.isBlocked; n += 1) closed(n);
    const first = [...receiveAll()].flatMap(({ names }) => names);
    outbox.cork();
    closed(first.length + 2);
    closed(first.length + 3);
    outbox.uncork();
    const rest = receiveAll().flatMap(({ names }) => names);
    assert.deepEqual([...first, ...rest], Array.from({ length: first.length + 3 }, (_, n) => `closed ${n + 1}`));
  });

  it('closing while corked closes every descriptor once and sends nothing', () => {
    outbox.cork();
    connection(1);
    closed(2, plain());
    outbox.close();
    outbox.close();
    outbox.uncork();
    assert.equal(receive(), undefined);
    assertAllClosed();
    assert.deepEqual([outbox.connections, outbox.replies, outbox.isEmpty], [0, 0, true]);
  });

  it('what is pushed after closing is closed at once', () => {
    outbox.close();
    connection(1);
    closed(2, plain());
    assertAllClosed();
  });

  it('a client that has gone fails the outbox once, and every descriptor of the batch is closed', () => {
    const gone = theirs;
    theirs = plain();
    sockets.close(gone);
    outbox.cork();
    for (let n = 1; n <= 40; n += 1) connection(n);
    outbox.uncork();
    assert.equal(failures.length, 1);
    outbox.close();
    kept = kept.filter((fd) => fd !== theirs);
    sockets.close(theirs);
    theirs = kept.pop() as OwnedFd;
    assertAllClosed();
  });

  it('connections and replies that wait are counted until they are sent', () => {
    outbox.cork();
    connection(1);
    connection(2);
    answer(1);
    closed(3);
    assert.deepEqual([outbox.connections, outbox.replies], [2, 1]);
    outbox.uncork();
    assert.deepEqual([outbox.connections, outbox.replies], [0, 0]);
    receiveAll();
  });

  it('a client that reads but never catches up does not make it keep what was sent', () => {
    let waiting = 0;
    const more = (): void => { answer(waiting); waiting += 1; };
    while (outbox.kept < 100) more();
    for (let round = 0; round < 3000; round += 1) {
      more();
      assert.equal(receive()?.messages, 1);
      outbox.flush();
      assert.ok(outbox.isBlocked, 'it never catches up');
    }
    assert.ok(outbox.replies >= 90 && outbox.replies < 200, `${outbox.replies} wait`);
    assert.ok(outbox.kept <= outbox.replies * 2 + 64, `${outbox.kept} are kept for ${outbox.replies} that wait`);
  });
}
