/** The server asks, the client answers: every outcome, in both versions, engine against engine. */
import assert from 'node:assert/strict';
import type { KeyPairSpec, ReauthSpec } from 'tlspool/dist/engine.js';
import { BulkReader, BulkWriter } from '../support/bulk.js';
import { countDescriptors } from '../support/native-fds.js';
import { until } from '../support/wait.js';
import { readSome } from './engine-support.js';
import { leafOf, rootOf, useReauthRig, versions } from './engine-reauth-support.js';
import type { Pair } from './engine-reauth-support.js';

const certificateRequired = 116;
const handshakeFailure = 40;
const badCertificate = 42;
const unknownCa = 48;

async function talk(pair: Pair): Promise<void> {
  pair.atClient.write('question');
  assert.equal((await readSome(pair.atServer, 8)).toString(), 'question');
  pair.atServer.write('answer');
  assert.equal((await readSome(pair.atClient, 6)).toString(), 'answer');
}

describe('engine: reauthentication', () => {
  countDescriptors();

  describe('of a client by its server', () => {
    const { rig, certificates, restart } = useReauthRig();

    for (const version of versions) {
      describe(version, () => {
        it('a client with a certificate is authenticated, and the session goes on', async () => {
          const pair = await rig().pair({ version, shows: certificates().client });
          assert.deepEqual([pair.established.authorized, pair.established.peerCertificates.length], [false, 0]);
          const request = rig().ask(pair.server);
          assert.deepEqual(await rig().outcome(request), {
            kind: 'reauthenticated', session: pair.server, request, outcome: 'authenticated', authorized: true, peerCertificates: [leafOf(certificates().client), rootOf(certificates())],
          });
          await talk(pair);
        });

        it('a client without one is refused, and the session goes on without a certificate', async () => {
          const pair = await rig().pair({ version });
          const request = rig().ask(pair.server);
          assert.deepEqual(await rig().outcome(request), { kind: 'reauthenticated', session: pair.server, request, outcome: 'refused', authorized: false, peerCertificates: [] });
          await talk(pair);
        });

        it('a certificate of another authority is rejected, with the reason, and the session goes on', async () => {
          const pair = await rig().pair({ version, shows: certificates().stranger });
          const request = rig().ask(pair.server);
          assert.deepEqual(await rig().outcome(request), {
            kind: 'reauthenticated', session: pair.server, request, outcome: 'rejected', authorized: false,
            authorizationError: 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', peerCertificates: [leafOf(certificates().stranger)],
          });
          await talk(pair);
        });

        it('require: a client with a certificate is authenticated, and the session goes on', async () => {
          const pair = await rig().pair({ version, shows: certificates().client });
          assert.equal(await rig().refusal(pair.server, { require: true }), 'authenticated');
          await talk(pair);
        });

        it('require: the session of a client without one ends with certificate_required, or TLS 1.2\'s handshake_failure', async () => {
          const pair = await rig().pair({ version });
          const outcome = await rig().reauthenticate(pair.server, { require: true });
          assert.ok(outcome.kind === 'answer');
          assert.deepEqual([outcome.code, outcome.text], ['REAUTH_REFUSED', 'the client showed no certificate']);
          const { how, detail } = await rig().closed(pair.server);
          assert.deepEqual([how, detail], ['error', 'the client showed no certificate']);
          const there = await rig().closed(pair.client);
          assert.deepEqual([there.how, there.alert], ['alert', version === 'TLSv1.3' ? certificateRequired : handshakeFailure]);
        });

        it('require: the session of a client with a certificate of another authority ends with unknown_ca', async () => {
          const pair = await rig().pair({ version, shows: certificates().stranger });
          const outcome = await rig().reauthenticate(pair.server, { require: true });
          assert.ok(outcome.kind === 'answer');
          assert.equal(outcome.code, 'REAUTH_REFUSED');
          assert.match(outcome.text, /^the certificate of the client was not accepted: UNABLE_TO_GET_ISSUER_CERT_LOCALLY/u);
          assert.equal((await rig().closed(pair.server)).how, 'error');
          assert.equal((await rig().closed(pair.client)).alert, unknownCa);
        });

        it('an access rule rejects a certificate, or with require ends the session with bad_certificate, and another lets it through', async () => {
          const denied = { peers: { deny: { dns: ['client.test'] } } };
          const first = await rig().pair({ version, shows: certificates().client, server: denied });
          const outcome = await rig().reauthenticate(first.server);
          assert.ok(outcome.kind === 'reauthenticated');
          assert.deepEqual([outcome.outcome, outcome.authorizationError], ['rejected', 'CERT_REJECTED']);
          await talk(first);
          const second = await rig().pair({ version, shows: certificates().client, server: denied });
          const refused = await rig().reauthenticate(second.server, { require: true });
          assert.ok(refused.kind === 'answer');
          assert.match(refused.text, /^an access rule of the identity server refused the certificate of the client: peers\.deny/u);
          assert.equal((await rig().closed(second.client)).alert, badCertificate);
          const third = await rig().pair({ version, shows: certificates().client, server: { peers: { allow: { dns: ['client.test'] }, deny: { dns: ['other.test'] } } } });
          assert.equal(await rig().refusal(third.server, { require: true }), 'authenticated');
        });

        it('a list of peers that are allowed lets no bad chain through', async () => {
          const pair = await rig().pair({ version, shows: certificates().stranger, server: { peers: { allow: { dns: ['stranger.test'] } } } });
          assert.equal(await rig().refusal(pair.server), 'rejected');
          const strangers = rig().strangers({ peers: { allow: { dns: ['stranger.test'] } } });
          assert.equal(await rig().refusal(pair.server, { context: strangers }), 'authenticated');
        });

        it('the trust and the rules of another context decide where one is named, and only for that request', async () => {
          const pair = await rig().pair({ version, shows: certificates().stranger });
          assert.equal(await rig().refusal(pair.server, { context: rig().strangers() }), 'authenticated');
          assert.equal(await rig().refusal(pair.server), 'rejected');
          assert.equal(await rig().refusal(pair.server, { context: rig().strangers({ peers: { deny: { dns: ['stranger.test'] } } }) }), 'rejected');
          const ours = await rig().pair({ version, shows: certificates().client });
          assert.equal(await rig().refusal(ours.server, { context: rig().strangers() }), 'rejected');
        });

        it('an identity that requires a certificate is not lowered by a request that does not', async () => {
          const pair = await rig().pair({ version, shows: certificates().client, server: { clientAuth: 'require' } });
          assert.equal(pair.established.authorized, true);
          assert.equal(await rig().refusal(pair.server), 'authenticated');
          assert.equal(await rig().refusal(pair.server, { context: rig().strangers() }), 'REAUTH_REFUSED');
          assert.equal((await rig().closed(pair.server)).how, 'error');
        });

        it('a later answer takes the place of an earlier one', async () => {
          const pair = await rig().pair({ version, shows: certificates().client, server: { clientAuth: 'request' } });
          assert.equal(pair.established.authorized, true);
          const outcome = await rig().reauthenticate(pair.server, { context: rig().strangers() });
          assert.ok(outcome.kind === 'reauthenticated');
          assert.deepEqual([outcome.outcome, outcome.authorized], ['rejected', false]);
          assert.equal(await rig().refusal(pair.server), 'authenticated');
        });

        it('what flows both ways under twenty reauthentications arrives whole and in order', async function () {
          this.timeout(60_000);
          // So few records per key that on TLS 1.3 the keys change all the time, too.
          restart({ keyUpdateRecords: 16 });
          const pair = await rig().pair({ version, shows: certificates().client });
          const [octets, holdEvery] = [42 * 1024 * 1024, 2 * 1024 * 1024];
          const readers = [new BulkReader(pair.atClient), new BulkReader(pair.atServer)];
          const writers = [new BulkWriter(pair.atServer, octets, { holdEvery }), new BulkWriter(pair.atClient, octets, { holdEvery })];
          let underLoad = 0;
          for (let i = 0; i < 20; ++i) {
            if (readers.every((reader, end) => reader.state().octets < (writers[end]?.state().octets ?? 0))) ++underLoad;
            const outcome = await rig().reauthenticate(pair.server, { require: i % 2 === 0 });
            assert.equal(outcome.kind === 'answer' ? outcome.text : outcome.outcome, 'authenticated', `number ${String(i)}`);
            for (const writer of writers) writer.resume();
          }
          await until(() => {
            for (const writer of writers) writer.resume();
            return writers.every((writer) => writer.state().sha256 !== undefined);
          }, { what: 'all to be written', deadlineMs: 30_000 });
          await rig().closed(pair.server);
          // What the other session has delivered may still be in its socket.
          await until(() => readers.every((reader) => reader.state().sha256 !== undefined), { what: 'all to be read', deadlineMs: 30_000 });
          const ends = [...readers, ...writers].map((end) => end.state());
          assert.deepEqual(ends.map((end) => end.error), [undefined, undefined, undefined, undefined]);
          assert.deepEqual(ends.map((end) => end.octets), [octets, octets, octets, octets]);
          assert.deepEqual([ends[0]?.sha256, ends[1]?.sha256], [ends[2]?.sha256, ends[3]?.sha256]);
          assert.ok(underLoad >= 15, `only ${String(underLoad)} of 20 began while octets were on their way both ways`);
        });
      });
    }

    it('the client of a session cannot be the one that asks', async () => {
      const pair = await rig().pair({ shows: certificates().client });
      assert.equal(await rig().refusal(pair.client), 'REAUTH_UNAVAILABLE');
      await talk(pair);
    });

    it('a session that is not there is CTLKEY_UNKNOWN, also where its number names no thread', async () => {
      assert.equal(await rig().refusal(2 ** 40), 'CTLKEY_UNKNOWN');
      assert.equal(await rig().refusal(2 ** 40 + 255), 'CTLKEY_UNKNOWN');
    });

    describe('arguments', () => {
      const call = (...values: unknown[]) => (): void => { (rig().engine.reauthenticate as (...all: unknown[]) => void).call(rig().engine, ...values); };
      const bad: [string, unknown[], string][] = [
        ['a session that is no number', ['1', 1, { require: true }], 'session'],
        ['request 0, which says that nobody waits', [1, 0, { require: true }], 'request'],
        ['a request beyond 32 bits', [1, 2 ** 32, { require: true }], 'request'],
        ['no terms', [1, 1], 'spec'],
        ['terms that are no object', [1, 1, true], 'spec'],
        ['terms without require', [1, 1, {}], 'require'],
        ['a require that is no boolean', [1, 1, { require: 1 }], 'require'],
        ['a context that is none', [1, 1, { require: true, context: {} }], 'context'],
        ['a time-out of 0', [1, 1, { require: true, timeoutMs: 0 }], 'timeoutMs'],
        ['a time-out of more than an hour', [1, 1, { require: true, timeoutMs: 3_600_001 }], 'timeoutMs'],
      ];
      for (const [what, values, field] of bad) {
        it(`${what} is BAD_ARGUMENT`, () => { assert.throws(call(...values), { code: 'BAD_ARGUMENT', field }); });
      }

      it('a selector is no context', () => { assert.throws(call(1, 1, { require: true, context: rig().selector() }), { code: 'BAD_ARGUMENT', field: 'context' }); });

      it('the limits themselves are taken', async () => {
        for (const timeoutMs of [1, 3_600_000]) assert.equal(await rig().refusal(1, { timeoutMs } satisfies Partial<ReauthSpec>), 'CTLKEY_UNKNOWN');
        rig().engine.reauthenticate(1, 2 ** 32 - 1, { require: true });
        const answer = await rig().outcome(2 ** 32 - 1);
        assert.ok(answer.kind === 'answer');
        assert.equal(answer.code, 'CTLKEY_UNKNOWN');
      });
    });

    it('a key pair of any type is shown, and its issuers with it', async () => {
      const chain = Buffer.concat([certificates().rsa.chain, certificates().ca]);
      const shows: KeyPairSpec = { chain, key: certificates().rsa.key };
      for (const version of versions) {
        const pair = await rig().pair({ version, shows });
        const outcome = await rig().reauthenticate(pair.server);
        assert.ok(outcome.kind === 'reauthenticated');
        assert.deepEqual([outcome.outcome, outcome.peerCertificates.length], ['authenticated', 2]);
      }
    });
  });
});
