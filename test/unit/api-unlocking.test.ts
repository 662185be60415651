/** PIN entries over the pool protocol, with a scripted engine and store: what is asked when, what becomes of a PIN, and what waits for an identity that is locked. */
import assert from 'node:assert/strict';
import type { UnlockOutcome } from 'tlspool/dist/identity/types.js';
import { openDescriptors, root, userA } from './api-support.js';
import type { Bench, TestClient } from './api-support.js';
import { answer, Benches, callback, outgoing, publish, refusedWith, reply, start, startedWith } from './api-services-support.js';
import type { Callback } from './api-services-support.js';
import { until } from '../support/wait.js';

describe('unlocking', () => {
  let bench: Bench;
  let benches: Benches;
  beforeEach(() => { benches = new Benches(); });
  afterEach(() => benches.close());

  describe('PIN entry', () => {
    const tried: string[] = [];
    let buffers: Buffer[];
    let outcome: (localid: string, pin: string) => UnlockOutcome | Promise<UnlockOutcome>;
    beforeEach(() => {
      tried.length = 0;
      buffers = [];
      outcome = (_localid, pin) => (pin === 'right' ? 'unlocked' : 'wrong');
      bench = benches.make({}, undefined, {
        unlock: async (localid, pin) => {
          tried.push(`${localid} ${pin.toString()}`);
          buffers.push(pin);
          const result = await outcome(localid, pin.toString());
          if (result === 'unlocked') opened(localid);
          return result;
        },
      });
      bench.store.known.add('shut').add('tight');
      lock('shut', 'tight');
    });
    const lock = (...localids: string[]): void => {
      for (const localid of localids) {
        bench.store.lockedIds.add(localid);
        bench.store.known.delete(localid);
      }
    };
    const opened = (localid: string): void => {
      bench.store.lockedIds.delete(localid);
      bench.store.known.add(localid);
      bench.store.published([localid]);
    };
    const entry = async (timeoutMs?: number): Promise<TestClient> => {
      const client = await bench.client(root);
      // The first question may be quicker than the reply.
      const id = client.ask('register', { service: 'pin', ...(timeoutMs !== undefined && { timeoutMs }) });
      await until(() => client.received.some(({ message }) => message.type === 'reply' && message.id === id), { what: 'the reply to register' });
      client.received.splice(client.received.findIndex(({ message }) => message.type === 'reply'), 1);
      return client;
    };
    const pinned = async (client: TestClient, text: string): Promise<Record<string, unknown>> => {
      const question = await callback(client, 'pin');
      answer(client, question, { pin: Buffer.from(text) });
      return question.body;
    };

    it('is asked for each locked identity, in the order of the names, with the place of its key', async () => {
      const client = await entry();
      assert.deepEqual(await pinned(client, 'right'), { localid: 'shut', source: '/shut/tls.key', attempt: 1 });
      assert.deepEqual(await pinned(client, 'right'), { localid: 'tight', source: '/tight/tls.key', attempt: 1 });
      await client.request('unregister', { service: 'pin' });
      assert.deepEqual(tried, ['shut right', 'tight right']);
    });
    it('is asked three times for one, then for the next; what was given up is asked for by the next registration', async () => {
      const client = await entry();
      for (const attempt of [1, 2, 3]) assert.deepEqual((await pinned(client, `wrong ${String(attempt)}`))['attempt'], attempt);
      assert.deepEqual(await pinned(client, 'right'), { localid: 'tight', source: '/tight/tls.key', attempt: 1 });
      await client.request('unregister', { service: 'pin' });
      assert.deepEqual(tried, ['shut wrong 1', 'shut wrong 2', 'shut wrong 3', 'tight right']);
      const second = await entry();
      assert.deepEqual(await pinned(second, 'right'), { localid: 'shut', source: '/shut/tls.key', attempt: 1 });
    });
    it('is asked again after a reload that an operator asks for, and when the identity has changed', async () => {
      const client = await entry();
      for (const localid of ['shut', 'tight']) {
        const question = await callback(client, 'pin');
        assert.equal(question.body['localid'], localid);
        answer(client, question, { refuse: true });
      }
      await client.request('ping');
      bench.store.published(['tight']);
      const question = await callback(client, 'pin');
      assert.equal(question.body['localid'], 'tight');
      answer(client, question, { refuse: true });
      await (await bench.client(root)).request('reload');
      assert.deepEqual(await pinned(client, 'right'), { localid: 'shut', source: '/shut/tls.key', attempt: 1 });
    });
    it('is asked about what becomes locked while it is offered', async () => {
      bench.store.lockedIds.clear();
      const client = await entry();
      await client.request('ping');
      lock('late');
      bench.store.published(['late']);
      assert.deepEqual(await pinned(client, 'right'), { localid: 'late', source: '/late/tls.key', attempt: 1 });
    });

    const refusals: readonly (readonly [what: string, how: (client: TestClient, question: Callback) => void])[] = [
      ['that refuses', (client, question) => { answer(client, question, { refuse: true }); }],
      ['that says nothing in its answer', (client, question) => { answer(client, question, {}); }],
      ['that refuses and gives one all the same', (client, question) => { answer(client, question, { refuse: true, pin: Buffer.from('right') }); }],
      ['that answers with an error', (client, { id, op }) => { client.send({ type: 'error', op, id, body: { code: 'INTERNAL', text: 'no' } }); }],
      ['that answers another question', (client, { id }) => { answer(client, { id, op: 'identity' }, { localid: 'shut' }); }],
    ];
    for (const [what, how] of refusals) {
      it(`${what} leaves the identity locked, and is asked about the next`, async () => {
        const client = await entry();
        const question = await callback(client, 'pin');
        assert.equal(question.body['localid'], 'shut');
        how(client, question);
        assert.equal((await callback(client, 'pin')).body['localid'], 'tight');
        assert.deepEqual(tried, []);
      });
    }
    it('that is silent leaves it locked when its time is over; a PIN that comes later is not tried', async () => {
      const client = await entry(30);
      const question = await callback(client, 'pin');
      assert.equal((await callback(client, 'pin')).body['localid'], 'tight');
      answer(client, question, { pin: Buffer.from('right') });
      await client.request('ping');
      assert.deepEqual(tried, []);
    });
    it('that dies leaves everything locked, and the next one is asked from the beginning', async () => {
      const client = await entry();
      await callback(client, 'pin');
      client.close();
      await until(() => bench.front.clients.size === 0, { what: 'the client to leave' });
      const second = await entry();
      assert.deepEqual((await pinned(second, 'right'))['localid'], 'shut');
    });
    it('whose PIN is right for a key that is wrong is not asked again: another PIN would not help', async () => {
      outcome = (localid) => { if (localid === 'shut') throw new Error('the key belongs to another certificate'); return 'unlocked'; };
      const client = await entry();
      await pinned(client, 'right');
      assert.equal((await pinned(client, 'right'))['localid'], 'tight');
      assert.match(bench.log.join(''), /the key belongs to another certificate.*an identity stays locked/);
    });
    it('a PIN is wiped after its trial, whatever came of it, and is never logged', async () => {
      outcome = (localid, pin) => {
        if (pin === 'Wr0ng-secret-1') return 'wrong';
        if (localid === 'shut') throw new Error('nothing about it');
        return 'unlocked';
      };
      const client = await entry();
      for (const text of ['Wr0ng-secret-1', 'Br0ken-secret-2', 'R1ght-secret-3']) await pinned(client, text);
      await client.request('unregister', { service: 'pin' });
      assert.equal(tried.length, 3);
      for (const buffer of buffers) assert.ok(buffer.length > 0 && buffer.every((octet) => octet === 0));
      assert.doesNotMatch(bench.log.join(''), /secret/);
    });
    it('unregister is answered when a PIN that was given before has been tried', async () => {
      let finish: () => void = () => undefined;
      const slow = new Promise<void>((resolve) => { finish = resolve; });
      outcome = async (): Promise<UnlockOutcome> => { await slow; return 'unlocked'; };
      const client = await entry();
      await pinned(client, 'right');
      const id = client.ask('unregister', { service: 'pin' });
      await client.request('ping');
      finish();
      const { message } = await client.next();
      assert.deepEqual([message.type, 'id' in message && message.id, bench.store.lockedIds.has('shut')], ['reply', id, false]);
    });
  });

  describe('sessions and listeners for locked identities', () => {
    let client: TestClient;
    beforeEach(async () => {
      bench = benches.make({ handshakeMs: 5000 }, undefined, {
        unlock: (localid, pin) => {
          if (pin.toString() !== 'right') return Promise.resolve('wrong');
          bench.store.lockedIds.delete(localid);
          bench.store.known.add(localid);
          bench.store.published([localid]);
          return Promise.resolve('unlocked');
        },
      });
      bench.store.lockedIds.add('shut');
      client = await bench.client(userA);
    });
    const entry = async (): Promise<{ client: TestClient; question: Callback }> => {
      const made = await bench.client(root);
      made.ask('register', { service: 'pin' });
      const messages = [await made.next(), await made.next()];
      const found = messages.find(({ message }) => message.type === 'callback');
      assert.ok(found !== undefined && 'id' in found.message);
      return { client: made, question: { id: found.message.id, op: 'pin', body: found.body } };
    };
    const byName = (role: 'server' | 'client', rest: object = {}): number => (role === 'server'
      ? client.ask('starttls', { role, localid: 'shut', ...rest }, [bench.pair()[0]])
      : client.ask('starttls', { ...outgoing, localid: 'shut', ...rest }, [bench.pair()[0]]));
    const listen = (): number => client.ask('listen', { localid: 'shut' }, [bench.listenFd()]);

    for (const role of ['server', 'client'] as const) {
      it(`starttls as ${role} is refused at once when nobody offers PINs`, async () => {
        assert.match(await refusedWith(client, byName(role)), /^IDENTITY_LOCKED/);
      });
      it(`starttls as ${role} waits for the PIN and goes on with the identity`, async () => {
        const { client: operator, question } = await entry();
        byName(role);
        await client.request('ping');
        assert.equal(bench.front.waits.size, 1);
        answer(operator, question, { pin: Buffer.from('right') });
        await until(() => bench.engine.named('startTls').length === 1, { what: 'the engine to start TLS' });
      });
    }
    it('it waits no longer than its handshake may take', async () => {
      await entry();
      assert.match(await refusedWith(client, byName('server', { handshakeMs: 30 })), /^IDENTITY_LOCKED: .*not unlocked in time/);
    });
    it('it is refused when the PIN entry gives up, and when it dies', async () => {
      const { client: operator, question } = await entry();
      const first = byName('client');
      await client.request('ping');
      answer(operator, question, { refuse: true });
      assert.match(await refusedWith(client, first), /^IDENTITY_LOCKED/);
      operator.close();
      await until(() => bench.front.clients.size === 1, { what: 'the operator to leave' });
      const second = await entry();
      const id = byName('client');
      await client.request('ping');
      second.client.close();
      assert.match(await refusedWith(client, id), /^IDENTITY_LOCKED/);
    });
    it('those who may not use it hear that it is unknown, and wait for nobody', async () => {
      bench.access.identities = () => false;
      await entry();
      assert.match(await refusedWith(client, byName('server')), /^IDENTITY_UNKNOWN/);
      assert.equal(bench.front.waits.size, 0);
    });
    it('listen waits likewise, and the listening socket is the pool\'s afterwards', async () => {
      assert.match(await refusedWith(client, listen()), /^IDENTITY_LOCKED/);
      const { client: operator, question } = await entry();
      const id = listen();
      await client.request('ping');
      answer(operator, question, { pin: Buffer.from('right') });
      const { message } = await client.next();
      assert.deepEqual([message.type, 'id' in message && message.id, bench.engine.named('listen').length], ['reply', id, 1]);
    });
    it('a listen that waits needs a place like a handshake, and one that does not wait needs none', async () => {
      await entry();
      bench.engine.handshakes = 9;
      listen();
      await client.request('ping');
      assert.equal(bench.front.waits.size, 1);
      assert.match(await refusedWith(client, listen()), /^LIMIT_HANDSHAKES/);
      const { message } = await client.request('listen', { localid: 'localhost' }, [bench.listenFd()]);
      assert.equal(message.type, 'reply');
    });
    it('a client that goes while its listen waits leaves no listener and no descriptor', async () => {
      const { client: operator, question } = await entry();
      listen();
      await client.request('ping');
      const held = openDescriptors();
      client.close();
      await until(() => bench.front.waits.size === 0 && openDescriptors() === held - 5, { what: 'the descriptors to be closed' });
      answer(operator, question, { pin: Buffer.from('right') });
      await operator.request('ping');
      assert.equal(bench.engine.named('listen').length, 0);
    });
    it('a remembered choice of an identity that is locked is kept, and waits for its PIN', async () => {
      publish(bench, 'shut');
      bench.store.lockedIds.clear();
      const chooses = await bench.client(userA);
      assert.deepEqual(await reply(chooses, 'register', { service: 'chooser' }), {});
      start(bench, client);
      answer(chooses, await callback(chooses, 'identity'), { localid: 'shut', rememberS: 60 });
      await startedWith(bench, 1);
      bench.store.lockedIds.add('shut');
      const { client: operator, question } = await entry();
      start(bench, client);
      await client.request('ping');
      answer(operator, question, { pin: Buffer.from('right') });
      assert.equal(await startedWith(bench, 2), 'shut');
    });
  });
});
