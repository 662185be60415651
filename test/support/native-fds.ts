/** For tests of the native socket addon: descriptors that are counted, and errors that are looked at. */
import assert from 'node:assert/strict';
import net from 'node:net';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd, SocketKind } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import type { ErrorCode } from 'libtlspool/protocol';
import { descriptors } from './process-info.js';
import { until } from './wait.js';

/** The connected pair is closed when `use` returns or throws; ends that it closed itself are left alone. */
export function withPair<T>(kind: SocketKind, use: (left: OwnedFd, right: OwnedFd) => T): T {
  const [left, right] = sockets.socketpair(kind);
  const before = [left, right].map((fd) => descriptors(process.pid).get(fd));
  const close = (): void => {
    [left, right].forEach((fd, index) => {
      if (descriptors(process.pid).get(fd) === before[index]) sockets.close(fd);
    });
  };
  let result: T;
  try {
    result = use(left, right);
  } catch (error) {
    close();
    throw error;
  }
  if (result instanceof Promise) return result.finally(close) as T;
  close();
  return result;
}

/**
 * Registers hooks of mocha: after each test of the suite exactly the descriptors from before it are open. Node closes the pipes of
 * a child process some turns of its loop after it has told of its end; a leak does not go away by waiting.
 */
export function countDescriptors(): void {
  let baseline: string[] = [];
  // A sanitizer opens its log with its first report, which may be about Node itself.
  const [, reports = '/proc/'] = /log_path=([^:]+)/.exec(process.env['TSAN_OPTIONS'] ?? process.env['ASAN_OPTIONS'] ?? '') ?? [];
  const isCounted = (target: string): boolean => !target.startsWith('/proc/') && !target.startsWith(reports);
  const open = (): string[] => [...descriptors(process.pid)].filter(([, target]) => isCounted(target)).map(([fd, target]) => `${String(fd)} ${target}`).sort();
  const surplus = (): string[] => open().filter((entry) => !baseline.includes(entry));
  // With its first stream libuv opens a descriptor in reserve, /dev/null, which it keeps. Which test would be the first depends on what stdout is.
  before('libuv has its descriptor in reserve', async () => {
    const server = net.createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    await new Promise((resolve) => server.close(resolve));
  });
  // What the suite before has discarded is closed by another thread.
  before('descriptors that are being closed are gone', async () => {
    let seen = '';
    await until(() => {
      const now = open().join('\n');
      const isStill = now === seen;
      seen = now;
      return isStill;
    }, { what: 'descriptors to stay as they are', deadlineMs: 3000 });
  });
  beforeEach(() => { baseline = open(); });
  afterEach('descriptors are back at the baseline', async () => {
    await until(() => surplus().length === 0, { what: 'descriptors to be closed', deadlineMs: 3000, context: () => surplus().join('\n') });
    assert.deepEqual(open(), baseline);
  });
}

/** `call` throws a TlsPoolError with this code, and with this negative errno where one is given. */
export function throwsCode(call: () => unknown, code: ErrorCode, errno?: number): TlsPoolError {
  let caught: unknown;
  try {
    call();
  } catch (error) {
    caught = error;
  }
  assert(caught instanceof TlsPoolError, `expected a TlsPoolError ${code}, got ${String(caught)}`);
  assert.equal(caught.code, code, caught.message);
  if (errno !== undefined) assert.equal(caught.errno, errno, caught.message);
  return caught;
}

/** For arguments that the type system would refuse. */
export const wrong = (value: unknown): never => value as never;

export const borrowed = (fd: number): BorrowedFd => fd as BorrowedFd;
