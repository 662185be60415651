/** The proxy's end of hand-off sockets: asking about a name, and giving connections. */
import assert from 'node:assert/strict';
import { mock } from 'node:test';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { TlsPoolError, highestMaxMessageOctets } from 'libtlspool/protocol';
import type { EventBody, ToClientMessage } from 'libtlspool/protocol';
import { HandoffOffer } from 'tlspool-proxy/dist/handoff/fd.js';
import { descriptors } from '../support/index.js';
import { RawListener, readSome } from '../support/handoff-wire.js';
import type { RawBackend } from '../support/handoff-wire.js';
import { code } from './handoff-fixture.js';
import { Offers, bodyOf, client } from './handoff-proxy-fixture.js';
import { key, sessionInfo } from './lib-fake-pool.js';

describe('proxy: hand-over by descriptor', () => {
  const at = new Offers();

  describe('giving', () => {
    it('without relay: detached first, then the connection with its preamble and the client\'s address, and the proxy leaves when it is taken', async () => {
      const { offer, backend } = await at.connected();
      const given = offer.give(at.session);
      const { message, fds } = await backend.got();
      assert.deepEqual(at.session.asked, ['detach']);
      assert.deepEqual(message, { type: 'event', op: 'connection', body: {
        listener: 0, ctlkey: key(1), info: { ...sessionInfo, remote: client }, preamble: { protocol: 'mysql', tls: true, state: Buffer.from('state') },
      } });
      const [plainfd] = fds as [OwnedFd];
      sockets.send(plainfd, Buffer.from('from the backend'));
      sockets.close(plainfd);
      assert.equal(await readSome(at.inner), 'from the backend');
      assert.deepEqual(await backend.ask('taken', { ctlkey: key(1) }), { type: 'reply', op: 'taken', id: 1, body: {} });
      const handed = await given;
      assert.deepEqual({ to: handed.to, followed: handed.followed }, { to: at.listener.path, followed: false });
      await handed.done;
      assert.equal(await backend.next(), 'end');
    });

    it('is not done before the backend says that it has the connection', async () => {
      const { offer, backend } = await at.connected();
      let isGiven = false;
      const given = offer.give(at.session).then(() => { isGiven = true; });
      await at.event(backend);
      // An exchange on the same connection: had it been done, this would come too late.
      assert.equal(bodyOf(await backend.ask('info', { ctlkey: key(1) })).code, 'BAD_STATE');
      assert.equal(isGiven, false);
      await backend.ask('taken', { ctlkey: key(1) });
      await given;
    });

    it('a taken for another control key is CTLKEY_UNKNOWN, as is one without; the right one is accepted after that', async () => {
      const { offer, backend } = await at.connected();
      const given = offer.give(at.session);
      await at.event(backend);
      assert.equal(bodyOf(await backend.ask('taken', { ctlkey: key(2) })).code, 'CTLKEY_UNKNOWN');
      assert.equal(bodyOf(await backend.ask('taken', {})).code, 'CTLKEY_UNKNOWN');
      assert.equal((await backend.ask('taken', { ctlkey: key(1) })).type, 'reply');
      await given;
    });

    it('a backend that asks for more right behind taken still gets the reply to that, and then the end', async () => {
      const { offer, backend } = await at.connected();
      const given = offer.give(at.session);
      await at.event(backend);
      backend.send({ type: 'request', op: 'taken', id: 1, body: { ctlkey: key(1) } });
      backend.send({ type: 'request', op: 'info', id: 2, body: { ctlkey: key(1) } });
      await given;
      assert.deepEqual((await backend.got()).message, { type: 'reply', op: 'taken', id: 1, body: {} });
      assert.equal(await backend.next(), 'end');
    });

    it('nobody listens: BACKEND_FAILED names the path, and the session was not given up', async () => {
      const nowhere = { ...at.config(), path: `${at.listener.path}.none` };
      await assert.rejects(HandoffOffer.connect(nowhere, { deadlineMs: 1000 }), code('BACKEND_FAILED', /backend\.sock\.none cannot be connected.*ENOENT/u));
      assert.deepEqual(at.session.asked, []);
    });

    it('without a descriptor left to watch with it is BACKEND_FAILED, and the backend is hung up on', async () => {
      const poll = mock.method(sockets, 'poll', () => { throw new TlsPoolError('SYSTEM', { text: 'fcntl: EMFILE', errno: -24, syscall: 'fcntl' }); });
      try {
        await assert.rejects(HandoffOffer.connect(at.config(), { deadlineMs: 1000 }), code('BACKEND_FAILED', /EMFILE/u));
      } finally {
        poll.mock.restore();
      }
      const backend = await at.listener.accept();
      assert.equal(await backend.next(), 'end');
      backend.close();
    });

    it('a backend that hangs up before taken is BACKEND_FAILED, and last words can be said on the descriptor', async () => {
      const { offer, backend } = await at.connected();
      const failed = assert.rejects(offer.give(at.session), code('BACKEND_FAILED', /hung up/u));
      await at.event(backend);
      backend.close();
      await failed;
      sockets.send(at.session.plainfd, Buffer.from('* BYE'));
      assert.equal(await readSome(at.inner), '* BYE');
    });

    it('a backend that does not take it in time is BACKEND_FAILED, and its taken is not answered any more', async () => {
      const { offer, backend } = await at.connected(false, 50);
      await assert.rejects(offer.give(at.session), code('BACKEND_FAILED', /within 50 ms/u));
      await at.event(backend);
      assert.throws(() => backend.send({ type: 'request', op: 'taken', id: 1, body: { ctlkey: key(1) } }), code('SYSTEM', /EPIPE/u));
      assert.equal(await backend.next(), 'end');
    });

    it('a session that is over before it can be detached is the pool\'s error, and nothing is handed over', async () => {
      at.session.answers['detach'] = new TlsPoolError('CTLKEY_UNKNOWN');
      const { offer, backend } = await at.connected();
      await assert.rejects(offer.give(at.session), code('CTLKEY_UNKNOWN'));
      offer.close();
      assert.equal(await backend.next(), 'end');
    });

    it('ends with ABORTED by the signal, before it connects and while it waits', async () => {
      const abort = new AbortController();
      const { offer, backend } = await at.connected(false, 5_000, abort.signal);
      const failed = assert.rejects(offer.give(at.session), code('ABORTED'));
      await at.event(backend);
      abort.abort();
      await failed;
      await assert.rejects(HandoffOffer.connect(at.config(), { deadlineMs: 1000, signal: abort.signal }), code('ABORTED'));
    });

    it('a full accept queue is waited for up to the deadline, and entered when there is room', async () => {
      const narrow = new RawListener(`${at.listener.path}.narrow`, 1);
      at.open.push(narrow);
      const full: OwnedFd[] = [];
      for (;;) {
        try { full.push(sockets.unixConnect(narrow.path, 'seqpacket')); } catch { break; }
      }
      const there = { ...at.config(), path: narrow.path };
      await assert.rejects(HandoffOffer.connect(there, { deadlineMs: 30 }), code('BACKEND_FAILED', /accepts no further connection within 30 ms/u));
      const waiting = HandoffOffer.connect(there, { deadlineMs: 5_000 });
      (await narrow.accept()).close();
      (await waiting).close();
      for (const fd of full) sockets.close(fd);
    });

    it('a certificate chain that does not fit into a packet is cut down to the leaf, and one that fits is whole', async () => {
      const give = async (chain: Buffer[]): Promise<number> => {
        at.session.info = { ...sessionInfo, peerCertificates: chain, localCertificate: Buffer.alloc(1000) };
        const { offer, backend } = await at.connected();
        const given = offer.give(at.session);
        const { body } = await at.event(backend);
        await backend.ask('taken', { ctlkey: key(1) });
        await given;
        return (body as EventBody<'connection'>).info.peerCertificates.length;
      };
      const most = highestMaxMessageOctets - 16_384 - 1000;
      const chain = [32_768, 32_768, 32_768, most - 3 * 32_768].map((octets) => Buffer.alloc(octets));
      assert.equal(await give(chain), 4);
      assert.equal(await give([...chain, Buffer.alloc(1)]), 1);
    });

    it('after 300 hand-overs the descriptors are at the baseline', async () => {
      const open_ = descriptors(process.pid).size;
      for (let n = 0; n < 300; n++) {
        const offer = await HandoffOffer.connect(at.config(), { deadlineMs: 5_000 });
        const backend = await at.listener.accept();
        const given = offer.give(at.session);
        await at.event(backend);
        await backend.ask('taken', { ctlkey: key(1) });
        await given;
        backend.close();
      }
      assert.equal(descriptors(process.pid).size, open_);
    });
  });

  describe('what a backend must not send', () => {
    const refusals: [what: string, send: (backend: RawBackend) => void, text: RegExp][] = [
      ['garbage', (backend) => backend.sendRaw(Buffer.from('not msgpack')), /cannot be understood/u],
      ['a packet of one octet more than the limit', (backend) => backend.sendRaw(Buffer.alloc(highestMaxMessageOctets + 1)), /no message/u],
      ['five descriptors', (backend) => backend.sendRaw(Buffer.from([0x80]), Array.from({ length: 5 }, () => backend.fd)), /no message/u],
      ['an answer that nobody asked for', (backend) => backend.send({ type: 'answer', op: 'servername', id: 1, body: {} }), /nobody asked/u],
    ];
    for (const [what, send, text] of refusals) {
      it(`${what}: BACKEND_FAILED, and the connection is closed`, async () => {
        const { offer, backend } = await at.connected();
        const failed = assert.rejects(offer.give(at.session), code('BACKEND_FAILED', text));
        await at.event(backend);
        send(backend);
        await failed;
        for (let next = await backend.next(); next !== 'end'; next = await backend.next()) assert.equal(next.message.type, 'error');
      });
    }

    it('a descriptor with taken is FD_COUNT and closed; an operation that there is not is UNKNOWN_OP, a field too much BAD_MESSAGE; then it may be taken', async () => {
      const { offer, backend } = await at.connected();
      const given = offer.give(at.session);
      await at.event(backend);
      assert.equal(bodyOf(await backend.ask('taken', { ctlkey: key(1) }, [backend.fd])).code, 'FD_COUNT');
      // The golden form of a request, with another op and with another field.
      const raw = (hex: string): Promise<ToClientMessage> => { backend.sendRaw(Buffer.from(hex, 'hex')); return backend.got().then(({ message }) => message); };
      assert.equal(bodyOf(await raw('84a474797065a772657175657374a26f70a474616b65a2696407a4626f647980')).code, 'UNKNOWN_OP');
      assert.equal(bodyOf(await raw('84a474797065a772657175657374a26f70a574616b656ea2696408a4626f647981a17801')).code, 'BAD_MESSAGE');
      assert.equal((await backend.ask('taken', { ctlkey: key(1) })).type, 'reply');
      await given;
    });
  });

  describe('asking for the server name', () => {
    const ask = async (reply: object, fds: readonly OwnedFd[] = []): Promise<unknown> => {
      const { offer, backend } = await at.connected();
      const verdict = offer.ask({ servername: 'a.example', alpn: ['imap'], remote: client });
      verdict.catch(() => undefined);
      const { message } = await backend.got();
      assert.deepEqual(message, { type: 'callback', op: 'servername', id: 1, body: { servername: 'a.example', alpn: ['imap'], remote: client } });
      backend.send({ type: 'answer', op: 'servername', id: 1, ...reply }, fds);
      return verdict;
    };

    it('an empty answer is yes, and what it names is passed on', async () => {
      assert.equal(await ask({ body: {} }), true);
      assert.deepEqual(await ask({ body: { localid: 'b.example', alpn: ['pop3'] } }), { localid: 'b.example', alpn: ['pop3'] });
    });
    it('refuse and an error are no', async () => {
      assert.equal(await ask({ body: { refuse: true, localid: 'b.example' } }), false);
      assert.equal(await ask({ type: 'error', body: { code: 'NAME_REFUSED', text: 'no' } }), false);
    });
    it('an answer to another question is BACKEND_FAILED, as is one with a descriptor', async () => {
      await assert.rejects(ask({ id: 2, body: {} }), code('BACKEND_FAILED'));
      await assert.rejects(ask({ body: {} }, [at.session.plainfd]), code('BACKEND_FAILED'));
    });
    it('no answer in time, and a backend that hangs up, are BACKEND_FAILED', async () => {
      const { offer } = await at.connected(false, 30);
      await assert.rejects(offer.ask({ alpn: [] }), code('BACKEND_FAILED', /within 30 ms/u));
      const other = await at.connected();
      const failed = assert.rejects(other.offer.ask({ alpn: [] }), code('BACKEND_FAILED', /hung up/u));
      other.backend.close();
      await failed;
    });
    it('the connection comes over the same hand-off connection as the question', async () => {
      const { offer, backend } = await at.connected();
      const asked = offer.ask({ alpn: [] });
      await backend.got();
      assert.equal(bodyOf(await backend.ask('taken', { ctlkey: key(1) })).code, 'BAD_STATE');
      backend.send({ type: 'answer', op: 'servername', id: 1, body: {} });
      assert.equal(await asked, true);
      const given = offer.give(at.session);
      assert.equal((await at.event(backend)).op, 'connection');
      await backend.ask('taken', { ctlkey: key(1) });
      await given;
    });
    it('a handshake that fails afterwards hangs up on the backend', async () => {
      const { offer, backend } = await at.connected();
      offer.close();
      assert.equal(await backend.next(), 'end');
    });
  });

  describe('without TLS', () => {
    const plain = (ahead: Uint8Array): Parameters<HandoffOffer['givePlain']>[0] => ({ plainfd: at.session.plainfd, protocol: 'imap', ahead, remote: client, local: undefined });

    it('the client\'s socket goes with what was read from it, and the proxy leaves when it is taken', async () => {
      const { offer, backend } = await at.connected(true);
      const given = offer.givePlain(plain(Buffer.from('a1 LOGIN')));
      assert.deepEqual(await at.event(backend), { type: 'event', op: 'plainConnection', body: { preamble: { protocol: 'imap', tls: false }, remote: client, ahead: Buffer.from('a1 LOGIN') } });
      assert.equal(bodyOf(await backend.ask('taken', { ctlkey: key(1) })).code, 'CTLKEY_UNKNOWN');
      // There is no session to relay for.
      assert.deepEqual((await backend.ask('taken', {})).body, {});
      assert.equal((await given).followed, false);
      assert.equal(await backend.next(), 'end');
      assert.deepEqual(at.session.asked, []);
    });

    it('32,768 octets go ahead, one more is PREAMBLE', async () => {
      const { offer, backend } = await at.connected();
      await assert.rejects(offer.givePlain(plain(Buffer.alloc(32_769))), code('PREAMBLE'));
      const given = offer.givePlain(plain(Buffer.alloc(32_768)));
      await at.event(backend);
      await backend.ask('taken', {});
      await given;
    });
  });
});
