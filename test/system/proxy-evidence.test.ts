/** Promise 2 for the proxy: after the hand-over it reads and writes nothing of a connection, and has no descriptor of it. And many connections at once leave nothing. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { listenForHandoff } from 'libtlspool';
import type { HandoffListener } from 'libtlspool';
import { descriptors, needProgram, PlainClient, startPool, startTls, tempFolder, TestProxy, ToyBackend, toyMail, until } from '../support/index.js';
import type { TestPool } from '../support/index.js';

const calls = 'read,readv,pread64,write,writev,pwrite64,recvfrom,recvmsg,recvmmsg,sendto,sendmsg,sendmmsg,splice,sendfile,tee';
const before_ = 'EHLO word-before-tls.example';
const question = 'QUESTION-under-tls ';
const answer = 'ANSWER-under-tls ';

/** Inode numbers of the sockets of a process. */
const socketsOf = (pid: number): Set<string> => new Set([...descriptors(pid).values()].filter((link) => link.startsWith('socket:')));

describe('proxy: what it has to do with a connection after the hand-over', function () {
  this.timeout(60_000);
  let pool: TestPool;
  let proxy: TestProxy;
  let backend: ToyBackend;
  let listener: HandoffListener;

  before(async () => {
    pool = await startPool();
    const mail = toyMail('EHLO');
    backend = await ToyBackend.listen((connection) => {
      mail(connection);
      connection.socket.on('data', (octets: Buffer) => { if (octets.includes(question)) connection.say(`${answer.repeat(1000)}\r\n`); });
    });
    const file = path.join(tempFolder(), 'h.sock');
    listener = await listenForHandoff({ path: file, reattach: false, allowHalfOpen: true });
    (async () => {
      for await (const socket of listener) {
        socket.on('error', () => undefined).on('end', () => socket.end());
        socket.on('data', (octets: Buffer) => { if (octets.includes(question)) socket.write(`${answer.repeat(1000)}\r\n`); });
      }
    })().catch(() => undefined);
    const at = { connect: backend.address };
    proxy = await TestProxy.start(pool, [
      { name: 'connect', protocol: 'smtp', perAddress: 1000, backend: at },
      { name: 'fd', protocol: 'smtp', perAddress: 1000, backend: { fd: file } },
      { name: 'fd-relay', protocol: 'smtp', perAddress: 1000, backend: { fd: file, relay: true } },
      { name: 'exec', protocol: 'smtp', perAddress: 1000, backend: { exec: ['/bin/sh', '-c', `while read line; do echo "${answer}"; done`], max: 1000 } },
      { name: 'plain', protocol: 'smtp', perAddress: 1000, tls: 'optional', backend: at },
    ]);
  });
  after(async () => {
    await proxy.stop();
    await listener.close();
    await backend.close();
    await pool.stop();
  });

  for (const name of ['fd', 'connect'] as const) {
    it(`strace, ${name}: not one octet of what is said under TLS, in plain text or not, passes through the proxy`, async () => {
      const file = path.join(tempFolder(), 'trace');
      const tracer = spawn(needProgram('strace', 'strace'), ['-f', '-qq', '-yy', '-s', '4096', '-e', `trace=${calls}`, '-o', file, '-p', String(proxy.pid)], { stdio: 'ignore' });
      await until(() => /TracerPid:\t[1-9]/u.test(readFileSync(`/proc/${proxy.pid}/status`, 'utf8')), { what: 'strace to be attached' });
      const known = socketsOf(proxy.pid);
      const plain = await PlainClient.connect(proxy.port(name), proxy.host(name));
      const { localPort } = plain.socket;
      await plain.ask(`${before_}\r\n`, /^250 .*\r\n/mu);
      plain.say('STARTTLS\r\n');
      await plain.hears(/^220 2\.0\.0 /mu);
      const client = await plain.secure(pool);
      await client.ask(`EHLO x\r\n${question}\r\n`, /ANSWER-under-tls \r\n/u);
      if (name === 'fd') await proxy.recordOf(name, localPort);
      assert.deepEqual([...socketsOf(proxy.pid)].filter((link) => !known.has(link)), [], 'no socket is left of it while it goes on');
      await client.ask(question.repeat(100), /ANSWER-under-tls \r\n/u);
      await client.finish();
      await proxy.recordOf(name, localPort);
      const ended = once(tracer, 'exit');
      tracer.kill('SIGINT');
      await ended;
      const trace = readFileSync(file, 'utf8').split('\n');
      // Of which the descriptor is the client's connection.
      const onClient = trace.filter((line) => new RegExp(`^\\d+ +\\w+\\(\\d+<TCP:\\[[^\\]]*:${localPort}\\]`, 'u').test(line));
      assert(trace.some((line) => line.includes(before_)), 'the trace shows the plain-text part');
      assert(onClient.length > 0, 'by the ports of the connection, too');
      assert.equal(trace.find((line) => line.includes(question) || line.includes(answer)), undefined);
      const last = onClient.findLastIndex((line) => line.includes('Ready to start TLS'));
      assert(last >= 0 && last === onClient.length - 1, `nothing is read or written behind the go-ahead\n${onClient.slice(last + 1).join('\n')}`);
      const passed = trace.filter((line) => line.includes('SCM_RIGHTS') && line.includes(`:${localPort}]`));
      assert.equal(passed.length, 1, 'it was passed on once');
    });
  }

  it('300 connections at once over every way to a backend are all served, and leave nothing in the proxy and in the pool', async () => {
    const names = ['connect', 'fd', 'fd-relay', 'exec', 'plain'] as const;
    const baseline = proxy.baseline();
    const logged = proxy.connections().length;
    const one = async (name: (typeof names)[number]): Promise<void> => {
      const to = { port: proxy.port(name), host: proxy.host(name), protocol: 'smtp' };
      if (name === 'plain') {
        const client = await PlainClient.connect(to.port, to.host);
        await client.ask('EHLO x\r\n', /^250 .*\r\n/mu);
        await client.ask(`MAIL ${question}\r\n`, /ANSWER-under-tls \r\n/u);
        client.finish();
        await client.ended();
        client.close();
        return;
      }
      const client = await startTls(to, pool);
      await client.ask(`EHLO x\r\n${question}\r\n`, /ANSWER-under-tls \r?\n/u);
      await client.finish();
    };
    await Promise.all(Array.from({ length: 60 }, () => names.map(one)).flat());
    await proxy.expectBaseline(baseline);
    await until(() => proxy.connections().length === logged + 300, { what: 'a line for each', context: () => String(proxy.connections().length - logged) });
    const endings = new Map<string, number>();
    for (const { service, ended } of proxy.connections().slice(logged)) endings.set(`${service} ${ended}`, (endings.get(`${service} ${ended}`) ?? 0) + 1);
    assert.deepEqual(Object.fromEntries(endings), { 'connect closed': 60, 'fd handed-over': 60, 'fd-relay closed': 60, 'exec closed': 60, 'plain plain': 60 });
  });
});
