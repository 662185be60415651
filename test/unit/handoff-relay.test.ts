/** The proxy that stays and relays for a backend. */
import assert from 'node:assert/strict';
import { TlsPoolError } from 'libtlspool/protocol';
import { within } from '../support/index.js';
import { FakeSession, Offers, bodyOf, client, closedEvent } from './handoff-proxy-fixture.js';
import { key, sessionInfo } from './lib-fake-pool.js';

describe('proxy: relay', () => {
  const at = new Offers();

  it('prng and info reach the pool, and their replies the backend, with the client\'s address as it was told before', async () => {
    const { backend } = await at.relaying();
    assert.deepEqual((await backend.ask('prng', { ctlkey: key(1), label: 'EXPORTER-x', length: 6 })).body, { octets: Buffer.from('keying') });
    assert.deepEqual((await backend.ask('info', { ctlkey: key(1) })).body, { info: { ...sessionInfo, remote: client }, tlsExporter: Buffer.alloc(32, 7) });
    assert.deepEqual(at.session.asked, ['prng', 'info']);
  });

  it('a request about another session is CTLKEY_UNKNOWN and does not reach the pool', async () => {
    const { backend } = await at.relaying();
    for (const [op, more] of [['prng', { label: 'x', length: 1 }], ['info', {}], ['detach', {}], ['close', {}]] as const) {
      assert.equal(bodyOf(await backend.ask(op, { ctlkey: key(2), ...more })).code, 'CTLKEY_UNKNOWN', op);
    }
    assert.deepEqual(at.session.asked, []);
    assert.equal((await backend.ask('info', { ctlkey: key(1) })).type, 'reply');
  });

  it('every other operation is NOT_PERMITTED, and a second taken BAD_STATE', async () => {
    const { backend } = await at.relaying();
    for (const [op, body] of [['reattach', { ctlkey: key(1) }], ['status', {}], ['reload', {}], ['ping', {}], ['hello', { versions: [1], client: 'x' }], ['join', { share: 'x' }]] as const) {
      assert.equal(bodyOf(await backend.ask(op, body)).code, 'NOT_PERMITTED', op);
    }
    assert.equal(bodyOf(await backend.ask('taken', { ctlkey: key(1) })).code, 'BAD_STATE');
    assert.deepEqual(at.session.asked, []);
  });

  it('an error of the pool comes back with its code and field', async () => {
    const { backend } = await at.relaying();
    at.session.answers['prng'] = new TlsPoolError('EXPORTER', { text: 'no such label', field: 'body.label' });
    assert.deepEqual((await backend.ask('prng', { ctlkey: key(1), label: 'x', length: 1 })).body, { code: 'EXPORTER', text: 'no such label', field: 'body.label' });
    // What does not fit into a message is told in the table's words.
    at.session.answers['prng'] = new TlsPoolError('EXPORTER', { text: 'x'.repeat(2049) });
    assert.deepEqual((await backend.ask('prng', { ctlkey: key(1), label: 'x', length: 1 })).body, { code: 'EXPORTER', text: new TlsPoolError('EXPORTER').message });
  });

  describe('reauthenticate', () => {
    const reply = { outcome: 'authenticated', info: { ...sessionInfo, authorized: true, peerCertificates: [Buffer.from('a certificate')] } };
    /** The pool has been asked, and answers when the test does. */
    async function asked(): Promise<{ relaying: Awaited<ReturnType<Offers['relaying']>>; answer: (body: unknown) => void; fail: (error: Error) => void }> {
      const relaying = await at.relaying();
      let settle: { resolve(body: unknown): void; reject(error: Error): void } | undefined;
      at.session.answers['reauthenticate'] = new Promise((resolve, reject) => { settle = { resolve, reject }; });
      relaying.backend.send({ type: 'request', op: 'reauthenticate', id: 90, body: { ctlkey: key(1), require: true } });
      // Answered in order, but for the one that waits for the client.
      assert.equal((await relaying.backend.ask('info', { ctlkey: key(1) })).type, 'reply');
      assert.deepEqual(at.session.asked, ['reauthenticate', 'info']);
      return { relaying, answer: (body) => settle?.resolve(body), fail: (error) => settle?.reject(error) };
    }

    it('reaches the pool, and its reply the backend, with the client\'s address as it was told before', async () => {
      const { relaying: { backend }, answer } = await asked();
      answer(reply);
      assert.deepEqual((await backend.got()).message, { type: 'reply', op: 'reauthenticate', id: 90, body: { ...reply, info: { ...reply.info, remote: client } } });
    });

    it('of another session does not reach the pool', async () => {
      const { backend } = await at.relaying();
      assert.equal(bodyOf(await backend.ask('reauthenticate', { ctlkey: key(2) })).code, 'CTLKEY_UNKNOWN');
      assert.deepEqual(at.session.asked, []);
    });

    it('a second one before the client has answered is BAD_STATE and does not reach the pool; the next one does', async () => {
      const { relaying: { backend }, fail } = await asked();
      assert.equal(bodyOf(await backend.ask('reauthenticate', { ctlkey: key(1) })).code, 'BAD_STATE');
      fail(new TlsPoolError('TIMEOUT'));
      assert.equal(bodyOf((await backend.got()).message).code, 'TIMEOUT');
      at.session.answers['reauthenticate'] = reply;
      assert.equal((await backend.ask('reauthenticate', { ctlkey: key(1) })).type, 'reply');
      assert.deepEqual(at.session.asked, ['reauthenticate', 'info', 'reauthenticate']);
    });

    it('a backend that hangs up while the client is being asked ends the session at once', async () => {
      const { relaying: { backend, handed }, fail } = await asked();
      backend.close();
      await within(handed.done, 'the relay to be done');
      assert.deepEqual(at.session.asked, ['reauthenticate', 'info', 'close']);
      fail(new TlsPoolError('CTLKEY_UNKNOWN'));
    });

    it('the refusal that ends the session is told before the end', async () => {
      const { relaying: { backend }, fail } = await asked();
      fail(new TlsPoolError('REAUTH_REFUSED'));
      setImmediate(() => at.session.end(closedEvent('alert')));
      assert.equal(bodyOf((await backend.got()).message).code, 'REAUTH_REFUSED');
      assert.deepEqual((await backend.got()).message, { type: 'event', op: 'closed', body: closedEvent('alert') });
    });
  });

  it('requests that are pipelined are answered in their order', async () => {
    const { backend } = await at.relaying();
    for (let id = 10; id < 60; id++) backend.send({ type: 'request', op: id % 2 === 0 ? 'info' : 'prng', id, body: { ctlkey: key(1), ...(id % 2 === 0 ? {} : { label: 'x', length: 1 }) } });
    for (let id = 10; id < 60; id++) assert.equal(((await backend.got()).message as { id?: number }).id, id);
  });

  it('the end of the session is told; requests behind it are still answered, and it is done when the backend hangs up', async () => {
    const { backend, handed } = await at.relaying();
    assert.equal(handed.followed, true);
    at.session.end(closedEvent('truncated'));
    assert.deepEqual((await backend.got()).message, { type: 'event', op: 'closed', body: closedEvent('truncated') });
    at.session.answers['info'] = new TlsPoolError('CTLKEY_UNKNOWN');
    assert.equal(bodyOf(await backend.ask('info', { ctlkey: key(1) })).code, 'CTLKEY_UNKNOWN');
    backend.close();
    await within(handed.done, 'the relay to be done');
    assert.deepEqual(at.session.asked, ['info'], 'a session that is over is not closed once more');
  });

  it('a backend that hangs up ends the session, as the loss of its owner does at the pool', async () => {
    const { backend, handed } = await at.relaying();
    backend.close();
    await within(handed.done, 'the relay to be done');
    assert.deepEqual(at.session.asked, ['close']);
  });

  it('a backend that cannot be understood any more loses the session', async () => {
    const { backend, handed } = await at.relaying();
    backend.sendRaw(Buffer.from([0xc1]));
    await within(handed.done, 'the relay to be done');
    assert.deepEqual(at.session.asked, ['close']);
    assert.equal((await backend.got()).message.type, 'error');
    assert.equal(await backend.next(), 'end');
  });

  it('after detach the proxy leaves, and the session goes on', async () => {
    const { backend, handed } = await at.relaying();
    const request = at.session.request.bind(at.session);
    // The pool's word that nothing more will be heard may come before the reply has been passed on.
    at.session.request = async (op: string, body: unknown) => { const reply: unknown = await request(op, body); at.session.end(undefined); return reply; };
    assert.deepEqual(await backend.ask('detach', { ctlkey: key(1) }), { type: 'reply', op: 'detach', id: 2, body: {} });
    await within(handed.done, 'the relay to be done');
    assert.equal(await backend.next(), 'end');
    assert.deepEqual(at.session.asked, ['detach']);
  });

  it('a pool that is gone hangs up on the backend, also while it detaches', async () => {
    const first = await at.relaying();
    at.session.end(undefined);
    await within(first.handed.done, 'the relay to be done');
    assert.equal(await first.backend.next(), 'end');
    at.session = new FakeSession(at.session.plainfd);
    const second = await at.relaying();
    at.session.answers['detach'] = new TlsPoolError('POOL_LOST');
    at.session.answers['close'] = new TlsPoolError('POOL_LOST');
    assert.equal(bodyOf(await second.backend.ask('detach', { ctlkey: key(1) })).code, 'POOL_LOST');
    await within(second.handed.done, 'the relay to be done');
    assert.equal(await second.backend.next(), 'end');
  });

  it('the signal ends a relay: the session is detached and goes on, and the backend is told that it is on its own', async () => {
    const abort = new AbortController();
    const { offer, backend } = await at.connected(true, 5_000, abort.signal);
    const given = offer.give(at.session);
    await at.event(backend);
    await backend.ask('taken', { ctlkey: key(1) });
    const { done } = await given;
    // The offer was given: closing it does not take it back.
    offer.close();
    assert.equal((await backend.ask('info', { ctlkey: key(1) })).type, 'reply');
    abort.abort();
    await within(done, 'the relay to be done');
    assert.deepEqual(at.session.asked, ['info', 'detach']);
    assert.deepEqual((await backend.got()).message, { type: 'event', op: 'drain', body: { deadlineMs: 0 } });
    assert.equal(await backend.next(), 'end');
  });

  it('the signal, while the pool does not answer or refuses: the backend is told all the same, and the session is not closed', async () => {
    const abort = new AbortController();
    const { offer, backend } = await at.connected(true, 5_000, abort.signal);
    const given = offer.give(at.session);
    await at.event(backend);
    await backend.ask('taken', { ctlkey: key(1) });
    const { done } = await given;
    at.session.answers['detach'] = new TlsPoolError('LIMIT_REQUESTS');
    abort.abort();
    // Too late to be relayed; it does not bring the relay back to life.
    backend.send({ type: 'request', op: 'close', id: 7, body: { ctlkey: key(1) } });
    await within(done, 'the relay to be done');
    assert.deepEqual(at.session.asked, ['detach']);
    assert.equal(((await backend.got()).message as { op: string }).op, 'drain');
  });

  it('the signal before the connection was taken ends the step, and behind it the relay', async () => {
    const abort = new AbortController();
    const { offer, backend } = await at.connected(true, 5_000, abort.signal);
    const given = offer.give(at.session);
    await at.event(backend);
    abort.abort();
    await assert.rejects(given, (error: unknown) => error instanceof TlsPoolError && error.code === 'ABORTED');
    assert.deepEqual(at.session.asked, []);
    assert.equal(await backend.next(), 'end');
  });
});
