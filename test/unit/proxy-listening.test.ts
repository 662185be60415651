/** Listening sockets of the proxy that cannot be opened after all. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { mock } from 'node:test';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { TlsPoolError } from 'libtlspool/protocol';
import { openListening } from 'tlspool-proxy/dist/listening.js';
import { tempFolder } from '../support/cleanup.js';
import { countDescriptors, throwsCode } from '../support/native-fds.js';

describe('proxy: listening without a descriptor to watch with', () => {
  countDescriptors();

  function fails(address: Parameters<typeof openListening>[0], passed = new Map<string, OwnedFd>()): void {
    const poll = mock.method(sockets, 'poll', () => { throw new TlsPoolError('SYSTEM', { text: 'fcntl: EMFILE', errno: -24, syscall: 'fcntl' }); });
    try {
      assert.match(throwsCode(() => openListening(address, passed, () => undefined), 'SYSTEM').message, /cannot listen on .*EMFILE/u);
    } finally {
      poll.mock.restore();
    }
  }

  it('an address is given up again', () => { fails({ kind: 'tcp', host: '127.0.0.1', port: 0 }); });

  it('the path of a UNIX socket is removed again', () => {
    const place = path.join(tempFolder(), 'in.sock');
    fails({ kind: 'unix', path: place, mode: 0o600 });
    assert.equal(existsSync(place), false);
  });

  it('a socket of systemd stays open for the next attempt, which nobody could open again', () => {
    const fd = sockets.tcpListen({ host: '127.0.0.1', port: 0 });
    const passed = new Map([['imap', fd]]);
    fails({ kind: 'systemd', name: 'imap' }, passed);
    assert.deepEqual([...passed], [['imap', fd]]);
    openListening({ kind: 'systemd', name: 'imap' }, passed, () => undefined).close();
    sockets.close(fd);
  });
});
