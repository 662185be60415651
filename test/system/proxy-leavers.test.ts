/** Clients that leave at the worst of moments: the log must not take that for a fault of ours. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { PlainClient, startPool, tempFolder, TestProxy, until } from '../support/index.js';
import type { TestPool } from '../support/index.js';

describe('proxy: clients that leave', function () {
  this.timeout(30_000);
  let pool: TestPool;
  let proxy: TestProxy;
  let listening: OwnedFd;

  before(async () => {
    pool = await startPool();
    const file = path.join(tempFolder(), 'h.sock');
    listening = sockets.unixListen({ path: file, kind: 'seqpacket' });
    proxy = await TestProxy.start(pool, [{ name: 'imap', protocol: 'imap', backend: { fd: file } }]);
  });
  after(async () => {
    await proxy.stop();
    sockets.close(listening);
    await pool.stop();
  });

  async function goneAhead(): Promise<PlainClient> {
    const client = await PlainClient.connect(proxy.port('imap'), proxy.host('imap'));
    await client.askForTls('imap');
    return client;
  }

  it('before the pool has looked at their socket have left', async () => {
    const before = proxy.baseline();
    process.kill(pool.pid, 'SIGSTOP');
    let port: number | undefined;
    try {
      const gone = await goneAhead();
      port = gone.localPort;
      gone.socket.resetAndDestroy();
      await until(() => gone.socket.closed, { what: 'the reset' });
    } finally {
      process.kill(pool.pid, 'SIGCONT');
    }
    const { ended, code } = await proxy.recordOf('imap', port);
    assert.deepEqual([ended, code], ['left', 'PEER_CLOSED']);
    await proxy.expectBaseline(before);
  });

  it('between the handshake and the hand-over have ended as the pool says it', async () => {
    const before = proxy.baseline();
    const client = await goneAhead();
    const { localPort } = client;
    await until(() => pool.baseline().sessions === 1, { what: 'the pool to have the socket' });
    process.kill(proxy.pid, 'SIGSTOP');
    try {
      const done = Number(pool.status()['handshakesDone']);
      const secured = await client.secure(pool);
      await until(() => Number(pool.status()['handshakesDone']) > done, { what: 'the pool to be done with the handshake' });
      secured.close();
      await until(() => pool.baseline().sessions === 0, { what: 'the session to end' });
    } finally {
      process.kill(proxy.pid, 'SIGCONT');
    }
    const { ended, code, protocol } = await proxy.recordOf('imap', localPort);
    // A session ticket that the client has not read when it closes makes a reset of it.
    assert.match(ended, /^(?:truncated|reset)$/u);
    assert.deepEqual([code, protocol], [undefined, 'TLSv1.3']);
    await proxy.expectBaseline(before);
  });
});
