/** What goes beyond one STARTTLS in the V2 dialect: identity selection, PIN entry, certificates on the fly, and asking for a certificate anew. */
import assert from 'node:assert/strict';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { codec, commands } from 'tlspool/dist/v2/frames.js';
import { PoolWire, expectBaseline, makeCa, needProgram, run, trust } from '../support/index.js';
import type { Baseline } from '../support/index.js';
import { Fds, V2Wire, begin, connect, ends, expectError, flags, flows, frameOf, headOf, newKey, plaintext, startV2Pool } from '../support/v2/index.js';
import type { Start, V2Pool } from '../support/v2/index.js';

const wantDbentry = 0x100;
const dbentry = 0x1000;
const peerSubject = 0x5280_0000;

describe('V2: services', () => {
  let v2: V2Pool;
  let baseline: Baseline;
  let fds: Fds;
  let one: V2Wire;
  let two: V2Wire;
  let third: V2Wire;
  before(async () => {
    v2 = await startV2Pool({
      identities: [{ localid: 'localhost', trust: true }, ...['alice', 'bob'].map((localid) => ({ localid, usage: 'clientAuth' as const, sans: [`email:${localid}@example.org`], trust: true }))],
      config: { onTheFly: { ca: { certificate: 'ca/ca.crt', key: 'ca/ca.key' }, names: ['*.made.example', 'carol@example.org'] } },
    });
  });
  after(() => v2.pool.stop());
  beforeEach(() => {
    baseline = v2.pool.baseline();
    fds = new Fds();
    [one, two, third] = [new V2Wire(v2.socket), new V2Wire(v2.socket), new V2Wire(v2.socket)];
  });
  afterEach(async () => {
    for (const wire of [one, two, third]) wire.close();
    fds.close();
    await expectBaseline(v2.pool, baseline);
  });

  const register = (wire: V2Wire, { flags: asked = 0, timeout = 30 }: { flags?: number; timeout?: number } = {}): void => {
    wire.send(frameOf(commands.LIDENTRY_REGISTER, 'lidentry', { flags: asked, timeout }, { reqid: 55 }));
    wire.ping();
  };
  /** A client over a new pair whose server, on `two`, wants a certificate. */
  function startClient(fields: Start = {}, reqid = 7): void {
    const [left, right] = fds.pair();
    begin(two, fds, left, { flags: flags.server, localid: 'localhost', ctlkey: newKey() }, { reqid });
    begin(one, fds, right, { flags: flags.client, remoteid: 'user@localhost', ctlkey: newKey(), ...fields }, { reqid });
  }
  const subjectOf = (wire: V2Wire, ctlkey: Buffer): string => {
    const reply = wire.request(frameOf(commands.INFO, 'info', { ctlkey, kind: peerSubject, len: 0xffff }));
    const { len, buffer } = codec.read(reply, 'info');
    return headOf(reply).cmd === commands.INFO ? buffer.toString('latin1', 0, len) : 'none';
  };

  describe('LIDENTRY', () => {
    function question(wire: V2Wire): { frame: Buffer; localid: string; kind: number } {
      const frame = wire.next();
      const { reqid, cbid, cmd } = headOf(frame);
      assert.deepEqual([reqid, cmd, cbid !== 0], [55, commands.LIDENTRY_CALLBACK, true]);
      const { localid, remoteid, flags: kind, timeout, maxlevels } = codec.read(frame, 'lidentry');
      assert.equal(remoteid, 'user@localhost');
      assert.equal(maxlevels, 4);
      const fromNow = timeout - Date.now() / 1000;
      assert.ok(fromNow > 25 && fromNow <= 30, 'a time of day');
      return { frame, localid, kind };
    }
    function reply(wire: V2Wire, frame: Buffer, localid: string, cmd: number = commands.LIDENTRY_CALLBACK): void {
      codec.patch(frame, 'head', { cmd });
      codec.patch(frame, 'lidentry', { localid });
      wire.send(frame);
    }

    it('is told each candidate, then asked; its answer is the identity that is shown, and registers it anew', () => {
      register(third, { flags: wantDbentry | 0x81 });
      for (const chosen of ['alice', 'bob']) {
        startClient();
        const candidates: string[] = [];
        for (;;) {
          const { frame, localid, kind } = question(third);
          if ((kind & dbentry) === 0) {
            assert.deepEqual([kind, localid], [wantDbentry | 0x81, '']);
            reply(third, frame, chosen);
            break;
          }
          assert.equal(kind, wantDbentry | 0x81 | dbentry);
          candidates.push(localid);
          reply(third, frame, 'what is in here does not count');
        }
        assert.deepEqual(candidates.filter((localid) => localid !== 'localhost'), ['alice', 'bob']);
        const client = plaintext(one, fds);
        const server = plaintext(two, fds);
        flows(client.plainfd, server.plainfd, 'hello');
        assert.match(subjectOf(two, codec.read(server.last, 'starttls').ctlkey), new RegExp(`${chosen}$`, 'u'));
      }
    });
    it('is asked once without WANT_DBENTRY, and not at all for a request that names its localid', () => {
      register(third);
      startClient({ localid: 'bob' });
      flows(plaintext(one, fds).plainfd, plaintext(two, fds).plainfd, 'hello');
      assert.ok(third.isQuiet());
      startClient();
      const { frame, kind } = question(third);
      assert.equal(kind, 0);
      reply(third, frame, 'alice');
      flows(plaintext(one, fds).plainfd, plaintext(two, fds).plainfd, 'hello');
    });
    it('refuses by ERROR, and by a name that is no candidate: CONNECTION_DRIVER_SETUP; it is asked again the next time', () => {
      register(third);
      for (const [localid, cmd] of [['alice', commands.ERROR], ['nobody', commands.LIDENTRY_CALLBACK]] as const) {
        startClient();
        reply(third, question(third).frame, localid, cmd);
        expectError(one.next(), 'CONNECTION_DRIVER_SETUP', 7);
        expectError(two.next(), 'STIRRED_NOT_SHAKEN', 7);
      }
    });
    it('is asked one thing at a time', () => {
      register(third);
      startClient({}, 1);
      const first = question(third);
      startClient({}, 2);
      one.ping();
      assert.ok(third.isQuiet());
      reply(third, first.frame, 'alice');
      reply(third, question(third).frame, 'bob');
      // Both get on, in whatever order.
      for (let finals = 0; finals < 2;) {
        const frame = one.next();
        if (headOf(frame).cmd === commands.STARTTLS) finals += 1;
        else one.send(frame, fds.pair()[0]);
      }
    });
    it('is not asked for a program that has left while its question stood in line', () => {
      register(third);
      startClient();
      const { frame } = question(third);
      const fourth = new V2Wire(v2.socket);
      const [left, right] = fds.pair();
      begin(fourth, fds, left, { flags: flags.client, remoteid: 'user@localhost', ctlkey: newKey() });
      fourth.ping();
      fourth.close();
      ends(right);
      reply(third, frame, 'alice');
      flows(plaintext(one, fds).plainfd, plaintext(two, fds).plainfd, 'hello');
      third.ping();
    });
    it('that leaves in the middle of a question has refused', () => {
      register(third);
      startClient();
      question(third);
      third.close();
      expectError(one.next(), 'CONNECTION_DRIVER_SETUP', 7);
      expectError(two.next(), 'STIRRED_NOT_SHAKEN', 7);
    });
    it('is left alone when the program that asked leaves: its socket is closed, and the selector has its next question', () => {
      register(third);
      startClient();
      const { frame } = question(third);
      one.close();
      expectError(two.next(), 'STIRRED_NOT_SHAKEN', 7);
      reply(third, frame, 'alice');
      one = new V2Wire(v2.socket);
      startClient();
      reply(third, question(third).frame, 'alice');
      flows(plaintext(one, fds).plainfd, plaintext(two, fds).plainfd, 'hello');
    });
    it('that never answers has refused after its timeout, and its late answer is swallowed', () => {
      third.send(frameOf(commands.LIDENTRY_REGISTER, 'lidentry', { timeout: 1 }, { reqid: 55 }));
      third.ping();
      startClient();
      const frame = third.next();
      expectError(one.next(), 'CONNECTION_DRIVER_SETUP', 7);
      expectError(two.next(), 'STIRRED_NOT_SHAKEN', 7);
      reply(third, frame, 'alice');
      third.ping();
    });
    it('has one place per user, also against itself, which is free when its connection ends', () => {
      register(third);
      const registration = frameOf(commands.LIDENTRY_REGISTER, 'lidentry', { timeout: 30 }, { reqid: 9 });
      for (const wire of [two, third]) expectError(wire.request(registration), 'LIDENTRY_NOT_VACANT', 9);
      third.close();
      // One frame after the other until the pool has seen the end of that connection.
      for (;;) {
        two.send(registration);
        two.send(frameOf(commands.PING, 'ping', {}, { reqid: 10 }));
        if (headOf(two.next()).cmd === commands.PING) break;
        two.next();
      }
    });
  });

  describe('RENEGOTIATE', () => {
    const ask = (wire: V2Wire, ctlkey: Buffer, more = 0): Buffer =>
      wire.request(frameOf(commands.STARTTLS, 'starttls', { flags: flags.server | flags.renegotiate | flags.fork | more, ctlkey, localid: 'x', remoteid: 'y' }, { reqid: 31 }));
    const expectDone = (frame: Buffer, more = 0): void => {
      assert.deepEqual({ ...headOf(frame) }, { reqid: 31, cbid: 0, cmd: commands.STARTTLS }, codec.read(frame, 'error').message);
      const { localid, remoteid, flags: echoed } = codec.read(frame, 'starttls');
      assert.deepEqual([localid, remoteid, echoed], ['', '', flags.server | flags.renegotiate | more]);
    };

    it('asks the client for its certificate while octets flow, and without any callback', () => {
      const { server, client, serverKey } = connect(fds, { wire: two }, { wire: one, fields: { localid: 'alice' } });
      assert.equal(subjectOf(two, serverKey), 'none');
      flows(server, client, 'before');
      expectDone(ask(two, serverKey));
      assert.match(subjectOf(two, serverKey), /alice$/u);
      flows(client, server, 'after');
    });
    it('REQUEST_REMOTEID: a client that has none goes on; IGNORE_REMOTEID asks nobody', () => {
      const { server, client, serverKey } = connect(fds, { wire: two }, { wire: one });
      expectDone(ask(two, serverKey, flags.request), flags.request);
      expectDone(ask(two, serverKey, flags.ignore), flags.ignore);
      flows(client, server, 'hello');
    });
    it('without these a client that has none ends the session', () => {
      const { server, client, serverKey } = connect(fds, { wire: two }, { wire: one });
      expectError(ask(two, serverKey), 'STIRRED_NOT_SHAKEN', 31);
      ends(server);
      ends(client);
    });
    it('a root that a reload has taken away decides no more, also in sessions of before', async () => {
      const { server, serverKey } = connect(fds, { wire: two }, { wire: one, fields: { localid: 'alice' } });
      const folder = v2.pool.identityDir('localhost');
      const roots = readFileSync(path.join(folder, 'ca.crt'));
      const operator = new PoolWire(v2.pool.socket);
      try {
        trust(folder, await makeCa(path.join(path.dirname(v2.pool.socket), 'other')));
        operator.request('reload');
        expectError(ask(two, serverKey), 'STIRRED_NOT_SHAKEN', 31);
        ends(server);
      } finally {
        writeFileSync(path.join(folder, 'ca.crt'), roots);
        operator.request('reload');
        operator.close();
      }
    });
    it('is not for the client role', () => {
      const { clientKey } = connect(fds, { wire: two }, { wire: one });
      expectError(ask(one, clientKey), 'RENOGIATE_WOULD_BE_INSECURE', 31);
    });
  });

  describe('LOCALID_ONTHEFLY', () => {
    /** A server over a new pair, whose client asks for `servername`. */
    function serve(servername: string, fields: Start = {}): void {
      const [left, right] = fds.pair();
      begin(two, fds, left, { flags: flags.server | flags.ignore | flags.onTheFly, ctlkey: newKey(), ...fields });
      begin(one, fds, right, { flags: flags.client, remoteid: servername, ctlkey: newKey() });
    }
    it('a certificate is made for the name that the peer asks for, also when the program is asked first', () => {
      for (const [name, fields] of [['a.made.example', {}], ['b.made.example', { localid: 'b.made.example' }]] as const) {
        serve(name, fields);
        flows(plaintext(one, fds).plainfd, plaintext(two, fds).plainfd, 'hello');
      }
      serve('c.made.example', { flags: flags.server | flags.ignore | flags.onTheFly | flags.localidCheck });
      const asked = two.next();
      assert.equal(headOf(asked).cmd, commands.STARTTLS_LOCALID);
      const [ours, theirs] = fds.pair();
      two.send(asked, theirs);
      fds.drop(theirs);
      flows(plaintext(one, fds).plainfd, ours, 'hello');
      assert.equal(headOf(two.next()).cmd, commands.STARTTLS);
    });
    it('an identity that is there needs none', () => {
      serve('localhost');
      flows(plaintext(one, fds).plainfd, plaintext(two, fds).plainfd, 'hello');
    });
    it('a name that may not be signed is refused', () => {
      serve('www.example.org');
      for (const wire of [one, two]) expectError(wire.next(), 'STIRRED_NOT_SHAKEN');
    });
    it('in the client role a certificate is made for the localid', () => {
      startClient({ flags: flags.client | flags.onTheFly, localid: 'carol@example.org' });
      const client = plaintext(one, fds);
      const server = plaintext(two, fds);
      flows(client.plainfd, server.plainfd, 'hello');
      const name = Buffer.concat([Buffer.of(0x81, 17), Buffer.from('carol@example.org')]);
      const checked = two.request(frameOf(commands.INFO, 'info', { ctlkey: codec.read(server.last, 'starttls').ctlkey, kind: 0x5280_0002, len: name.length, buffer: name }));
      assert.equal(headOf(checked).cmd, commands.INFO, codec.read(checked, 'error').message);
      startClient({ flags: flags.client | flags.onTheFly, localid: 'mallory@example.org' });
      expectError(one.next(), 'CONNECTION_DRIVER_SETUP', 7);
      expectError(two.next(), 'STIRRED_NOT_SHAKEN', 7);
    });
  });
});

describe('V2: PINENTRY', () => {
  let v2: V2Pool;
  before(async () => { v2 = await startV2Pool(); });
  after(() => v2.pool.stop());

  const registration = (reqid: number): Buffer => frameOf(commands.PINENTRY, 'pinentry', { timeoutUs: 30_000_000 }, { reqid });
  function enter(wire: V2Wire, frame: Buffer, pin: string): void {
    codec.patch(frame, 'pinentry', { pin: Buffer.from(pin) });
    wire.send(frame);
  }

  it('is asked for the PIN of a key that is locked, again when it is wrong, and has one place', async () => {
    const fds = new Fds();
    const [one, two, pin] = [new V2Wire(v2.socket), new V2Wire(v2.socket), new V2Wire(v2.socket)];
    pin.send(registration(21));
    pin.ping();
    for (const wire of [one, pin]) expectError(wire.request(registration(22)), 'PINENTRY_NOT_VACANT', 22);
    const key = path.join(v2.pool.identityDir('localhost'), 'tls.key');
    const locked = `${path.dirname(v2.socket)}/locked.key`;
    await run(needProgram('openssl', 'openssl'), ['pkcs8', '-topk8', '-in', key, '-out', locked, '-passout', 'pass:12345678']);
    renameSync(locked, key);
    for (const [attempt, entered] of [[1, 'wrong'], [2, '12345678']] as const) {
      const asked = pin.next(15_000);
      assert.deepEqual([headOf(asked).reqid, headOf(asked).cmd], [21, commands.PINENTRY]);
      const { attempt: which, prompt, pin: field, tokenLabel } = codec.read(asked, 'pinentry');
      assert.deepEqual([which, prompt, tokenLabel], [attempt, 'Enter PIN: ', 'localhost']);
      assert.deepEqual(field, Buffer.alloc(128), 'no PIN comes back');
      enter(pin, asked, entered);
    }
    // Waits for the identity, if that is not open yet.
    const { server, client } = connect(fds, { wire: one }, { wire: two });
    flows(client, server, 'hello');
    assert.doesNotMatch(v2.pool.logLines().join('\n'), /12345678/u);
    for (const wire of [one, two, pin]) wire.close();
    fds.close();
  }).timeout(40_000);
});
