import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import type { BorrowedFd } from 'libtlspool/native';
import { sockets } from 'libtlspool/native';
import { Packr } from 'msgpackr';
import { Bench, benchForEach, closed, established, root, userA, userB } from './api-support.js';

const packr = new Packr({ useRecords: false, variableMapSize: true });

describe('requests to the pool', () => {
  let bench: Bench;
  benchForEach(() => bench, (made) => { bench = made; });

  describe('hello', () => {
    it('must come first: anything else is refused and the connection stays', async () => {
      const client = bench.connect();
      assert.equal((await client.request('ping')).body['code'], 'UNEXPECTED_MESSAGE');
      const { body } = await client.request('hello', { versions: [7, 1], client: 'test' });
      assert.deepEqual(body, { version: 1, pool: 'tlspool/test', maxMessageOctets: 65_536 });
      assert.equal((await client.request('ping')).message.type, 'reply');
    });

    it('is said once', async () => {
      const client = await bench.client();
      assert.equal((await client.request('hello', { versions: [1], client: 'x' })).body['code'], 'UNEXPECTED_MESSAGE');
    });

    it('without a common version is refused', async () => {
      const { body } = await bench.connect().request('hello', { versions: [2, 3], client: 'x' });
      assert.deepEqual([body['code'], body['field']], ['VERSION', 'body.versions']);
    });

    it('must come in time', async () => {
      bench.close();
      bench = new Bench({ handshakeMs: 20 });
      const silent = bench.connect();
      const talking = await bench.client();
      await silent.ended();
      assert.equal((await talking.request('ping')).message.type, 'reply', 'who has said hello stays');
    });
  });

  describe('messages that are not as the table says', () => {
    it('an unknown operation is answered with its id', async () => {
      const client = await bench.client();
      client.sendRaw(packr.pack({ type: 'request', op: 'frobnicate', id: 77, body: {} }));
      const { message, body } = await client.next();
      assert.deepEqual([message.type, message.op, 'id' in message && message.id, body['code']], ['error', 'frobnicate', 77, 'UNKNOWN_OP']);
      assert.equal((await client.request('ping')).message.type, 'reply', 'and the connection stays');
    });

    it('a bad field is answered with its path', async () => {
      const client = await bench.client();
      client.sendRaw(packr.pack({ type: 'request', op: 'ping', id: 5, body: { payload: 'text' } }));
      const { body } = await client.next();
      assert.deepEqual([body['code'], body['field']], ['BAD_MESSAGE', 'body.payload']);
    });

    it('garbage is answered with id 0 and ends the connection', async () => {
      const client = await bench.client();
      client.sendRaw(Buffer.from('not MessagePack at all'));
      const { message, body } = await client.next();
      assert.deepEqual([message.type, 'id' in message && message.id, body['code']], ['error', 0, 'BAD_MESSAGE']);
      await client.ended();
    });

    it('descriptors with an operation that takes none are closed and refused', async () => {
      const client = await bench.client();
      const { body } = await client.request('ping', {}, [bench.pair()[0]]);
      assert.equal(body['code'], 'FD_COUNT');
    });

    it('four descriptors get an answer with the id; a fifth ends the connection', async () => {
      const client = await bench.client();
      const fds = [...bench.pair(), ...bench.pair(), bench.pair()[0]];
      assert.equal((await client.request('ping', {}, fds.slice(0, 4))).body['code'], 'FD_COUNT');
      client.ask('ping', {}, fds);
      const { message, body } = await client.next();
      assert.deepEqual(['id' in message && message.id, body['code']], [0, 'FD_COUNT']);
      await client.ended();
    });

    it('an answer to nothing is ignored and its descriptor closed', async () => {
      const client = await bench.client();
      client.send({ type: 'answer', op: 'servername', id: 9, body: {} }, [bench.pair()[0]]);
      assert.equal((await client.request('ping')).message.type, 'reply');
    });
  });

  describe('who may', () => {
    it('an unknown user is told so in answer to hello, and the connection is closed', async () => {
      bench.access.connect = ({ uid }) => uid !== userA.uid;
      const refused = bench.connect(userA);
      assert.equal((await refused.request('hello', { versions: [1], client: 'x' })).body['code'], 'NOT_PERMITTED');
      await refused.ended();
      await bench.client(userB);
    });

    it('refused connections take no client\'s place, and only so many are kept', async () => {
      bench.access.connect = ({ uid }) => uid !== userA.uid;
      const refused = Array.from({ length: 40 }, () => bench.connect(userA));
      await refused[0]?.ended();
      assert.equal(refused[39]?.isEnded, false);
      await Promise.all(Array.from({ length: 5 }, () => bench.client(userB)));
    });

    it('one client more than the limit is refused; an operator still gets in', async () => {
      bench.access.permissions = (client, permission) => permission !== 'operator' || client.uid === 0;
      await Promise.all(Array.from({ length: 5 }, () => bench.client(userB)));
      const { body } = await bench.connect(userB).request('hello', { versions: [1], client: 'x' });
      assert.equal(body['code'], 'LIMIT_CLIENTS');
      assert.equal((await (await bench.client(root)).request('status')).message.type, 'reply');
    });

    for (const op of ['status', 'sessions', 'identities', 'reload'] as const) {
      it(`${op} is for operators only`, async () => {
        bench.access.permissions = (client, permission) => permission !== 'operator' || client.uid === 0;
        assert.equal((await (await bench.client(userA)).request(op)).body['code'], 'NOT_PERMITTED');
        assert.equal((await (await bench.client(root)).request(op)).message.type, 'reply');
      });
    }

    for (const [role, body] of [['server', {}], ['client', { remoteid: 'example.org' }]] as const) {
      it(`starttls as ${role} needs that permission`, async () => {
        const client = await bench.client(userA);
        await bench.startTls(client, { role, ...body });
        bench.access.permissions = (_client, permission) => permission !== role;
        const answer = await client.request('starttls', { role, ...body }, [bench.pair()[0]]);
        assert.equal(answer.body['code'], 'NOT_PERMITTED');
      });
    }

    it('a backend needs its own permission', async () => {
      const client = await bench.client(userA);
      const backend = { host: '127.0.0.1', port: 80 };
      await bench.startTls(client, { backend });
      bench.access.permissions = (_client, permission) => permission !== 'backend';
      assert.equal((await client.request('starttls', { role: 'server', backend }, [bench.pair()[0]])).body['code'], 'NOT_PERMITTED');
      assert.equal((await client.request('listen', { backend }, [bench.listenFd()])).body['code'], 'NOT_PERMITTED');
    });

    it('an identity that does not exist and one that is forbidden are refused in the same words', async () => {
      const client = await bench.client(userA);
      const missing = await client.request('starttls', { role: 'server', localid: 'nobody' }, [bench.pair()[0]]);
      bench.access.identities = () => false;
      const forbidden = await client.request('starttls', { role: 'server', localid: 'localhost' }, [bench.pair()[0]]);
      assert.equal(missing.body['code'], 'IDENTITY_UNKNOWN');
      assert.deepEqual(missing.body, forbidden.body);
    });
  });

  describe('starttls', () => {
    it('is answered with key, information and plainfd when the handshake is done', async () => {
      const client = await bench.client();
      const session = await bench.startTls(client);
      bench.emit(established(session, { plainfd: bench.plainPair() }));
      const { message, body, fds } = await client.next();
      assert.deepEqual([message.type, message.op], ['reply', 'starttls']);
      assert.equal((body['ctlkey'] as Uint8Array).length, 16);
      assert.equal(fds.length, 1);
      for (const fd of fds) sockets.close(fd);
    });

    for (const [code, seen] of [['CERT_REJECTED', 'CERT_REJECTED'], ['HANDSHAKE_TIMEOUT', 'HANDSHAKE_TIMEOUT'], ['NO_SUCH_CODE', 'INTERNAL']] as const) {
      it(`a handshake that fails with ${code} is answered with ${seen} and the engine's text`, async () => {
        const client = await bench.client();
        const session = await bench.startTls(client);
        bench.emit({ kind: 'failed', session, listener: 0, code, text: 'the reason' });
        const { body } = await client.next();
        assert.deepEqual([body['code'], body['text']], [seen, 'the reason']);
        assert.equal(bench.front.sessions.size, 0);
      });
    }

    it('takes connected stream sockets only', async () => {
      const client = await bench.client();
      const file = openSync('/dev/null', 'r') as BorrowedFd;
      for (const [fd, name] of [[file, 'a file'], [bench.listenFd(), 'a listening socket'], [bench.pair('seqpacket')[0], 'a seqpacket socket']] as const) {
        assert.equal((await client.request('starttls', { role: 'server' }, [fd])).body['code'], 'FD_KIND', name);
        if (name === 'a seqpacket socket') continue;
        assert.equal((await client.request('starttls', { role: 'server' }, [bench.pair()[0], fd])).body['code'], 'FD_KIND', `${name} as plainfd`);
      }
      closeSync(file);
      assert.equal(bench.engine.named('startTls').length, 0);
    });

    it('with both a plainfd and a backend is refused', async () => {
      const client = await bench.client();
      const { body } = await client.request('starttls', { role: 'server', backend: { path: '/x' } }, [bench.pair()[0], bench.pair()[0]]);
      assert.deepEqual([body['code'], body['field']], ['BAD_ARGUMENT', 'body.backend']);
    });

    const badBodies: readonly (readonly [string, object, string])[] = [
      ['a server with a remoteid', { role: 'server', remoteid: 'x' }, 'body.remoteid'],
      ['a server with a servername', { role: 'server', servername: 'x' }, 'body.servername'],
      ['a client with clientAuth', { role: 'client', remoteid: 'x', clientAuth: 'require' }, 'body.clientAuth'],
      ['a client that asks for callbacks', { role: 'client', remoteid: 'x', askServername: true }, 'body.askServername'],
      ['a client without a remoteid', { role: 'client' }, 'body.remoteid'],
      ['a client with an empty remoteid', { role: 'client', remoteid: '' }, 'body.remoteid'],
      ['an address as SNI', { role: 'client', remoteid: 'x', servername: '127.0.0.1' }, 'body.servername'],
      ['a deadline of nothing', { role: 'server', handshakeMs: 0 }, 'body.handshakeMs'],
      ['an empty protocol name', { role: 'server', alpn: ['h2', ''] }, 'body.alpn[1]'],
      ['a backend that is nowhere', { role: 'server', backend: {} }, 'body.backend'],
      ['a backend on port 0', { role: 'server', backend: { host: 'x', port: 0 } }, 'body.backend'],
      ['a backend in two places', { role: 'server', backend: { host: 'x', port: 1, path: '/x' } }, 'body.backend'],
    ];
    for (const [name, asked, field] of badBodies) {
      it(`${name} is refused with the field`, async () => {
        const { body } = await (await bench.client()).request('starttls', asked, [bench.pair()[0]]);
        assert.deepEqual([body['code'], body['field']], ['BAD_ARGUMENT', field]);
      });
    }

    const sni: readonly (readonly [object, string | undefined])[] = [
      [{ remoteid: 'example.org' }, 'example.org'], [{ remoteid: '192.0.2.1' }, undefined], [{ remoteid: '2001:db8::1' }, undefined],
      [{ remoteid: 'example.org', servername: '' }, undefined], [{ remoteid: 'example.org', servername: 'other.example' }, 'other.example'],
      [{ rejectUnauthorized: false }, undefined],
    ];
    for (const [asked, servername] of sni) {
      it(`a client with ${JSON.stringify(asked)} sends ${servername === undefined ? 'no SNI' : servername}`, async () => {
        await bench.startTls(await bench.client(), { role: 'client', ...asked });
        assert.equal((bench.engine.last('startTls')[2] as { servername?: string }).servername, servername);
      });
    }

    it('one session more than a user may have is refused, the last that it may have is not', async () => {
      bench.access.sessionsPerClient = 2;
      const client = await bench.client(userA);
      await bench.startTls(client);
      const second = await bench.startTls(client);
      assert.equal((await client.request('starttls', { role: 'server' }, [bench.pair()[0]])).body['code'], 'LIMIT_SESSIONS');
      await bench.startTls(await bench.client(userB));
      bench.emit({ kind: 'failed', session: second, listener: 0, code: 'PEER_CLOSED', text: '' });
      await client.next();
      await bench.startTls(client);
    });

    it('is refused when the handshakes in flight are at the limit', async () => {
      const client = await bench.client();
      bench.engine.handshakes = 10;
      assert.equal((await client.request('starttls', { role: 'server' }, [bench.pair()[0]])).body['code'], 'LIMIT_HANDSHAKES');
      bench.engine.handshakes = 9;
      await bench.startTls(client);
    });

    it('one outstanding request more than the limit is refused; the id of an outstanding one cannot be used again', async () => {
      const client = await bench.client();
      const session = await bench.startTls(client);
      client.send({ type: 'request', op: 'ping', id: 2, body: {} });
      assert.equal((await client.next()).body['code'], 'DUPLICATE_ID');
      bench.emit(established(session));
      const { ctlkey } = (await client.next()).body;
      const first = client.ask('prng', { ctlkey, label: 'EXPORTER-x', length: 1 });
      for (let count = 1; count < 4; count += 1) client.ask('prng', { ctlkey, label: 'EXPORTER-x', length: 1 });
      assert.equal((await client.request('ping')).body['code'], 'LIMIT_REQUESTS');
      bench.emit({ kind: 'answer', request: bench.engine.named('exporter')[0]?.[2] as number, octets: Buffer.alloc(1) });
      assert.equal(((await client.next()).message as { id?: number }).id, first, 'the first request still gets its answer');
      assert.equal((await client.request('ping')).message.type, 'reply');
    });

    it('handshakes are not counted among the outstanding requests: a proxy has one for each of its clients', async () => {
      const client = await bench.client();
      for (let count = 0; count < 9; count += 1) client.ask('starttls', { role: 'server' }, [bench.pair()[0]]);
      assert.equal((await client.request('ping')).message.type, 'reply');
    });

    it('a client that leaves during its handshake aborts it, and what the engine still reports is closed', async () => {
      const client = await bench.client();
      const session = await bench.startTls(client);
      client.close();
      await bench.client();
      assert.deepEqual(bench.engine.last('close'), ['close', session, 'abort']);
      bench.emit(established(session, { plainfd: bench.plainPair() }), closed(session, { plainfd: bench.plainPair() }));
      assert.equal(bench.front.sessions.size, 0);
      assert.equal(bench.front.starts.size, 0);
    });
  });

  it('a thousand identities come in pages that fit into a message, each once and in order', async () => {
    const certificate = { subject: 'x'.repeat(300), issuer: 'y'.repeat(300), serial: '1', keyType: 'EC P-256', fingerprint: 'f'.repeat(64), notBeforeMs: 0, notAfterMs: 1 };
    bench.store.summaries = Array.from({ length: 1000 }, (_, number) => ({
      localid: `n${String(number).padStart(4, '0')}`, names: [], revision: 1, source: 's', policy: 'modern', clientAuth: 'none', isDefault: false, certificates: [certificate], trustRoots: 0,
    }));
    const client = await bench.client();
    const seen: string[] = [];
    let after: unknown;
    do {
      const { body } = await client.request('identities', after === undefined ? {} : { after });
      seen.push(...(body['identities'] as { localid: string }[]).map(({ localid }) => localid));
      after = body['next'];
    } while (after !== undefined);
    assert.deepEqual(seen, bench.store.summaries.map(({ localid }) => localid));
  });

  it('thousands of sessions come in pages, each once and in order, whatever the pages are', async () => {
    const owner = { client: root, sessions: new Set<never>() };
    const numbers = Array.from({ length: 3000 }, (_, n) => n * 3 + 1);
    for (const number of [...numbers].reverse()) bench.front.sessions.accept(established(number, { servername: 'x'.repeat(200) }), owner);
    const client = await bench.client();
    for (const limit of [7, 500, undefined]) {
      const seen: number[] = [];
      let after: unknown;
      do {
        const { body } = await client.request('sessions', { ...(limit !== undefined && { limit }), ...(after !== undefined && { after }) });
        const page = (body['sessions'] as { session: number }[]).map(({ session }) => session);
        assert.ok(page.length > 0 && page.length <= (limit ?? 100));
        seen.push(...page);
        after = body['next'];
      } while (after !== undefined);
      assert.deepEqual(seen, numbers);
    }
  });

  it('an identity with more names than a message holds is shown with some, and does not hide the next', async () => {
    const summary = (localid: string, names: string[]): typeof bench.store.summaries[number] =>
      ({ localid, names, revision: 1, source: 's', policy: 'modern', clientAuth: 'none', isDefault: false, certificates: [], trustRoots: 0 });
    const names = Array.from({ length: 256 }, (_, n) => `${n}.`.padEnd(255, 'x'));
    bench.store.summaries = [summary('big', names), summary('small', ['a'])];
    const client = await bench.client();
    const { body: first } = await client.request('identities');
    const shown = (first['identities'] as { names: string[] }[])[0]?.names ?? [];
    assert.ok(shown.length >= 100 && shown.length < 256, `${shown.length}`);
    assert.deepEqual(shown, names.slice(0, shown.length));
    const { body: second } = await client.request('identities', { after: 'big' });
    assert.deepEqual((second['identities'] as { localid: string }[]).map(({ localid }) => localid), ['small']);
  });

  it('a reload that changed more than a message holds is still a success', async () => {
    const client = await bench.client();
    bench.reload = () => Promise.resolve({ changed: Array.from({ length: 2000 }, (_, n) => `${n}`.padEnd(255, 'x')), unchanged: 2 });
    const { message, body } = await client.request('reload');
    assert.equal(message.type, 'reply', JSON.stringify(body));
    assert.ok((body['changed'] as string[]).length >= 100);
  });

  it('reload passes on what changed, and why it failed', async () => {
    const client = await bench.client();
    bench.reload = () => Promise.resolve({ changed: ['localhost'], unchanged: 2 });
    assert.deepEqual((await client.request('reload')).body, { changed: ['localhost'], unchanged: 2 });
    bench.reload = () => Promise.reject(Object.assign(new Error('tls.key: no'), { code: 'IDENTITY_BAD' }));
    const { body } = await client.request('reload');
    assert.deepEqual([body['code'], body['text']], ['IDENTITY_BAD', 'tls.key: no']);
  });

  it('an error that nobody foresaw is INTERNAL for the client, and its text stays in the log', async () => {
    const client = await bench.client();
    bench.reload = () => Promise.reject(new Error('a detail that is not for clients'));
    const { body } = await client.request('reload');
    assert.equal(body['code'], 'INTERNAL');
    assert.equal(JSON.stringify(body).includes('detail'), false);
    assert.ok(bench.log.some((line) => line.includes('a detail that is not for clients')));
  });
});
