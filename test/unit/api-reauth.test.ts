import assert from 'node:assert/strict';
import { benchForEach, closed, established, userA } from './api-support.js';
import type { TestClient , Bench} from './api-support.js';
import type { EngineEvent, EstablishedEvent } from 'tlspool/dist/engine.js';

interface Open { readonly session: number; readonly ctlkey: Uint8Array }
type Reauthenticated = Extract<EngineEvent, { kind: 'reauthenticated' }>;

const leaf = Buffer.from('the certificate of a client');
const authenticated: Omit<Reauthenticated, 'session' | 'request'> = { kind: 'reauthenticated', outcome: 'authenticated', authorized: true, peerCertificates: [leaf] };

describe('reauthenticate', () => {
  let bench: Bench;
  benchForEach(() => bench, (made) => { bench = made; });

  async function open(client: TestClient, changed: Partial<EstablishedEvent> = {}): Promise<Open> {
    const session = await bench.startTls(client);
    bench.emit(established(session, changed));
    return { session, ctlkey: (await client.next()).body['ctlkey'] as Uint8Array };
  }

  /** Sends the request; the engine's number for it, once it is there. */
  async function ask(client: TestClient, body: object): Promise<number> {
    const before = bench.engine.named('reauthenticate').length;
    client.ask('reauthenticate', body);
    // Answered in order: when the ping is back, the request has been handled.
    const { message } = await client.request('ping');
    assert.equal(message.op, 'ping');
    assert.equal(bench.engine.named('reauthenticate').length, before + 1, 'the engine was not asked');
    return bench.engine.last('reauthenticate')[2] as number;
  }

  async function infoOf(client: TestClient, ctlkey: Uint8Array): Promise<Record<string, unknown>> {
    client.ask('info', { ctlkey });
    await client.request('ping');
    bench.emit({ kind: 'answer', request: bench.engine.last('bindings')[2] as number, bindings: {} });
    return (await client.next()).body['info'] as Record<string, unknown>;
  }

  it('asks the engine with the trust of the session\'s identity, and without require and a time-out of its own', async () => {
    const client = await bench.client();
    const { session, ctlkey } = await open(client);
    await ask(client, { ctlkey });
    assert.deepEqual([bench.engine.last('reauthenticate')[1], bench.engine.last('reauthenticate')[3]], [session, { require: false, context: { verifier: 'localhost' } }]);
  });

  it('passes on require, another identity, and the time-out at both of its limits', async () => {
    bench.store.known.add('admin');
    const client = await bench.client();
    const { ctlkey } = await open(client);
    for (const timeoutMs of [1, 3_600_000]) {
      await ask(client, { ctlkey, require: true, localid: 'admin', timeoutMs });
      assert.deepEqual(bench.engine.last('reauthenticate')[3], { require: true, context: { verifier: 'admin' }, timeoutMs });
    }
  });

  it('a time-out of 0 is refused', async () => {
    const client = await bench.client();
    const { ctlkey } = await open(client);
    const { body } = await client.request('reauthenticate', { ctlkey, timeoutMs: 0 });
    assert.deepEqual([body['code'], body['field']], ['BAD_ARGUMENT', 'body.timeoutMs']);
  });

  it('a certificate that was verified is in the reply, and in info from then on', async () => {
    const client = await bench.client();
    const { session, ctlkey } = await open(client, { authorizationError: 'before' });
    bench.emit({ ...authenticated, session, request: await ask(client, { ctlkey }) });
    const { message, body } = await client.next();
    assert.deepEqual([message.type, message.op, body['outcome']], ['reply', 'reauthenticate', 'authenticated']);
    const info = body['info'] as Record<string, unknown>;
    assert.deepEqual([info['authorized'], info['authorizationError'], info['peerCertificates']], [true, undefined, [leaf]]);
    assert.deepEqual(await infoOf(client, ctlkey), info);
  });

  it('nothing else of the session changes', async () => {
    const client = await bench.client();
    const endpoints = { remote: { family: 'IPv4', address: '192.0.2.1', port: 1 }, local: { family: 'IPv4', address: '192.0.2.2', port: 443 } } as const;
    const { session, ctlkey } = await open(client, { ...endpoints, alpn: 'http/1.1', servername: 'localhost', resumed: true, revision: 7 });
    const before = await infoOf(client, ctlkey);
    bench.emit({ ...authenticated, session, request: await ask(client, { ctlkey }) });
    assert.deepEqual((await client.next()).body['info'], { ...before, authorized: true, peerCertificates: [leaf] });
  });

  for (const [outcome, authorizationError, peerCertificates] of [['refused', undefined, []], ['rejected', 'CERT_HAS_EXPIRED', [leaf]]] as const) {
    it(`a client that was authorized and is ${outcome} now is authorized no more`, async () => {
      const client = await bench.client();
      const { session, ctlkey } = await open(client, { authorized: true, peerCertificates: [Buffer.from('another certificate')] });
      const request = await ask(client, { ctlkey });
      bench.emit({ kind: 'reauthenticated', session, request, outcome, authorized: false, peerCertificates, ...(authorizationError !== undefined && { authorizationError }) });
      const { body } = await client.next();
      assert.equal(body['outcome'], outcome);
      const info = body['info'] as Record<string, unknown>;
      assert.deepEqual([info['authorized'], info['authorizationError'], info['peerCertificates']], [false, authorizationError, peerCertificates]);
    });
  }

  const changes: readonly (readonly [what: string, change: () => void])[] = [
    ['was published anew', () => { bench.store.verifiers.clear(); }], ['has no roots any more', () => { bench.store.rootless.add('localhost'); }],
    ['may no longer be used', () => { bench.access.identities = () => false; }],
  ];
  for (const [what, change] of changes) {
    it(`a certificate is not accepted by an identity that ${what} while the client was asked: the session ends`, async () => {
      const client = await bench.client();
      const { session, ctlkey } = await open(client);
      const request = await ask(client, { ctlkey });
      change();
      bench.emit({ ...authenticated, session, request });
      assert.equal((await client.next()).body['code'], 'REAUTH_REFUSED');
      assert.deepEqual(bench.engine.last('close'), ['close', session, 'revoked']);
      assert.equal(bench.front.sessions.get(session)?.profile?.authorized, false);
      assert.equal((await client.request('info', { ctlkey })).body['code'], 'CTLKEY_UNKNOWN');
    });
  }
  it('a client that shows nothing is refused, whatever has changed while it was asked', async () => {
    const client = await bench.client();
    const { session, ctlkey } = await open(client);
    const request = await ask(client, { ctlkey });
    bench.store.verifiers.clear();
    bench.emit({ kind: 'reauthenticated', session, request, outcome: 'refused', authorized: false, peerCertificates: [] });
    assert.equal((await client.next()).body['outcome'], 'refused');
  });

  it('an answer after the time-out changes what is known, and nobody is told', async () => {
    const client = await bench.client();
    const { session, ctlkey } = await open(client);
    bench.emit({ kind: 'answer', request: await ask(client, { ctlkey }), code: 'TIMEOUT', text: 'too late' });
    assert.equal((await client.next()).body['code'], 'TIMEOUT');
    bench.emit({ ...authenticated, session, request: 0 });
    assert.equal((await infoOf(client, ctlkey))['authorized'], true, 'the next message is the answer to info');
    assert.ok(bench.log.some((line) => line.includes('session reauthenticated') && line.includes('"isLate":true')));
  });

  for (const [what, change] of changes) {
    it(`an answer after the time-out is not accepted either by an identity that ${what} meanwhile: the session ends`, async () => {
      const client = await bench.client();
      const { session, ctlkey } = await open(client);
      bench.emit({ kind: 'answer', request: await ask(client, { ctlkey }), code: 'TIMEOUT', text: 'too late' });
      assert.equal((await client.next()).body['code'], 'TIMEOUT');
      change();
      bench.emit({ ...authenticated, session, request: 0 });
      assert.deepEqual(bench.engine.last('close'), ['close', session, 'revoked']);
      assert.deepEqual([bench.front.sessions.get(session)?.profile?.authorized, bench.front.sessions.get(session)?.profile?.authorizationError], [false, 'CERT_UNTRUSTED']);
    });
  }
  it('an answer that nobody has asked for is not accepted, and one late answer is no reason to accept another', async () => {
    const client = await bench.client();
    const { session, ctlkey } = await open(client);
    bench.emit({ kind: 'answer', request: await ask(client, { ctlkey }), code: 'TIMEOUT', text: 'too late' });
    await client.next();
    bench.emit({ ...authenticated, session, request: 0 });
    assert.equal(bench.front.sessions.get(session)?.profile?.authorized, true);
    bench.emit({ ...authenticated, session, request: 0 });
    assert.equal(bench.front.sessions.get(session)?.profile?.authorized, false);
    assert.deepEqual(bench.engine.last('close'), ['close', session, 'revoked']);
  });
  it('a second question that is refused at once leaves the first one\'s terms in force', async () => {
    const client = await bench.client();
    const { session, ctlkey } = await open(client);
    bench.emit({ kind: 'answer', request: await ask(client, { ctlkey }), code: 'TIMEOUT', text: 'too late' });
    await client.next();
    bench.emit({ kind: 'answer', request: await ask(client, { ctlkey }), code: 'BAD_STATE', text: 'in the middle of it' });
    await client.next();
    bench.emit({ ...authenticated, session, request: 0 });
    assert.equal(bench.front.sessions.get(session)?.profile?.authorized, true);
  });
  it('an answer to whoever has gone is not accepted by an identity that was published anew meanwhile', async () => {
    const client = await bench.client();
    const session = await bench.startTls(client, { fork: true });
    bench.emit(established(session));
    const ctlkey = (await client.next()).body['ctlkey'] as Uint8Array;
    const request = await ask(client, { ctlkey });
    client.close();
    await bench.client();
    bench.store.verifiers.clear();
    bench.emit({ ...authenticated, session, request });
    assert.deepEqual(bench.engine.last('close'), ['close', session, 'revoked']);
  });

  it('an answer that comes when whoever asked has gone changes what is known', async () => {
    const client = await bench.client();
    const session = await bench.startTls(client, { fork: true });
    bench.emit(established(session));
    const ctlkey = (await client.next()).body['ctlkey'] as Uint8Array;
    const request = await ask(client, { ctlkey });
    client.close();
    const other = await bench.client();
    bench.emit({ ...authenticated, session, request });
    const { body } = await other.request('reattach', { ctlkey });
    assert.equal((body['info'] as Record<string, unknown>)['authorized'], true);
  });

  it('a chain that is longer than a message is cut behind its leaf', async () => {
    const client = await bench.client();
    const { session, ctlkey } = await open(client);
    const peerCertificates = [Buffer.alloc(20_000, 1), Buffer.alloc(30_000, 2), Buffer.alloc(30_000, 3)];
    bench.emit({ ...authenticated, peerCertificates, session, request: await ask(client, { ctlkey }) });
    const info = (await client.next()).body['info'] as { peerCertificates: Uint8Array[]; localCertificate?: Uint8Array };
    assert.deepEqual(info.peerCertificates.map(({ length }) => length), [20_000, 30_000]);
    assert.ok(info.localCertificate !== undefined);
  });

  for (const code of ['REAUTH_UNAVAILABLE', 'REAUTH_REFUSED', 'BAD_STATE', 'TIMEOUT']) {
    it(`${code} of the engine is passed on with its text`, async () => {
      const client = await bench.client();
      const { ctlkey } = await open(client);
      bench.emit({ kind: 'answer', request: await ask(client, { ctlkey }), code, text: 'as the engine says' });
      const { message, body } = await client.next();
      assert.deepEqual([message.type, message.op, body['code'], body['text']], ['error', 'reauthenticate', code, 'as the engine says']);
    });
  }

  it('with require, the refusal comes before the end of the session', async () => {
    const client = await bench.client();
    const { session, ctlkey } = await open(client);
    const request = await ask(client, { ctlkey, require: true });
    bench.emit({ kind: 'answer', request, code: 'REAUTH_REFUSED', text: 'nothing' }, closed(session, { how: 'alert', alert: 116 }));
    assert.deepEqual([(await client.next()).body['code'], (await client.next()).body['how']], ['REAUTH_REFUSED', 'alert']);
  });

  it('a session that ends first answers it', async () => {
    const client = await bench.client();
    const { session, ctlkey } = await open(client);
    await ask(client, { ctlkey });
    bench.emit(closed(session));
    const answers = [await client.next(), await client.next()];
    assert.deepEqual(answers.map(({ message, body }) => [message.type, body['code']]), [['error', 'CTLKEY_UNKNOWN'], ['event', undefined]]);
  });

  it('an engine that throws is a refusal, and nothing is waited for', async () => {
    const client = await bench.client();
    const { ctlkey } = await open(client);
    bench.engine.reauthenticate = () => { throw Object.assign(new Error('no thread'), { code: 'SYSTEM' }); };
    assert.equal((await client.request('reauthenticate', { ctlkey })).body['code'], 'SYSTEM');
  });

  it('an identity that does not exist and one that is not permitted are refused in the same words', async () => {
    bench.store.known.add('secret');
    bench.access.identities = (_client, localid) => localid !== 'secret';
    const client = await bench.client(userA);
    const { ctlkey } = await open(client);
    const [absent, forbidden] = [await client.request('reauthenticate', { ctlkey, localid: 'absent' }), await client.request('reauthenticate', { ctlkey, localid: 'secret' })];
    assert.equal(absent.body['code'], 'IDENTITY_UNKNOWN');
    assert.deepEqual(forbidden.body, absent.body);
  });

  it('an identity without roots cannot decide, be it the session\'s own or another', async () => {
    bench.store.known.add('bare');
    bench.store.rootless.add('bare').add('localhost');
    const client = await bench.client();
    const { ctlkey } = await open(client);
    for (const body of [{ ctlkey }, { ctlkey, localid: 'bare' }]) assert.equal((await client.request('reauthenticate', body)).body['code'], 'REAUTH_UNAVAILABLE');
    bench.store.rootless.delete('bare');
    await ask(client, { ctlkey, localid: 'bare' });
  });

  it('a session whose identity is gone needs the name of another', async () => {
    bench.store.known.add('admin');
    const client = await bench.client();
    const { ctlkey } = await open(client);
    bench.store.known.delete('localhost');
    assert.equal((await client.request('reauthenticate', { ctlkey })).body['code'], 'REAUTH_UNAVAILABLE');
    await ask(client, { ctlkey, localid: 'admin' });
  });

  it('a session in the client role is refused', async () => {
    const client = await bench.client();
    const { ctlkey } = await open(client, { role: 'client' });
    assert.equal((await client.request('reauthenticate', { ctlkey })).body['code'], 'REAUTH_UNAVAILABLE');
  });

  it('HTTP/2 is refused (RFC 9113 section 9.2.1, RFC 8740), http/1.1 is not', async () => {
    const client = await bench.client();
    const { body } = await client.request('reauthenticate', { ctlkey: (await open(client, { alpn: 'h2' })).ctlkey });
    assert.equal(body['code'], 'REAUTH_UNAVAILABLE');
    assert.match(body['text'] as string, /HTTP\/2/);
    await ask(client, { ctlkey: (await open(client, { alpn: 'http/1.1' })).ctlkey });
  });

  it('one per session may be unanswered beside the limit of requests, and no more', async () => {
    const client = await bench.client();
    const keys = [];
    for (let count = 0; count < 6; count++) keys.push((await open(client)).ctlkey);
    // The limit of the bench is 4.
    for (const ctlkey of keys) await ask(client, { ctlkey });
    const [ctlkey] = keys;
    for (let count = 0; count < 4; count++) client.ask('reauthenticate', { ctlkey });
    assert.equal((await client.request('reauthenticate', { ctlkey })).body['code'], 'LIMIT_REQUESTS');
    assert.equal(bench.engine.named('reauthenticate').length, 10);
  });
});
