/** The V2 socket and its pool: start, reload of rules, end. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { commands } from 'tlspool/dist/v2/frames.js';
import { until, within } from '../support/index.js';
import { Fds, V2Wire, begin, connect, ends, expectError, expectSuccess, flags, flows, newKey, startV2Pool } from '../support/v2/index.js';

describe('V2: the pool goes down', () => {
  it('sessions may finish, nothing new begins, and socket and pid file are gone at the end', async () => {
    const { pool, socket } = await startV2Pool({ config: { v2: { socket: { path: 'v2.sock' }, pidFile: 'pool.pid' } } });
    const pidFile = path.join(path.dirname(socket), 'pool.pid');
    assert.equal(readFileSync(pidFile, 'utf8'), `${String(pool.pid)}\n`);
    const fds = new Fds();
    const [one, two] = [new V2Wire(socket), new V2Wire(socket)];
    const { server, client, serverKey } = connect(fds, { wire: one }, { wire: two });
    pool.process.kill('SIGTERM');
    await until(() => !existsSync(socket), { what: 'the socket to be gone' });
    const [theirs, ours] = fds.pair();
    begin(one, fds, theirs, { flags: flags.server | flags.ignore, localid: 'localhost', ctlkey: newKey() });
    expectError(one.next(), 'ESHUTDOWN');
    ends(ours);
    flows(client, server, 'still here');
    expectSuccess(one.control(commands.CONTROL_DETACH, serverKey));
    fds.close();
    const { code } = await within(pool.process.ended, 'the pool to end', 15_000, () => pool.process.tail());
    assert.equal(code, 0);
    assert.ok(one.isClosed() && two.isClosed());
    assert.ok(!existsSync(pidFile));
    one.close();
    two.close();
  });

  it('killed: the plain-text side and the connection end; a new pool takes the same place', async () => {
    const { pool, socket } = await startV2Pool();
    const fds = new Fds();
    const [one, two] = [new V2Wire(socket), new V2Wire(socket)];
    const { server } = connect(fds, { wire: one }, { wire: two });
    await pool.restart();
    assert.ok(one.isClosed());
    ends(server);
    fds.close();
    const [three, four] = [new V2Wire(socket), new V2Wire(socket)];
    const again = connect(fds, { wire: three }, { wire: four });
    flows(again.client, again.server, 'hello');
    for (const wire of [one, two, three, four]) wire.close();
    fds.close();
    await pool.stop();
  });
});
