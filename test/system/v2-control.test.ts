/** Control keys of the V2 dialect: each cell of the table of DETACH and REATTACH, PRNG and INFO, other users, and what becomes of sessions when their client leaves. */
import assert from 'node:assert/strict';
import { chmodSync, copyFileSync } from 'node:fs';
import path from 'node:path';
import { codec, commands } from 'tlspool/dist/v2/frames.js';
import { numberOf } from 'tlspool/dist/v2/errors.js';
import type { TableError } from 'tlspool/dist/v2/errors.js';
import { expectBaseline, PoolWire, tempFolder, until, WireError } from '../support/index.js';
import type { Baseline } from '../support/index.js';
import {
  Fds, V2Program, V2Wire, answer, begin, callback, compiledClient, connect, ends, expectError, expectSuccess, flags, flows, frameOf, headOf, newKey, plaintext, startOf, startV2Pool,
} from '../support/v2/index.js';
import type { Ends, Start, V2Pool } from '../support/v2/index.js';

const { CONTROL_DETACH: detach, CONTROL_REATTACH: reattach } = commands;
const nobody = 65_534;

describe('V2: control keys', () => {
  let v2: V2Pool;
  let baseline: Baseline;
  let fds: Fds;
  let one: V2Wire;
  let two: V2Wire;
  before(async () => {
    v2 = await startV2Pool({
      config: { v2: { socket: { path: 'v2.sock', mode: '0666' } }, access: [{ uid: nobody, identities: ['other'], roles: ['server', 'client'] }, { uid: 65_533, identities: ['*'] }, { uid: 65_531, identities: ['*'], roles: ['client'] }, { uid: 65_530, roles: ['server'] }] },
    });
    chmodSync(path.dirname(v2.socket), 0o711);
  });
  after(() => v2.pool.stop());
  beforeEach(() => {
    baseline = v2.pool.baseline();
    fds = new Fds();
    one = new V2Wire(v2.socket);
    two = new V2Wire(v2.socket);
  });
  afterEach(async () => {
    one.close();
    two.close();
    fds.close();
    await expectBaseline(v2.pool, baseline);
  });

  const prng = (ctlkey: Buffer, { label = 'EXPERIMENTAL-test', context = '', lengths = {} }: { label?: string; context?: string; lengths?: { in1Len?: number; in2Len?: number; prngLen?: number } } = {}): Buffer => {
    const buffer = Buffer.alloc(350);
    ctlkey.copy(buffer);
    buffer.write(label + context, 16, 'latin1');
    return frameOf(commands.PRNG, 'prng', { in1Len: label.length, in2Len: context === '' ? -1 : context.length, prngLen: 32, buffer, ...lengths }, { reqid: 9 });
  };
  const info = (ctlkey: Buffer, kind: number, len = 0xffff): Buffer => frameOf(commands.INFO, 'info', { ctlkey, kind, len }, { reqid: 9 });
  const renegotiation = (ctlkey: Buffer, more = 0): Buffer => frameOf(commands.STARTTLS, 'starttls', { flags: flags.server | flags.renegotiate | more, ctlkey }, { reqid: 9 });
  const session = (start: Start = {}): Ends => connect(fds, { wire: one, fields: { flags: flags.server | flags.ignore | (start.flags ?? 0) } }, { wire: two });

  describe('a key that nobody has', () => {
    it('is not found, whatever is asked', () => {
      const key = newKey();
      for (const cmd of [detach, reattach]) expectError(one.control(cmd, key), 'CTLKEY_NOT_FOUND');
      expectError(one.request(prng(key)), 'CTLKEY_NOT_FOUND', 9);
      expectError(one.request(info(key, 0x52800000)), 'CTLKEY_NOT_FOUND', 9);
      expectError(one.request(renegotiation(key)), 'RENOGIATE_NOT_FOUND', 9);
    });
  });

  describe('a key that is attached', () => {
    it('here: DETACH succeeds, REATTACH does not, PRNG and INFO answer', () => {
      const { serverKey: key } = session();
      expectError(one.control(reattach, key), 'CTLKEY_ATTACHED');
      assert.equal(headOf(one.request(prng(key))).cmd, commands.PRNG);
      assert.equal(headOf(one.request(info(key, 0x52800100))).cmd, commands.INFO);
      expectSuccess(one.control(detach, key));
    });
    it('elsewhere: not ours, attached, and not found', () => {
      const { serverKey: key } = session();
      expectError(two.control(detach, key), 'CTLKEY_NOT_YOURS');
      expectError(two.control(reattach, key), 'CTLKEY_ATTACHED');
      expectError(two.request(prng(key)), 'CTLKEY_NOT_FOUND', 9);
      expectError(two.request(info(key, 0x52800100)), 'CTLKEY_NOT_FOUND', 9);
      expectError(two.request(renegotiation(key)), 'RENOGIATE_NOT_FOUND', 9);
    });
  });

  describe('a key that is detached', () => {
    it('by DETACH: only REATTACH is to be had, once, from anywhere', () => {
      const { serverKey: key, server, client } = session();
      expectSuccess(one.control(detach, key));
      for (const wire of [one, two]) {
        expectError(wire.control(detach, key), 'CTLKEY_DETACHED');
        expectError(wire.request(prng(key)), 'CTLKEY_NOT_FOUND', 9);
        expectError(wire.request(info(key, 0x52800100)), 'CTLKEY_NOT_FOUND', 9);
        expectError(wire.request(renegotiation(key)), 'RENOGIATE_NOT_FOUND', 9);
      }
      expectSuccess(two.control(reattach, key));
      expectError(one.control(reattach, key), 'CTLKEY_ATTACHED');
      expectError(one.control(detach, key), 'CTLKEY_NOT_YOURS');
      assert.equal(headOf(two.request(prng(key))).cmd, commands.PRNG);
      flows(server, client, 'hello');
    });
    it('by the flag DETACH of STARTTLS, which is answered all the same', () => {
      const { serverKey: key, lasts } = session({ flags: flags.detach });
      assert.equal(startOf(lasts[0]).flags & flags.detach, flags.detach);
      expectError(one.control(detach, key), 'CTLKEY_DETACHED');
      expectSuccess(one.control(reattach, key));
      expectSuccess(one.control(detach, key));
      expectSuccess(one.control(reattach, key));
    });
  });

  describe('when the client leaves', () => {
    /** Connections are handled in no order; that one has ended is seen by the key, which is not its any more. */
    const leave = async (key: Buffer): Promise<V2Wire> => {
      one.close();
      const third = new V2Wire(v2.socket);
      await until(() => codec.read(third.control(detach, key), 'error').tlserrno !== numberOf('CTLKEY_NOT_YOURS'), { what: 'the client to be gone' });
      return third;
    };
    for (const [what, start, isKept] of [
      ['nothing: the session goes on, its key is gone', 0, false], ['FORK: the key is detached', flags.fork, true], ['DETACH: the key stays', flags.detach, true],
    ] as const) {
      it(`with ${what}`, async () => {
        const { serverKey: key, server, client } = session({ flags: start });
        const third = await leave(key);
        if (isKept) expectSuccess(third.control(reattach, key));
        else expectError(third.control(reattach, key), 'CTLKEY_NOT_FOUND');
        flows(client, server, 'still here');
        flows(server, client, 'so am I');
        third.close();
      });
    }
    it('in the middle of a handshake: it ends at once', () => {
      const [theirs, ours] = fds.pair();
      begin(one, fds, theirs, { flags: flags.server | flags.ignore, localid: 'localhost', ctlkey: newKey() });
      one.ping();
      one.close();
      ends(ours);
    });
    it('before it has brought the plain-text side: the peer gets the end of the stream', () => {
      const [left, right] = fds.pair();
      begin(one, fds, left, { flags: flags.server | flags.ignore, localid: 'localhost', ctlkey: newKey() });
      begin(two, fds, right, { flags: flags.client, remoteid: 'localhost', ctlkey: newKey() });
      const { plainfd } = plaintext(two, fds);
      callback(one, commands.PLAINTEXT_CONNECT);
      one.close();
      ends(plainfd);
    });
    it('after it has brought the plain-text side with STARTTLS_LOCALID: the handshake goes on', async () => {
      const [left, right] = fds.pair();
      begin(one, fds, left, { flags: flags.server | flags.ignore | flags.localidCheck | flags.fork, ctlkey: newKey() });
      begin(two, fds, right, { flags: flags.client, remoteid: 'localhost', ctlkey: newKey() });
      const [ours, theirs] = fds.pair();
      const asked = callback(one, commands.STARTTLS_LOCALID);
      const key = startOf(asked).ctlkey;
      answer(one, asked, {}, theirs);
      fds.drop(theirs);
      one.close();
      const { plainfd } = plaintext(two, fds);
      flows(plainfd, ours, 'hello');
      await until(() => headOf(two.control(reattach, key)).cmd === commands.SUCCESS, { what: 'the key to be there, detached' });
    });
  });

  describe('other users', () => {
    let program: V2Program;
    const asUser = async (uid: number): Promise<V2Program> => {
      const folder = tempFolder();
      chmodSync(folder, 0o711);
      const file = path.join(folder, 'client');
      copyFileSync(await compiledClient(), file);
      chmodSync(file, 0o755);
      program = new V2Program(file, { uid, gid: uid, cwd: '/' });
      await program.ok(`pool ${v2.socket}`);
      return program;
    };
    afterEach(() => program.end());
    const line = (error: TableError): RegExp => new RegExp(`^error ${String(numberOf(error))} `, 'u');

    it('who could not have had the session learns nothing of it: not found, attached or detached', async () => {
      const { serverKey: key } = session();
      const other = await asUser(nobody);
      for (const verb of ['detach', 'reattach']) assert.match(await other.ask(`${verb} ${key.toString('hex')}`), line('CTLKEY_NOT_FOUND'));
      expectSuccess(one.control(detach, key));
      for (const verb of ['detach', 'reattach']) assert.match(await other.ask(`${verb} ${key.toString('hex')}`), line('CTLKEY_NOT_FOUND'));
      expectSuccess(one.control(reattach, key));
    });
    it('who may use its identity in its role may reattach it, and then it is theirs', async () => {
      const { serverKey: key } = session();
      const other = await asUser(65_533);
      assert.match(await other.ask(`detach ${key.toString('hex')}`), line('CTLKEY_NOT_YOURS'));
      expectSuccess(one.control(detach, key));
      assert.match(await other.ask(`reattach ${key.toString('hex')}`), /^success /u);
      expectError(one.control(detach, key), 'CTLKEY_NOT_YOURS');
    });
    it('who may not use the server role is told so, and has the other one', async () => {
      const other = await asUser(65_531);
      const port = await other.listen();
      await other.ok(`connect ${String(port)}`);
      assert.match((await other.starttls(`1006 localhost - 0 ${newKey().toString('hex')}`)).last, line('FACILITY_STARTTLS'));
      assert.equal(await other.ask('ping x 1'), 'ping 20151111api@tlspool.arpa2.net facilities=1');
    });
    it('who is no operator enters no PIN, and who has no client role selects no identity', async () => {
      assert.match(await (await asUser(65_531)).ask('command 29'), /^error 13 /u);
      await program.end();
      assert.match(await (await asUser(65_530)).ask('command 200'), /^error 13 /u);
    });
    it('whose rules give no identity has none to serve', async () => {
      const other = await asUser(nobody);
      const port = await other.listen();
      await other.ok(`connect ${String(port)}`);
      assert.match((await other.starttls(`1006 localhost - 0 ${newKey().toString('hex')}`)).last, line('CONNECTION_DRIVER_SETUP'));
    });
    it('who may not use the pool is told so for each request', async () => {
      const other = await asUser(65_532);
      assert.match(await other.ask('ping x 1'), /^error 13 .*user 65532 may not use this pool/u);
      assert.match(await other.ask(`detach ${newKey().toString('hex')}`), /^error 13 /u);
    });
  });

  it('keys of this dialect are nothing in the pool protocol', () => {
    const { serverKey: key } = session();
    const pool = new PoolWire(v2.pool.socket);
    for (const op of ['detach', 'info', 'close']) assert.throws(() => pool.request(op, { ctlkey: key }), (error: unknown) => error instanceof WireError && error.code === 'CTLKEY_UNKNOWN');
    expectSuccess(one.control(detach, key));
    assert.throws(() => pool.request('reattach', { ctlkey: key }), (error: unknown) => error instanceof WireError && error.code === 'CTLKEY_UNKNOWN');
    expectSuccess(one.control(reattach, key));
    pool.close();
  });

  describe('PRNG', () => {
    it('lengths are checked before the key, which is checked before anything is made', () => {
      const { serverKey: key } = session();
      const stranger = newKey();
      const bad = [{ in1Len: 0 }, { in1Len: -1 }, { prngLen: 351 }, { in1Len: 335, in2Len: -1 }, { in1Len: 200, in2Len: 135 }] as const;
      for (const lengths of bad) for (const one_ of [key, stranger]) expectError(one.request(prng(one_, { label: 'EXPERIMENTAL'.padEnd(334, 'x'), lengths })), 'PRNG_UNAVAILABLE', 9);
      expectError(one.request(prng(stranger)), 'CTLKEY_NOT_FOUND', 9);
      assert.equal(headOf(one.request(prng(key, { label: 'EXPERIMENTAL'.padEnd(200, 'x'), context: 'c'.repeat(134) }))).cmd, commands.PRNG);
    });
    it('labels that TLS itself uses, and those that are in no registry, are refused', () => {
      const { serverKey: key } = session();
      for (const label of ['client finished', 'master secret', 'key expansion', 'whatever', 'EXPERIMENTAL']) expectError(one.request(prng(key, { label })), 'PRNG_UNAVAILABLE', 9);
      for (const label of ['EXPERIMENTAL-', 'client EAP encryption', 'EXPORTER-Channel-Binding']) assert.equal(headOf(one.request(prng(key, { label }))).cmd, commands.PRNG, label);
    });
    it('no octets are a success, fewer than none are EINVAL', () => {
      const { serverKey: key } = session();
      assert.equal(headOf(one.request(prng(key, { lengths: { prngLen: 0 } }))).cmd, commands.PRNG);
      expectError(one.request(prng(key, { lengths: { prngLen: -1 } })), 'EINVAL', 9);
    });
    it('a label that TLS 1.3 cannot take is refused, instead of giving zeros', () => {
      const { serverKey: key } = session();
      expectError(one.request(prng(key, { label: 'EXPERIMENTAL'.padEnd(334, 'x') })), 'PRNG_UNAVAILABLE', 9);
    });
    it('the reply echoes the lengths, and the rest of the buffer is zero', () => {
      const { serverKey: key } = session();
      const { in1Len, in2Len, prngLen, buffer } = codec.read(one.request(prng(key, { context: 'context' })), 'prng');
      assert.deepEqual([in1Len, in2Len, prngLen], [17, 7, 32]);
      assert.notDeepEqual(buffer.subarray(0, 32), Buffer.alloc(32));
      assert.deepEqual(buffer.subarray(32), Buffer.alloc(318));
    });
  });

  describe('INFO', () => {
    it('key, length and kind are checked in this order', () => {
      const { serverKey: key } = session();
      expectError(one.request(info(newKey(), 1, 335)), 'CTLKEY_NOT_FOUND', 9);
      expectError(one.request(info(key, 1, 335)), 'COMMAND_NOTIMPL', 9);
      expectError(one.request(info(key, 1, 334)), 'INFOKIND_UNKNOWN', 9);
      expectError(one.request(info(key, 1)), 'INFOKIND_UNKNOWN', 9);
    });
    it('what is not there is not found: names of nobody, checks of names, channel bindings of TLS 1.3, tls-server-end-point', () => {
      const { serverKey: key } = session();
      for (const [kind, len] of [[0x52800000, 0xffff], [0x52800001, 0xffff], [0x52800002, 4], [0x52800100, 4], [0x52800102, 0xffff], [0x52800102, 0], [0x59290000, 0xffff], [0x59290000, 12], [0x59290001, 0xffff]] as const) {
        expectError(one.request(info(key, kind, len)), 'INFO_NOT_FOUND', 9);
      }
    });
    it('our own names are there, and one that matches is answered by itself', () => {
      const { serverKey: key, clientKey } = session();
      const { kind, len, buffer } = codec.read(one.request(info(key, 0x52800100)), 'info');
      assert.equal(kind, 0x52800100);
      assert.match(buffer.toString('latin1', 0, len), /localhost$/u);
      const name = Buffer.concat([Buffer.of(0x82, 9), Buffer.from('localhost')]);
      for (const [wire, one_, side] of [[one, key, 0x52800102], [two, clientKey, 0x52800002]] as const) {
        const asked = frameOf(commands.INFO, 'info', { ctlkey: one_, kind: side, len: name.length, buffer: name }, { reqid: 4, cbid: 0 });
        assert.deepEqual(wire.request(asked), asked);
      }
    });
  });
});
