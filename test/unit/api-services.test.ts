/** Choosers over the pool protocol, with a scripted engine: who may offer one, what it is asked, and every way in which it does not answer. */
import assert from 'node:assert/strict';
import { sockets } from 'libtlspool/native';
import { established, openDescriptors, root, userA, userB } from './api-support.js';
import type { Bench, TestClient } from './api-support.js';
import { answer, Benches, callback, outgoing, publish, refusedWith, reply, start, startedWith, summary } from './api-services-support.js';
import type { Callback } from './api-services-support.js';
import { until } from '../support/wait.js';

describe('services', () => {
  let bench: Bench;
  let benches: Benches;
  beforeEach(() => {
    benches = new Benches();
    bench = benches.current;
    publish(bench, 'home', 'work');
  });
  afterEach(() => benches.close());

  /** A client that offers a chooser. */
  const chooser = async (as = userA, timeoutMs?: number): Promise<TestClient> => {
    const client = await bench.client(as);
    assert.deepEqual(await reply(client, 'register', { service: 'chooser', ...(timeoutMs !== undefined && { timeoutMs }) }), {});
    return client;
  };

  describe('offers', () => {
    it('a user has one chooser, and other users have their own', async () => {
      await chooser();
      const [second, other] = [await bench.client(userA), await bench.client(userB)];
      assert.equal(await reply(second, 'register', { service: 'chooser' }), 'SERVICE_TAKEN');
      assert.deepEqual(await reply(other, 'register', { service: 'chooser' }), {});
    });
    it('a pool has one PIN entry', async () => {
      const [first, second] = [await bench.client(root), await bench.client(root)];
      assert.deepEqual(await reply(first, 'register', { service: 'pin' }), {});
      assert.equal(await reply(second, 'register', { service: 'pin' }), 'SERVICE_TAKEN');
    });
    it('end with their connection, and by unregister', async () => {
      const first = await chooser();
      const second = await bench.client(userA);
      first.close();
      await until(async () => await reply(second, 'register', { service: 'chooser' }) !== 'SERVICE_TAKEN', { what: 'the offer to end' });
      assert.deepEqual(await reply(second, 'unregister', { service: 'chooser' }), {});
      assert.deepEqual(await reply(await bench.client(userA), 'register', { service: 'chooser' }), {});
    });
    it('of others cannot be ended, nor those that were not made', async () => {
      await chooser();
      const second = await bench.client(userA);
      assert.equal(await reply(second, 'unregister', { service: 'chooser' }), 'BAD_STATE');
      assert.equal(await reply(second, 'unregister', { service: 'pin' }), 'BAD_STATE');
    });
    it('the PIN entry is for operators, and a chooser for those who may connect to servers', async () => {
      bench.access.permissions = (client, permission) => (permission === 'operator' ? client.uid === 0 : permission !== 'client' || client.uid !== userB.uid);
      assert.equal(await reply(await bench.client(userA), 'register', { service: 'pin' }), 'NOT_PERMITTED');
      assert.equal(await reply(await bench.client(userB), 'register', { service: 'chooser' }), 'NOT_PERMITTED');
      assert.deepEqual(await reply(await bench.client(root), 'register', { service: 'pin' }), {});
      await chooser();
    });
    it('end when the access rules no longer permit them', async () => {
      const client = await bench.client(userA);
      assert.deepEqual(await reply(client, 'register', { service: 'pin' }), {});
      bench.access.permissions = (who, permission) => permission !== 'operator' || who.uid === 0;
      bench.store.published([]);
      assert.equal(await reply(client, 'unregister', { service: 'pin' }), 'BAD_STATE');
      assert.deepEqual(await reply(await bench.client(root), 'register', { service: 'pin' }), {});
    });
    it('a time-out of 1 ms and of 600000 ms is taken, and none of 0 or more', async () => {
      for (const [timeoutMs, expected] of [[0, 'BAD_ARGUMENT'], [1, {}], [600_000, {}]] as const) {
        const client = await bench.client(root);
        assert.deepEqual(await reply(client, 'register', { service: 'pin', timeoutMs }), expected, String(timeoutMs));
        client.close();
        await until(() => bench.front.clients.size === 0, { what: 'the client to leave' });
      }
      const client = await bench.client(root);
      assert.throws(() => client.ask('register', { service: 'pin', timeoutMs: 600_001 }), { code: 'BAD_ARGUMENT' });
    });
    it('none is taken by a pool that is going down', async () => {
      const client = await bench.client(userA);
      bench.front.drain(1000);
      assert.equal((await client.next()).message.op, 'drain');
      assert.equal(await reply(client, 'register', { service: 'chooser' }), 'POOL_DRAINING');
    });
  });

  describe('chooser', () => {
    it('without one, and without a remembered choice, a session has no identity and nobody waits', async () => {
      const client = await bench.client(userA);
      await bench.startTls(client, outgoing);
      assert.equal(await startedWith(bench), undefined);
    });
    it('is asked before the handshake, with what the program may use in the order of the names', async () => {
      const [chooses, client] = [await chooser(), await bench.client({ ...userA, pid: 4711 })];
      bench.store.summaries = [summary('work'), summary('bare', { certificates: [] }), summary('home'), summary('shut', { locked: true }), summary('theirs')];
      bench.store.list = ((list) => () => list().map((one) => (one.summary.localid === 'shut' ? { ...one, locked: 'all' as const } : one)))(bench.store.list.bind(bench.store));
      bench.access.identities = (_client, localid) => localid !== 'theirs';
      const id = start(bench, client);
      const question = await callback(chooses, 'identity');
      assert.equal(bench.engine.named('startTls').length, 0);
      assert.deepEqual(question.body, {
        remoteid: 'www.example.org', pid: 4711,
        candidates: [{ localid: 'bare' }, ...['home', 'work'].map((localid) => ({ localid, subject: `CN=${localid}`, notAfterMs: 4_000_000_000_000 }))],
      });
      answer(chooses, question, { localid: 'work' });
      assert.equal(await startedWith(bench), 'work');
      bench.emit(established(bench.engine.last('startTls')[1] as number, { role: 'client', localid: 'work' }));
      const { message } = await client.next();
      assert.deepEqual([message.type, message.op, 'id' in message && message.id], ['reply', 'starttls', id]);
    });
    it('may choose no identity', async () => {
      const [chooses, client] = [await chooser(), await bench.client(userA)];
      start(bench, client);
      answer(chooses, await callback(chooses, 'identity'), {});
      assert.equal(await startedWith(bench), undefined);
    });
    it('is not asked about sessions with a localid, in the server role, of other users, and where there is nothing to choose from', async () => {
      const chooses = await chooser();
      const [client, other] = [await bench.client(userA), await bench.client(userB)];
      await bench.startTls(client, { ...outgoing, localid: 'home' });
      await bench.startTls(client);
      await bench.startTls(other, outgoing);
      bench.store.summaries = [];
      start(bench, client);
      await startedWith(bench, 4);
      await chooses.request('ping');
    });
    it('is told of no remote where the program does not verify it', async () => {
      const [chooses, client] = [await chooser(), await bench.client(userA)];
      client.ask('starttls', { role: 'client', rejectUnauthorized: false }, [bench.pair()[0]]);
      const question = await callback(chooses, 'identity');
      assert.equal('remoteid' in question.body, false);
      answer(chooses, question, { localid: 'work', rememberS: 60 });
      assert.equal(await startedWith(bench), 'work');
      client.ask('starttls', { role: 'client', rejectUnauthorized: false }, [bench.pair()[0]]);
      assert.equal((await callback(chooses, 'identity')).op, 'identity', 'a choice for no remote in particular is not remembered');
    });
    it('is told of none either, and nothing is remembered, where the program has a name and does not verify it', async () => {
      const [chooses, client] = [await chooser(), await bench.client(userA)];
      start(bench, client);
      answer(chooses, await callback(chooses, 'identity'), { localid: 'work', rememberS: 60 });
      assert.equal(await startedWith(bench), 'work');
      start(bench, client, { rejectUnauthorized: false });
      const question = await callback(chooses, 'identity');
      assert.equal('remoteid' in question.body, false, 'what was chosen for the verified server is not for whoever uses its name');
      answer(chooses, question, { localid: 'home', rememberS: 60 });
      assert.equal(await startedWith(bench, 2), 'home');
      start(bench, client, { rejectUnauthorized: true });
      assert.equal(await startedWith(bench, 3), 'work');
    });
    it('that does not read is kept no more than sixteen questions for, and refuses the others at once', async () => {
      bench = benches.make({ handshakes: 200 });
      publish(bench, ...Array.from({ length: 200 }, (_, index) => `identity-${String(index)}-${'x'.repeat(230)}`));
      const [chooses, client] = [await bench.client(userA), await bench.client(userA)];
      await reply(chooses, 'register', { service: 'chooser', timeoutMs: 1 });
      const [chooserAtPool] = bench.front.clients;
      chooses.pause();
      let last = '';
      for (let count = 0; count < 60; count++) last = await refusedWith(client, start(bench, client));
      assert.match(last, /^CHOICE_REFUSED: .*the chooser refused/);
      assert.equal(chooserAtPool?.unsentCallbacks, 16);
      chooses.resume();
      await until(() => chooserAtPool.unsentCallbacks === 0, { what: 'the chooser to catch up' });
      const before = chooses.received.length;
      await refusedWith(client, start(bench, client));
      await until(() => chooses.received.length > before, { what: 'one who reads to be asked again' });
    });
    it('may be the very program that asks', async () => {
      const client = await chooser();
      start(bench, client);
      answer(client, await callback(client, 'identity'), { localid: 'home' });
      assert.equal(await startedWith(bench), 'home');
    });

    const refusals: readonly (readonly [what: string, how: (client: TestClient, question: Callback) => void, text: RegExp])[] = [
      ['that refuses', (client, question) => { answer(client, question, { refuse: true }); }, /the chooser refused/],
      ['that names an identity which is not among the candidates', (client, question) => { answer(client, question, { localid: 'localhost' }); }, /not among the candidates/],
      ['that names an identity which does not exist', (client, question) => { answer(client, question, { localid: 'nowhere' }); }, /not among the candidates/],
      ['that names an empty identity', (client, question) => { answer(client, question, { localid: '' }); }, /not among the candidates/],
      ['that answers with an error', (client, { id, op }) => { client.send({ type: 'error', op, id, body: { code: 'INTERNAL', text: 'no' } }); }, /the chooser refused/],
      ['that answers another question', (client, { id }) => { answer(client, { id, op: 'plainside' }, {}); }, /the chooser refused/],
      ['that answers with a PIN', (client, { id }) => { answer(client, { id, op: 'pin' }, { pin: Buffer.from('1234') }); }, /the chooser refused/],
      ['that unregisters', (client) => { client.ask('unregister', { service: 'chooser' }); }, /the chooser has gone/],
      ['that dies', (client) => { client.close(); }, /the chooser has gone/],
    ];
    for (const [what, how, text] of refusals) {
      it(`${what} refuses the session, at once`, async () => {
        const [chooses, client] = [await chooser(), await bench.client(userA)];
        const id = start(bench, client);
        how(chooses, await callback(chooses, 'identity'));
        assert.match(await refusedWith(client, id), new RegExp(`^CHOICE_REFUSED: .*${text.source}`));
        assert.equal(bench.engine.named('startTls').length, 0);
        await client.request('ping');
      });
    }
    it('the choice of a chooser that unregisters behind it counts', async () => {
      const chooses = await chooser();
      start(bench, chooses);
      answer(chooses, await callback(chooses, 'identity'), { localid: 'work' });
      chooses.ask('unregister', { service: 'chooser' });
      assert.equal(await startedWith(bench), 'work');
    });
    it('that is silent refuses it when its own time is over', async () => {
      const [chooses, client] = [await chooser(userA, 30), await bench.client(userA)];
      const id = start(bench, client);
      const question = await callback(chooses, 'identity');
      assert.match(await refusedWith(client, id), /^CHOICE_REFUSED: the chooser did not answer in time/);
      answer(chooses, question, { localid: 'work' });
      await chooses.request('ping');
      assert.equal(bench.engine.named('startTls').length, 0, 'an answer that comes later is ignored');
    });
    it('that is silent refuses it when the time of the handshake is over, however long it may take itself', async () => {
      const [chooses, client] = [await chooser(userA, 600_000), await bench.client(userA)];
      const id = start(bench, client, { handshakeMs: 30 });
      await callback(chooses, 'identity');
      assert.match(await refusedWith(client, id), /^CHOICE_REFUSED: the chooser did not answer in time/);
    });
    it('leaves the handshake what remains of its time', async () => {
      const [chooses, client] = [await chooser(), await bench.client(userA)];
      start(bench, client, { handshakeMs: 5000 });
      const question = await callback(chooses, 'identity');
      answer(chooses, question, { localid: 'work' });
      await startedWith(bench);
      const { handshakeMs } = bench.engine.last('startTls')[2] as { handshakeMs: number };
      assert.ok(handshakeMs > 0 && handshakeMs <= 5000, String(handshakeMs));
    });
    it('may choose only what may still be used when it answers', async () => {
      const [chooses, client] = [await chooser(), await bench.client(userA)];
      const id = start(bench, client);
      const question = await callback(chooses, 'identity');
      bench.access.identities = (_client, localid) => localid !== 'work';
      answer(chooses, question, { localid: 'work' });
      assert.match(await refusedWith(client, id), /^CHOICE_REFUSED: .*may no longer be used/);
    });
    it('a request that would be refused anyway is refused before anybody is asked', async () => {
      const [chooses, client] = [await chooser(), await bench.client(userA)];
      const wrong: readonly (readonly [object, string])[] = [
        [{ alpn: [''] }, 'BAD_ARGUMENT'], [{ remoteid: '' }, 'BAD_ARGUMENT'], [{ servername: '192.0.2.1' }, 'BAD_ARGUMENT'], [{ clientAuth: 'require' }, 'BAD_ARGUMENT'], [{ handshakeMs: 0 }, 'BAD_ARGUMENT'],
      ];
      for (const [body, expected] of wrong) assert.match(await refusedWith(client, start(bench, client, body)), new RegExp(`^${expected}`), JSON.stringify(body));
      assert.match(await refusedWith(client, client.ask('starttls', outgoing, [bench.pair('seqpacket')[0]])), /^FD_KIND/);
      await chooses.request('ping');
    });
    it('a client that goes while its session waits takes the descriptors and the question along', async () => {
      const [chooses, client] = [await chooser(), await bench.client(userA)];
      const [crypt, peer] = bench.pair();
      const before = openDescriptors();
      client.ask('starttls', outgoing, [crypt]);
      const question = await callback(chooses, 'identity');
      assert.equal(openDescriptors(), before + 1);
      client.close();
      await until(() => bench.front.waits.size === 0, { what: 'the wait to end' });
      await until(() => openDescriptors() === before - 4, { what: 'the descriptors to be closed', context: () => `${String(before)} ${String(openDescriptors())}` });
      answer(chooses, question, { localid: 'work' });
      await chooses.request('ping');
      assert.equal(bench.engine.named('startTls').length, 0);
      assert.equal(sockets.socketInfo(peer).connected, true, 'the test still has its own copy');
    });
    it('a pool that goes down refuses what waits', async () => {
      const [chooses, client] = [await chooser(), await bench.client(userA)];
      const id = start(bench, client);
      await callback(chooses, 'identity');
      bench.front.drain(1000);
      assert.equal((await client.next()).message.op, 'drain');
      assert.match(await refusedWith(client, id), /^POOL_DRAINING/);
      assert.equal(bench.front.isIdle(), true);
    });
    it('sessions that wait count as handshakes and as sessions of their user', async () => {
      const [chooses, client] = [await chooser(), await bench.client(userA)];
      bench.access.sessionsPerClient = 2;
      start(bench, client);
      start(bench, client);
      assert.match(await refusedWith(client, start(bench, client)), /^LIMIT_SESSIONS/);
      bench.access.sessionsPerClient = 100;
      bench.engine.handshakes = 8;
      assert.match(await refusedWith(client, start(bench, client)), /^LIMIT_HANDSHAKES/);
      bench.engine.handshakes = 7;
      start(bench, client);
      await callback(chooses, 'identity');
      await client.request('ping');
    });
    it('is asked eight questions at a time; the next one follows the answer to one of them', async () => {
      bench = benches.make({ handshakes: 100 });
      publish(bench, 'work');
      const [chooses, client] = [await chooser(), await bench.client(userA)];
      for (let count = 0; count < 10; count++) start(bench, client, { remoteid: `r${String(count)}` });
      const asked: Callback[] = [];
      while (asked.length < 8) asked.push(await callback(chooses, 'identity'));
      await chooses.request('ping');
      answer(chooses, asked[3] as Callback, { localid: 'work' });
      assert.equal((await callback(chooses, 'identity')).body['remoteid'], 'r8');
    });
    it('gets as many candidates as a message takes, and names without subjects where those are too many', async () => {
      bench = benches.make({ messageOctets: 4096 });
      const names = Array.from({ length: 300 }, (_, index) => `identity-${String(index).padStart(4, '0')}`);
      publish(bench, ...names);
      const [chooses, client] = [await chooser(), await bench.client(userA)];
      start(bench, client);
      const question = await callback(chooses, 'identity');
      const candidates = question.body['candidates'] as { localid: string; subject?: string }[];
      assert.ok(candidates.length >= 75 && candidates.length < 256, String(candidates.length));
      assert.deepEqual([candidates[0]?.localid, candidates[0]?.subject], ['identity-0000', undefined]);
      answer(chooses, question, { localid: 'identity-0007' });
      assert.equal(await startedWith(bench), 'identity-0007');
    });
  });

  describe('remembered choices', () => {
    const choose = async (chooses: TestClient, client: TestClient, choice: object, count = 1): Promise<void> => {
      start(bench, client);
      answer(chooses, await callback(chooses, 'identity'), choice);
      await startedWith(bench, count);
    };
    it('are used in place of a question, also when nobody offers to choose any more', async () => {
      const [chooses, client] = [await chooser(), await bench.client(userA)];
      await choose(chooses, client, { localid: 'work', rememberS: 60 });
      start(bench, client, { remoteid: 'WWW.EXAMPLE.ORG' });
      assert.equal(await startedWith(bench, 2), 'work');
      await chooses.request('ping');
      await chooses.request('unregister', { service: 'chooser' });
      start(bench, client);
      assert.equal(await startedWith(bench, 3), 'work');
    });
    it('hold for the remote and the user for which they were made', async () => {
      const [chooses, client, other] = [await chooser(), await bench.client(userA), await bench.client(userB)];
      await choose(chooses, client, { localid: 'work', rememberS: 60 });
      start(bench, other);
      assert.equal(await startedWith(bench, 2), undefined);
      start(bench, client, { remoteid: 'example.org' });
      assert.equal((await callback(chooses, 'identity')).body['remoteid'], 'example.org');
    });
    it('may be of no identity', async () => {
      const [chooses, client] = [await chooser(), await bench.client(userA)];
      await choose(chooses, client, { rememberS: 60 });
      start(bench, client);
      assert.equal(await startedWith(bench, 2), undefined);
      await chooses.request('ping');
    });
    it('are not made by refusals, nor by answers that say nothing of it', async () => {
      const [chooses, client] = [await chooser(), await bench.client(userA)];
      const id = start(bench, client);
      answer(chooses, await callback(chooses, 'identity'), { refuse: true, rememberS: 60 });
      await refusedWith(client, id);
      await choose(chooses, client, { localid: 'work', rememberS: 0 });
      await choose(chooses, client, { localid: 'work' }, 2);
      await choose(chooses, client, { localid: 'work' }, 3);
    });
    it('answer what stands in line, too', async () => {
      bench = benches.make({ handshakes: 100 });
      publish(bench, 'work');
      const [chooses, client] = [await chooser(), await bench.client(userA)];
      for (let count = 0; count < 10; count++) start(bench, client);
      const first = await callback(chooses, 'identity');
      for (let count = 1; count < 8; count++) await callback(chooses, 'identity');
      answer(chooses, first, { localid: 'work', rememberS: 60 });
      assert.equal(await startedWith(bench, 3), 'work');
      await chooses.request('ping');
    });
    it('are dropped when their identity is gone or no longer permitted, and asked for anew', async () => {
      const [chooses, client] = [await chooser(), await bench.client(userA)];
      await choose(chooses, client, { localid: 'work', rememberS: 60 });
      bench.access.identities = (_client, localid) => localid !== 'work';
      start(bench, client);
      const question = await callback(chooses, 'identity');
      assert.deepEqual((question.body['candidates'] as { localid: string }[]).map(({ localid }) => localid), ['home']);
      answer(chooses, question, { localid: 'home', rememberS: 60 });
      assert.equal(await startedWith(bench, 2), 'home');
      bench.store.summaries = [summary('work')];
      bench.access.identities = () => true;
      start(bench, client);
      await callback(chooses, 'identity');
    });
    it('are forgotten by their user, for one remote or for all', async () => {
      const [chooses, client, other] = [await chooser(), await bench.client(userA), await bench.client(userB)];
      await choose(chooses, client, { localid: 'work', rememberS: 60 });
      assert.deepEqual([await reply(other, 'forget', {}), await reply(client, 'forget', { remoteid: 'example.org' }), await reply(client, 'forget', { remoteid: 'www.example.org' })], [{ forgotten: 0 }, { forgotten: 0 }, { forgotten: 1 }]);
      await choose(chooses, client, { localid: 'work', rememberS: 60 }, 2);
      assert.deepEqual([await reply(client, 'forget', {}), await reply(client, 'forget', {})], [{ forgotten: 1 }, { forgotten: 0 }]);
      await choose(chooses, client, { localid: 'work' }, 3);
    });
  });
});
