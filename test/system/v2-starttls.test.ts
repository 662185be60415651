/** STARTTLS of the V2 dialect, field by field: order of validation, echoes, callbacks and their answers, timeouts. */
import assert from 'node:assert/strict';
import { openSync } from 'node:fs';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { codec, commands } from 'tlspool/dist/v2/frames.js';
import type { SystemError, TableError } from 'tlspool/dist/v2/errors.js';
import { expectBaseline } from '../support/index.js';
import type { Baseline } from '../support/index.js';
import { countDescriptors } from '../support/native-fds.js';
import {
  Fds, V2Wire, answer, begin, callback, connect, ends, expectError, flags, flows, frameOf, headOf, newKey, plaintext, startOf, startV2Pool,
} from '../support/v2/index.js';
import type { Start, V2Pool } from '../support/v2/index.js';

const server = flags.server | flags.ignore;

describe('V2: STARTTLS', () => {
  let v2: V2Pool;
  before(async () => {
    v2 = await startV2Pool({
      identities: [{ localid: 'localhost', default: true, trust: true }, { localid: 'other.example' }, { localid: 'alice', usage: 'clientAuth', sans: ['email:alice@example.org'], trust: true }],
    });
  });
  after(() => v2.pool.stop());
  countDescriptors();

  describe('with two connections', () => {
    let baseline: Baseline;
    let fds: Fds;
    let one: V2Wire;
    let two: V2Wire;
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

    /** STARTTLS over a new pair; returns our end of it. */
    function start(wire: V2Wire, fields: Start, reqid = 0): OwnedFd {
      const [theirs, ours] = fds.pair();
      begin(wire, fds, theirs, fields, { reqid });
      return ours;
    }

    describe('is checked in the order of the original', () => {
      const refusals: readonly (readonly [what: string, fields: Start, error: TableError | SystemError])[] = [
        ['no role', { flags: 0 }, 'COMMAND_NOTIMPL'],
        ['a local server without a remote client', { flags: 0x2 }, 'COMMAND_NOTIMPL'],
        ['a local client without a remote server, before its empty remoteid', { flags: 0x5 }, 'COMMAND_NOTIMPL'],
        ['UDP', { flags: flags.server, ipproto: Buffer.of(17) }, 'COMMAND_NOTIMPL'],
        ['SCTP', { flags: flags.server, ipproto: Buffer.of(132) }, 'COMMAND_NOTIMPL'],
        ['two peers', { flags: flags.peer, remoteid: 'localhost', localid: 'localhost' }, 'CONNECTION_DRIVER_SETUP'],
        ['a client without remoteid', { flags: flags.client, ipproto: Buffer.of(6) }, 'CONNECTION_DRIVER_SETUP'],
        ['a client whose remoteid has no domain', { flags: flags.client, remoteid: 'user@' }, 'CONNECTION_DRIVER_SETUP'],
        ['a client with a localid that there is not', { flags: flags.client, remoteid: 'localhost', localid: 'nobody' }, 'CONNECTION_DRIVER_SETUP'],
        ['a client with a localid whose domain there is: that would be somebody else', { flags: flags.client, remoteid: 'localhost', localid: 'nobody@localhost' }, 'CONNECTION_DRIVER_SETUP'],
        ['a server with a localid that nobody serves', { flags: flags.server, localid: 'nobody.example' }, 'CONNECTION_DRIVER_SETUP'],
        ['a certificate on the fly where there is no signing CA', { flags: flags.server | flags.onTheFly }, 'COMMAND_NOTIMPL'],
        ['the same for a client', { flags: flags.client | flags.onTheFly, remoteid: 'localhost', localid: 'carol@example.org' }, 'COMMAND_NOTIMPL'],
      ];
      for (const [what, fields, error] of refusals) {
        it(`${what}: ${error}, and the socket is closed`, () => {
          const peer = start(one, fields, 4711);
          expectError(one.next(), error, 4711);
          ends(peer);
        });
      }

      it('no descriptor comes before all of that', () => {
        for (const [, fields] of refusals) expectError(one.request(frameOf(commands.STARTTLS, 'starttls', fields, { reqid: 3 })), 'CIPHER_SOCKET_NEEDED', 3);
      });
      it('two descriptors are none, and both are closed', () => {
        const [left, right] = fds.pair();
        const [third, fourth] = fds.pair();
        expectError(one.request(frameOf(commands.STARTTLS, 'starttls', { flags: server, localid: 'localhost' }), left, third), 'CIPHER_SOCKET_NEEDED');
        fds.drop(left);
        fds.drop(third);
        ends(right);
        ends(fourth);
      });
      it('what is no connected stream socket is refused by what it is', () => {
        const cases = [
          [fds.add(openSync('/dev/null', 'r') as OwnedFd), 'ENOTSOCK'], [fds.add(sockets.tcpListen({ host: '127.0.0.1', port: 0 })), 'ENOTCONN'],
          [fds.pair('seqpacket')[0], 'COMMAND_NOTIMPL'],
        ] as const;
        for (const [fd, error] of cases) expectError(one.request(frameOf(commands.STARTTLS, 'starttls', { flags: server, localid: 'localhost' }), fd), error);
      });
      it('RENEGOTIATE takes no socket, and then a control key', () => {
        const renegotiation = frameOf(commands.STARTTLS, 'starttls', { flags: flags.server | flags.renegotiate, ctlkey: newKey() }, { reqid: 8 });
        expectError(one.request(renegotiation, fds.pair()[0]), 'SUPERFLUOUS_SOCKET', 8);
        expectError(one.request(renegotiation), 'RENOGIATE_NOT_FOUND', 8);
      });
    });

    it('what is no command, or an answer to nothing, is unknown: same reqid, no cbid', () => {
      for (const cmd of [0, 1, 0x28, 0x2a, 0x201, 0x25, 0x102, 0x8000_0010, 0xffff_ffff]) {
        expectError(one.request(frameOf(cmd, 'starttls', {}, { reqid: 0xabcd, cbid: 77 })), 'COMMAND_UNKNOWN', 0xabcd);
      }
    });
    it('a descriptor with a command that takes none is closed', () => {
      for (const cmd of [commands.PING, commands.PRNG, commands.INFO, commands.CONTROL_DETACH, 0x99]) {
        const [theirs, ours] = fds.pair();
        one.request(frameOf(cmd, 'ping', {}), theirs);
        fds.drop(theirs);
        ends(ours);
      }
    });
    it('PING echoes a cbid that is nobody\'s, and what follows the producer', () => {
      const frame = frameOf(commands.PING, 'ping', { facilities: 0xffff_ffff }, { reqid: 5, cbid: 1023 });
      frame.fill(0x7a, 60, 136);
      const reply = one.request(frame);
      assert.deepEqual({ ...headOf(reply) }, { reqid: 5, cbid: 1023, cmd: commands.PING });
      assert.deepEqual({ ...codec.read(reply, 'ping') }, { producer: '20151111api@tlspool.arpa2.net', facilities: 1 });
      assert.deepEqual(reply.subarray(60, 136), frame.subarray(60, 136));
    });

    it('the reply echoes all flags but FORK, known or not, and the fields that nobody looks at; identities are empty', () => {
      const key = newKey();
      const fields = {
        flags: (server | flags.dtls | 0x400 | 0x8000 | flags.fork | 0x7ff0_0000 | 0x8000_0000) >>> 0, local: 0xdead_beef, ipproto: Buffer.of(0), streamid: 0xbeef, ctlkey: key,
        service: Buffer.from('imap'.padEnd(16, 'x')), timeout: 12_345, localid: 'localhost', remoteid: 'nobody@nowhere.example',
      };
      const { lasts } = connect(fds, { wire: one, fields, head: { reqid: 77 } }, { wire: two, head: { reqid: 77 } });
      const { ...echoed } = startOf(lasts[0]);
      assert.deepEqual(echoed, { ...fields, flags: (fields.flags & ~flags.fork) >>> 0, localid: '', remoteid: '' });
      assert.deepEqual({ ...headOf(lasts[0]) }, { reqid: 77, cbid: 1024, cmd: commands.STARTTLS });
      // A session with FORK outlives its client; this one should not.
      one.control(commands.CONTROL_REATTACH, key);
    });

    it('what an answer edits is echoed, and changes nothing: the reqid apart, by which all goes on', () => {
      const [left, right] = fds.pair();
      const [key, edited] = [newKey(), newKey()];
      begin(one, fds, left, { flags: server, localid: 'localhost', ctlkey: key }, { reqid: 5 });
      begin(two, fds, right, { flags: flags.client, remoteid: 'localhost', ctlkey: newKey() });
      const [ours, theirs] = fds.pair();
      const asked = answer(one, callback(one, commands.PLAINTEXT_CONNECT), {
        head: { reqid: 99 }, start: { localid: 'me', remoteid: 'you', ctlkey: edited, flags: flags.detach | flags.fork | 1 },
      }, theirs);
      fds.drop(theirs);
      assert.deepEqual([headOf(asked).reqid, startOf(asked).localid, startOf(asked).remoteid], [5, '', '']);
      const last = one.next();
      assert.deepEqual({ ...headOf(last) }, { reqid: 99, cbid: headOf(asked).cbid, cmd: commands.STARTTLS });
      const { localid, remoteid, ctlkey, flags: echoed } = startOf(last);
      assert.deepEqual([localid, remoteid, ctlkey, echoed], ['me', 'you', edited, flags.detach | 1]);
      const { plainfd } = plaintext(two, fds);
      flows(plainfd, ours, 'hello');
      expectError(one.control(commands.CONTROL_DETACH, edited), 'CTLKEY_NOT_FOUND');
      assert.equal(headOf(one.control(commands.CONTROL_DETACH, key)).cmd, commands.SUCCESS, 'attached: the edited flag DETACH is an echo');
      one.control(commands.CONTROL_REATTACH, key);
    });

    describe('answers to PLAINTEXT_CONNECT', () => {
      const wrong: readonly (readonly [what: string, head: { readonly cmd?: number }, fd: 'none' | 'stream' | 'null', error: TableError])[] = [
        ['ERROR', { cmd: commands.ERROR }, 'none', 'COMMAND_BAD_CALLBACK_RESPONSE'], ['PING', { cmd: commands.PING }, 'none', 'COMMAND_BAD_CALLBACK_RESPONSE'],
        ['STARTTLS_LOCALID with a socket', { cmd: commands.STARTTLS_LOCALID }, 'stream', 'COMMAND_BAD_CALLBACK_RESPONSE'],
        ['no socket', {}, 'none', 'PLAIN_SOCKET_NEEDED'], ['a file', {}, 'null', 'PLAIN_SOCKET_NEEDED'],
      ];
      for (const [what, head, kind, error] of wrong) {
        it(`${what}: ${error}, and the peer is told that the session is over`, () => {
          const [left, right] = fds.pair();
          const key = newKey();
          begin(one, fds, left, { flags: server, localid: 'localhost', ctlkey: key }, { reqid: 6 });
          begin(two, fds, right, { flags: flags.client, remoteid: 'localhost', ctlkey: newKey() });
          const passed = kind === 'none' ? [] : [kind === 'null' ? fds.add(openSync('/dev/null', 'r') as OwnedFd) : fds.pair()[0]];
          answer(one, callback(one, commands.PLAINTEXT_CONNECT), { head }, ...passed);
          expectError(one.next(), error, 6);
          for (const fd of passed) fds.drop(fd);
          const { plainfd } = plaintext(two, fds);
          ends(plainfd);
          expectError(one.control(commands.CONTROL_DETACH, key), 'CTLKEY_NOT_FOUND');
        });
      }

      it('over another connection are none: unknown there, and still awaited here', () => {
        const [left, right] = fds.pair();
        begin(one, fds, left, { flags: server, localid: 'localhost', ctlkey: newKey() }, { reqid: 6 });
        begin(two, fds, right, { flags: flags.client, remoteid: 'localhost', ctlkey: newKey() });
        const asked = callback(one, commands.PLAINTEXT_CONNECT);
        const third = new V2Wire(v2.socket);
        const [stray, ours] = fds.pair();
        expectError(third.request(asked, stray), 'COMMAND_UNKNOWN', 6);
        fds.drop(stray);
        ends(ours);
        third.close();
        const [plainfd, theirs] = fds.pair();
        answer(one, asked, {}, theirs);
        fds.drop(theirs);
        assert.equal(headOf(one.next()).cmd, commands.STARTTLS);
        flows(plaintext(two, fds).plainfd, plainfd, 'hello');
      });
    });

    it('a control key that is taken: CTLKEY_REGISTRATION_FAILED, both sides are closed, and the first session goes on', () => {
      const ctlkey = Buffer.alloc(16);
      const first = connect(fds, { wire: one, fields: { ctlkey } }, { wire: two });
      const third = new V2Wire(v2.socket);
      const [left, right] = fds.pair();
      begin(third, fds, left, { flags: server, localid: 'localhost', ctlkey });
      begin(two, fds, right, { flags: flags.client, remoteid: 'localhost', ctlkey: newKey() });
      const failed = plaintext(third, fds);
      expectError(failed.last, 'CTLKEY_REGISTRATION_FAILED');
      ends(failed.plainfd);
      ends(plaintext(two, fds).plainfd);
      flows(first.client, first.server, 'hello');
      assert.equal(headOf(one.control(commands.CONTROL_DETACH, ctlkey)).cmd, commands.SUCCESS, 'an all-zero key is a key');
      one.control(commands.CONTROL_REATTACH, ctlkey);
      third.close();
    });

    describe('names', () => {
      it('a localid must be what the peer asks for, in its domain and in any case', () => {
        for (const localid of ['localhost', 'someone@localhost', 'LOCALHOST', '']) {
          const { server: left, client: right } = connect(fds, { wire: one, fields: { localid } }, { wire: two });
          flows(left, right, 'hello');
        }
        // The second one is the default identity, which would serve any name.
        for (const [localid, remoteid] of [['other.example', 'localhost'], ['localhost', 'unknown.example']] as const) {
          const [left, right] = fds.pair();
          begin(one, fds, left, { flags: server, localid, ctlkey: newKey() });
          begin(two, fds, right, { flags: flags.client | flags.ignore, remoteid, ctlkey: newKey() });
          for (const wire of [one, two]) expectError(wire.next(), 'STIRRED_NOT_SHAKEN');
        }
      });
      it('a client that names nobody (WITHOUT_SNI) is not served, not even by the default identity', () => {
        for (const localid of ['localhost', '']) {
          const [left, right] = fds.pair();
          begin(one, fds, left, { flags: server, localid, ctlkey: newKey() });
          begin(two, fds, right, { flags: flags.client | flags.withoutSni, remoteid: 'localhost', ctlkey: newKey() });
          for (const wire of [one, two]) expectError(wire.next(), 'STIRRED_NOT_SHAKEN');
        }
      });
      it('IGNORE_REMOTEID in the client role accepts any name; without it the name is verified', () => {
        for (const [bit, isFine] of [[flags.ignore, true], [0, false]] as const) {
          const [left, right] = fds.pair();
          // Unknown names are served by the default identity, which has another one.
          begin(one, fds, left, { flags: server, localid: '', ctlkey: newKey() });
          begin(two, fds, right, { flags: flags.client | bit, remoteid: 'unknown.example', ctlkey: newKey() });
          if (isFine) {
            flows(plaintext(two, fds).plainfd, plaintext(one, fds).plainfd, 'hello');
          } else {
            for (const wire of [one, two]) expectError(wire.next(), 'STIRRED_NOT_SHAKEN');
          }
        }
      });
    });

    describe('STARTTLS_LOCALID', () => {
      function asked(fields: Start = {}): Buffer {
        const [left, right] = fds.pair();
        begin(one, fds, left, { flags: server | flags.localidCheck, ctlkey: newKey(), ...fields }, { reqid: 12 });
        begin(two, fds, right, { flags: flags.client, remoteid: 'localhost', ctlkey: newKey() });
        return callback(one, commands.STARTTLS_LOCALID);
      }
      it('shows the localid of the request, or the name that the peer asks for, and the remoteid of the request', () => {
        for (const [localid, shown] of [['', 'localhost'], ['someone@localhost', 'someone@localhost']] as const) {
          const frame = asked({ localid, remoteid: 'you@there.example' });
          assert.deepEqual([startOf(frame).localid, startOf(frame).remoteid, startOf(frame).flags], [shown, 'you@there.example', server | flags.localidCheck]);
          answer(one, frame);
          flows(plaintext(one, fds).plainfd, plaintext(two, fds).plainfd, 'hello');
        }
      });
      it('refused by ERROR, or by anything else: STIRRED_NOT_SHAKEN, by the reqid of the answer', () => {
        for (const cmd of [commands.ERROR, commands.PLAINTEXT_CONNECT, commands.PING]) {
          answer(one, asked(), { head: { cmd, reqid: 13 } });
          expectError(one.next(), 'STIRRED_NOT_SHAKEN', 13);
          expectError(two.next(), 'STIRRED_NOT_SHAKEN');
        }
      });
      it('an identity that is edited in is used, if it has the name that the peer asks for', () => {
        for (const [localid, isFine] of [['localhost', true], ['other.example', false], ['nobody', false]] as const) {
          answer(one, asked(), { start: { localid } });
          if (isFine) {
            flows(plaintext(one, fds).plainfd, plaintext(two, fds).plainfd, 'hello');
            continue;
          }
          expectError(one.next(), 'STIRRED_NOT_SHAKEN', 12);
          expectError(two.next(), 'STIRRED_NOT_SHAKEN');
        }
      });
      it('may bring the plain-text socket; then there is no PLAINTEXT_CONNECT, and the identities of the reply are empty', () => {
        const frame = asked({ localid: 'localhost', remoteid: 'you' });
        const { cbid } = headOf(frame);
        const [ours, theirs] = fds.pair();
        answer(one, frame, {}, theirs);
        fds.drop(theirs);
        const last = one.next();
        assert.deepEqual({ ...headOf(last) }, { reqid: 12, cbid, cmd: commands.STARTTLS });
        assert.deepEqual([startOf(last).localid, startOf(last).remoteid], ['', '']);
        flows(ours, plaintext(two, fds).plainfd, 'hello');
      });
      it('with a plain-text socket that is none: PLAIN_SOCKET_NEEDED', () => {
        answer(one, asked(), {}, fds.add(openSync('/dev/null', 'r') as OwnedFd));
        expectError(one.next(), 'PLAIN_SOCKET_NEEDED', 12);
        expectError(two.next(), 'STIRRED_NOT_SHAKEN');
      });
      it('that is never answered blocks nothing, ends by the timeout, and its late answer is swallowed', () => {
        const frame = asked({ timeout: 300 });
        const third = new V2Wire(v2.socket);
        const fourth = new V2Wire(v2.socket);
        one.ping();
        const other = connect(fds, { wire: third }, { wire: fourth });
        flows(other.client, other.server, 'hello');
        expectError(one.next(), 'STIRRED_NOT_SHAKEN', 12);
        expectError(two.next(), 'STIRRED_NOT_SHAKEN');
        const [ours, theirs] = fds.pair();
        answer(one, frame, {}, theirs);
        fds.drop(theirs);
        ends(ours);
        one.ping();
        third.close();
        fourth.close();
      });
    });

    describe('timeouts', () => {
      const took = (work: () => void): number => {
        const startedAt = performance.now();
        work();
        return performance.now() - startedAt;
      };
      it('a handshake ends after as many milliseconds as were asked for, the socket closed', () => {
        const peer = start(one, { flags: server, localid: 'localhost', timeout: 300 }, 2);
        const ms = took(() => { expectError(one.next(), 'STIRRED_NOT_SHAKEN', 2); });
        assert.ok(ms > 250 && ms < 3000, `${ms} ms`);
        ends(peer);
      });
      it('PLAINTEXT_CONNECT that is never answered ends, too', () => {
        const [left, right] = fds.pair();
        begin(one, fds, left, { flags: server, localid: 'localhost', ctlkey: newKey(), timeout: 300 });
        begin(two, fds, right, { flags: flags.client, remoteid: 'localhost', ctlkey: newKey() });
        const { plainfd } = plaintext(two, fds);
        callback(one, commands.PLAINTEXT_CONNECT);
        expectError(one.next(), 'STIRRED_NOT_SHAKEN');
        ends(plainfd);
      });
    });
  });
});

describe('V2: STARTTLS with the timeouts of the pool', () => {
  let v2: V2Pool;
  before(async () => { v2 = await startV2Pool({ config: { limits: { handshakeMs: 400 } } }); });
  after(() => v2.pool.stop());

  it('0 is that of the pool; 0xffffffff is none, beyond it', () => {
    const fds = new Fds();
    const wire = new V2Wire(v2.socket);
    const [patient, own] = fds.pair();
    const [hasty] = fds.pair();
    begin(wire, fds, patient, { flags: server, localid: 'localhost', ctlkey: newKey(), timeout: 0xffff_ffff }, { reqid: 1 });
    begin(wire, fds, hasty, { flags: server, localid: 'localhost', ctlkey: newKey(), timeout: 0 }, { reqid: 2 });
    expectError(wire.next(), 'STIRRED_NOT_SHAKEN', 2);
    // The patient one, which began earlier, is still under way.
    const other = new V2Wire(v2.socket);
    begin(other, fds, own, { flags: flags.client, remoteid: 'localhost', ctlkey: newKey() });
    flows(plaintext(wire, fds).plainfd, plaintext(other, fds).plainfd, 'hello');
    for (const one of [wire, other]) one.close();
    fds.close();
  });
});
