/** libtlspool: what a program does for the pool. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connectPool } from 'libtlspool';
import type { ChooseIdentity, EnterPin, IdentityQuestion, Pool, ServiceOptions } from 'libtlspool';
import { TlsPoolError } from 'libtlspool/protocol';
import type { TlsPoolError as PoolError } from 'libtlspool';
import { until } from '../support/index.js';
import { event } from '../support/wait.js';
import { FakePool } from './lib-fake-pool.js';
import type { FakeClient } from './lib-fake-pool.js';

const question = { remoteid: 'www.example.org', candidates: [{ localid: 'home' }, { localid: 'work', subject: 'CN=work', notAfterMs: 4_000_000_000_000 }], pid: 4711 };
const pinQuestion = { localid: 'shut', source: '/shut/tls.key', attempt: 1 };

describe('libtlspool: services', () => {
  let fake: FakePool;
  let pool: Pool;
  let registered: object[];
  let clients: FakeClient[];
  let refusal: string | undefined;
  beforeEach(async () => {
    registered = [];
    clients = [];
    refusal = undefined;
    fake = new FakePool();
    fake.handlers.register = ({ client, message }) => {
      registered.push(message.body);
      clients.push(client);
      if (refusal !== undefined) throw new TlsPoolError(refusal as 'SERVICE_TAKEN');
      return {};
    };
    fake.handlers.unregister = ({ message }) => { registered.push({ no: (message.body as { service: string }).service }); return {}; };
    pool = await connectPool({ path: fake.start().path });
  });
  afterEach(async () => {
    pool.close();
    await fake.end();
  });

  /** Asks as the pool does; resolves with the body of the answer, as it was when it came. */
  const ask = async (op: 'identity' | 'pin', body: object, id = 9): Promise<object> => {
    const seen = fake.next(op, 'answer');
    (clients.at(-1) ?? [...fake.clients][0])?.send({ type: 'callback', op, id, body });
    const { message } = await seen;
    assert.equal('id' in message && message.id, id);
    return message.body;
  };
  const chooser = (choose: ChooseIdentity, options?: ServiceOptions) => pool.offerChooser(choose, options);
  const warnings = async (): Promise<Error> => await event(process as unknown as NodeJS.EventEmitter, 'warning');

  it('nobody who was not asked to offers anything: questions are refused', async () => {
    await pool.ping();
    assert.deepEqual([await ask('identity', question), await ask('pin', pinQuestion)], [{ refuse: true }, { refuse: true }]);
  });
  it('a chooser is registered, with its time-out where it has one', async () => {
    await (await chooser(() => 'refuse')).withdraw();
    await chooser(() => 'refuse', { timeoutMs: 1000 });
    assert.deepEqual(registered, [{ service: 'chooser' }, { no: 'chooser' }, { service: 'chooser', timeoutMs: 1000 }]);
  });
  it('its answer is what it returns, now or later', async () => {
    const seen: IdentityQuestion[] = [];
    await chooser((asked) => { seen.push(asked); return { localid: 'work', rememberS: 60 }; });
    assert.deepEqual(await ask('identity', question), { localid: 'work', rememberS: 60 });
    assert.deepEqual(seen, [question]);
    pool.close();
    pool = await connectPool({ path: fake.path });
    await chooser(() => Promise.resolve({}));
    assert.deepEqual(await ask('identity', question), {});
  });

  const notChoices: readonly (readonly [string, ChooseIdentity])[] = [
    ['\'refuse\'', () => 'refuse'], ['nothing', (() => undefined) as unknown as ChooseIdentity], ['null', (() => null) as unknown as ChooseIdentity], ['true', (() => true) as unknown as ChooseIdentity],
    ['a name', (() => 'work') as unknown as ChooseIdentity],
  ];
  for (const [what, choose] of notChoices) {
    it(`a chooser that returns ${what} refuses`, async () => {
      await chooser(choose);
      assert.deepEqual(await ask('identity', question), { refuse: true });
    });
  }
  for (const [what, choose] of [
    ['throws', () => { throw new Error('no idea'); }], ['rejects', () => Promise.reject(new Error('no idea'))], ['names an identity longer than a name can be', () => ({ localid: 'x'.repeat(256) })],
    ['remembers for longer than a year', () => ({ rememberS: 31_536_001 })],
  ] as readonly (readonly [string, ChooseIdentity])[]) {
    it(`a chooser that ${what} refuses, and a warning says why`, async () => {
      await chooser(choose);
      const warned = warnings();
      assert.deepEqual(await ask('identity', question), { refuse: true });
      assert.ok((await warned) instanceof Error);
    });
  }
  it('a program offers each service once, and again when it was withdrawn', async () => {
    const first = await chooser(() => 'refuse');
    await assert.rejects(chooser(() => 'refuse'), { code: 'SERVICE_TAKEN' });
    await pool.offerPinEntry(() => 'refuse');
    await first.withdraw();
    await first.withdraw();
    assert.deepEqual(await ask('identity', question), { refuse: true });
    await chooser(() => ({ localid: 'home' }));
    assert.deepEqual(await ask('identity', question), { localid: 'home' });
  });
  it('a refusal of the pool is the caller\'s, and leaves nothing offered', async () => {
    refusal = 'SERVICE_TAKEN';
    await assert.rejects(chooser(() => ({})), { code: 'SERVICE_TAKEN' });
    assert.deepEqual(await ask('identity', question), { refuse: true });
    refusal = undefined;
    await chooser(() => ({}));
  });
  it('`await using` withdraws', async () => {
    const offer = await chooser(() => ({}));
    await offer[Symbol.asyncDispose]();
    assert.deepEqual(registered.at(-1), { no: 'chooser' });
  });
  it('the PIN is sent, and its buffer is wiped then', async () => {
    const mine = Buffer.from('correct horse');
    await pool.offerPinEntry((asked) => { assert.deepEqual(asked, pinQuestion); return mine; });
    assert.deepEqual(await ask('pin', pinQuestion), { pin: Buffer.from('correct horse') });
    assert.ok(mine.every((octet) => octet === 0));
  });
  it('a PIN that is too long is not sent, and wiped all the same; the longest is', async () => {
    const [longest, longer] = [Buffer.alloc(256, 0x61), Buffer.alloc(257, 0x61)];
    await pool.offerPinEntry(({ attempt }) => (attempt === 1 ? longest : longer));
    assert.deepEqual(await ask('pin', pinQuestion), { pin: Buffer.alloc(256, 0x61) });
    const warned = warnings();
    assert.deepEqual(await ask('pin', { ...pinQuestion, attempt: 2 }), { refuse: true });
    assert.doesNotMatch(String(await warned), /aaa/);
    assert.ok([...longest, ...longer].every((octet) => octet === 0));
  });
  for (const [what, enter] of [['\'refuse\'', () => 'refuse'], ['nothing', () => undefined], ['text', () => '1234']] as readonly (readonly [string, unknown])[]) {
    it(`a PIN entry that returns ${what} refuses`, async () => {
      await pool.offerPinEntry(enter as EnterPin);
      assert.deepEqual(await ask('pin', pinQuestion), { refuse: true });
    });
  }
  it('after a reconnection it is offered again, and whoever was thinking about a question hears that it is over', async () => {
    const signals: AbortSignal[] = [];
    await chooser((_asked, gone) => {
      signals.push(gone);
      return new Promise((resolve) => { gone.addEventListener('abort', () => { resolve('refuse'); }); });
    }, { timeoutMs: 7 });
    clients.at(-1)?.send({ type: 'callback', op: 'identity', id: 9, body: question });
    await until(() => signals.length === 1, { what: 'the question' });
    fake.stop();
    await once(pool, 'lost');
    assert.equal(signals[0]?.aborted, true);
    const again = fake.next('register');
    fake.start();
    await again;
    assert.deepEqual(registered, [{ service: 'chooser', timeoutMs: 7 }, { service: 'chooser', timeoutMs: 7 }]);
  });
  it('what is offered while the pool is away is registered once, by whoever offers it', async () => {
    fake.stop();
    await once(pool, 'lost');
    const offering = chooser(() => ({ localid: 'home' }), { onEnded: assert.fail });
    fake.start();
    await offering;
    // Answered in order: whatever else was sent has come before.
    await pool.ping();
    assert.deepEqual(registered, [{ service: 'chooser' }]);
    assert.deepEqual(await ask('identity', question), { localid: 'home' });
  });
  it('what is withdrawn while the pool is told again of something else is not offered again', async () => {
    await chooser(() => 'refuse');
    const pins = await pool.offerPinEntry(() => 'refuse');
    fake.stop();
    await once(pool, 'lost');
    registered = [];
    // Asked for the chooser first, the pool does not answer before the PIN entry is withdrawn.
    const register = fake.handlers.register;
    fake.handlers.register = ({ client, message }) => {
      registered.push(message.body);
      void pins.withdraw().then(() => { client.send({ type: 'reply', op: 'register', id: 'id' in message ? message.id : 0, body: {} }); });
      if (register !== undefined) fake.handlers.register = register;
      return undefined;
    };
    fake.start();
    await once(pool, 'reconnected');
    await until(() => registered.length >= 2, { what: 'the withdrawal' });
    await pool.ping();
    await pool.ping();
    assert.deepEqual(registered, [{ service: 'chooser' }, { no: 'pin' }]);
  });
  it('when another program was quicker after a reconnection, the one who offered it is told', async () => {
    const ended = new Promise<PoolError>((resolve) => { void chooser(() => ({}), { onEnded: resolve }); });
    await until(() => registered.length === 1, { what: 'the registration' });
    fake.stop();
    await once(pool, 'lost');
    refusal = 'SERVICE_TAKEN';
    fake.start();
    assert.equal((await ended).code, 'SERVICE_TAKEN');
    refusal = undefined;
    await chooser(() => ({}));
  });
});
