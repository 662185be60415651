/** Several processes of one user take the connections of one port, and one of them is killed. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import path from 'node:path';
import { once } from 'node:events';
import tls from 'node:tls';
import { readFileSync } from 'node:fs';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { App, expectBaseline, killAtExit, startPool, until, within } from '../support/index.js';
import type { Baseline, TestPool } from '../support/index.js';

describe('a listener that several processes share', function () {
  this.timeout(60_000);
  let pool: TestPool;
  let baseline: Baseline;
  let ca: Buffer;
  before(async () => {
    pool = await startPool();
    ca = readFileSync(pool.caFile);
    baseline = pool.baseline();
  });
  after(() => pool.stop());
  afterEach(() => expectBaseline(pool, baseline));

  /** Who answers one connection; the code of the error when nobody does. */
  const whoAnswers = (port: number): Promise<string> => within(new Promise((resolve) => {
    const socket = tls.connect({ host: '127.0.0.1', port, servername: 'localhost', ca });
    let text = '';
    let failure: NodeJS.ErrnoException | undefined;
    socket.setEncoding('utf8').on('data', (chunk: string) => { text += chunk; });
    socket.on('error', (error: NodeJS.ErrnoException) => { failure = error; });
    socket.on('close', () => { resolve(text !== '' ? text : `failed: ${failure?.code ?? 'closed without an answer'}`); });
  }), 'an answer', 20_000);

  const answers = async (port: number, count: number): Promise<Map<string, number>> => {
    const tally = new Map<string, number>();
    for (const name of await Promise.all(Array.from({ length: count }, () => whoAnswers(port)))) tally.set(name, (tally.get(name) ?? 0) + 1);
    return tally;
  };

  /** Connects all the time until told to stop; gives everything that was answered. */
  function keepConnecting(port: number): { stop(): Promise<string[]> } {
    const seen: string[] = [];
    let isOver = false;
    const loops = Array.from({ length: 4 }, async () => { while (!isOver) seen.push(await whoAnswers(port)); });
    return { stop: async () => { isOver = true; await Promise.all(loops); return seen; } };
  }

  /** Connections of clients to the pool, without the one that asks. Each process has the same number of them. */
  const clients = (): number => Number(pool.status()['clients']) - 1;

  async function shared(name: string, port: number): Promise<{ app: App; port: number }> {
    const app = new App('share-app', pool, [name, 'share', String(port)]);
    return { app, port: await app.told<number>('port') };
  }

  it('by name: two processes get connections in turn', async () => {
    const first = await shared('first', 0);
    const second = await shared('second', first.port);
    assert.equal(second.port, first.port);
    assert.deepEqual(await answers(first.port, 40), new Map([['first', 20], ['second', 20]]));
    await first.app.stop();
    await second.app.stop();
  });

  for (const [who, keeps] of [['the one that opened the socket', 'second'], ['the one that joined', 'first']] as const) {
    it(`by name: when ${who} is killed the other goes on, and at no moment is a connection refused`, async () => {
      const first = await shared('first', 0);
      const second = await shared('second', first.port);
      const { port } = first;
      const [victim, survivor] = keeps === 'second' ? [first.app, second.app] : [second.app, first.app];
      const before = clients();
      const connecting = keepConnecting(port);
      await answers(port, 4);
      await victim.stop('SIGKILL');
      await until(() => clients() === before / 2, { what: 'the pool to see that it is gone' });
      assert.deepEqual(await answers(port, 20), new Map([[keeps, 20]]), 'after that the other answers all');
      const seen = await connecting.stop();
      assert.ok(seen.length > 4);
      assert.deepEqual(seen.filter((one) => one.includes('ECONNREFUSED')), []);
      // What had been given to the victim goes down with it; nothing else may.
      assert.ok(seen.filter((one) => one.startsWith('failed')).length <= 8, seen.join());
      await survivor.stop();
    });
  }

  it('a third process can join after the first is gone, and the port is closed with the last', async () => {
    const first = await shared('first', 0);
    const second = await shared('second', first.port);
    await first.app.stop('SIGKILL');
    const third = await shared('third', first.port);
    const [members] = [await until(async () => {
      const tally = await answers(first.port, 10);
      return tally.has('second') && tally.has('third') && tally.size === 2 ? tally : undefined;
    }, { what: 'both to answer' })];
    assert.equal([...members.values()].reduce((sum, count) => sum + count), 10);
    await second.app.stop();
    await third.app.stop();
    await until(async () => (await whoAnswers(first.port)) === 'failed: ECONNREFUSED', { what: 'the port to be closed' });
  });

  describe('handed down by a parent', () => {
    const script = path.join(import.meta.dirname, '../support/apps/share-app.js');
    let listening: OwnedFd;
    let port: number;
    const children: ChildProcess[] = [];

    async function child(name: string): Promise<ChildProcess> {
      const made = spawn(process.execPath, [script, name, 'fd', '4'], { stdio: ['ignore', 'ignore', 'inherit', 'ipc', listening], env: { ...process.env, TLSPOOL_SOCKET: pool.socket } });
      killAtExit(made.pid as number);
      children.push(made);
      await within(once(made, 'message'), `${name} to listen`);
      return made;
    }
    async function end(one: ChildProcess): Promise<void> {
      if (one.exitCode !== null || one.signalCode !== null) return;
      const gone = once(one, 'exit');
      one.kill('SIGKILL');
      await within(gone, 'the child to end');
    }

    beforeEach(() => {
      listening = sockets.tcpListen({ host: '127.0.0.1', port: 0 });
      port = sockets.socketInfo(listening).local?.port as number;
    });
    afterEach(async () => {
      sockets.close(listening);
      for (const one of children.splice(0)) await end(one);
    });

    it('one socket serves two children, and both get connections', async () => {
      await child('first');
      await child('second');
      const tally = new Map<string, number>();
      // Which of two accepts a connection is the kernel's choice: both must, sooner or later.
      await until(async () => {
        for (const [name, count] of await answers(port, 10)) tally.set(name, (tally.get(name) ?? 0) + count);
        return tally.has('first') && tally.has('second');
      }, { what: 'both to answer', deadlineMs: 20_000, context: () => JSON.stringify([...tally]) });
      assert.deepEqual([...tally.keys()].sort(), ['first', 'second']);
    });

    it('when one is killed the other goes on, and at no moment is a connection refused', async () => {
      const victim = await child('first');
      await child('second');
      const before = clients();
      const connecting = keepConnecting(port);
      await answers(port, 4);
      await end(victim);
      await until(() => clients() === before / 2, { what: 'the pool to see that it is gone' });
      assert.deepEqual(await answers(port, 20), new Map([['second', 20]]));
      const seen = await connecting.stop();
      assert.deepEqual(seen.filter((one) => one.includes('ECONNREFUSED')), []);
    });
  });
});
