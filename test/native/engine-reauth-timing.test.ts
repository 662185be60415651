/** A client that is late, stops in the middle, or leaves: each request is answered once, and nobody is kept waiting for ever. */
import assert from 'node:assert/strict';
import { BulkReader } from '../support/bulk.js';
import { countDescriptors } from '../support/native-fds.js';
import { until } from '../support/wait.js';
import { readSome } from './engine-support.js';
import { useReauthRig, versions } from './engine-reauth-support.js';
import type { Pair } from './engine-reauth-support.js';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';

/** Far below the deadlines of the tests, and far above what an answer takes. */
const shortMs = 150;

describe('engine: the time of a reauthentication', () => {
  countDescriptors();

  describe('and of its session', () => {
    const { rig, certificates, restart } = useReauthRig();

    for (const version of versions) {
      describe(version, () => {
        it('without require a time-out is TIMEOUT, octets keep flowing, and the late answer is an event of request 0', async () => {
          const pair = await rig().pair({ version, shows: certificates().client, wired: true });
          pair.wire.hold();
          assert.equal(await rig().refusal(pair.server, { timeoutMs: shortMs }), 'TIMEOUT');
          pair.atServer.write('still here');
          assert.equal((await readSome(pair.atClient, 10)).toString(), 'still here');
          pair.wire.release();
          const late = await rig().event('reauthenticated');
          assert.deepEqual([late.session, late.request, late.outcome, late.authorized], [pair.server, 0, 'authenticated', true]);
          pair.atClient.write('and here');
          assert.equal((await readSome(pair.atServer, 8)).toString(), 'and here');
          assert.equal(await rig().refusal(pair.server), 'authenticated');
        });

        it('a client that is late is not asked twice: its one answer is for the next request, under the terms of that', async () => {
          const pair = await rig().pair({ version, shows: certificates().stranger, wired: true });
          pair.wire.hold();
          assert.equal(await rig().refusal(pair.server, { timeoutMs: shortMs, context: rig().strangers() }), 'TIMEOUT');
          const request = rig().ask(pair.server, { require: true });
          pair.wire.release();
          const outcome = await rig().outcome(request);
          assert.ok(outcome.kind === 'answer');
          assert.match(outcome.text, /UNABLE_TO_GET_ISSUER_CERT_LOCALLY/u);
          assert.equal((await rig().closed(pair.server)).how, 'error');
          assert.equal(rig().events.some((event) => event.kind === 'reauthenticated'), false);
        });

        it('with require a time-out ends the session', async () => {
          const pair = await rig().pair({ version, shows: certificates().client, wired: true });
          pair.wire.hold();
          const outcome = await rig().reauthenticate(pair.server, { require: true, timeoutMs: shortMs });
          assert.ok(outcome.kind === 'answer');
          assert.deepEqual([outcome.code, outcome.text], ['REAUTH_REFUSED', 'the client did not authenticate in time']);
          assert.equal((await rig().closed(pair.server)).how, 'timeout');
        });

        it('the time-out is that of a handshake where none is given, and an answer within it is in time', async () => {
          const slow = await rig().pair({ version, shows: certificates().client, wired: true });
          slow.wire.hold();
          const request = rig().ask(slow.server);
          const quick = await rig().pair({ version, shows: certificates().client, wired: true });
          quick.wire.hold();
          assert.equal(await rig().refusal(quick.server, { timeoutMs: shortMs }), 'TIMEOUT');
          // The handshake's 5 s are not over, by far.
          slow.wire.release();
          const outcome = await rig().outcome(request);
          assert.ok(outcome.kind === 'reauthenticated');
        });

        it('a second request while one is under way is BAD_STATE, and the first is answered', async () => {
          const pair = await rig().pair({ version, shows: certificates().client, wired: true });
          pair.wire.hold();
          const first = rig().ask(pair.server);
          assert.equal(await rig().refusal(pair.server), 'BAD_STATE');
          pair.wire.release();
          assert.equal((await rig().outcome(first)).kind, 'reauthenticated');
        });

        for (const require of [false, true]) {
          it(`a client that stops in the middle of its answer ends its session at the time-out${require ? ', with require' : ''}`, async () => {
            const pair = await rig().pair({ version, shows: certificates().client, wired: true });
            // All but the end of its Finished, which comes in a record of its own.
            pair.wire.hold(await rig().answerOctets(pair) - 10);
            const outcome = await rig().reauthenticate(pair.server, { require, timeoutMs: shortMs });
            assert.ok(outcome.kind === 'answer');
            assert.equal(outcome.code, require ? 'REAUTH_REFUSED' : 'TIMEOUT');
            assert.equal((await rig().closed(pair.server)).how, 'timeout');
          });
        }

        it('a session that its owner ends meanwhile is SESSION_LOST, once', async () => {
          const ends = [
            { how: 'orderly', require: false },
            { how: 'orderly', require: true },
            { how: 'abort', require: false },
            { how: 'abort', require: true },
            { how: 'revoked', require: true },
            { how: 'drained', require: true },
          ] as const;
          for (const { how, require } of ends) {
            const pair = await rig().pair({ version, shows: certificates().client, wired: true });
            pair.wire.hold();
            const request = rig().ask(pair.server, { require });
            rig().engine.close(pair.server, how);
            // Once it has been told, it does not wait for the client.
            await rig().exported(pair.server);
            pair.wire.destroy();
            await rig().closed(pair.server);
            const answers = rig().events.filter((event) => 'request' in event && event.request === request);
            assert.equal(answers.length, 1, how);
            const outcome = await rig().outcome(request);
            assert.ok(outcome.kind === 'answer');
            assert.equal(outcome.code, 'SESSION_LOST', `${how}, require ${String(require)}`);
          }
        });

        it('a connection that breaks is SESSION_LOST, and REAUTH_REFUSED with require', async () => {
          for (const [require, code] of [[false, 'SESSION_LOST'], [true, 'REAUTH_REFUSED']] as const) {
            const pair = await rig().pair({ version, shows: certificates().client, wired: true });
            pair.wire.hold();
            const request = rig().ask(pair.server, { require });
            pair.wire.destroy();
            const outcome = await rig().outcome(request);
            assert.ok(outcome.kind === 'answer');
            assert.equal(outcome.code, code);
            await rig().closed(pair.server);
          }
        });

        it('a client that said close_notify cannot answer: BAD_STATE, and with require the end', async () => {
          const pair = await rig().pair({ version, shows: certificates().client });
          pair.atClient.end('bye');
          assert.equal((await readSome(pair.atServer, 3)).toString(), 'bye');
          await new Promise((resolve) => { pair.atServer.once('end', resolve).resume(); });
          assert.equal(await rig().refusal(pair.server, { require: true }), 'BAD_STATE');
          pair.atServer.write('the other direction is open');
          assert.equal((await readSome(pair.atClient, 27)).toString(), 'the other direction is open');
        });

        it('close_notify of the client while it is asked: BAD_STATE, and with require the end of the session', async () => {
          for (const require of [false, true]) {
            const pair = await rig().pair({ version, shows: certificates().client, wired: true });
            // Its close_notify is on its way before the question reaches it: TLS 1.3 and 1.2 both leave it unanswered then.
            const before = pair.wire.said;
            pair.wire.hold();
            pair.atClient.end();
            await pair.wire.hasSaid(before + 20);
            const request = rig().ask(pair.server, { require });
            // Answered after what was asked before it.
            await rig().bindings(pair.server);
            pair.wire.release();
            const outcome = await rig().outcome(request);
            assert.ok(outcome.kind === 'answer');
            assert.equal(outcome.code, require ? 'REAUTH_REFUSED' : 'BAD_STATE');
            if (require) assert.equal((await rig().closed(pair.server)).how, 'error');
          }
        });

        it('a session that is still in its handshake, or is being closed, is BAD_STATE', async () => {
          const [serverEnd, clientEnd] = sockets.socketpair('stream');
          const session = rig().engine.startTls(serverEnd, -1, { role: 'server', selector: rig().selector(), ask: false });
          assert.equal(await rig().refusal(session), 'BAD_STATE');
          sockets.close(clientEnd);
          await rig().event('failed');
          const pair = await rig().pair({ version });
          pair.atServer.end();
          await new Promise((resolve) => { pair.atClient.once('end', resolve).resume(); });
          assert.equal(await rig().refusal(pair.server), 'BAD_STATE');
        });

        it('an answer that is behind what the application does not read comes when that is read', async () => {
          const pair = await rig().pair({ version, shows: certificates().client, wired: true });
          const octets = 4_000_000;
          pair.atServer.pause();
          const before = pair.wire.said;
          pair.atClient.write(Buffer.alloc(octets, 'x'));
          await pair.wire.hasSaid(before + octets);
          assert.equal(await rig().refusal(pair.server, { timeoutMs: shortMs }), 'TIMEOUT');
          const reader = new BulkReader(pair.atServer);
          pair.atServer.resume();
          assert.equal((await rig().event('reauthenticated')).outcome, 'authenticated');
          await until(() => reader.state().octets === octets, { what: 'the rest' });
        });
      });
    }

    it('an application that writes before it reads does not keep the answer to a HelloRequest from being read', async () => {
      const piece = Buffer.alloc(16_000, 'x');
      const open: OwnedFd[] = [];
      const start = async (): Promise<{ pair: Pair; application: OwnedFd }> => {
        const [application, plainfd] = sockets.socketpair('stream');
        open.push(application);
        return { application, pair: await rig().pair({ version: 'TLSv1.2', shows: certificates().client, wired: true, plainfd }) };
      };
      const isTaken = (application: OwnedFd, octets: number): boolean => (sockets.peek(application, 1 << 24)?.length ?? 0) === octets;
      const send = async (pair: Pair): Promise<void> => {
        const before = pair.wire.said;
        pair.wire.hold();
        pair.atClient.write(piece);
        await pair.wire.hasSaid(before + piece.length);
      };
      // How many pieces the plain-text side takes. Each is judged when the session has answered something that was asked behind it.
      const probe = await start();
      let taken = 0;
      for (; ; ++taken) {
        await send(probe.pair);
        probe.pair.wire.release();
        for (let i = 0; i < 2; ++i) await rig().bindings(probe.pair.server);
        if (!isTaken(probe.application, (taken + 1) * piece.length)) break;
      }
      const { pair, application } = await start();
      for (let i = 1; i <= taken; ++i) {
        await send(pair);
        pair.wire.release();
        await until(() => isTaken(application, i * piece.length), { what: 'the plain-text side to take a piece' });
      }
      // The piece that blocks it and the ClientHello arrive as one: the renegotiation begins, and its rest is behind nothing.
      await send(pair);
      const said = pair.wire.said;
      const request = rig().ask(pair.server);
      await pair.wire.hasSaid(said + 100);
      pair.wire.release();
      assert.equal((await rig().outcome(request)).kind, 'reauthenticated');
      for (const fd of open) sockets.close(fd);
    });

    it('in the middle of a renegotiation there is no exporter and no binding, and after it new ones', async () => {
      const pair = await rig().pair({ version: 'TLSv1.2', shows: certificates().client, wired: true });
      const octets = await rig().answerOctets(pair);
      await until(async () => await rig().exported(pair.client) !== 'BAD_STATE', { what: 'the Finished of the server' });
      const [secret, before] = [await rig().exported(pair.server), await rig().bindings(pair.server)];
      assert.equal(await rig().exported(pair.client), secret);
      pair.wire.hold(octets - 10);
      const request = rig().ask(pair.server);
      await until(async () => await rig().exported(pair.server) === 'BAD_STATE', { what: 'the renegotiation to begin' });
      pair.wire.release();
      assert.equal((await rig().outcome(request)).kind, 'reauthenticated');
      const after = await rig().bindings(pair.server);
      await until(async () => await rig().exported(pair.client) !== 'BAD_STATE', { what: 'the Finished of the server' });
      assert.notDeepEqual(after.tlsUnique, before.tlsUnique);
      assert.notDeepEqual(after.tlsExporter, before.tlsExporter);
      assert.deepEqual(after.tlsServerEndPoint, before.tlsServerEndPoint);
      assert.deepEqual(await rig().bindings(pair.client), after);
      assert.notEqual(await rig().exported(pair.server), secret);
      assert.equal(await rig().exported(pair.client), await rig().exported(pair.server));
    });

    for (const version of versions) {
      it(`${version}: a late answer that stops in the middle ends the session, when a handshake would have been too long`, async () => {
        restart({ handshakeMs: shortMs });
        const pair = await rig().pair({ version, shows: certificates().client, wired: true });
        const octets = await rig().answerOctets(pair);
        pair.wire.hold();
        const before = pair.wire.said;
        assert.equal(await rig().refusal(pair.server), 'TIMEOUT');
        await pair.wire.hasSaid(before + 100);
        pair.wire.release(octets - 10);
        const { how, detail } = await rig().closed(pair.server);
        assert.deepEqual([how, detail], ['timeout', 'the client did not finish its answer to the request for a certificate in time']);
      });
    }

    it('behind a HelloRequest the application is not sent before the client begins to answer, or for a second', async () => {
      const pair = await rig().pair({ version: 'TLSv1.2', shows: certificates().client, wired: true });
      pair.wire.hold();
      const request = rig().ask(pair.server);
      const began = performance.now();
      pair.atServer.write('later');
      assert.equal((await readSome(pair.atClient, 5)).toString(), 'later');
      const waited = performance.now() - began;
      assert.ok(waited > 900 && waited < 4000, `${String(waited)} ms`);
      pair.wire.release();
      assert.equal((await rig().outcome(request)).kind, 'reauthenticated');
    });

    it('post-handshake authentication changes neither exporter nor bindings', async () => {
      const pair = await rig().pair({ shows: certificates().client });
      const [secret, before] = [await rig().exported(pair.server), await rig().bindings(pair.server)];
      assert.equal(await rig().refusal(pair.server), 'authenticated');
      assert.deepEqual(await rig().bindings(pair.server), before);
      assert.equal(await rig().exported(pair.client), secret);
    });
  });
});
