/** Options of net.Server.listen(), in each call that listens. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { attach, createServer } from 'libtlspool';
import type { ListenOptions, Pool } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import { until, within } from '../support/index.js';
import { FakePool } from './lib-fake-pool.js';

type Address = string | net.AddressInfo | null;
interface Listening { address(): Address; readonly isOver: Promise<unknown>; close(): Promise<unknown> }

const refuses = (port: number, host: string): Promise<boolean> => new Promise((resolve, reject) => {
  const socket = net.connect(port, host);
  socket.once('connect', () => { socket.destroy(); resolve(false); });
  socket.once('error', (error: NodeJS.ErrnoException) => { if (error.code === 'ECONNREFUSED') resolve(true); else reject(error); });
});
const portOf = (address: Address): number => (address as net.AddressInfo).port;

describe('libtlspool: what net.Server.listen() takes', () => {
  let fake: FakePool;
  let pool: Pool;
  FakePool.forEach((...made) => { [fake, pool] = made; });

  const calls: Readonly<Record<string, (options: ListenOptions) => Promise<Listening>>> = {
    'pool.listen()': async (options) => {
      const listener = await pool.listen(options);
      return { address: () => listener.address(), isOver: once(listener, 'close'), close: () => listener.close() };
    },
    'createServer().listen()': async (options) => {
      const server = createServer({ pool });
      await once(server.listen(options), 'listening');
      return { address: () => server.address(), isOver: once(server, 'close'), close: () => new Promise((resolve) => { server.close(resolve); }) };
    },
    'attach()': async (options) => {
      const server = http.createServer();
      const attached = await attach(server, { pool, ...options });
      return { address: () => server.address(), isOver: once(server, 'close'), close: () => attached.close() };
    },
  };

  for (const [name, listen] of Object.entries(calls)) {
    describe(name, () => {
      it('ipv6Only leaves IPv4 out, on all addresses and on "::"; without it both are served', async () => {
        for (const [options, isRefused] of [[{ ipv6Only: true }, true], [{ host: '::', ipv6Only: true }, true], [{ ipv6Only: false }, false], [{ host: '::' }, false], [{}, false]] as const) {
          const listening = await listen({ port: 0, ...options });
          const port = portOf(listening.address());
          assert.deepEqual([await refuses(port, '::1'), await refuses(port, '127.0.0.1')], [false, isRefused], JSON.stringify(options));
          await listening.close();
        }
      });

      it('signal closes it, and is forgotten when it was closed', async () => {
        const abort = new AbortController();
        const listening = await listen({ port: 0, host: '127.0.0.1', signal: abort.signal });
        const port = portOf(listening.address());
        const unlistened = fake.next('unlisten');
        abort.abort();
        await within(Promise.all([listening.isOver, unlistened]), 'the end');
        await until(() => refuses(port, '127.0.0.1'), { what: 'the port to be closed' });
        assert.equal(listening.address(), null);
        const later = new AbortController();
        const closed = await listen({ port: 0, host: '127.0.0.1', signal: later.signal });
        await closed.close();
        later.abort();
        const again = await listen({ port: 0, host: '127.0.0.1' });
        assert.notEqual(again.address(), null);
        await again.close();
      });
    });
  }

  for (const name of ['pool.listen()', 'attach()']) {
    it(`${name} rejects with ABORTED when its signal is aborted before it listens, and closes the port`, async () => {
      const reason = new Error('no more');
      const isAborted = (error: unknown): boolean => error instanceof TlsPoolError && error.code === 'ABORTED' && error.cause === reason;
      const listen = calls[name];
      assert.ok(listen !== undefined);
      await assert.rejects(listen({ port: 0, signal: AbortSignal.abort(reason) }), isAborted);
      assert.equal(fake.seen.some(({ message }) => message.op === 'listen'), false);
      const fd = sockets.tcpListen({ host: '127.0.0.1', port: 0 });
      await assert.rejects(listen({ fd, signal: AbortSignal.abort(reason) }), isAborted, 'and the descriptor that it was given, or the baseline tells');
      const abort = new AbortController();
      const { listen: answer } = fake.handlers;
      let port = 0;
      fake.handlers.listen = (request) => {
        abort.abort(reason);
        const body = answer?.(request);
        port = (body as { local: net.AddressInfo }).local.port;
        return body;
      };
      await assert.rejects(listen({ port: 0, host: '127.0.0.1', signal: abort.signal }), isAborted);
      await until(() => refuses(port, '127.0.0.1'), { what: 'the port to be closed' });
    });
  }

  it('a descriptor is closed also where the call fails before anything listens', async () => {
    const given = (): { fd: number } => ({ fd: sockets.tcpListen({ host: '127.0.0.1', port: 0 }) });
    const listening = http.createServer().listen(0, '127.0.0.1');
    await once(listening, 'listening');
    await assert.rejects(attach(listening, { pool, ...given() }), { code: 'BAD_STATE' });
    await assert.rejects(attach(http.createServer(), { pool, ...given(), highWaterMark: 0 } as object), { code: 'BAD_ARGUMENT' });
    const server = createServer({ pool });
    await once(server.listen(given()), 'listening');
    assert.throws(() => server.listen(given()), { code: 'BAD_STATE' });
    await new Promise((resolve) => { server.close(resolve); });
    listening.close();
  });

  it('createServer().listen() with a signal that is aborted already closes, as in Node; one that failed is forgotten by the next listen()', async () => {
    const server = createServer({ pool });
    await once(server.listen({ port: 0, signal: AbortSignal.abort() }), 'close');
    assert.equal(server.listening, false);
    const taken = net.createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const abort = new AbortController();
    const failed = new Promise<NodeJS.ErrnoException>((resolve) => { server.once('error', resolve); });
    server.listen({ port: portOf(taken.address()), host: '127.0.0.1', signal: abort.signal });
    assert.equal((await failed).code, 'SYSTEM');
    await once(server.listen({ port: 0 }), 'listening');
    abort.abort();
    await new Promise(setImmediate);
    assert.equal(server.listening, true);
    await new Promise((resolve) => { server.close(resolve); });
    taken.close();
  });
});
