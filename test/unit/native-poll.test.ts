/** Poll of the native addon: readiness on Node's own loop, in every order of closing. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { openSync } from 'node:fs';
import { constants } from 'node:os';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { pollDisconnect, pollReadable, pollWritable, sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd, Poll } from 'libtlspool/native';
import { countDescriptors, throwsCode, withPair, wrong } from '../support/native-fds.js';
import { event, within } from '../support/wait.js';

const { EPERM } = constants.errno;
const native = import.meta.resolve('libtlspool/native');
const run = promisify(execFile);

/** The first readiness of the kinds asked for; the Poll is closed by then. */
function ready(fd: BorrowedFd, events: number): Promise<[status: number, events: number]> {
  return within(new Promise((resolve) => {
    const poll = sockets.poll(fd, (status, seen) => {
      poll.close();
      resolve([status, seen]);
    });
    poll.start(events);
  }), 'readiness');
}

/** Runs a module in a process of its own; what it prints. An abort or an exit code other than 0 rejects. */
async function inProcess(source: string, ...flags: string[]): Promise<string> {
  const { stdout } = await run(process.execPath, [...flags, '--input-type=module', '--eval', `import { sockets } from ${JSON.stringify(native)};\n${source}`], { timeout: 15_000 });
  return stdout.trim();
}

describe('native addon: Poll', () => {
  countDescriptors();

  it('says readable when octets are there, writable when there is room', () => withPair('seqpacket', async (left, right) => {
    const readable = ready(right, pollReadable);
    sockets.send(left, Buffer.from('x'));
    assert.deepEqual(await readable, [0, pollReadable]);
    assert.deepEqual(await ready(right, pollReadable | pollWritable), [0, pollReadable | pollWritable]);
  }));

  it('says disconnect when the peer has gone', () => withPair('stream', async (left, right) => {
    const gone = ready(right, pollDisconnect);
    sockets.close(left);
    assert.deepEqual(await gone, [0, pollDisconnect]);
  }));

  it('a reset is reported as readiness, and what was queued before it can still be read', () => withPair('seqpacket', async (left, right) => {
    sockets.send(left, Buffer.from('last words'));
    sockets.send(right, Buffer.from('never read'));
    sockets.close(left);
    assert.deepEqual(await ready(right, pollReadable), [0, pollReadable]);
    const seen: string[] = [];
    for (;;) {
      try {
        const packet = sockets.receive(right, 100, 0);
        assert(packet !== null);
        if (packet.eof) break;
        seen.push(packet.data.toString());
      } catch (error) {
        seen.push((error as NodeJS.ErrnoException).syscall ?? 'none');
      }
    }
    assert.deepEqual(seen, ['recvmsg', 'last words']);
  }));

  it('is level-triggered, stops on stop, and starts again', () => withPair('seqpacket', async (left, right) => {
    let calls = 0;
    let reached: () => void = () => undefined;
    const poll = sockets.poll(right, () => {
      calls += 1;
      if (calls === 3) { poll.stop(); reached(); }
      if (calls === 4) { poll.close(); reached(); }
    });
    sockets.send(left, Buffer.from('x'));
    const three = new Promise<void>((resolve) => { reached = resolve; });
    poll.start(pollReadable);
    await within(three, 'three calls');
    await new Promise((resolve) => { setImmediate(resolve); });
    assert.equal(calls, 3);
    const four = new Promise<void>((resolve) => { reached = resolve; });
    poll.start(pollReadable);
    await within(four, 'the fourth call');
  }));

  it('closes inside its own callback, twice, and is not called again', () => withPair('seqpacket', async (left, right) => {
    let calls = 0;
    const closed = new Promise<void>((resolve) => {
      const poll = sockets.poll(right, () => {
        calls += 1;
        poll.close();
        poll.close();
        resolve();
      });
      poll.start(pollReadable);
    });
    sockets.send(left, Buffer.from('x'));
    await within(closed, 'the callback');
    await new Promise((resolve) => { setImmediate(resolve); });
    assert.equal(calls, 1);
  }));

  it('after close: start is refused, the rest does nothing', () => withPair('seqpacket', (_left, right) => {
    const poll = sockets.poll(right, () => undefined);
    poll.close();
    throwsCode(() => { poll.start(pollReadable); }, 'BAD_STATE');
    poll.stop();
    poll.ref();
    poll.unref();
    poll.close();
  }));

  it('a regular file cannot be polled, and the attempt leaves nothing open', () => {
    const file = openSync(process.execPath, 'r') as OwnedFd;
    throwsCode(() => sockets.poll(file, () => undefined), 'SYSTEM', -EPERM);
    sockets.close(file);
  });

  it('event bits are checked at both ends', () => withPair('seqpacket', (_left, right) => {
    const poll = sockets.poll(right, () => undefined);
    for (const events of [-1, 8, 1.5, NaN, '1', undefined]) throwsCode(() => { poll.start(wrong(events)); }, 'BAD_ARGUMENT');
    poll.start(7);
    poll.start(0);
    poll.close();
  }));

  it('a callback that is no function is refused', () => withPair('seqpacket', (_left, right) => {
    for (const callback of [undefined, null, 1, {}]) throwsCode(() => sockets.poll(right, wrong(callback)), 'BAD_ARGUMENT');
  }));

  it('methods called on anything else are refused', () => withPair('seqpacket', (_left, right) => {
    const poll = sockets.poll(right, () => undefined);
    const methods = Object.getPrototypeOf(poll) as Poll;
    for (const stranger of [{}, methods, Object.create(methods), undefined, 1, new Map()]) {
      for (const name of ['start', 'stop', 'close', 'ref', 'unref'] as const) assert.throws(() => { methods[name].call(stranger, 1); }, /Illegal invocation|not a Poll/u);
    }
    throwsCode(() => (poll.constructor as (fd: number) => unknown)(right), 'BAD_ARGUMENT');
    poll.close();
  }));

  it('a descriptor that is closed under a running Poll does not end the process', async () => {
    assert.equal(await inProcess(`
      const [left, right] = sockets.socketpair('seqpacket');
      const poll = sockets.poll(right, (status, events) => { console.log(status, events); poll.close(); });
      poll.start(1);
      sockets.close(right);
      sockets.close(left);`), '0 1');
  });

  it('what a callback throws is an uncaught exception, and the Poll goes on', async () => {
    assert.equal(await inProcess(`
      const [left, right] = sockets.socketpair('seqpacket');
      process.on('uncaughtException', (error) => console.log('caught', error.message));
      let calls = 0;
      const poll = sockets.poll(right, () => { calls += 1; if (calls === 2) { poll.close(); console.log('closed'); } throw new Error('mine'); });
      poll.start(1);
      sockets.send(left, Buffer.from('x'));`), 'caught mine\nclosed\ncaught mine');
  });

  it('promises are settled between two callbacks', async () => {
    assert.equal(await inProcess(`
      const [left, right] = sockets.socketpair('seqpacket');
      const order = [];
      const poll = sockets.poll(right, () => {
        order.push('call');
        Promise.resolve().then(() => order.push('promise'));
        process.nextTick(() => order.push('tick'));
        if (order.filter((word) => word === 'call').length === 2) { poll.close(); setImmediate(() => console.log(order.join(' '))); }
      });
      poll.start(1);
      sockets.send(left, Buffer.from('x'));`), 'call tick promise call tick promise');
  });

  it('a Poll keeps the process alive until it is stopped or unref-ed', async () => {
    assert.equal(await inProcess(`
      const [left, right] = sockets.socketpair('seqpacket');
      const forgotten = sockets.poll(right, () => {});
      forgotten.start(1);
      forgotten.unref();
      const [a, b] = sockets.socketpair('seqpacket');
      const poll = sockets.poll(b, () => { console.log('alive'); poll.stop(); });
      poll.start(1);
      setTimeout(() => sockets.send(a, Buffer.from('x')), 1).unref();
      process.on('exit', () => console.log('exit'));`), 'alive\nexit');
  });

  it('a Poll that nobody holds is neither collected while it waits nor leaked when it is closed', async () => {
    assert.equal(await inProcess(`
      import { setImmediate as turn } from 'node:timers/promises';
      const [left, right] = sockets.socketpair('seqpacket');
      const alive = new Promise((resolve) => {
        const poll = sockets.poll(right, () => { poll.close(); resolve(); });
        poll.start(1);
      });
      for (let round = 0; round < 5; round++) { gc(); await turn(); }
      sockets.send(left, Buffer.from('x'));
      await alive;
      const registry = new FinalizationRegistry(() => { collected += 1; });
      let collected = 0;
      (() => {
        for (let count = 0; count < 100; count++) {
          const poll = sockets.poll(left, () => {});
          registry.register(poll, count);
          poll.start(1);
          poll.close();
        }
      })();
      while (collected < 100) { gc(); await turn(); }
      console.log('collected', collected);`, '--expose-gc'), 'collected 100');
  });

  for (const end of ['process.exit(0)', 'void 0', "throw new Error('end')"]) {
    it(`the process may end with Polls open: ${end}`, async () => {
      const outcome = inProcess(`
        const [left, right] = sockets.socketpair('seqpacket');
        for (let count = 0; count < 10; count++) { const poll = sockets.poll(right, () => {}); if (count % 2) { poll.start(1); poll.unref(); } }
        const closing = sockets.poll(right, () => {});
        closing.start(1);
        closing.close();
        process.on('exit', (code) => console.log('exit', code));
        for (let count = 0; count < 10; count++) sockets.poll(left, () => {});
        ${end};`);
      if (end.startsWith('throw')) await assert.rejects(outcome, { code: 1 });
      else assert.equal(await outcome, 'exit 0');
    });
  }

  it('a worker thread has its own addon; ending it with Polls open closes their duplicates', async () => {
    const source = `
      const { parentPort } = require('node:worker_threads');
      import(${JSON.stringify(native)}).then(({ sockets }) => {
        const [left, right] = sockets.socketpair('seqpacket');
        for (let count = 0; count < 10; count++) sockets.poll(right, () => {}).start(1);
        const poll = sockets.poll(right, () => { const { data } = sockets.receive(right, 10, 0); poll.stop(); sockets.close(left); sockets.close(right); parentPort.postMessage(data); });
        poll.start(1);
        sockets.send(left, Buffer.from('hi'));
      });`;
    for (let round = 0; round < 5; round++) {
      const worker = new Worker(source, { eval: true });
      assert.equal(Buffer.from(await event<Uint8Array>(worker, 'message')).toString(), 'hi');
      await worker.terminate();
    }
  });

  it('a worker thread that is ended inside a callback, or by what the callback throws, ends alone', async () => {
    for (const body of ['for (;;) {}', "throw new Error('mine')"]) {
      const worker = new Worker(`
        const { parentPort } = require('node:worker_threads');
        import(${JSON.stringify(native)}).then(({ sockets }) => {
          const [left, right] = sockets.socketpair('seqpacket');
          sockets.send(left, Buffer.from('x'));
          const poll = sockets.poll(right, () => { sockets.close(left); sockets.close(right); parentPort.postMessage(1); ${body} });
          poll.start(1);
        });`, { eval: true });
      const errors: string[] = [];
      worker.on('error', (error: Error) => errors.push(error.message));
      const exit = event<number>(worker, 'exit');
      await event(worker, 'message');
      if (body.startsWith('for')) await worker.terminate();
      assert.equal(await exit, 1);
      assert.deepEqual(errors, body.startsWith('for') ? [] : ['mine']);
    }
  });
});
