import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { needProgram, nodeConnect, serve, startPool, tempFolder, until } from '../support/index.js';
import type { TestPool } from '../support/index.js';

const calls = 'read,readv,pread64,write,writev,pwrite64,recvfrom,recvmsg,recvmmsg,sendto,sendmsg,sendmmsg,splice,sendfile';
const question = 'QUESTION-in-plain-text';
const answer = 'ANSWER-in-plain-text';

/** The system calls of each thread that carried one of the words. */
function carriers(trace: string, words: readonly string[]): Map<number, number> {
  const found = new Map<number, number>();
  for (const line of trace.split('\n')) {
    if (!words.some((word) => line.includes(word))) continue;
    const thread = Number(/^(\d+)/u.exec(line)?.[1]);
    found.set(thread, (found.get(thread) ?? 0) + 1);
  }
  return found;
}

describe('promise 2: after the hand-over no plain-text octet passes through JavaScript in tlspoold', function () {
  this.timeout(60_000);
  let pool: TestPool;
  before(async () => { pool = await startPool(); });
  after(async () => { await pool.stop(); });

  it('strace: the threads of the engine read and write all of it, the main thread none', async () => {
    const strace = needProgram('strace', 'strace');
    const server = http.createServer((request, response) => {
      request.resume();
      request.on('end', () => { response.end(answer.repeat(20_000)); });
    });
    const served = await serve(pool, server);
    const file = path.join(tempFolder(), 'trace');
    const tracer = spawn(strace, ['-f', '-qq', '-s', '100', '-e', `trace=${calls}`, '-o', file, '-p', String(pool.pid)], { stdio: ['ignore', 'ignore', 'pipe'] });
    await until(() => /TracerPid:\t[1-9]/u.test(readFileSync(`/proc/${String(pool.pid)}/status`, 'utf8')), { what: 'strace to be attached' });
    const socket = await nodeConnect({ port: served.port, caFile: pool.caFile });
    const body = question.repeat(20_000);
    socket.write(`POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: ${String(body.length)}\r\n\r\n${body}`);
    let text = '';
    socket.on('data', (chunk: Buffer) => { text += chunk.toString(); });
    await once(socket, 'end');
    assert.equal(text.split(answer).length - 1, 20_000);
    const ended = once(tracer, 'exit');
    tracer.kill('SIGINT');
    await ended;
    await served.close();
    const seen = carriers(readFileSync(file, 'utf8'), [question, answer]);
    assert.ok([...seen.values()].reduce((sum, count) => sum + count, 0) >= 4, 'the trace shows the plain text on its way');
    assert.equal(seen.get(pool.pid), undefined, 'the main thread carried plain text');
  });
});
