import assert from 'node:assert/strict';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { CtlkeyMaker, SessionTable, ctlkeyToOctets, factsOf, isSameCtlkey, mayHappen, nextState, sessionInfoOf, transitions } from 'tlspool/dist/session/index.js';
import type { Owner, Session, SessionEvent, SessionState } from 'tlspool/dist/session/index.js';
import { established, userA, userB } from './api-support.js';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;
const states = Object.keys(transitions) as SessionState[];
const events: readonly SessionEvent[] = ['established', 'waits', 'supplied', 'failed', 'control', 'detach', 'reattach', 'close', 'ended'];
const owner = (client = userA): Owner => ({ client, sessions: new Set<Session>() });
const unknown = { name: 'TlsPoolError', code: 'CTLKEY_UNKNOWN', message: 'no session that this client may control has this control key' };

describe('session states', () => {
  const allowed: Readonly<Record<SessionState, Partial<Record<SessionEvent, SessionState>>>> = {
    handshake: { established: 'open', waits: 'waiting', failed: 'closed', close: 'closing', ended: 'closed' },
    waiting: { supplied: 'open', control: 'waiting', failed: 'closed', close: 'closing', ended: 'closed' },
    open: { control: 'open', detach: 'detached', close: 'closing', ended: 'closed' },
    detached: { reattach: 'open', close: 'closing', ended: 'closed' },
    closing: { established: 'closing', waits: 'closing', supplied: 'closing', failed: 'closed', close: 'closing', ended: 'closed' },
    closed: {},
  };
  for (const state of states) {
    for (const event of events) {
      const next = allowed[state][event];
      it(next === undefined ? `'${event}' cannot happen to a session that is '${state}'` : `'${event}' takes a session from '${state}' to '${next}'`, () => {
        assert.equal(mayHappen(state, event), next !== undefined);
        if (next === undefined) assert.throws(() => nextState(state, event), { code: 'INTERNAL' });
        else assert.equal(nextState(state, event), next);
      });
    }
  }
});

describe('control keys', () => {
  it('are 16 octets and never repeat, over the edges of the batches they are drawn from', () => {
    const maker = new CtlkeyMaker();
    const keys = Array.from({ length: 2000 }, () => maker.make());
    assert.equal(new Set(keys).size, keys.length);
    for (const key of keys) assert.equal(ctlkeyToOctets(key).length, 16);
  });

  it('are equal only when every octet is', () => {
    const key = new CtlkeyMaker().make();
    assert.equal(isSameCtlkey(key, key), true);
    for (let place = 0; place < 16; place += 1) {
      const octets = ctlkeyToOctets(key);
      octets[place] = (octets[place] ?? 0) ^ 1;
      assert.equal(isSameCtlkey(key, octets.toString('latin1')), false);
    }
    assert.equal(isSameCtlkey(key, key.slice(0, 15)), false);
  });
});

describe('session table', () => {
  let table: SessionTable;
  let mine: Owner;
  beforeEach(() => {
    table = new SessionTable();
    mine = owner();
  });
  const keyOf = (session: Session): Buffer => ctlkeyToOctets(session.ctlkey);

  it('gives its owner the session of a control key, and the same refusal for unknown, foreign and stale keys', () => {
    const session = table.accept(established(1), mine);
    const key = keyOf(session);
    assert.equal(table.controlled(key, mine), session);
    assert.throws(() => table.controlled(Buffer.alloc(16), mine), unknown);
    assert.throws(() => table.controlled(key, owner()), unknown);
    table.end(session, 'ended');
    assert.throws(() => table.controlled(key, mine), unknown);
  });

  it('a detached session can be taken by another client that is allowed, and no longer controlled by the first', () => {
    const session = table.accept(established(1), mine);
    const key = keyOf(session);
    const other = owner(userB);
    assert.throws(() => table.reattach(key, other, 10, () => true), unknown, 'not before it is detached');
    table.detach(session);
    assert.throws(() => table.controlled(key, mine), unknown);
    assert.throws(() => table.reattach(key, other, 10, () => false), unknown, 'not by whom policy forbids');
    assert.equal(table.reattach(key, other, 10, () => true).session, session);
    assert.equal(table.controlled(key, other), session);
    assert.deepEqual([table.countOf(userA.uid), table.countOf(userB.uid)], [0, 1]);
    assert.deepEqual([mine.sessions.size, other.sessions.size], [0, 1]);
  });

  it('a reattach that would exceed the new owner\'s limit is refused, one at the limit is not', () => {
    const other = owner(userB);
    const [first, second] = [table.accept(established(1), mine), table.accept(established(2), mine)];
    for (const session of [first, second]) table.detach(session);
    table.reattach(keyOf(first), other, 1, () => true);
    assert.throws(() => table.reattach(keyOf(second), other, 1, () => true), { code: 'LIMIT_SESSIONS' });
    assert.equal(second.state, 'detached');
  });

  it('a session that was told to end before its handshake was done gets no control key', () => {
    const session = table.begin(1, mine, false);
    table.closing(session);
    table.establish(session, established(1));
    assert.equal(session.ctlkey, '');
  });

  it('issuers of authorized peers are kept once for all sessions; leaves, and what others send, are not', () => {
    const chain = (leaf: string): Buffer[] => [Buffer.from(leaf), Buffer.from('issuer'), Buffer.from('root')];
    const certificates = (number: number, leaf: string, authorized = true): readonly Uint8Array[] =>
      table.accept(established(number, { authorized, peerCertificates: chain(leaf) }), mine).peerCertificates;
    const [first, second, stranger] = [certificates(1, 'a'), certificates(2, 'a'), certificates(3, 'b', false)];
    for (const one of [first, second]) assert.deepEqual(one, chain('a'));
    assert.deepEqual(stranger, chain('b'));
    assert.deepEqual(first.map((one, index) => one === second[index]), [false, true, true]);
    assert.deepEqual(first.map((one, index) => one === stranger[index]), [false, false, false]);
    assert.deepEqual(table.accept(established(4, { authorized: false, peerCertificates: [] }), mine).peerCertificates, []);
  });

  it('a session number that is used twice is an internal error and changes nothing', () => {
    const session = table.accept(established(1), mine);
    assert.throws(() => table.accept(established(1), mine), { code: 'INTERNAL' });
    assert.equal(table.size, 1);
    assert.equal(table.get(1), session);
  });

  it('counts come back to nothing when all sessions have ended', () => {
    const sessions = Array.from({ length: 100 }, (_, number) => table.accept(established(number), mine));
    assert.equal(table.countOf(userA.uid), 100);
    for (const session of sessions) table.end(session, 'ended');
    assert.deepEqual([table.size, table.countOf(userA.uid), mine.sessions.size], [0, 0, 0]);
  });

  it('sessions that have the same facts share them, also our certificate', () => {
    const [first, second] = [1, 2].map((number) => table.accept(established(number, { localCertificate: Buffer.from('a certificate') }), mine));
    assert.equal(first?.profile, second?.profile);
  });

  it('two certificates of one revision are told apart', () => {
    const [first, second] = ['ecdsa', 'rsa'].map((text, number) => table.accept(established(number, { localCertificate: Buffer.from(text) }), mine));
    assert.equal(Buffer.from(first?.profile?.localCertificate ?? []).toString(), 'ecdsa');
    assert.equal(Buffer.from(second?.profile?.localCertificate ?? []).toString(), 'rsa');
  });

  it('a server name cannot imitate the facts of another session', () => {
    const [first, second] = ['x', 'x\0y'].map((servername, number) => table.accept(established(number, { servername }), mine));
    const none = table.accept(established(3), mine);
    assert.deepEqual([first, second, none].map((one) => one?.profile?.servername), ['x', 'x\ufffdy', undefined]);
  });

  it('thousands of server names do not grow the shared facts without bound, and each session keeps its own', () => {
    const sessions = Array.from({ length: 5000 }, (_, number) => table.accept(established(number, { servername: `n${number}` }), mine));
    assert.equal(sessions[0]?.profile?.servername, 'n0');
    assert.equal(sessions[4999]?.profile?.servername, 'n4999');
  });

  it('session information leaves out what is not known', () => {
    const session = table.accept(established(1, { localid: '', revision: 0 }), mine);
    const info = sessionInfoOf(factsOf(session));
    assert.equal('localid' in info || 'alpn' in info || 'servername' in info || 'remote' in info, false);
    assert.equal(Object.values(info).includes(undefined as never), false);
  });

  it('an idle session takes less than 600 octets of the heap', () => {
    const count = 20_000;
    collectGarbage();
    const before = process.memoryUsage().heapUsed;
    for (let number = 0; number < count; number += 1) {
      const remote = { family: 'IPv4', address: `10.0.${number >> 8}.${number & 255}`, port: 1024 + number } as const;
      table.accept(established(number, { remote, local: { family: 'IPv4', address: '127.0.0.1', port: 443 } }), mine);
    }
    collectGarbage();
    const each = (process.memoryUsage().heapUsed - before) / count;
    assert.ok(each < 600, `${each.toFixed(0)} octets`);
    assert.equal(table.size, count);
  });
});
