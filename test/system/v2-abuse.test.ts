/** The V2 socket under load and under attack: the pool stays as it was, in its answers and in what it has open. */
import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { sockets } from 'libtlspool/native';
import { codec, commands, frameOctets } from 'tlspool/dist/v2/frames.js';
import { expectBaseline, Random, until } from '../support/index.js';
import type { Baseline } from '../support/index.js';
import { Fds, V2Wire, answer, begin, connect, ends, expectError, flags, flows, frameOf, headOf, newKey, startOf, startV2Pool } from '../support/v2/index.js';
import type { V2Pool } from '../support/v2/index.js';

describe('V2: abuse', () => {
  let v2: V2Pool;
  let baseline: Baseline;
  let fds: Fds;
  before(async () => { v2 = await startV2Pool({ config: { limits: { clients: 8, requestsPerClient: 16 } } }); });
  after(() => v2.pool.stop());
  beforeEach(() => {
    baseline = v2.pool.baseline();
    fds = new Fds();
  });
  afterEach(async () => {
    fds.close();
    await expectBaseline(v2.pool, baseline);
  });

  /** The pool works as ever. */
  function works(): void {
    const [one, two] = [new V2Wire(v2.socket), new V2Wire(v2.socket)];
    const { server, client } = connect(fds, { wire: one }, { wire: two });
    flows(client, server, 'hello');
    one.close();
    two.close();
    fds.close();
  }

  it('200 STARTTLS at once over one connection: each has its callback, its reply and its octets', () => {
    const wire = new V2Wire(v2.socket);
    const keys = new Map<number, Buffer>();
    for (let reqid = 0; reqid < 200; reqid += 2) {
      const [left, right] = fds.pair();
      for (const [id, fd, role] of [[reqid, left, { flags: flags.server | flags.ignore, localid: 'localhost' }], [reqid + 1, right, { flags: flags.client, remoteid: 'localhost' }]] as const) {
        const ctlkey = newKey();
        keys.set(id, ctlkey);
        begin(wire, fds, fd, { ...role, ctlkey }, { reqid: id });
      }
    }
    const plain = new Map<number, ReturnType<Fds['pair']>[0]>();
    const cbids = new Set<number>();
    let finals = 0;
    while (finals < 200) {
      const frame = wire.next();
      const { reqid, cbid, cmd } = headOf(frame);
      assert.deepEqual(startOf(frame).ctlkey, keys.get(reqid), codec.read(frame, 'error').message);
      if (cmd === commands.STARTTLS) {
        finals += 1;
        continue;
      }
      assert.equal(cmd, commands.PLAINTEXT_CONNECT);
      assert.ok(!plain.has(reqid), 'one callback a request');
      cbids.add(cbid);
      const [ours, theirs] = fds.pair();
      plain.set(reqid, ours);
      answer(wire, frame, {}, theirs);
      fds.drop(theirs);
    }
    assert.ok(cbids.size >= 1 && Math.max(...cbids) <= 1024);
    for (let reqid = 0; reqid < 200; reqid += 2) {
      const [server, client] = [plain.get(reqid), plain.get(reqid + 1)];
      assert.ok(server !== undefined && client !== undefined);
      flows(client, server, `to ${reqid}`);
      flows(server, client, `from ${reqid}`);
    }
    wire.close();
  });

  it('2,000 frames of random octets, with and without descriptors, get at most an answer each, and change nothing', async () => {
    const random = new Random(20151111);
    const known = Object.values(commands);
    const starts = [flags.server | flags.ignore, flags.client, flags.server | flags.localidCheck];
    let wire = new V2Wire(v2.socket);
    for (let count = 0; count < 2000; count += 1) {
      const frame = random.octets(frameOctets);
      // Half of them have a command, so that they get further than the table of commands.
      if (count % 2 === 0) codec.patch(frame, 'head', { cmd: random.pick(known), cbid: count % 4 === 0 ? 0 : random.below(1025) });
      if (count % 8 === 0) codec.patch(frame, 'starttls', { flags: random.pick(starts), ipproto: Buffer.of(6) });
      const passed = count % 3 === 0 ? [fds.pair()[0]] : [];
      wire.send(frame, ...passed);
      fds.close();
      wire.pingPast();
      if (count % 100 === 99) {
        wire.close();
        wire = new V2Wire(v2.socket);
      }
    }
    wire.close();
    assert.deepEqual(v2.pool.logLines().filter((line) => /"level":"?(?:50|error)/u.test(line)), []);
    await expectBaseline(v2.pool, baseline);
    works();
  }).timeout(120_000);

  it('a client that leaves at any octet of a STARTTLS, with its socket, leaves nothing behind', () => {
    for (const cut of [1, 7, 8, 100, 387, 388]) {
      const wire = new V2Wire(v2.socket);
      const [theirs, ours] = fds.pair();
      sockets.send(wire.fd, frameOf(commands.STARTTLS, 'starttls', { flags: flags.server, localid: 'localhost' }).subarray(0, cut), [theirs]);
      fds.drop(theirs);
      wire.close();
      ends(ours);
    }
    works();
  });

  it('a client that asks and does not read is disconnected; others do not notice', async () => {
    const wire = new V2Wire(v2.socket);
    const other = new V2Wire(v2.socket);
    const frame = frameOf(commands.PING, 'ping', {});
    await until(() => {
      try {
        while (sockets.send(wire.fd, frame) === frameOctets);
        return false;
      } catch {
        return true; // EPIPE, ECONNRESET
      }
    }, { what: 'the flood to be ended' });
    other.ping();
    other.close();
    wire.close();
    works();
  });

  it('places are limited as in the pool protocol, one told so, and one that is given back is taken again', () => {
    const wires = Array.from({ length: 8 }, () => new V2Wire(v2.socket));
    for (const wire of wires) wire.ping();
    const late = new V2Wire(v2.socket);
    expectError(late.request(frameOf(commands.PING, 'ping', {})), 'EAGAIN');
    late.close();
    for (const wire of wires) wire.close();
    works();
  });

  it('sessions of this dialect are in the status of the pool, and the socket has the permissions that were asked for', () => {
    const [one, two] = [new V2Wire(v2.socket), new V2Wire(v2.socket)];
    connect(fds, { wire: one }, { wire: two });
    assert.equal(v2.pool.status()['sessions'], baseline.sessions + 2);
    one.close();
    two.close();
    assert.equal(statSync(v2.socket).mode & 0o777, 0o660);
  });
});
