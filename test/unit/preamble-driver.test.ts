/** The driver of plain-text dialogues: what it takes and what it leaves, its limits, and every way in which it ends. */
import assert from 'node:assert/strict';
import net from 'node:net';
import { pollReadable, pollWritable, sockets } from 'libtlspool/native';
import type { BorrowedFd, Poll } from 'libtlspool/native';
import { Conversation } from 'libtlspool/preamble';
import type { Dialogue, Step } from 'libtlspool/preamble';
import { TlsPoolError } from 'libtlspool/protocol';
import type { ErrorCode } from 'libtlspool/protocol';
import { converse, withConversation } from '../support/dialogue.js';
import type { TestPeer } from '../support/dialogue.js';
import { countDescriptors, withPair } from '../support/native-fds.js';
import { event, until, within } from '../support/wait.js';

/** A dialogue of these steps; what they gave, as latin1. */
function* steps(...list: readonly Step[]): Dialogue<string[]> {
  const got: string[] = [];
  for (const step of list) got.push((yield step).toString('latin1'));
  return got;
}
const line = (most = 100): Step => ({ do: 'line', most });
const code = (expected: ErrorCode) => (error: unknown): true => {
  assert(error instanceof TlsPoolError, String(error));
  assert.equal(error.code, expected, error.message);
  return true;
};
const nextTurn = (): Promise<void> => new Promise((resolve) => { setImmediate(resolve); });
const fdOf = (socket: net.Socket): BorrowedFd => (socket as unknown as { _handle: { fd: BorrowedFd } })._handle.fd;

/** Both ends of a TCP connection, of which nobody reads. */
async function withTcp(use: (ours: net.Socket, theirs: net.Socket) => Promise<void>): Promise<void> {
  const server = net.createServer({ pauseOnConnect: true });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const accepted = event<net.Socket>(server, 'connection');
  const theirs = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1');
  theirs.pause();
  const connected = event(theirs, 'connect');
  const ours = await accepted;
  await connected;
  try {
    await use(ours, theirs);
  } finally {
    server.close();
    const closed = [ours, theirs].filter((end) => !end.closed).map((end) => event(end, 'close'));
    ours.destroy();
    theirs.destroy();
    await Promise.all(closed);
  }
}

/** More than any socket pair takes. */
const flood = Buffer.alloc(4 << 20, 0x61);

describe('preamble driver: what is taken', () => {
  countDescriptors();

  it('a line is taken with its end, CRLF or LF, and what follows stays in the kernel', () => withConversation(async (conversation, peer) => {
    peer.send('one\r\ntwo\nthree');
    assert.deepEqual(await conversation.run(steps(line(), line())), ['one', 'two']);
    assert.equal(conversation.quiet(), false);
    assert.deepEqual(await conversation.run(steps({ do: 'octets', count: 5 })), ['three']);
    assert.equal(conversation.quiet(), true);
  }));

  it('some takes what is there and no more than asked for; peek takes nothing', () => withConversation(async (conversation, peer) => {
    peer.send('abcdef');
    assert.deepEqual(await conversation.run(steps({ do: 'peek' }, { do: 'some', most: 4 }, { do: 'some', most: 4 })), ['a', 'abcd', 'ef']);
  }));

  it('octets wait until all of them have come', async () => {
    const { result } = await converse(steps({ do: 'octets', count: 20_000 }, line()), ['x'.repeat(9000), 'y'.repeat(11_000), 'z\n']);
    assert.deepEqual(result?.map((text) => text.length), [20_000, 1]);
  });

  it('a line of as many octets as allowed is fine with either end; one more is PREAMBLE, with an end and without', async () => {
    for (const end of ['\n', '\r\n']) {
      for (const pieces of [[`${'x'.repeat(100)}${end}`], ['x'.repeat(100), end], ['x'.repeat(99), `x${end}`]]) assert.deepEqual((await converse(steps(line(100)), pieces)).result, ['x'.repeat(100)]);
      assert.equal((await converse(steps(line(100)), [`${'x'.repeat(101)}${end}`])).error?.code, 'PREAMBLE');
    }
    assert.equal((await converse(steps(line(100)), ['x'.repeat(102)], { staysOpen: true })).error?.code, 'PREAMBLE');
    assert.equal((await converse(steps(line(20_000)), ['x'.repeat(20_000), '\r\n'])).result?.[0]?.length, 20_000);
    assert.equal((await converse(steps(line(0)), ['\r\n'])).result?.[0], '');
  });

  it('a lone CR in a line is PREAMBLE, and a NUL is at once, without waiting for the end of the line', async () => {
    for (const text of ['a\rb\r\n', '\r\r\n', 'a\0b\r\n', '\0\n']) assert.equal((await converse(steps(line()), [text])).error?.code, 'PREAMBLE', JSON.stringify(text));
    assert.equal((await converse(steps(line()), ['a\0'], { staysOpen: true })).error?.code, 'PREAMBLE');
    assert.deepEqual((await converse(steps(line()), ['a\r', '\n'])).result, ['a']);
  });

  it('the cap on octets counts what is taken, over all dialogues', () => withConversation(async (conversation, peer) => {
    peer.send('12345\n12345\n');
    await conversation.run(steps(line(), { do: 'octets', count: 4 }, { do: 'peek' }));
    await assert.rejects(conversation.run(steps(line())), code('PREAMBLE'));
  }, { octets: 11 }));

  it('the default cap is 65,536 octets', async () => {
    const big = 'x'.repeat(32_768);
    assert.equal((await converse(steps({ do: 'octets', count: 65_536 }), [big, big])).error, undefined);
    assert.equal((await converse(steps({ do: 'octets', count: 65_537 }), [big, big, 'x'])).error?.code, 'PREAMBLE');
  });

  it('the end of the stream is PEER_CLOSED, and is not quiet', () => withConversation(async (conversation, peer) => {
    peer.send('half');
    peer.finish();
    assert.equal(conversation.quiet(), false);
    await assert.rejects(conversation.run(steps(line())), code('PEER_CLOSED'));
    assert.equal(conversation.quiet(), false);
  }));

  it('a reset of TCP is PEER_CLOSED, and is not quiet', () => withTcp(async (ours, theirs) => {
    const conversation = new Conversation(fdOf(ours), { deadlineMs: 5000 });
    const ending = conversation.run(steps(line()));
    theirs.resetAndDestroy();
    await assert.rejects(ending, code('PEER_CLOSED'));
    assert.equal(conversation.quiet(), false);
    conversation.close();
  }));

  it('tell takes what still waits, so that closing does not reset the connection over the last word', () => withTcp(async (ours, theirs) => {
    const conversation = new Conversation(fdOf(ours), { deadlineMs: 5000 });
    theirs.write('MAIL FROM:<mallory@example.net>\r\n');
    await until(() => !conversation.quiet(), { what: 'octets' });
    conversation.tell(Buffer.from('bye'));
    conversation.close();
    const [fd, gone] = [fdOf(theirs), event(ours, 'close')];
    ours.destroy();
    await gone;
    assert.equal(sockets.receive(fd, 10, 0)?.data.toString(), 'bye');
    await until(() => sockets.receive(fd, 10, 0)?.eof === true, { what: 'an end of stream, and no ECONNRESET' });
  }));
});

describe('preamble driver: writing', () => {
  countDescriptors();

  /** Reads until the conversation has said this much. */
  const drain = async (peer: TestPeer, octets: number): Promise<void> => { await until(() => peer.heard().length >= octets, { what: 'all that was written' }); };

  it('a write that does not fit waits for the reader, and everything arrives in order', () => withConversation(async (conversation, peer) => {
    const pattern = Buffer.from(flood).map((_octet, at) => at % 251);
    const written = conversation.run(steps({ do: 'write', octets: pattern }, { do: 'write', octets: Buffer.from('end') }));
    await drain(peer, pattern.length + 3);
    await written;
    assert(peer.heard().equals(Buffer.concat([pattern, Buffer.from('end')])));
  }));

  it('a peer that does not read is TIMEOUT, an abort is ABORTED with its reason, and a peer that goes is PEER_CLOSED', async () => {
    await withConversation((conversation) => assert.rejects(conversation.write(flood), code('TIMEOUT')), { deadlineMs: 30 });
    const abort = new AbortController();
    await withConversation(async (conversation) => {
      const written = conversation.write(flood);
      abort.abort(new Error('enough'));
      await assert.rejects(written, (error) => code('ABORTED')(error) && (error as { cause?: Error }).cause?.message === 'enough');
    }, { signal: abort.signal });
    await withPair('stream', async (left, right) => {
      const conversation = new Conversation(left, { deadlineMs: 5000 });
      const written = conversation.write(flood);
      sockets.close(right);
      await assert.rejects(written, code('PEER_CLOSED'));
      conversation.close();
    });
  });

  it('tell says what fits at once, also after a failure, and never throws', () => withConversation(async (conversation, peer) => {
    await assert.rejects(conversation.run(steps(line())), code('TIMEOUT'));
    conversation.tell(Buffer.from('bye\r\n'));
    conversation.tell(new Uint8Array(0));
    assert.equal(peer.heard().toString(), 'bye\r\n');
    conversation.tell(flood);
    conversation.tell(flood);
    sockets.shutdown(peer.fd, 2);
    conversation.tell(Buffer.from('gone'));
  }, { deadlineMs: 20 }));
});

describe('preamble driver: how it ends', () => {
  countDescriptors();

  it('the deadline is of the whole conversation: octets that go on coming do not prolong it', () => withConversation(async (conversation, peer) => {
    let over = false;
    const begun = performance.now();
    const ending = assert.rejects(conversation.run(steps(line(1 << 20))), code('TIMEOUT')).finally(() => { over = true; });
    let sent = 0;
    while (!over) {
      if (conversation.quiet()) {
        peer.send('x');
        sent += 1;
      }
      await nextTurn();
    }
    await ending;
    assert(sent > 1 && performance.now() - begun < 5000);
  }, { deadlineMs: 50, octets: 1 << 20 }));

  it('an abort ends it before it begins and while it waits', async () => {
    await withConversation((conversation) => assert.rejects(conversation.run(steps(line())), code('ABORTED')), { signal: AbortSignal.abort() });
    const abort = new AbortController();
    await withConversation(async (conversation) => {
      const ending = conversation.run(steps(line()));
      abort.abort();
      await assert.rejects(ending, code('ABORTED'));
    }, { signal: abort.signal });
  });

  it('close() while something waits ends that with ABORTED, and may be called twice', () => withConversation(async (conversation) => {
    const ending = conversation.run(steps(line()));
    conversation.close();
    conversation.close();
    await assert.rejects(ending, code('ABORTED'));
    await assert.rejects(conversation.run(steps(line())), code('BAD_STATE'));
    await assert.rejects(conversation.write(Buffer.from('x')), code('BAD_STATE'));
    assert.throws(() => conversation.quiet(), code('BAD_STATE'));
  }));

  it('behind close() nothing is said on the descriptor, which may be another socket by then', () => withPair('stream', (left, right) => {
    const conversation = new Conversation(left, { deadlineMs: 5000 });
    conversation.close();
    conversation.tell(Buffer.from('421 not for you\r\n'));
    assert.equal(sockets.peek(right, 1), null);
  }));

  it('a second dialogue, or a write, while one runs is BAD_STATE and does not disturb it', () => withConversation(async (conversation, peer) => {
    const first = conversation.run(steps(line()));
    await assert.rejects(conversation.run(steps(line())), code('BAD_STATE'));
    await assert.rejects(conversation.write(Buffer.from('x')), code('BAD_STATE'));
    peer.send('mine\n');
    assert.deepEqual(await first, ['mine']);
    await conversation.write(Buffer.from('ok'));
    assert.equal(peer.heard().toString(), 'ok');
  }));

  it('an error of the dialogue comes out as it is when it is typed, and as INTERNAL when it is not', () => withConversation(async (conversation) => {
    const wrong = new Error('a bug');
    await assert.rejects(conversation.run((function* typed(): Dialogue<void> { throw new TlsPoolError('PREAMBLE_REFUSED'); })()), code('PREAMBLE_REFUSED'));
    await assert.rejects(conversation.run((function* untyped(): Dialogue<void> { throw wrong; })()), (error) => code('INTERNAL')(error) && (error as { cause?: unknown }).cause === wrong);
    // Neither has broken the connection.
    assert.deepEqual(await conversation.run(steps()), []);
  }));

  it('a deadline that a timer cannot hold is BAD_ARGUMENT; the longest one is fine', () => withPair('stream', (left) => {
    for (const deadlineMs of [0, -1, Number.NaN, 2 ** 31]) assert.throws(() => new Conversation(left, { deadlineMs }), code('BAD_ARGUMENT'));
    new Conversation(left, { deadlineMs: 2 ** 31 - 1 }).close();
  }));

  it('the watcher runs only while somebody waits: octets behind a failure do not keep the process busy', () => withPair('stream', async (left, right) => {
    const poll = sockets.poll.bind(sockets);
    const running: string[] = [];
    sockets.poll = (fd, callback): Poll => {
      const real = poll(fd, callback);
      return {
        start: (events) => { running.push(events === pollReadable ? 'read' : events === pollWritable ? 'write' : 'odd'); real.start(events); },
        stop: () => { running.length = 0; real.stop(); },
        close: () => { running.length = 0; real.close(); },
        ref: () => real.ref(), unref: () => real.unref(),
      };
    };
    try {
      const abort = new AbortController();
      const conversation = new Conversation(left, { deadlineMs: 5000, signal: abort.signal });
      const first = conversation.run(steps(line()));
      assert.deepEqual(running, ['read']);
      sockets.send(right, Buffer.from('x\n'));
      await first;
      assert.deepEqual(running, []);
      const second = conversation.run(steps({ do: 'write', octets: flood }));
      assert.deepEqual(running, ['write']);
      abort.abort();
      await assert.rejects(second, code('ABORTED'));
      assert.deepEqual(running, []);
      conversation.close();
    } finally {
      sockets.poll = poll;
    }
  }));

  it('many conversations at a time do not get into each other\'s way', async () => {
    const names = Array.from({ length: 50 }, (_none, at) => `line ${at}`);
    const all = await within(Promise.all(names.map((name) => converse(steps(line()), [name.slice(0, 3), `${name.slice(3)}\r\n`]))), 'all of them');
    assert.deepEqual(all.map(({ result }) => result?.[0]), names);
  });
});
