import assert from 'node:assert/strict';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { benchForEach, closed, established, userA, userB } from './api-support.js';
import type { TestClient , Bench} from './api-support.js';

interface Open { readonly session: number; readonly ctlkey: Uint8Array }

describe('sessions of a client', () => {
  let bench: Bench;
  benchForEach(() => bench, (made) => { bench = made; });

  async function open(client: TestClient, body: object = {}): Promise<Open> {
    const session = await bench.startTls(client, body);
    bench.emit(established(session));
    return { session, ctlkey: (await client.next()).body['ctlkey'] as Uint8Array };
  }

  describe('control', () => {
    for (const op of ['prng', 'info', 'reauthenticate', 'detach', 'reattach', 'close'] as const) {
      it(`${op} refuses unknown, foreign and stale keys in the same words`, async () => {
        const [owner, other] = [await bench.client(userA), await bench.client(userA)];
        const { session, ctlkey } = await open(owner);
        const ask = async (client: TestClient, key: Uint8Array) => (await client.request(op, { ctlkey: key, ...(op === 'prng' && { label: 'EXPORTER-x', length: 1 }) })).body;
        const unknown = await ask(owner, Buffer.alloc(16));
        assert.equal(unknown['code'], 'CTLKEY_UNKNOWN');
        assert.deepEqual(await ask(other, ctlkey), unknown);
        bench.emit(closed(session));
        await owner.next();
        assert.deepEqual(await ask(owner, ctlkey), unknown);
      });
    }

    it('prng is answered with the octets of the engine', async () => {
      const client = await bench.client();
      const { session, ctlkey } = await open(client);
      client.ask('prng', { ctlkey, label: 'EXPORTER-test', context: Buffer.alloc(0), length: 4096 });
      await client.request('ping').catch(() => undefined);
      const [, number, request, label, context, length] = bench.engine.last('exporter');
      assert.deepEqual([number, label, (context as Buffer).length, length], [session, 'EXPORTER-test', 0, 4096]);
      bench.emit({ kind: 'answer', request: request as number, octets: Buffer.alloc(4096, 7) });
      assert.deepEqual((await client.next()).body['octets'], Buffer.alloc(4096, 7));
    });

    it('an exporter without a context is not one with an empty context (RFC 5705 section 4)', async () => {
      const client = await bench.client();
      const { ctlkey } = await open(client);
      client.ask('prng', { ctlkey, label: 'EXPORTER-test', length: 1 });
      await client.request('ping').catch(() => undefined);
      assert.equal(bench.engine.last('exporter')[4], null);
    });

    for (const label of ['client finished', 'server finished', 'master secret', 'key expansion', 'extended master secret', 'EXPORTER-\u00e9', 'EXPORTER\n', '']) {
      it(`the exporter label ${JSON.stringify(label)} is refused`, async () => {
        const client = await bench.client();
        const { ctlkey } = await open(client);
        const { body } = await client.request('prng', { ctlkey, label, length: 1 });
        assert.deepEqual([body['code'], body['field']], ['EXPORTER', 'body.label']);
      });
    }

    it('an exporter of no octets is refused', async () => {
      const client = await bench.client();
      const { ctlkey } = await open(client);
      assert.equal((await client.request('prng', { ctlkey, label: 'EXPORTER-x', length: 0 })).body['code'], 'EXPORTER');
    });

    it('info is answered with the session and its channel bindings', async () => {
      const client = await bench.client();
      const { ctlkey } = await open(client);
      client.ask('info', { ctlkey });
      await client.request('ping').catch(() => undefined);
      bench.emit({ kind: 'answer', request: bench.engine.last('bindings')[2] as number, bindings: { tlsExporter: Buffer.alloc(32, 1) } });
      const { body } = await client.next();
      assert.deepEqual(body['tlsExporter'], Buffer.alloc(32, 1));
      assert.equal((body['info'] as { protocol: string }).protocol, 'TLSv1.3');
    });

    it('a request that the engine has not answered when the session ends is answered then', async () => {
      const client = await bench.client();
      const { session, ctlkey } = await open(client);
      const id = client.ask('info', { ctlkey });
      await client.request('ping').catch(() => undefined);
      bench.emit(closed(session));
      const answers = [await client.next(), await client.next()];
      assert.deepEqual(answers.map(({ message }) => message.type).sort(), ['error', 'event']);
      const error = answers.find(({ message }) => message.type === 'error');
      assert.deepEqual([error?.message.op, error !== undefined && 'id' in error.message && error.message.id], ['info', id]);
    });

    it('close is orderly, with abort at once, and abort may follow', async () => {
      const client = await bench.client();
      const { session, ctlkey } = await open(client);
      await client.request('close', { ctlkey });
      assert.deepEqual(bench.engine.last('close'), ['close', session, 'orderly']);
      await client.request('close', { ctlkey, abort: true });
      assert.deepEqual(bench.engine.last('close'), ['close', session, 'abort']);
    });
  });

  describe('ownership', () => {
    it('the sessions of a client that disconnects are ended in order', async () => {
      const client = await bench.client();
      const { session } = await open(client);
      client.close();
      await bench.client();
      assert.deepEqual(bench.engine.last('close'), ['close', session, 'orderly']);
      bench.emit(closed(session, { plainfd: bench.plainPair() }));
      assert.equal(bench.front.sessions.size, 0);
    });

    for (const [name, body, op] of [['forked', { fork: true }, undefined], ['detached', {}, 'detach']] as const) {
      it(`a ${name} session outlives its client and can be reattached`, async () => {
        const client = await bench.client(userA);
        const { ctlkey } = await open(client, body);
        if (op !== undefined) await client.request(op, { ctlkey });
        client.close();
        const other = await bench.client(userB);
        assert.equal(bench.engine.named('close').length, 0);
        assert.equal((await other.request('reattach', { ctlkey })).message.type, 'reply');
      });
    }

    it('a detached session cannot be taken by a client that may not use its identity', async () => {
      const client = await bench.client(userA);
      const { ctlkey } = await open(client);
      await client.request('detach', { ctlkey });
      bench.access.identities = ({ uid }) => uid !== userB.uid;
      assert.equal((await (await bench.client(userB)).request('reattach', { ctlkey })).body['code'], 'CTLKEY_UNKNOWN');
      assert.equal((await (await bench.client(userA)).request('reattach', { ctlkey })).message.type, 'reply');
    });
  });

  describe('the end', () => {
    it('is told to the owner before the plain-text side is closed', async () => {
      const client = await bench.client();
      const { session, ctlkey } = await open(client);
      const [ours, theirs] = sockets.socketpair('stream');
      try {
        bench.emit(closed(session, { plainfd: theirs, how: 'truncated', alert: 40, detail: `a\0${'\u00e9'.repeat(600)}` }));
        assert.notEqual(sockets.pollWait(ours, 8192, 0), 0, 'closed at once, because the event could be sent at once');
        const { message, body } = await client.next();
        assert.equal(message.op, 'closed');
        assert.deepEqual([body['how'], body['alert'], Buffer.compare(body['ctlkey'] as Uint8Array, ctlkey)], ['truncated', 40, 0]);
        assert.ok(Buffer.byteLength(body['detail'] as string) <= 512);
      } finally {
        sockets.close(ours);
      }
    });

    it('of a client that does not read keeps the plain-text side open until the event was sent', async () => {
      const client = await bench.client();
      const { session } = await open(client);
      client.pause();
      const filler = await fill(client);
      const [ours, theirs] = sockets.socketpair('stream');
      try {
        bench.emit(closed(session, { plainfd: theirs }));
        assert.equal(sockets.pollWait(ours, 8192, 0), 0, 'still open');
        client.resume();
        for (let event = await client.next(); event.message.op !== 'closed'; event = await client.next()) for (const fd of event.fds) sockets.close(fd);
        assert.notEqual(sockets.pollWait(ours, 8192, 1000), 0);
      } finally {
        sockets.close(ours);
        assert.ok(filler > 0);
      }
    });

    it('of a client that left with events unsent leaves nothing open', async () => {
      const client = await bench.client();
      const { session } = await open(client);
      client.pause();
      await fill(client);
      bench.emit(closed(session, { plainfd: bench.plainPair() }));
      client.close();
      await bench.client();
    });

    it('of a session that nobody knows closes what comes with it', () => {
      bench.emit(closed(4711, { plainfd: bench.plainPair() }), { kind: 'failed', session: 4712, listener: 3, code: 'HANDSHAKE_FAILED', text: 'x' });
    });
  });

  /** Sends connection events until the client's socket is full; returns how many wait. */
  async function fill(client: TestClient): Promise<number> {
    const listenfd: OwnedFd = bench.listenFd();
    client.resume();
    const { body } = await client.request('listen', {}, [listenfd]);
    client.pause();
    const [connection] = bench.front.clients;
    assert.ok(connection);
    let session = 10_000;
    while (!connection.isClogged && session < 20_000) bench.emit(established(session += 1, { listener: body['listener'] as number, localCertificate: Buffer.alloc(8000) }));
    assert.equal(connection.isClogged, true);
    return session - 10_000;
  }
});
