/** discard(): the end of a descriptor that came from somebody else. What it is for is shown by test/system/slow-descriptors. */
import assert from 'node:assert/strict';
import { fstatSync, openSync } from 'node:fs';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { until } from '../support/wait.js';

const isOpen = (fd: number): boolean => {
  try {
    fstatSync(fd);
    return true;
  } catch {
    return false;
  }
};

describe('native addon: discard', () => {
  it('a socket is closed a moment later, and its peer sees the end', async () => {
    const [left, right] = sockets.socketpair('stream');
    sockets.discard(left);
    await until(() => !isOpen(left), { what: 'the socket to be closed' });
    assert.equal(sockets.receive(right, 1, 0)?.eof, true);
    sockets.close(right);
  });

  it('files are closed a moment later, however many there are', async () => {
    const files = Array.from({ length: 100 }, () => openSync('/dev/null', 'r') as OwnedFd);
    for (const file of files) sockets.discard(file);
    await until(() => !files.some(isOpen), { what: 'the files to be closed' });
  });

  it('a descriptor that is closed already is no error, and what is no descriptor is BAD_ARGUMENT', () => {
    const [left, right] = sockets.socketpair('stream');
    for (const fd of [left, right, right]) sockets.discard(fd);
    assert.throws(() => { sockets.discard(-1 as OwnedFd); }, { code: 'BAD_ARGUMENT' });
  });
});
