import assert from 'node:assert/strict';
import { TlsPoolError } from 'libtlspool/protocol';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd } from 'libtlspool/native';
import type { Context, Selector } from 'tlspool/dist/engine.js';
import type { EngineEvent } from 'tlspool/dist/engine.js';
import { firstSignedRevision, type Signer } from 'tlspool/dist/identity/onthefly.js';
import type { Client } from 'tlspool/dist/policy/access.js';
import { until } from '../support/wait.js';
import { Bench, established, openDescriptors, descriptorsLeft, userA, userB } from './api-support.js';
import type { TestClient } from './api-support.js';

interface Request { readonly client: Client; readonly name: string; readonly role: string; resolve(value?: unknown): void; reject(error: Error): void }

/** Does nothing until the test says so. */
class FakeSigner implements Signer {
  readonly requests: Request[] = [];
  readonly undecided = { undecided: true } as unknown as Selector;
  refusal: TlsPoolError | undefined;
  ensure(): void { if (this.refusal !== undefined) throw this.refusal; }
  serverSelector(client: Client, name: string): Promise<Selector> { return this.#ask(client, name, 'server') as Promise<Selector>; }
  clientContext(client: Client, name: string): Promise<Context> { return this.#ask(client, name, 'client') as Promise<Context>; }
  #ask(client: Client, name: string, role: string): Promise<unknown> {
    return new Promise((resolve, reject) => { this.requests.push({ client, name, role, resolve: (value = { signed: name }) => { resolve(value); }, reject }); });
  }
  /** The one request that is there. */
  get only(): Request {
    const [one, more] = this.requests;
    if (one === undefined || more !== undefined) throw new Error(`there are ${this.requests.length} requests`);
    return one;
  }
}

const settled = () => new Promise((resolve) => { setImmediate(resolve); });
const hello = (session: number, changed: Partial<Extract<EngineEvent, { kind: 'hello' }>> = {}): EngineEvent => ({ kind: 'hello', session, listener: 0, alpn: [], ...changed });
const failed = (session: number): EngineEvent => ({ kind: 'failed', session, listener: 0, code: 'NAME_REFUSED', text: 'not served here' });

describe('front: on-the-fly identities', () => {
  let bench: Bench;
  let signer: FakeSigner;
  let client: TestClient;
  let descriptors: number;
  beforeEach(async () => {
    descriptors = openDescriptors();
    signer = new FakeSigner();
    bench = new Bench({}, signer);
    client = await bench.client(userA);
  });
  afterEach(async () => {
    bench.close();
    await descriptorsLeft(descriptors);
  });

  const decisions = () => bench.engine.named('decide').map(([, session, decision]) => [session, decision]);
  const listen = async (body: object): Promise<number> => {
    const { message } = await client.request('listen', body, [bench.listenFd()]);
    assert.equal(message.type, 'reply', JSON.stringify(message));
    return bench.engine.last('listen')[1] as number;
  };
  const start = (body: object = {}) => bench.startTls(client, { onTheFly: true, ...body });
  /** The error that a request is answered with. */
  const errorOf = async (op: 'listen' | 'starttls', body: object): Promise<unknown[]> => {
    const fd = op === 'listen' ? bench.listenFd() : bench.pair()[0];
    const answer = await client.request(op, body, [fd]);
    return [answer.message.type, answer.body['code'], answer.body['field']];
  };

  describe('a server session', () => {
    it('waits in the engine, with a table that serves nobody, until the certificate is there', async () => {
      const session = await start();
      const [, , spec] = bench.engine.last('startTls');
      assert.deepEqual([(spec as { ask: boolean }).ask, (spec as { selector: unknown }).selector], [true, signer.undecided]);
      bench.emit(hello(session, { servername: 'a.example' }));
      await settled();
      assert.deepEqual(decisions(), []);
      assert.deepEqual([signer.only.client.uid, signer.only.name, signer.only.role], [1000, 'a.example', 'server']);
      signer.only.resolve();
      await settled();
      assert.deepEqual(decisions(), [[session, { selector: { signed: 'a.example' } }]]);
    });
    it('an identity that has the name wins, and nothing is signed', async () => {
      bench.store.names.set('a.example', 'localhost');
      const session = await start();
      bench.emit(hello(session, { servername: 'a.example' }));
      await settled();
      assert.deepEqual([decisions(), signer.requests], [[[session, { selector: { localid: 'localhost' } }]], []]);
    });
    it('an identity that has the name and is locked refuses, and nothing is signed', async () => {
      bench.store.names.set('a.example', 'shut');
      bench.store.lockedIds.add('shut');
      const session = await start();
      bench.emit(hello(session, { servername: 'a.example' }));
      await settled();
      assert.deepEqual([decisions(), signer.requests], [[[session, { refuse: true }]], []]);
      bench.emit(failed(session));
      assert.equal((await client.next()).body['code'], 'IDENTITY_LOCKED');
    });
    it('an identity that the client may not use does not', async () => {
      bench.store.names.set('a.example', 'localhost');
      bench.access.identities = () => false;
      bench.emit(hello(await start(), { servername: 'a.example' }));
      await settled();
      assert.equal(signer.only.name, 'a.example');
    });
    it('without a server name the default identity serves, or nobody', async () => {
      const session = await start();
      bench.emit(hello(session));
      await settled();
      assert.deepEqual([decisions(), signer.requests], [[[session, { selector: { localid: undefined } }]], []]);
    });
    it('without a server name the localid of the request is what is served: the identity of that name, else a certificate for it', async () => {
      const there = await start({ localid: 'localhost' });
      bench.emit(hello(there));
      const absent = await start({ localid: '192.0.2.1' });
      bench.emit(hello(absent));
      await settled();
      signer.only.resolve();
      await settled();
      assert.deepEqual(decisions(), [[there, { selector: { localid: 'localhost' } }], [absent, { selector: { signed: '192.0.2.1' } }]]);
    });
    it('a server name counts for more than the localid of the request', async () => {
      bench.emit(hello(await start({ localid: 'other.example' }), { servername: 'a.example' }));
      await settled();
      assert.equal(signer.only.name, 'a.example');
    });
    it('a name that is not signed is refused, and who asked for the session hears why', async () => {
      const session = await start();
      bench.emit(hello(session, { servername: 'evil.example' }));
      await settled();
      signer.only.reject(new TlsPoolError('SIGNING_UNAVAILABLE', { text: 'not that one' }));
      await settled();
      assert.deepEqual(decisions(), [[session, { refuse: true }]]);
      bench.emit(failed(session));
      const { message, body } = await client.next();
      assert.deepEqual([message.type, body['code'], body['text']], ['error', 'SIGNING_UNAVAILABLE', 'not that one']);
      assert.ok(bench.log.some((line) => line.includes('no certificate for a handshake') && line.includes('"servername":"evil.example"') && line.includes('"uid":1000')));
    });
    it('a session that is over before its certificate is there takes nothing along', async () => {
      const session = await start();
      bench.emit(hello(session, { servername: 'a.example' }));
      await settled();
      bench.emit(failed(session));
      assert.equal((await client.next()).body['code'], 'NAME_REFUSED');
      signer.only.resolve();
      await settled();
      assert.equal(bench.front.starts.size, 0);
    });
    it('a client that goes meanwhile takes its session along', async () => {
      const session = await start();
      bench.emit(hello(session, { servername: 'a.example' }));
      await settled();
      client.close();
      await until(() => bench.front.clients.size === 0, { what: 'the client to be gone' });
      signer.only.resolve();
      await settled();
      assert.deepEqual(bench.engine.last('close'), ['close', session, 'abort']);
    });
  });

  describe('where the program is asked as well', () => {
    /** The question that it gets. */
    const asked = async (localid?: string): Promise<{ session: number; id: number }> => {
      const session = await start({ askServername: true, ...(localid !== undefined && { localid }) });
      bench.emit(hello(session, { servername: 'a.example' }));
      const { message } = await client.next();
      assert.deepEqual([message.type, message.op], ['callback', 'servername']);
      return { session, id: (message as { id: number }).id };
    };
    const answer = async (id: number, body: object, fds: readonly BorrowedFd[] = []): Promise<void> => {
      client.send({ type: 'answer', op: 'servername', id, body } as never, fds);
      await client.request('ping');
    };

    it('it comes first: a refusal signs nothing', async () => {
      const { session, id } = await asked();
      assert.deepEqual(signer.requests, []);
      await answer(id, { refuse: true });
      assert.deepEqual([decisions(), signer.requests], [[[session, { refuse: true }]], []]);
    });
    it('yes signs, with the application protocols of the answer', async () => {
      const { session, id } = await asked();
      await answer(id, { alpn: ['h2'] });
      signer.only.resolve();
      await settled();
      assert.deepEqual(decisions(), [[session, { selector: { signed: 'a.example' }, alpn: ['h2'] }]]);
    });
    it('the identity that it names is used', async () => {
      const { session, id } = await asked();
      await answer(id, { localid: 'localhost' });
      assert.deepEqual([decisions(), signer.requests], [[[session, { selector: { localid: 'localhost' } }]], []]);
    });
    it('the name that is asked for may be what it names, in any case', async () => {
      const { id } = await asked();
      await answer(id, { localid: 'A.example' });
      assert.equal(signer.only.name, 'A.example');
    });
    it('another name that is no identity is refused: its certificate would be none for this client', async () => {
      const { session, id } = await asked();
      await answer(id, { localid: 'b.example' });
      assert.deepEqual([decisions(), signer.requests], [[[session, { refuse: true }]], []]);
    });
    it('a plain-text socket in the answer waits with the session, and is closed where nothing is signed', async () => {
      const { session, id } = await asked();
      const [plainfd] = bench.pair();
      await answer(id, {}, [plainfd]);
      const before = openDescriptors();
      signer.only.reject(new TlsPoolError('SIGNING_UNAVAILABLE'));
      await settled();
      assert.deepEqual(decisions(), [[session, { refuse: true }]]);
      await descriptorsLeft(before - 1);
    });
    it('a plain-text socket in the answer goes to the engine with the decision', async () => {
      const { id } = await asked();
      const [plainfd] = bench.pair();
      await answer(id, {}, [plainfd]);
      assert.deepEqual(bench.engine.owned.length, 1, 'so far the cryptfd alone');
      signer.only.resolve();
      await settled();
      assert.equal(bench.engine.owned.length, 2);
      assert.equal(sockets.socketInfo(bench.engine.owned[1] as never).connected, true);
    });
    it('an engine that throws leaves no socket behind', async () => {
      const { id } = await asked();
      const [plainfd] = bench.pair();
      await answer(id, {}, [plainfd]);
      bench.engine.decide = () => { throw new Error('stopped'); };
      const before = openDescriptors();
      signer.only.resolve();
      await settled();
      await descriptorsLeft(before - 1);
    });
  });

  describe('a listener', () => {
    it('has each name signed by the rights of its maker, and asks nobody', async () => {
      const listener = await listen({ onTheFly: true });
      const [, , spec] = bench.engine.last('listen');
      assert.deepEqual([(spec as { ask: boolean }).ask, (spec as { selector: unknown }).selector], [true, signer.undecided]);
      bench.emit(hello(7, { listener, servername: 'a.example' }), hello(8, { listener, servername: 'b.example' }));
      await settled();
      for (const request of signer.requests) request.resolve();
      await settled();
      assert.deepEqual(decisions(), [[7, { selector: { signed: 'a.example' } }], [8, { selector: { signed: 'b.example' } }]]);
      assert.deepEqual(signer.requests.map(({ client: { uid } }) => uid), [1000, 1000]);
      assert.deepEqual(client.received, []);
    });
    it('whose maker has gone refuses', async () => {
      const listener = await listen({ onTheFly: true });
      await client.request('unlisten', { listener });
      bench.emit(hello(7, { listener, servername: 'a.example' }));
      await settled();
      assert.deepEqual([decisions(), signer.requests], [[[7, { refuse: true }]], []]);
    });
    it('keeps its table through a publication', async () => {
      const listener = await listen({ onTheFly: true });
      bench.store.published(['localhost']);
      assert.deepEqual(bench.engine.last('setSelector'), ['setSelector', listener, signer.undecided]);
    });
    it('ends for a client that may no longer sign, and only then', async () => {
      await listen({ onTheFly: true, localid: 'no.identity.example' });
      bench.access.identities = (_client, localid) => localid === 'localhost';
      bench.store.published([]);
      await client.request('ping');
      bench.access.permissions = (_client, permission) => permission !== 'sign';
      bench.store.published([]);
      const { message, body } = await client.next();
      assert.deepEqual([message.op, body['code']], ['listenerClosed', 'NOT_PERMITTED']);
    });
    it('may be joined by those who may sign, too', async () => {
      await listen({ onTheFly: true, share: 's' });
      const member = await bench.client(userA);
      bench.access.permissions = (one, permission) => permission !== 'sign' || one.pid !== userA.pid;
      assert.equal((await member.request('join', { share: 's' })).body['code'], 'NOT_PERMITTED');
      bench.access.permissions = () => true;
      assert.equal((await member.request('join', { share: 's' })).message.type, 'reply');
    });
  });

  describe('a client session', () => {
    const dial = { role: 'client', remoteid: 'server.example', onTheFly: true };
    const begin = async (body: object = {}): Promise<void> => {
      client.ask('starttls', { ...dial, ...body }, [bench.pair()[0]]);
      await client.request('ping');
    };

    it('begins when its certificate is there', async () => {
      await begin({ localid: 'user@example.org' });
      assert.deepEqual([bench.engine.named('startTls'), signer.only.name, signer.only.role], [[], 'user@example.org', 'client']);
      signer.only.resolve({ signed: 'user' });
      await settled();
      const [, , spec] = bench.engine.last('startTls');
      assert.deepEqual([(spec as { context: unknown }).context, (spec as { remoteid: unknown }).remoteid], [{ signed: 'user' }, 'server.example']);
    });
    it('an identity of that name that it may use wins', async () => {
      await begin({ localid: 'localhost' });
      assert.deepEqual([(bench.engine.last('startTls')[2] as { context: unknown }).context, signer.requests], [{ localid: 'localhost' }, []]);
    });
    it('without a certificate it is answered with the reason, and its socket is closed', async () => {
      await begin({ localid: 'user@example.org' });
      const before = openDescriptors();
      signer.only.reject(new TlsPoolError('SIGNING_UNAVAILABLE', { text: 'no' }));
      const { message, body } = await client.next();
      await settled();
      assert.deepEqual([message.type, body['code']], ['error', 'SIGNING_UNAVAILABLE']);
      await descriptorsLeft(before - 1);
    });
    it('counts as a handshake while it waits', async () => {
      bench.access.sessionsPerClient = 1;
      await begin({ localid: 'user@example.org' });
      assert.deepEqual(await errorOf('starttls', { ...dial, localid: 'other@example.org' }), ['error', 'LIMIT_SESSIONS', undefined]);
      signer.only.resolve({});
      await settled();
      assert.equal(bench.engine.named('startTls').length, 1);
    });
    it('of a client that has gone never begins, and its socket is closed', async () => {
      await begin({ localid: 'user@example.org' });
      const before = openDescriptors();
      client.close();
      await until(() => bench.front.clients.size === 0, { what: 'the client to be gone' });
      signer.only.resolve({});
      await settled();
      assert.deepEqual(bench.engine.named('startTls'), []);
      await descriptorsLeft(before - 1);
    });
    it('does not begin when the pool is going down', async () => {
      await begin({ localid: 'user@example.org' });
      bench.front.drain(1000);
      signer.only.resolve({});
      for (;;) {
        const { message, body } = await client.next();
        if (message.type === 'event') continue;
        assert.equal(body['code'], 'POOL_DRAINING');
        break;
      }
    });
    it('what is wrong with the request is said before anything is made', async () => {
      assert.deepEqual(await errorOf('starttls', dial), ['error', 'BAD_ARGUMENT', 'body.onTheFly']);
      assert.deepEqual(await errorOf('starttls', { role: 'client', onTheFly: true, localid: 'a.example' }), ['error', 'BAD_ARGUMENT', 'body.remoteid']);
      assert.deepEqual(await errorOf('starttls', { ...dial, localid: 'a.example', clientAuth: 'request' }), ['error', 'BAD_ARGUMENT', 'body.clientAuth']);
      assert.deepEqual(signer.requests, []);
    });
  });

  describe('who may not', () => {
    it('is told so by the request', async () => {
      signer.refusal = new TlsPoolError('NOT_PERMITTED');
      assert.deepEqual(await errorOf('listen', { onTheFly: true }), ['error', 'NOT_PERMITTED', undefined]);
      assert.deepEqual(await errorOf('starttls', { role: 'server', onTheFly: true }), ['error', 'NOT_PERMITTED', undefined]);
      assert.deepEqual(await errorOf('starttls', { role: 'client', onTheFly: true, remoteid: 'a', localid: 'localhost' }), ['error', 'NOT_PERMITTED', undefined]);
      await listen({ onTheFly: false });
      assert.equal((bench.engine.last('listen')[2] as { ask: boolean }).ask, false);
    });
    it('a pool without a signer says so', async () => {
      const plain = new Bench();
      const other = await plain.client(userB);
      assert.equal((await other.request('listen', { onTheFly: true }, [plain.listenFd()])).body['code'], 'SIGNING_UNAVAILABLE');
      plain.close();
    });
  });

  describe('a session with a certificate that was made', () => {
    const handOn = async (localid: string, revision: number): Promise<string> => {
      const session = await start();
      const [plainfd] = [bench.plainPair()];
      bench.emit(established(session, { plainfd, localid, revision }));
      const { body, fds } = await client.next();
      for (const fd of fds) sockets.close(fd);
      await client.request('detach', { ctlkey: body['ctlkey'] });
      const taker = await bench.client(userB);
      const { message, body: answer } = await taker.request('reattach', { ctlkey: body['ctlkey'] });
      return message.type === 'reply' ? 'reply' : String(answer['code']);
    };
    it('may be taken over by a client that may sign, whatever identities it may use', async () => {
      bench.access.identities = () => false;
      assert.equal(await handOn('a.example', firstSignedRevision + 1), 'reply');
      bench.access.permissions = (one, permission) => permission !== 'sign' || one.uid === userA.uid;
      assert.equal(await handOn('a.example', firstSignedRevision + 1), 'CTLKEY_UNKNOWN');
      assert.equal(await handOn('a.example', 1), 'CTLKEY_UNKNOWN');
    });
  });
});
