/** The V2 socket by itself: half messages, joined messages, surplus descriptors, clients that do not read. Real sockets, no pool behind them. */
import assert from 'node:assert/strict';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd } from 'libtlspool/native';
import type { TlsPoolError } from 'libtlspool/protocol';
import { callbackSlots } from 'tlspool/dist/v2/callbacks.js';
import { V2Connection } from 'tlspool/dist/v2/connection.js';
import { V2Error } from 'tlspool/dist/v2/errors.js';
import { codec, commands, frameOctets } from 'tlspool/dist/v2/frames.js';
import type { Inbound } from 'tlspool/dist/v2/reader.js';
import { countDescriptors } from '../support/native-fds.js';
import { expectError, frameOf, headOf } from '../support/v2/wire.js';
import { openDescriptors, userA } from './api-support.js';

interface Got { readonly reqid: number; readonly hasFd: boolean }

/** Waits turn by turn of the loop: the other end is in this process, and 387 cuts are many. */
async function soon<T>(look: () => T, what: string): Promise<Exclude<T, undefined | false>> {
  const end = performance.now() + 10_000;
  for (;;) {
    const seen = look();
    if (seen !== undefined && seen !== false) return seen as Exclude<T, undefined | false>;
    assert.ok(performance.now() < end, `waited for ${what}`);
    await new Promise((resolve) => { setImmediate(resolve); });
  }
}

describe('V2 connection: descriptors are counted', () => {
  countDescriptors();
  describe('V2 connection', suite);
});

function suite(): void {
  let theirs: OwnedFd;
  let connection: V2Connection;
  let got: Got[];
  let onRequest: (inbound: Inbound) => void;
  let gone: (TlsPoolError | undefined)[];

  function open(refusal?: V2Error, requestsPerClient = 4): void {
    const [ours, other] = sockets.socketpair('stream');
    theirs = other;
    got = [];
    gone = [];
    onRequest = () => undefined;
    connection = new V2Connection(ours, userA, { requestsPerClient }, {
      request: (_connection, inbound) => {
        got.push({ reqid: codec.read(inbound.frame, 'head').reqid, hasFd: inbound.fds.at(0) !== -1 });
        onRequest(inbound);
      },
      gone: (_connection, reason) => { gone.push(reason); },
    }, refusal);
  }
  beforeEach(() => { open(); });
  afterEach(() => {
    connection.close();
    sockets.close(theirs);
  });

  const ping = (reqid: number): Buffer => frameOf(commands.PING, 'ping', { facilities: reqid }, { reqid });
  const arrived = (count: number): Promise<unknown> => soon(() => got.length >= count, `${count} requests`);
  const send = (octets: Uint8Array, fds: readonly BorrowedFd[] = []): void => { assert.equal(sockets.send(theirs, octets, fds), octets.length); };
  const received = async (): Promise<Buffer> => soon(() => sockets.receive(theirs, frameOctets, 1)?.data, 'a frame');
  /** A descriptor that is closed here at once, so that only the copy in flight is left. */
  function sendWithNew(octets: Uint8Array, count: number): void {
    const fds = Array.from({ length: count }, () => sockets.dup(theirs));
    send(octets, fds);
    for (const fd of fds) sockets.close(fd);
  }

  /** One octet a send, with so many descriptors each; when the socket is full, the reader gets its turn. */
  async function trickle(octets: Uint8Array, count = 0): Promise<void> {
    for (const octet of octets) {
      const fds = Array.from({ length: count }, () => sockets.dup(theirs));
      await soon(() => sockets.send(theirs, Buffer.of(octet), fds) === 1, 'the reader');
      for (const fd of fds) sockets.close(fd);
    }
  }

  it('a message may be cut at every octet', async () => {
    for (let cut = 1; cut < frameOctets; cut += 1) {
      const frame = ping(cut);
      send(frame.subarray(0, cut));
      // The first part has been read when the socket is empty; nothing must have come of it.
      await soon(() => connection.isHalf, 'the first part');
      assert.equal(got.length, cut - 1);
      send(frame.subarray(cut));
      await arrived(cut);
    }
    assert.deepEqual(got.map(({ reqid }) => reqid), Array.from({ length: frameOctets - 1 }, (_, index) => index + 1));
  });

  it('octet by octet is a message, too', async () => {
    await trickle(ping(77));
    await arrived(1);
    assert.deepEqual(got, [{ reqid: 77, hasFd: false }]);
  });

  it('messages that arrive together are as many messages', async () => {
    send(Buffer.concat(Array.from({ length: 100 }, (_, index) => ping(index))));
    await arrived(100);
    assert.deepEqual(got.map(({ reqid }) => reqid), Array.from({ length: 100 }, (_, index) => index));
  });

  it('the rest of one message and the beginning of the next may arrive together', async () => {
    const octets = Buffer.concat([ping(1), ping(2), ping(3)]);
    for (const [from, to] of [[0, 100], [100, 500], [500, 800], [800, octets.length]] as const) {
      send(octets.subarray(from, to));
      await soon(() => got.length === Math.floor(to / frameOctets) && connection.isHalf === (to % frameOctets > 0), 'this part to be read');
    }
    assert.deepEqual(got.map(({ reqid }) => reqid), [1, 2, 3]);
  });

  it('a descriptor belongs to the message with whose octets it was sent, also between others', async () => {
    // All are in the socket before any is read.
    send(Buffer.concat([ping(1), ping(2)]));
    sendWithNew(ping(3), 1);
    send(ping(4));
    const frame = ping(5);
    send(frame.subarray(0, 100));
    sendWithNew(Buffer.concat([frame.subarray(100), ping(6)]), 1);
    await arrived(6);
    assert.deepEqual(got.map(({ reqid, hasFd }) => (hasFd ? reqid : 0)), [0, 0, 3, 0, 5, 0]);
  });

  it('one descriptor counts; with several none does, and all are closed', async () => {
    sendWithNew(ping(1), 1);
    sendWithNew(ping(2), 2);
    sendWithNew(ping(3), 100);
    sendWithNew(ping(4), 1);
    await arrived(4);
    assert.deepEqual(got.map(({ hasFd }) => hasFd), [true, false, false, true]);
  });

  it('descriptors that come one by one with the octets of a message are closed at once', async () => {
    const before = openDescriptors();
    await trickle(ping(1).subarray(0, frameOctets - 1), 1);
    await soon(() => openDescriptors() <= before + 1, 'the surplus to be closed');
    send(ping(1).subarray(frameOctets - 1));
    await arrived(1);
    assert.deepEqual(got, [{ reqid: 1, hasFd: false }]);
  });

  it('the descriptor of a message that never becomes whole is closed, and the log is told', async () => {
    sendWithNew(ping(1).subarray(0, 387), 1);
    sockets.shutdown(theirs, 1);
    await soon(() => gone.length > 0, 'the end');
    assert.equal(gone[0]?.code, 'BAD_MESSAGE');
    assert.deepEqual(got, []);
  });

  it('the end of the client is its end, without a word for the log; what it sent before is handled', async () => {
    send(Buffer.concat([ping(1), ping(2)]));
    sockets.shutdown(theirs, 1);
    await soon(() => gone.length > 0, 'the end');
    assert.deepEqual([gone, got.length], [[undefined], 2]);
  });

  it('a reply is one message in one piece, with the octets of this request where nothing was written', async () => {
    onRequest = ({ frame }) => { connection.succeed(frame); };
    const request = Buffer.alloc(frameOctets, 0xa5);
    send(request);
    const reply = await received();
    assert.equal(reply.length, frameOctets);
    assert.deepEqual({ ...headOf(reply) }, { reqid: 0xa5a5, cbid: 0, cmd: commands.SUCCESS });
    assert.deepEqual(reply.subarray(8), request.subarray(8));
  });

  it('a refused client is told so for each request, and is not disconnected', async () => {
    connection.close();
    sockets.close(theirs);
    open(new V2Error('EACCES', 'no'));
    sendWithNew(ping(1), 1);
    expectError(await received(), 'EACCES', 1);
    send(ping(2));
    expectError(await received(), 'EACCES', 2);
    assert.deepEqual([got, gone], [[], []]);
  });

  it('a client that does not read is disconnected, and what waited for it is forgotten', async () => {
    onRequest = ({ frame }) => { connection.send(frame); };
    let sent = 0;
    // The socket takes what fits; then the queue; then we have had enough.
    await soon(() => {
      while (gone.length === 0 && sockets.send(theirs, ping(sent % 65_536)) === frameOctets) sent += 1;
      return gone.length > 0;
    }, 'the client to be disconnected');
    assert.equal(gone[0]?.code, 'LIMIT_REQUESTS');
    assert.ok(sent > 16);
  });

  it('a client that reads late gets everything in order', async () => {
    connection.close();
    sockets.close(theirs);
    open(undefined, 1000);
    // More than a socket takes: most of them wait.
    for (let reqid = 0; reqid < 2000; reqid += 1) connection.send(ping(reqid));
    for (let reqid = 0; reqid < 2000; reqid += 1) assert.equal(headOf(await received()).reqid, reqid);
  });

  describe('callbacks', () => {
    interface Answer { readonly cmd: number; readonly hasFd: boolean }
    let answers: (Answer | 'gone')[];
    beforeEach(() => { answers = []; });
    const ask = (): { cbid: number; forget: () => void } => {
      const frame = frameOf(commands.STARTTLS, 'starttls', {}, { reqid: 5 });
      const forget = connection.ask(frame, commands.PLAINTEXT_CONNECT, {
        answered: ({ frame: answer, fds }) => { answers.push({ cmd: headOf(answer).cmd, hasFd: fds.at(0) !== -1 }); },
        gone: () => { answers.push('gone'); },
      });
      return { cbid: headOf(frame).cbid, forget };
    };
    const answer = (cbid: number, cmd: number = commands.PLAINTEXT_CONNECT): Buffer => frameOf(cmd, 'starttls', {}, { reqid: 9, cbid });

    it('are numbered from 1024 down, and a number that comes back is used again', async () => {
      assert.deepEqual([ask().cbid, ask().cbid, ask().cbid], [1024, 1023, 1022]);
      send(answer(1023));
      await soon(() => answers.length === 1, 'the answer');
      assert.deepEqual([ask().cbid, ask().cbid], [1023, 1021]);
    });

    it('are answered once, with the descriptor; the same again is a request', async () => {
      const { cbid } = ask();
      sendWithNew(answer(cbid), 1);
      send(answer(cbid));
      await arrived(1);
      assert.deepEqual(answers, [{ cmd: commands.PLAINTEXT_CONNECT, hasFd: true }]);
    });

    it('any command is an answer while one is awaited; other numbers are requests', async () => {
      const { cbid } = ask();
      for (const other of [0, cbid - 1, 1025, 65_535]) send(answer(other));
      await arrived(4);
      assert.deepEqual(answers, []);
      send(answer(cbid, commands.PING));
      await soon(() => answers.length === 1, 'the answer');
    });

    it('a late answer is swallowed with its descriptor; a request under that number is not', async () => {
      const { cbid, forget } = ask();
      forget();
      send(answer(cbid, commands.PING));
      sendWithNew(answer(cbid), 1);
      send(answer(cbid));
      await arrived(2);
      // The first and the third: the one with the descriptor is gone.
      assert.deepEqual([answers, got.map(({ hasFd }) => hasFd)], [[], [false, false]]);
    });

    it('the end of the client ends them all, but not those that nobody waits for', () => {
      ask();
      ask().forget();
      connection.close();
      assert.deepEqual(answers, ['gone']);
      assert.throws(ask, (error: unknown) => error instanceof V2Error && error.reason === 'CLIENT_DISCONNECT');
    });

    it(`${callbackSlots} can be open; abandoned ones give way when there is no other place`, async () => {
      // Read as it goes, or the queue would be full.
      const drain = async (): Promise<void> => { await received(); };
      const asked = [];
      for (let count = 0; count < callbackSlots; count += 1) { asked.push(ask()); await drain(); }
      assert.throws(ask, (error: unknown) => error instanceof V2Error && error.reason === 'EAGAIN');
      asked[10]?.forget();
      asked[5]?.forget();
      assert.equal(ask().cbid, asked[10]?.cbid);
      assert.equal(ask().cbid, asked[5]?.cbid);
      assert.throws(ask, V2Error);
    });
  });

  it('the limit of outstanding requests holds, and a place that is given back can be taken', () => {
    const done = Array.from({ length: 4 }, () => connection.postpone());
    assert.throws(() => connection.postpone(), (error: unknown) => error instanceof V2Error && error.reason === 'EAGAIN');
    done[0]?.();
    connection.postpone();
  });
}
