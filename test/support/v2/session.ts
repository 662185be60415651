/** TLS sessions between two V2 requests of one pool, over a socket pair: no peer has to be run beside them. */
import assert from 'node:assert/strict';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd } from 'libtlspool/native';
import { codec, commands } from 'tlspool/dist/v2/frames.js';
import type { Fields } from 'tlspool/dist/v2/frames.js';
import { frameOf, headOf, newKey } from './wire.js';
import type { FrameHead, V2Wire } from './wire.js';

export const flags = {
  client: 0x9, server: 0x6, peer: 0xf, dtls: 0x100, withoutSni: 0x200, request: 0x800, ignore: 0x1000, detach: 0x2000, fork: 0x4000, localidCheck: 0x1_0000,
  renegotiate: 0x2_0000, onTheFly: 0x4_0000,
} as const;

export type Start = Partial<Fields<'starttls'>>;

/** Descriptors that a test makes; all are closed by `close`, unless it has closed one itself by `drop`. */
export class Fds {
  readonly #open = new Set<OwnedFd>();

  pair(kind: 'stream' | 'seqpacket' = 'stream'): [OwnedFd, OwnedFd] {
    const pair = sockets.socketpair(kind);
    for (const fd of pair) this.#open.add(fd);
    return pair;
  }

  add(fd: OwnedFd): OwnedFd {
    this.#open.add(fd);
    return fd;
  }

  drop(fd: OwnedFd): void {
    if (this.#open.delete(fd)) sockets.close(fd);
  }

  close(): void {
    for (const fd of [...this.#open]) this.drop(fd);
  }
}

/** The octets `text` go in at one end and come out at the other. Blocks. */
export function flows(from: BorrowedFd, to: BorrowedFd, text: string): void {
  assert.equal(sockets.send(from, Buffer.from(text)), text.length);
  let got = '';
  while (got.length < text.length) {
    assert.notEqual(sockets.pollWait(to, 1, 10_000), 0, 'no octet came through');
    const received = sockets.receive(to, 65_536, 1);
    assert.ok(received !== null && !received.eof, `the stream has ended after "${got}"`);
    got += received.data.toString();
  }
  assert.equal(got, text);
}

/** Has the other end been closed? Waits for it. What comes before that (an alert) is thrown away. */
export function ends(fd: BorrowedFd): void {
  for (;;) {
    assert.notEqual(sockets.pollWait(fd, 1, 10_000), 0, 'the other end is still open');
    try {
      const received = sockets.receive(fd, 65_536, 1);
      if (received?.eof === true) return;
    } catch {
      return; // ECONNRESET
    }
  }
}

/** Sends STARTTLS and drops our copy of the socket, as the library does. */
export function begin(wire: V2Wire, fds: Fds, cryptfd: OwnedFd, fields: Start, head: FrameHead = {}): void {
  wire.send(frameOf(commands.STARTTLS, 'starttls', fields, head), cryptfd);
  fds.drop(cryptfd);
}

/** A callback and its answer with these changes. Returns the callback. */
export function answer(wire: V2Wire, callback: Buffer, changes: { readonly head?: Partial<Fields<'head'>>; readonly start?: Start } = {}, ...passed: readonly BorrowedFd[]): Buffer {
  const before = Buffer.from(callback);
  codec.patch(callback, 'head', changes.head ?? {});
  codec.patch(callback, 'starttls', changes.start ?? {});
  wire.send(callback, ...passed);
  return before;
}

/** The next message, which must be this callback. */
export function callback(wire: V2Wire, cmd: number): Buffer {
  const frame = wire.next();
  assert.equal(headOf(frame).cmd, cmd, codec.read(frame, 'error').message);
  assert.notEqual(headOf(frame).cbid, 0);
  return frame;
}

/** Answers PLAINTEXT_CONNECT with one end of a new pair; returns the other, and the final message. */
export function plaintext(wire: V2Wire, fds: Fds, kind: 'stream' | 'seqpacket' = 'stream'): { readonly plainfd: OwnedFd; readonly last: Buffer } {
  const asked = callback(wire, commands.PLAINTEXT_CONNECT);
  const [ours, theirs] = fds.pair(kind);
  answer(wire, asked, {}, theirs);
  fds.drop(theirs);
  return { plainfd: ours, last: wire.next() };
}

export interface Side { readonly wire: V2Wire; readonly fields?: Start; readonly head?: FrameHead }
export interface Ends { readonly server: OwnedFd; readonly client: OwnedFd; readonly serverKey: Buffer; readonly clientKey: Buffer; readonly lasts: readonly [Buffer, Buffer] }

/** One session, whose server wants no certificate. The two wires must be different ones. */
export function connect(fds: Fds, server: Side, client: Side): Ends {
  const [left, right] = fds.pair();
  const serverKey = server.fields?.ctlkey ?? newKey();
  const clientKey = client.fields?.ctlkey ?? newKey();
  begin(server.wire, fds, left, { flags: flags.server | flags.ignore, localid: 'localhost', ...server.fields, ctlkey: serverKey }, server.head);
  begin(client.wire, fds, right, { flags: flags.client, remoteid: 'localhost', ...client.fields, ctlkey: clientKey }, client.head);
  const one = plaintext(server.wire, fds);
  const two = plaintext(client.wire, fds);
  for (const { last } of [one, two]) assert.equal(headOf(last).cmd, commands.STARTTLS, codec.read(last, 'error').message);
  return { server: one.plainfd, client: two.plainfd, serverKey, clientKey, lasts: [one.last, two.last] };
}
