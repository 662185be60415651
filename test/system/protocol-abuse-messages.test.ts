/** Bad input on the pool socket of a real tlspoold: each mistake is answered, nothing leaks, the pool goes on. */
import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd } from 'libtlspool/native';
import { fdRange, requests } from 'libtlspool/protocol';
import type { RequestOp } from 'libtlspool/protocol';
import { Packr } from 'msgpackr';
import { expectBaseline, startPool } from '../support/index.js';
import type { Baseline, TestPool } from '../support/index.js';
import { PoolWire, WireError } from '../support/pool-wire.js';
import { until } from '../support/wait.js';

const packr = new Packr({ useRecords: false, variableMapSize: true });
const key = Buffer.alloc(16);
const bodies: Readonly<Record<RequestOp, Record<string, unknown>>> = {
  hello: { versions: [1], client: 'test' }, ping: {}, listen: {}, join: { share: 'x' }, unlisten: { listener: 1 }, starttls: { role: 'server' },
  prng: { ctlkey: key, label: 'EXPORTER-x', length: 1 }, info: { ctlkey: key }, detach: { ctlkey: key }, reattach: { ctlkey: key },
  close: { ctlkey: key }, taken: { ctlkey: key }, reauthenticate: { ctlkey: key }, register: { service: 'chooser' }, unregister: { service: 'chooser' }, forget: {}, status: {}, sessions: {}, identities: {}, reload: {},
};

function codeOf(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    if (error instanceof WireError) return error.code;
    throw error;
  }
  return 'ok';
}

/** Reads until the pool closes; returns the codes of the errors that came. */
function errorsUntilClosed(wire: PoolWire): string[] {
  const codes: string[] = [];
  for (;;) {
    const message = wire.next();
    if (message === undefined) return codes;
    for (const fd of message.fds) sockets.close(fd);
    codes.push(`${String(message.id)} ${String(message.body['code'])}`);
  }
}

/** The same octets every time. */
function* randomOctets(seed: number): Generator<number, never> {
  let state = seed;
  for (;;) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    yield state >>> 24;
  }
}

describe('protocol abuse: messages', () => {
  let pool: TestPool;
  let baseline: Baseline;
  const owned: OwnedFd[] = [];
  const own = (...fds: OwnedFd[]): OwnedFd[] => {
    owned.push(...fds);
    return fds;
  };

  before(async () => { pool = await startPool({ config: { limits: { clients: 64 } } }); });
  after(() => pool.stop());
  beforeEach(() => { baseline = pool.baseline(); });
  afterEach(async () => {
    for (const fd of owned.splice(0)) sockets.close(fd);
    await expectBaseline(pool, baseline);
  });

  it('every operation refuses each number of descriptors but its own, and closes them', () => {
    for (const op of Object.keys(requests) as RequestOp[]) {
      const { min, max } = fdRange('request', op);
      for (let count = 0; count <= 4; count += 1) {
        if (count >= min && count <= max) continue;
        const wire = new PoolWire(pool.socket, { hello: op !== 'hello' });
        const fds = Array.from({ length: count }, () => own(...sockets.socketpair('stream'))[0] as BorrowedFd);
        assert.equal(codeOf(() => wire.request(op, bodies[op], fds)), 'FD_COUNT', `${op} with ${count}`);
        wire.close();
        for (const fd of owned.splice(0)) sockets.close(fd);
      }
    }
  });

  it('starttls and listen refuse each kind of descriptor that is not theirs', () => {
    const wire = new PoolWire(pool.socket);
    const file = openSync('/dev/null', 'r+') as BorrowedFd;
    const [stream] = own(...sockets.socketpair('stream')) as [OwnedFd, OwnedFd];
    const [seqpacket] = own(...sockets.socketpair('seqpacket')) as [OwnedFd, OwnedFd];
    const [listening] = own(sockets.tcpListen({ host: '127.0.0.1', port: 0 })) as [OwnedFd];
    const refused: readonly (readonly [RequestOp, readonly BorrowedFd[], string])[] = [
      ['listen', [file], 'a file'], ['listen', [stream], 'a connected socket'], ['listen', [seqpacket], 'a seqpacket socket'],
      ['starttls', [file], 'a file'], ['starttls', [listening], 'a listening socket'], ['starttls', [seqpacket], 'a seqpacket socket'],
      ['starttls', [stream, file], 'a file as plainfd'], ['starttls', [stream, listening], 'a listening socket as plainfd'],
    ];
    for (const [op, fds, name] of refused) assert.equal(codeOf(() => wire.request(op, bodies[op], fds)), 'FD_KIND', `${op} with ${name}`);
    assert.equal(codeOf(() => wire.request('listen', {}, [listening])), 'ok');
    closeSync(file);
    wire.close();
  });

  it('every message that ends too early is refused, with its id once that was there', () => {
    const packet = packr.pack({ type: 'request', op: 'ping', id: 1234, body: { payload: Buffer.alloc(8) } });
    let answered = 0;
    for (let octets = 1; octets < packet.length; octets += 1) {
      const wire = new PoolWire(pool.socket);
      wire.sendRaw(packet.subarray(0, octets));
      const message = wire.next();
      assert.equal(message?.type, 'error');
      assert.equal(message.body['code'], 'BAD_MESSAGE');
      if (message.id === 1234) answered += 1;
      wire.close();
    }
    assert.ok(answered >= 10, `${answered} were answered with their id`);
  });

  it('an octet after the message is refused', () => {
    const wire = new PoolWire(pool.socket);
    const packet = packr.pack({ type: 'request', op: 'ping', id: 1, body: {} });
    wire.sendRaw(Buffer.concat([packet, Buffer.of(0xc0)]));
    assert.equal(wire.next()?.body['code'], 'BAD_MESSAGE');
    wire.close();
  });

  it('2000 packets of garbage are each answered or end their connection', () => {
    const octets = randomOctets(1);
    for (let packet = 0; packet < 2000; packet += 1) {
      const wire = new PoolWire(pool.socket, { hello: packet % 2 === 0 });
      const length = 1 + ((octets.next().value << 8 | octets.next().value) % 300);
      wire.sendRaw(Buffer.from(Array.from({ length }, () => octets.next().value)));
      assert.equal(wire.next()?.type, 'error');
      wire.close();
    }
    assert.equal(pool.process.running, true);
  });

  it('a message of the largest size is taken, one octet more is refused and ends the connection', () => {
    const wire = new PoolWire(pool.socket);
    const asking = new PoolWire(pool.socket, { hello: false });
    const { maxMessageOctets } = asking.request('hello', bodies.hello).body as { maxMessageOctets: number };
    asking.close();
    const framed = (octets: number): Buffer => {
      const base = packr.pack({ type: 'request', op: 'ping', id: 1, body: {}, filler: '' }).length;
      return packr.pack({ type: 'request', op: 'ping', id: 1, body: {}, filler: Buffer.alloc(octets - base - 2) });
    };
    const exact = framed(maxMessageOctets);
    assert.equal(exact.length, maxMessageOctets);
    wire.sendRaw(exact);
    assert.deepEqual([wire.next()?.body['code']], ['BAD_MESSAGE'], 'it was read: only its field is wrong');
    wire.sendRaw(Buffer.concat([exact, Buffer.alloc(1)]));
    assert.deepEqual(errorsUntilClosed(wire), ['0 MESSAGE_TOO_LARGE']);
    wire.close();
  });

  it('messages that only the pool sends are refused', () => {
    for (const type of ['reply', 'event', 'callback', 'nothing']) {
      const wire = new PoolWire(pool.socket);
      wire.send({ type, op: 'ping', id: 3, body: {} });
      assert.equal(wire.next()?.body['code'], 'BAD_MESSAGE', type);
      wire.close();
    }
  });

  it('nothing is answered before hello but hello', () => {
    for (const op of Object.keys(requests) as RequestOp[]) {
      if (op === 'hello' || fdRange('request', op).min > 0) continue;
      const wire = new PoolWire(pool.socket, { hello: false });
      assert.equal(codeOf(() => wire.request(op, bodies[op])), 'UNEXPECTED_MESSAGE', op);
      wire.close();
    }
  });

  it('1000 connections in succession leave nothing behind', () => {
    for (let count = 0; count < 1000; count += 1) new PoolWire(pool.socket, { hello: count % 3 !== 0 }).close();
  });

  it('a client that asks and never reads is disconnected, and others are served meanwhile', async () => {
    const wire = new PoolWire(pool.socket);
    const request = packr.pack({ type: 'request', op: 'identities', id: 1, body: {} });
    await until(() => {
      try {
        for (let count = 0; count < 100; count += 1) if (sockets.send(wire.fd, request) === -1) break;
        return false;
      } catch {
        return true;
      }
    }, { what: 'the pool to disconnect it' });
    const other = new PoolWire(pool.socket);
    assert.equal(other.request('ping').type, 'reply');
    other.close();
    wire.close();
  });

  it('descriptors that are sent with garbage are closed', () => {
    for (let count = 0; count < 50; count += 1) {
      const wire = new PoolWire(pool.socket);
      wire.sendRaw(Buffer.from('garbage'), own(...sockets.socketpair('stream'), ...sockets.socketpair('stream')));
      assert.equal(errorsUntilClosed(wire).length, 1);
      wire.close();
      for (const fd of owned.splice(0)) sockets.close(fd);
    }
  });

  it('clients over the limit are told, and get in when others have left', async () => {
    const wires = Array.from({ length: 64 + 8 }, () => new PoolWire(pool.socket));
    assert.equal(codeOf(() => new PoolWire(pool.socket)), 'LIMIT_CLIENTS');
    for (const wire of wires) wire.close();
    await until(() => codeOf(() => { new PoolWire(pool.socket).close(); }) === 'ok', { what: 'a place' });
  });
});
