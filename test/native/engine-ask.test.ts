/** A client whose owner is asked for an identity when the server asks for a certificate. */
import assert from 'node:assert/strict';
import type { ClientSpec, Context, ContextSpec, Engine, ServerSpec } from 'tlspool/dist/engine.js';
import { sockets } from 'libtlspool/native';
import { countDescriptors } from '../support/native-fds.js';
import { until } from '../support/wait.js';
import { application, readSome } from './engine-support.js';
import type { EventOf } from './engine-support.js';
import { leafOf, rootOf, useReauthRig, versions } from './engine-reauth-support.js';
import type { Version } from './engine-reauth-support.js';

type Decision = Parameters<Engine['decide']>[1];

describe('engine: a client that is asked for its identity', () => {
  countDescriptors();

  describe('in the handshake', () => {
    const { rig, certificates, restart } = useReauthRig();

    interface Begun { readonly server: number; readonly client: number }

    function begin(version: Version, server: Partial<ServerSpec & Pick<ContextSpec, 'clientAuth'>> = {}, client: Partial<ClientSpec> = {}): Begun {
      const [serverEnd, clientEnd] = sockets.socketpair('stream');
      const { clientAuth = 'request', ...spec } = server;
      const context = rig().context({ maxVersion: version, clientAuth });
      return {
        server: rig().engine.startTls(serverEnd, -1, { role: 'server', selector: rig().selector(context), ask: false, ...spec }),
        client: rig().engine.startTls(clientEnd, -1, { role: 'client', context: rig().context({ localid: 'trust', keyPairs: [] }), remoteid: 'server.test', servername: 'server.test', ask: true, ...client }),
      };
    }

    const identity = (changes: Partial<ContextSpec> = {}): Context => rig().context({ localid: 'chosen', revision: 7, keyPairs: [certificates().client], ...changes });
    const failed = (session: number): Promise<EventOf<'failed'>> => rig().event('failed', (event) => event.session === session);

    async function established(session: number): Promise<EventOf<'established'>> {
      const event = await rig().event('established', (one) => one.session === session);
      if (event.plainfd >= 0) rig().own(application(event.plainfd));
      return event;
    }

    for (const version of versions) {
      describe(version, () => {
        it('the certificate of the context that is decided upon is shown, with its issuers, and the events name its identity', async () => {
          const chain = Buffer.concat([certificates().client.chain, certificates().ca]);
          const { server, client } = begin(version, { clientAuth: 'require' });
          assert.deepEqual(await rig().event('hello'), { kind: 'hello', session: client, listener: 0, servername: 'server.test', alpn: [], remote: { family: 'unix', address: '', port: 0 } });
          rig().engine.decide(client, { context: identity({ keyPairs: [{ chain, key: certificates().client.key }] }) }, -1);
          const there = await established(server);
          assert.deepEqual([there.authorized, there.peerCertificates[0], there.peerCertificates.length], [true, leafOf(certificates().client), 2]);
          const here = await established(client);
          assert.deepEqual([here.localid, here.revision, here.localCertificate, here.authorized], ['chosen', 7, leafOf(certificates().client), true]);
        });

        it('it takes the place of the key pairs that the session began with, of every type', async () => {
          const own = rig().context({ localid: 'trust', keyPairs: [certificates().stranger, certificates().rsa] });
          const { server, client } = begin(version, {}, { context: own });
          await rig().event('hello');
          rig().engine.decide(client, { context: identity() }, -1);
          assert.deepEqual((await established(server)).peerCertificates, [leafOf(certificates().client), rootOf(certificates())]);
          await established(client);
          const second = begin(version, {}, { context: own });
          await rig().event('hello');
          rig().engine.decide(second.client, { context: identity({ keyPairs: [] }) }, -1);
          const event = await established(second.server);
          assert.deepEqual([event.authorized, event.peerCertificates.length], [false, 0]);
          assert.equal((await established(second.client)).localCertificate, undefined);
        });

        it('its trust is not used, nor are its rules', async () => {
          const { client, server } = begin(version);
          await rig().event('hello');
          rig().engine.decide(client, { context: identity({ trust: certificates().otherCa, peers: { deny: { dns: ['server.test'] } } }) }, -1);
          assert.equal((await established(client)).authorized, true);
          await established(server);
        });

        it('later requests of the server are answered by the same identity, without asking', async () => {
          const { server, client } = begin(version);
          await rig().event('hello');
          rig().engine.decide(client, { context: identity() }, -1);
          await established(server);
          await established(client);
          const outcome = await rig().reauthenticate(server);
          assert.ok(outcome.kind === 'reauthenticated');
          assert.deepEqual([outcome.outcome, outcome.peerCertificates], ['authenticated', [leafOf(certificates().client), rootOf(certificates())]]);
          assert.equal(rig().events.some((event) => event.kind === 'hello'), false);
        });

        it('nobody is asked where the server does not ask', async () => {
          const { server, client } = begin(version, { clientAuth: 'none' });
          await established(server);
          await established(client);
          assert.equal(rig().events.some((event) => event.kind === 'hello'), false);
        });

        it('nobody is asked before the server has shown who it is', async () => {
          const { server, client } = begin(version, {}, { remoteid: 'another.test' });
          assert.equal((await failed(client)).code, 'CERT_REJECTED');
          await failed(server);
          assert.equal(rig().events.some((event) => event.kind === 'hello'), false);
        });

        it('the decision brings the plain-text side along', async () => {
          const { server, client } = begin(version);
          const [ours, passed] = sockets.socketpair('stream');
          await rig().event('hello');
          rig().engine.decide(client, { context: identity() }, passed);
          const here = await rig().event('established', (event) => event.session === client);
          assert.equal(here.plainfd, -1);
          const there = await rig().event('established', (event) => event.session === server);
          rig().own(application(ours)).write('hello');
          assert.equal((await readSome(rig().own(application(there.plainfd)), 5)).toString(), 'hello');
        });

        it('a refusal fails the handshake, and the server hears of it', async () => {
          const { server, client } = begin(version);
          await rig().event('hello');
          rig().engine.decide(client, { refuse: true }, -1);
          const { code, text } = await failed(client);
          assert.deepEqual([code, text], ['HANDSHAKE_FAILED', 'the owner of the session gave it no identity when the server asked for a certificate']);
          const there = await failed(server);
          assert.deepEqual([there.code, there.alert], ['HANDSHAKE_FAILED', 80]);
        });

        it('silence fails it at the deadline of the handshake', async () => {
          const { server, client } = begin(version, {}, { handshakeMs: 150 });
          await rig().event('hello');
          assert.equal((await failed(client)).code, 'HANDSHAKE_TIMEOUT');
          assert.equal((await failed(server)).code, 'PEER_CLOSED');
          rig().engine.decide(client, { context: identity() }, -1);
        });

        it('a server that leaves meanwhile is PEER_CLOSED at once', async () => {
          const { server, client } = begin(version);
          await rig().event('hello');
          rig().engine.close(server, 'abort');
          assert.equal((await failed(client)).code, 'PEER_CLOSED');
        });

        it('a plain-text side that is no connected socket refuses it', async () => {
          const { client } = begin(version);
          await rig().event('hello');
          rig().engine.decide(client, { context: identity() }, sockets.tcpListen({ host: '127.0.0.1', port: 0 }));
          assert.equal((await failed(client)).code, 'HANDSHAKE_FAILED');
        });
      });
    }

    it('a client that is answered by a selector fails as BAD_ARGUMENT', async () => {
      const { client } = begin('TLSv1.3');
      await rig().event('hello');
      rig().engine.decide(client, { selector: rig().selector() }, -1);
      const { code, text } = await failed(client);
      assert.equal(code, 'BAD_ARGUMENT');
      assert.match(text, /a client is told its context/u);
    });

    it('a server that is answered by a context fails as BAD_ARGUMENT, and takes no plain-text side', async () => {
      const { server } = begin('TLSv1.3', { ask: true });
      assert.equal((await rig().event('hello')).session, server);
      const [ours, passed] = sockets.socketpair('stream');
      rig().engine.decide(server, { context: identity() }, passed);
      const { code, text } = await failed(server);
      assert.equal(code, 'BAD_ARGUMENT');
      assert.match(text, /a server is told its selector/u);
      sockets.close(ours);
    });

    it('a decision that is neither, or both, is BAD_ARGUMENT, and the session goes on waiting', async () => {
      const { server, client } = begin('TLSv1.3');
      await rig().event('hello');
      const decide = (decision: unknown) => (): void => { rig().engine.decide(client, decision as Decision, -1); };
      assert.throws(decide({}), { code: 'BAD_ARGUMENT', field: 'selector' });
      assert.throws(decide({ context: {} }), { code: 'BAD_ARGUMENT', field: 'context' });
      assert.throws(decide({ context: rig().selector() }), { code: 'BAD_ARGUMENT', field: 'context' });
      assert.throws(decide({ selector: identity() }), { code: 'BAD_ARGUMENT', field: 'selector' });
      assert.throws(decide({ context: identity(), selector: rig().selector() }), { code: 'BAD_ARGUMENT', field: 'context' });
      assert.throws(decide({ context: identity(), refuse: 'no' }), { code: 'BAD_ARGUMENT', field: 'refuse' });
      rig().engine.decide(client, { context: identity() }, -1);
      assert.equal((await established(server)).authorized, true);
      await established(client);
    });

    it('an unknown session is ignored, and its plain-text side closed', async () => {
      const [ours, passed] = sockets.socketpair('stream');
      rig().engine.decide(2 ** 40, { context: identity() }, passed);
      rig().engine.decide(2 ** 40 + 255, { context: identity() }, -1);
      assert.equal(await rig().refusal(2 ** 40), 'CTLKEY_UNKNOWN');
      await until(() => sockets.receive(ours, 1, 0)?.eof, { what: 'the end of the plain-text side' });
      sockets.close(ours);
    });

    it('stop() while it waits closes everything', async () => {
      begin('TLSv1.3');
      await rig().event('hello');
      restart({});
    });
  });
});
