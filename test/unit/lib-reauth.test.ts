/** reauthenticate() of the library, against a pool and a proxy that do what the test says. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import net from 'node:net';
import { mock } from 'node:test';
import { connectPool } from 'libtlspool';
import type { Pool, PoolSocket, Reauthentication, SessionInfo } from 'libtlspool';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { protectFd } from 'libtlspool/session';
import { readFileSync } from 'node:fs';
import { event, makeCa, tempFolder, within } from '../support/index.js';
import { Handoffs, client as clientOfProxy, code } from './handoff-fixture.js';
import { FakePool, key, sessionInfo } from './lib-fake-pool.js';
import type { FakeClient, Seen } from './lib-fake-pool.js';

const der = new X509Certificate(readFileSync((await makeCa(tempFolder(), 'Somebody')).certFile)).raw;
/** What the pool says of the session once its client has shown the certificate. */
const authorized: SessionInfo = { ...sessionInfo, authorized: true, peerCertificates: [der] };

describe('libtlspool: reauthenticate', () => {
  let fake: FakePool;
  let pool: Pool;
  let open: PoolSocket[];
  beforeEach(async () => {
    open = [];
    fake = new FakePool().start();
    fake.handlers.reauthenticate = () => undefined;
    fake.handlers.starttls = ({ client, message }) => {
      const [ours, theirs] = sockets.socketpair('stream');
      fake.owned.push(ours);
      client.send({ type: 'reply', op: 'starttls', id: message.id, body: { ctlkey: key(1), info: sessionInfo } }, [theirs]);
      sockets.close(theirs);
      return undefined;
    };
    pool = await connectPool({ path: fake.path, timeoutMs: 2_000 });
  });
  afterEach(async () => {
    for (const socket of open) socket.destroy();
    pool.close();
    await fake.end();
  });

  /** One end of a stream; the other is closed with the test. */
  function stream(): OwnedFd {
    const [ours, passed] = sockets.socketpair('stream');
    fake.owned.push(ours);
    return passed;
  }
  const makers: Readonly<Record<string, () => Promise<PoolSocket>>> = {
    'starttls': () => pool.starttls(stream(), { role: 'server' }),
    'a listener': async () => {
      const asked = fake.next('listen');
      const listener = await pool.listen({ host: '127.0.0.1' });
      fake.owned.push((await asked).client.connection(1));
      return listener.accept();
    },
  };
  async function socketOf(maker = 'starttls'): Promise<PoolSocket> {
    const socket = await within((makers[maker] as () => Promise<PoolSocket>)(), 'a socket');
    open.push(socket);
    return socket;
  }
  /** The request has arrived, and waits for the test's answer. */
  async function asked(socket: PoolSocket, options?: Parameters<PoolSocket['reauthenticate']>[0]): Promise<{ answer: Promise<Reauthentication>; seen: Seen }> {
    const arrives = fake.next('reauthenticate');
    const answer = socket.reauthenticate(options);
    answer.catch(() => undefined);
    return { answer, seen: await within(arrives, 'the request') };
  }
  const reply = ({ client, message }: Seen, body: object): boolean => client.send({ type: 'reply', op: 'reauthenticate', id: message.id, body });
  const refuse = ({ client, message }: { client: FakeClient; message: Seen['message'] }, wanted: string): boolean => client.send({ type: 'error', op: 'reauthenticate', id: message.id, body: { code: wanted, text: 'said by the pool' } });

  for (const maker of Object.keys(makers)) {
    it(`a socket of ${maker} tells of the new certificate from then on, and nothing else of it changes`, async () => {
      const socket = await socketOf(maker);
      const { answer, seen } = await asked(socket);
      assert.deepEqual([socket.authorized, socket.getPeerX509Certificate(), socket.getPeerCertificate()], [false, undefined, {}]);
      const told = event<Reauthentication>(socket, 'reauthenticated');
      reply(seen, { outcome: 'authenticated', info: authorized });
      const expected = { outcome: 'authenticated', authorized: true, authorizationError: null };
      assert.deepEqual([await answer, await told], [expected, expected]);
      assert.deepEqual([socket.authorized, socket.authorizationError], [true, null]);
      assert.equal(socket.getPeerX509Certificate()?.subject, 'CN=Somebody');
      assert.equal(socket.getPeerCertificate().subject.CN, 'Somebody');
      assert.deepEqual(socket.sessionInfo, authorized);
    });
  }

  for (const [outcome, authorizationError, peerCertificates] of [['refused', undefined, []], ['rejected', 'CERT_HAS_EXPIRED', [der]]] as const) {
    it(`a client that was authorized before is not after ${outcome}`, async () => {
      const socket = await socketOf();
      const first = await asked(socket);
      reply(first.seen, { outcome: 'authenticated', info: authorized });
      await first.answer;
      const { answer, seen } = await asked(socket);
      reply(seen, { outcome, info: { ...sessionInfo, peerCertificates, ...(authorizationError !== undefined && { authorizationError }) } });
      assert.deepEqual(await answer, { outcome, authorized: false, authorizationError: authorizationError ?? null });
      assert.deepEqual([socket.authorized, socket.authorizationError, socket.getPeerX509Certificate()?.subject], [false, authorizationError ?? null, peerCertificates.length === 0 ? undefined : 'CN=Somebody']);
    });
  }

  it('sends what it is asked for, and nothing that it is not', async () => {
    const socket = await socketOf();
    const bare = await asked(socket);
    assert.deepEqual(bare.seen.message.body, { ctlkey: key(1) });
    refuse(bare.seen, 'TIMEOUT');
    await assert.rejects(bare.answer, code('TIMEOUT'));
    const full = await asked(socket, { require: true, localid: 'admin', timeoutMs: 3_600_000 });
    assert.deepEqual(full.seen.message.body, { ctlkey: key(1), require: true, localid: 'admin', timeoutMs: 3_600_000 });
  });

  for (const timeoutMs of [0, -1, 1.5, 3_600_001, Number.NaN]) {
    it(`a time-out of ${timeoutMs} is BAD_ARGUMENT, and the next request is made`, async () => {
      const socket = await socketOf();
      await assert.rejects(socket.reauthenticate({ timeoutMs }), code('BAD_ARGUMENT', /timeoutMs/));
      await asked(socket, { timeoutMs: 1 });
    });
  }

  it('a second one at a time is BAD_STATE; once the first has been answered or refused, it is made', async () => {
    const socket = await socketOf();
    const first = await asked(socket);
    await assert.rejects(socket.reauthenticate(), code('BAD_STATE'));
    reply(first.seen, { outcome: 'refused', info: sessionInfo });
    await first.answer;
    const second = await asked(socket);
    refuse(second.seen, 'TIMEOUT');
    await assert.rejects(second.answer, code('TIMEOUT'));
    await asked(socket);
  });

  for (const wanted of ['REAUTH_UNAVAILABLE', 'REAUTH_REFUSED', 'IDENTITY_UNKNOWN', 'CTLKEY_UNKNOWN', 'BAD_STATE']) {
    it(`${wanted} of the pool changes nothing`, async () => {
      const socket = await socketOf();
      let events = 0;
      socket.on('reauthenticated', () => { events += 1; });
      const { answer, seen } = await asked(socket);
      refuse(seen, wanted);
      await assert.rejects(answer, code(wanted, /said by the pool/));
      assert.deepEqual([socket.sessionInfo, events], [sessionInfo, 0]);
    });
  }

  it('a socket that is destroyed has nobody to ask', async () => {
    const socket = await socketOf();
    socket.destroy();
    await assert.rejects(socket.reauthenticate(), code('BAD_STATE'));
  });

  it('a pool that is lost rejects it', async () => {
    const socket = await socketOf();
    socket.on('error', () => undefined);
    const { answer } = await asked(socket);
    fake.stop();
    await assert.rejects(answer, code('POOL_LOST'));
  });

  it('data is read while the client is being asked', async () => {
    const socket = await socketOf();
    await asked(socket);
    const data = event<Buffer>(socket, 'data');
    sockets.send(fake.owned.at(-1) as OwnedFd, Buffer.from('meanwhile'));
    assert.equal(String(await data), 'meanwhile');
  });

  it('a handler that throws does not make the outcome a failure', async () => {
    const socket = await socketOf();
    const thrown = new Promise<Error>((resolve) => {
      const others = process.listeners('uncaughtException');
      process.removeAllListeners('uncaughtException');
      process.once('uncaughtException', (error: Error) => {
        for (const one of others) process.on('uncaughtException', one);
        resolve(error);
      });
    });
    socket.on('reauthenticated', () => { throw new Error('of the handler'); });
    const { answer, seen } = await asked(socket);
    reply(seen, { outcome: 'refused', info: sessionInfo });
    assert.equal((await answer).outcome, 'refused');
    assert.equal((await within(thrown, 'the error')).message, 'of the handler');
  });

  it('a pool that does not answer has the client\'s time, or a minute, and five seconds', async () => {
    const socket = await socketOf();
    for (const [options, leastMs] of [[{ timeoutMs: 100 }, 5_100], [{}, 65_000]] as const) {
      let failure: unknown;
      mock.timers.enable({ apis: ['setTimeout'] });
      try {
        socket.reauthenticate(options).catch((error: unknown) => { failure = error; });
        const settle = (): Promise<void> => new Promise((resolve) => { setImmediate(resolve); });
        mock.timers.tick(leastMs - 1);
        await settle();
        assert.equal(failure, undefined);
        mock.timers.tick(1);
        await settle();
      } finally {
        mock.timers.reset();
      }
      code('TIMEOUT')(failure);
    }
  });

  it('renegotiate() says what to use instead', async () => {
    const socket = await socketOf();
    const told = new Promise<Error | null>((resolve) => { assert.equal(socket.renegotiate({}, resolve), false); });
    code('BAD_STATE', /reauthenticate\(\)/)(await told);
  });

  it('a session without a PoolSocket asks the same, and its info is what is known from then on', async () => {
    const session = await protectFd(pool, stream(), { role: 'server' });
    fake.owned.push(session.plainfd as OwnedFd);
    const arrives = fake.next('reauthenticate');
    const answer = session.reauthenticate({ require: true, timeoutMs: 7_000 });
    const seen = await within(arrives, 'the request');
    assert.deepEqual(seen.message.body, { ctlkey: key(1), require: true, timeoutMs: 7_000 });
    reply(seen, { outcome: 'authenticated', info: authorized });
    assert.deepEqual(await answer, { outcome: 'authenticated', authorized: true, authorizationError: null });
    assert.deepEqual(session.info, authorized);
  });
});

describe('libtlspool: reauthenticate over a hand-off socket', () => {
  const at = new Handoffs();

  it('is sent to a proxy that relays, and the client\'s address stays what the proxy has said', async () => {
    const listener = await at.listening();
    const from = at.proxy();
    at.hand(from);
    await at.letGo(from, { relay: true });
    const socket = await at.accepted(listener);
    const answer = socket.reauthenticate();
    const { message } = await from.got();
    assert(message.type === 'request' && message.op === 'reauthenticate');
    from.send({ type: 'reply', op: 'reauthenticate', id: message.id, body: { outcome: 'authenticated', info: authorized } });
    assert.equal((await answer).outcome, 'authenticated');
    assert.deepEqual(socket.sessionInfo, { ...authorized, remote: clientOfProxy });
    assert(socket instanceof net.Socket);
    assert.equal(socket.remoteAddress, clientOfProxy.address);
  });

  it('is BAD_STATE where nobody controls the session', async () => {
    const listener = await at.listening({ reattach: false });
    const from = at.proxy();
    at.hand(from);
    await at.letGo(from, {});
    await assert.rejects((await at.accepted(listener)).reauthenticate(), code('BAD_STATE', /no control/));
  });
});
