/** `plainside` callbacks, and what `servername` has beside the name. */
import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import type { CallbackOp } from 'libtlspool/protocol';
import type { OwnedFd } from 'libtlspool/native';
import { sockets } from 'libtlspool/native';
import { Bench, established, openDescriptors, descriptorsLeft, userA } from './api-support.js';
import type { TestClient } from './api-support.js';
import { until } from '../support/wait.js';

describe('front: plainside callbacks', () => {
  let bench: Bench;
  let descriptors: number;
  let client: TestClient;
  beforeEach(async () => {
    descriptors = openDescriptors();
    bench = new Bench();
    client = await bench.client(userA);
  });
  afterEach(async () => {
    bench.close();
    await descriptorsLeft(descriptors);
  });

  interface Question { readonly id: number; readonly body: Record<string, unknown> }
  async function question(op: CallbackOp): Promise<Question> {
    const { message, body } = await client.next();
    assert.deepEqual([message.type, message.op], ['callback', op]);
    return { id: 'id' in message ? message.id : -1, body };
  }
  /** A starttls whose handshake is done: its session, the id of the request, and what its client is asked. */
  async function asked(body: object = {}): Promise<{ session: number; request: number; question: Question }> {
    const session = await bench.startTls(client, { askPlainside: true, ...body });
    bench.emit(established(session, { waiting: true }));
    const put = await question('plainside');
    return { session, request: put.body['request'] as number, question: put };
  }
  async function answer(op: CallbackOp, id: number, body: object = {}, plainfd?: OwnedFd): Promise<void> {
    client.send({ type: 'answer', op, id, body } as never, plainfd === undefined ? [] : [plainfd]);
    await client.request('ping');
  }
  const refused = (session: number): void => { assert.deepEqual(bench.engine.named('supply').at(-1), ['supply', session, 'refuse']); };

  it('the client is asked when the handshake is done, with the id of its request, and the reply waits for the plain-text side', async () => {
    const { session, request, question: { id, body } } = await asked();
    assert.equal((bench.engine.last('startTls')[2] as { askPlain?: boolean }).askPlain, true);
    assert.equal((body['info'] as { cipher: string }).cipher, 'TLS_AES_128_GCM_SHA256');
    assert.equal('listener' in body, false);
    const [plainfd] = bench.pair();
    await answer('plainside', id, {}, plainfd);
    const [, supplied, fd] = bench.engine.last('supply');
    assert.equal(supplied, session);
    assert.equal(typeof fd, 'number');
    assert.deepEqual(client.received, [], 'not before the engine has it');
    bench.emit({ kind: 'supplied', session, plainfd: -1 });
    const reply = await client.next();
    assert.deepEqual([reply.message.type, reply.message.op, 'id' in reply.message && reply.message.id, reply.fds.length], ['reply', 'starttls', request, 0]);
    assert.deepEqual(reply.body, { ctlkey: body['ctlkey'], info: body['info'] });
  });

  it('an answer without a descriptor asks for a socket pair, whose end comes with the reply', async () => {
    const { session, question: { id } } = await asked();
    await answer('plainside', id);
    assert.deepEqual(bench.engine.last('supply'), ['supply', session, -1]);
    bench.emit({ kind: 'supplied', session, plainfd: bench.plainPair() });
    const { fds } = await client.next();
    assert.equal(fds.length, 1);
    for (const fd of fds) sockets.close(fd);
  });

  it('what is no socket never reaches the engine: the session is refused, and the reply is FD_KIND', async () => {
    const { session, question: { id } } = await asked();
    const before = openDescriptors();
    const file = openSync('/dev/null', 'r') as OwnedFd;
    await answer('plainside', id, {}, file);
    closeSync(file);
    refused(session);
    bench.emit({ kind: 'failed', session, listener: 0, code: 'PLAINSIDE_REFUSED', text: 'refused' });
    assert.equal((await client.next()).body['code'], 'FD_KIND');
    await until(() => openDescriptors() === before, { what: 'the file to be closed' });
  });

  it('a refusal, also one with a descriptor, and an error refuse; the reply is the engine\'s error', async () => {
    const first = await asked();
    await answer('plainside', first.question.id, { refuse: true }, bench.pair()[0]);
    refused(first.session);
    bench.emit({ kind: 'failed', session: first.session, listener: 0, code: 'PLAINSIDE_REFUSED', text: 'refused' });
    const { message, body } = await client.next();
    assert.deepEqual([message.type, message.op, body['code'], 'id' in message && message.id], ['error', 'starttls', 'PLAINSIDE_REFUSED', first.request]);
    const second = await asked();
    client.send({ type: 'error', op: 'plainside', id: second.question.id, body: { code: 'INTERNAL', text: 'no' } });
    await client.request('ping');
    refused(second.session);
  });

  it('an answer to another callback\'s question refuses what it was about', async () => {
    const { session, question: { id } } = await asked();
    await answer('servername', id);
    refused(session);
    const other = await bench.startTls(client, { askServername: true });
    bench.emit({ kind: 'hello', session: other, listener: 0, alpn: [] });
    await answer('plainside', (await question('servername')).id, {}, bench.pair()[0]);
    assert.deepEqual(bench.engine.last('decide'), ['decide', other, { refuse: true }, -1]);
  });

  it('an answer after the deadline, a second one, and another client\'s supply nothing, and their descriptors are closed', async () => {
    const { session, question: { id } } = await asked();
    const stranger = await bench.client(userA);
    stranger.send({ type: 'answer', op: 'plainside', id, body: {} }, [bench.pair()[0]]);
    await stranger.request('ping');
    assert.deepEqual(bench.engine.named('supply'), []);
    bench.emit({ kind: 'failed', session, listener: 0, code: 'TIMEOUT', text: 'late' });
    assert.equal((await client.next()).body['code'], 'TIMEOUT');
    await answer('plainside', id, {}, bench.pair()[0]);
    assert.deepEqual(bench.engine.named('supply'), []);
    const again = await asked();
    await answer('plainside', again.question.id);
    await answer('plainside', again.question.id, {}, bench.pair()[0]);
    assert.equal(bench.engine.named('supply').length, 1);
  });

  for (const fork of [false, true]) {
    it(`the death of the client ends a session that waits${fork ? ', one with fork too' : ''}`, async () => {
      const { session } = await asked({ fork });
      client.close();
      await bench.client();
      refused(session);
      assert.deepEqual(bench.engine.last('close'), ['close', session, 'abort']);
      bench.emit({ kind: 'failed', session, listener: 0, code: 'PLAINSIDE_REFUSED', text: '' });
      assert.equal(bench.front.sessions.size, 0);
    });
  }

  it('a side that is supplied while the session is being ended is closed, and the reply is ABORTED', async () => {
    const { session, question: { id } } = await asked();
    await answer('plainside', id);
    bench.front.endAll();
    bench.emit({ kind: 'supplied', session, plainfd: bench.plainPair() });
    assert.deepEqual(client.received, []);
    bench.emit({ kind: 'closed', session, plainfd: -1, how: 'drained', octetsReceived: 0, octetsSent: 0 });
    const { message, body } = await client.next();
    assert.deepEqual([message.op, body['code']], ['starttls', 'ABORTED']);
  });

  it('a handshake that is done while the session is being ended is ABORTED too, and nobody is asked', async () => {
    for (const waiting of [false, true]) {
      const session = await bench.startTls(client, { askPlainside: waiting });
      bench.front.endAll();
      bench.emit(established(session, { waiting, plainfd: waiting ? -1 : bench.plainPair() }));
      assert.deepEqual(client.received, []);
      bench.emit(waiting ? { kind: 'failed', session, listener: 0, code: 'ABORTED', text: 'ended' } : { kind: 'closed', session, plainfd: -1, how: 'drained', octetsReceived: 0, octetsSent: 0 });
      assert.equal((await client.next()).body['code'], 'ABORTED');
    }
  });

  it('the control key asks, closes, and does not detach while the side is waited for', async () => {
    const { session, question: { body: { ctlkey } } } = await asked();
    const detach = await client.request('detach', { ctlkey });
    assert.equal(detach.body['code'], 'CTLKEY_UNKNOWN');
    client.ask('info', { ctlkey });
    await client.request('ping');
    bench.emit({ kind: 'failed', session, listener: 0, code: 'PEER_CLOSED', text: 'gone' });
    assert.deepEqual([(await client.next()).body['code'], (await client.next()).body['code']].sort(), ['CTLKEY_UNKNOWN', 'PEER_CLOSED']);
    const again = await asked();
    assert.deepEqual((await client.request('close', { ctlkey: again.question.body['ctlkey'] })).body, {});
    assert.deepEqual(bench.engine.last('close'), ['close', again.session, 'orderly']);
  });

  it('askPlainside with a backend or with a plainfd is BAD_ARGUMENT', async () => {
    const backend = { host: '127.0.0.1', port: 25 };
    const field = async (...request: Parameters<TestClient['request']>): Promise<unknown> => {
      const { body } = await client.request(...request);
      return [body['code'], body['field']];
    };
    const expected = ['BAD_ARGUMENT', 'body.askPlainside'];
    assert.deepEqual(await field('starttls', { role: 'server', askPlainside: true, backend }, [bench.pair()[0]]), expected);
    assert.deepEqual(await field('starttls', { role: 'server', askPlainside: true }, [bench.pair()[0], bench.pair()[0]]), expected);
    assert.deepEqual(await field('listen', { askPlainside: true, backend }, [bench.listenFd()]), expected);
  });

  it('a name\'s answer may not bring the side that plainside asks for', async () => {
    const session = await bench.startTls(client, { askPlainside: true, askServername: true });
    bench.emit({ kind: 'hello', session, listener: 0, alpn: [] });
    await answer('servername', (await question('servername')).id, {}, bench.pair()[0]);
    assert.deepEqual(bench.engine.last('decide'), ['decide', session, { refuse: true }, -1]);
  });

  describe('of a listener', () => {
    let listener: number;
    beforeEach(async () => {
      listener = (await client.request('listen', { askPlainside: true, askServername: true }, [bench.listenFd()])).body['listener'] as number;
    });

    it('the member that was asked for the name is asked for the side, and gets the connection', async () => {
      bench.emit({ kind: 'hello', session: 1, listener, alpn: [] });
      const name = await question('servername');
      assert.deepEqual([name.body['listener'], 'request' in name.body], [listener, false]);
      await answer('servername', name.id);
      bench.emit(established(1, { listener, waiting: true }));
      const { id, body } = await question('plainside');
      assert.deepEqual([body['listener'], 'request' in body], [listener, false]);
      await answer('plainside', id, {}, bench.pair()[0]);
      bench.emit({ kind: 'supplied', session: 1, plainfd: -1 });
      const event = await client.next();
      assert.deepEqual([event.message.op, event.fds.length, event.body], ['connection', 0, { listener, ctlkey: body['ctlkey'], info: body['info'] }]);
    });

    const endings: [string, string][] = [['TIMEOUT', 'timeout'], ['PEER_CLOSED', 'reset'], ['PLAINSIDE_REFUSED', 'error'], ['FD_KIND', 'error']];
    for (const [code, how] of endings) {
      it(`a session that ends with ${code} before it has the side is closed with how ${how}, and never a connection`, async () => {
        bench.emit(established(1, { listener, waiting: true }));
        const { body } = await question('plainside');
        bench.emit({ kind: 'failed', session: 1, listener, code, text: 'why' });
        const event = await client.next();
        assert.deepEqual([event.message.op, event.body], ['closed', { ctlkey: body['ctlkey'], how, detail: 'why', octetsReceived: 0, octetsSent: 0 }]);
        assert.equal(bench.front.sessions.size, 0);
      });
    }

    it('a connection with a socket pair comes with its end', async () => {
      bench.emit(established(1, { listener, waiting: true }));
      await answer('plainside', (await question('plainside')).id);
      bench.emit({ kind: 'supplied', session: 1, plainfd: bench.plainPair() });
      const { message, fds } = await client.next();
      assert.deepEqual([message.op, fds.length], ['connection', 1]);
      for (const fd of fds) sockets.close(fd);
    });
  });

  describe('servername', () => {
    async function hello(body: object = {}): Promise<{ session: number; question: Question }> {
      const session = await bench.startTls(client, { askServername: true, ...body });
      bench.emit({ kind: 'hello', session, listener: 0, servername: 'localhost', alpn: ['h2'] });
      return { session, question: await question('servername') };
    }

    it('names the request that it belongs to: with several under way, each has its own', async () => {
      const first = await hello();
      const second = await hello();
      assert.notEqual(first.question.body['request'], second.question.body['request']);
      for (const one of [second, first]) {
        await answer('servername', one.question.id);
        bench.emit({ kind: 'failed', session: one.session, listener: 0, code: 'HANDSHAKE_FAILED', text: '' });
        const { message } = await client.next();
        assert.equal('id' in message && message.id, one.question.body['request']);
      }
    });

    it('the answer\'s application protocols go to the engine, an empty list too; without them there are none', async () => {
      for (const alpn of [['imap', 'smtp'], []]) {
        const { session, question: { id } } = await hello();
        await answer('servername', id, { alpn });
        assert.deepEqual(bench.engine.last('decide'), ['decide', session, { selector: { localid: undefined }, alpn }, -1]);
      }
      await answer('servername', (await hello()).question.id);
      assert.equal('alpn' in (bench.engine.last('decide')[2] as object), false);
    });

    it('an empty protocol name refuses', async () => {
      const { session, question: { id } } = await hello();
      await answer('servername', id, { alpn: ['h2', ''] });
      assert.deepEqual(bench.engine.last('decide'), ['decide', session, { refuse: true }, -1]);
    });
  });

  it('taken is for hand-off sockets: a pool answers BAD_STATE', async () => {
    assert.equal((await client.request('taken', { ctlkey: Buffer.alloc(16) })).body['code'], 'BAD_STATE');
  });
});
