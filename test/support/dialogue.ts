/** Runs plain-text dialogues: in memory by a reading of the contract that is independent of the driver, and on a socket pair with the driver. */
import assert from 'node:assert/strict';
import { sockets } from 'libtlspool/native';
import type { OwnedFd } from 'libtlspool/native';
import { Conversation } from 'libtlspool/preamble';
import type { Dialogue, Face, ServeOptions, Step, TlsMode } from 'libtlspool/preamble';
import { TlsPoolError } from 'libtlspool/protocol';
import type { ErrorCode } from 'libtlspool/protocol';
import { within } from './wait.js';

/** Octets; a text is latin1. */
export type Octets = string | Uint8Array;
export const octetsOf = (octets: Octets): Buffer => typeof octets === 'string' ? Buffer.from(octets, 'latin1') : Buffer.from(octets);

/** What a dialogue came to. Exactly one of `result` and `error` is there. */
export interface Played<Result> {
  readonly result?: Result;
  readonly error?: TlsPoolError;
  /** All that it said. */
  readonly output: Buffer;
  /** What it left of the input: the next reader's. */
  readonly left: Buffer;
}

export const face: Face = { hostname: 'mail.example.org' };
export const required: ServeOptions = { face, tls: 'required' };
export const optional: ServeOptions = { face, tls: 'optional' };
export const serveOptions = (tls: TlsMode, more: Partial<Face> = {}): ServeOptions => ({ face: { ...face, ...more }, tls });

/** The peer's octets in the pieces in which they come; behind the last one it closes. */
class Input {
  #pieces: Buffer[];
  constructor(pieces: readonly Octets[]) { this.#pieces = pieces.map(octetsOf).filter((piece) => piece.length > 0); }

  /** What is there at once: one piece. */
  get here(): Buffer {
    const [first] = this.#pieces;
    if (first === undefined) throw new TlsPoolError('PEER_CLOSED', { text: 'the input is at its end' });
    return first;
  }

  take(count: number): Buffer {
    const first = this.here;
    assert(count <= first.length);
    if (count === first.length) this.#pieces.shift();
    else this.#pieces[0] = first.subarray(count);
    return first.subarray(0, count);
  }

  get left(): Buffer { return Buffer.concat(this.#pieces); }
}

function line(input: Input, most: number): Buffer {
  const octets: number[] = [];
  for (;;) {
    const [octet = 0] = input.take(1);
    if (octet === 10) break;
    // The lone CR is found when it is not followed by LF, and the last octet may be the CR of the end.
    if (octet === 0 || octets.at(-1) === 13) throw new TlsPoolError('PREAMBLE', { text: 'NUL or lone CR' });
    octets.push(octet);
    if (octets.length > most + (octet === 13 ? 1 : 0)) throw new TlsPoolError('PREAMBLE', { text: 'too long' });
  }
  if (octets.at(-1) === 13) octets.pop();
  return Buffer.from(octets);
}

function answer(step: Step, input: Input, output: Buffer[]): Buffer {
  switch (step.do) {
    case 'write':
      output.push(Buffer.from(step.octets));
      return Buffer.alloc(0);
    case 'line':
      return line(input, step.most);
    case 'octets':
      return Buffer.concat(Array.from({ length: step.count }, () => input.take(1)));
    case 'some':
      return input.take(Math.min(step.most, input.here.length));
    case 'peek':
      return input.here.subarray(0, 1);
  }
}

/**
 * Runs a dialogue in memory against a peer that sends this input, in these pieces, and closes behind it. An error that is no
 * TlsPoolError is thrown on, and so is a dialogue without end.
 */
export function play<Result>(dialogue: Dialogue<Result>, ...pieces: readonly Octets[]): Played<Result> {
  const input = new Input(pieces);
  const output: Buffer[] = [];
  try {
    let next = dialogue.next();
    for (let steps = 0; next.done !== true; steps++) {
      assert(steps < 200_000, 'the dialogue does not end');
      next = dialogue.next(answer(next.value, input, output));
    }
    return { result: next.value, output: Buffer.concat(output), left: input.left };
  } catch (error) {
    if (!(error instanceof TlsPoolError)) throw error;
    return { error, output: Buffer.concat(output), left: input.left };
  }
}

/** The result of a dialogue that must end well, and take all of its input. */
export function plays<Result>(dialogue: Dialogue<Result>, ...pieces: readonly Octets[]): { result: Result; output: string } {
  const { result, error, output, left } = play(dialogue, ...pieces);
  assert.equal(error, undefined, `${String(error)}\nit said ${JSON.stringify(output.toString('latin1'))}`);
  assert.equal(left.toString('latin1'), '', 'nothing of the input is left');
  return { result: result as Result, output: output.toString('latin1') };
}

/** The error of a dialogue that must not end well. */
export function playFails<Result>(code: ErrorCode, dialogue: Dialogue<Result>, ...pieces: readonly Octets[]): { error: TlsPoolError; output: string } {
  const { result, error, output } = play(dialogue, ...pieces);
  assert(error !== undefined, `ended with ${JSON.stringify(result)}; said ${JSON.stringify(output.toString('latin1'))}`);
  assert.equal(error.code, code, error.message);
  return { error, output: output.toString('latin1') };
}

/** The peer's end of a conversation on a socket pair. */
export interface TestPeer {
  readonly fd: OwnedFd;
  send(octets: Octets): void;
  /** Resolves when the conversation has taken everything that was sent, or is over. */
  taken(): Promise<void>;
  /** Ends our side, once. */
  finish(): void;
  /** All that was said to us so far. */
  heard(): Buffer;
}

export interface ConverseOptions {
  readonly deadlineMs?: number;
  readonly octets?: number;
  readonly signal?: AbortSignal;
}

const nextTurn = (): Promise<void> => new Promise((resolve) => { setImmediate(resolve); });

/** A conversation on one end of a socket pair, and a peer at the other. Both descriptors are closed behind it. */
export async function withConversation<T>(use: (conversation: Conversation, peer: TestPeer) => Promise<T>, options: ConverseOptions = {}): Promise<T> {
  const [ours, theirs] = sockets.socketpair('stream');
  const conversation = new Conversation(ours, { deadlineMs: 10_000, ...options });
  const heard: Buffer[] = [];
  let over = false;
  const peer: TestPeer = {
    fd: theirs,
    send: (octets) => {
      const bytes = octetsOf(octets);
      assert.equal(sockets.send(theirs, bytes), bytes.length, 'a test sends no more than the socket takes');
    },
    taken: async () => { while (!over && sockets.peek(ours, 1)?.length === 1) await nextTurn(); },
    finish: () => sockets.shutdown(theirs, 1),
    heard: () => {
      for (let got = sockets.receive(theirs, 65_536, 0); got !== null && !got.eof; got = sockets.receive(theirs, 65_536, 0)) heard.push(got.data);
      return Buffer.concat(heard);
    },
  };
  try {
    return await use(conversation, peer);
  } finally {
    over = true;
    conversation.close();
    sockets.close(ours);
    sockets.close(theirs);
  }
}

/**
 * Runs a dialogue with the driver, on a socket pair, against a peer that sends this input piece by piece, each when the one before it was
 * taken, and then ends its side. Never hangs: the conversation's own deadline is 10 s unless given.
 */
export function converse<Result>(dialogue: Dialogue<Result>, pieces: readonly Octets[], options: ConverseOptions & { readonly staysOpen?: boolean } = {}): Promise<Played<Result> & { readonly isQuiet: boolean }> {
  return withConversation(async (conversation, peer) => {
    let settled = false;
    const ending = conversation.run(dialogue).then((result) => ({ result }), (error: unknown) => {
      if (!(error instanceof TlsPoolError)) throw error;
      return { error };
    }).finally(() => { settled = true; });
    const sending = (async (): Promise<void> => {
      for (const piece of pieces) {
        peer.send(piece);
        while (!settled && (await Promise.race([peer.taken().then(() => true), ending.then(() => true)])) !== true);
      }
      if (options.staysOpen !== true) peer.finish();
    })();
    const [ended] = await within(Promise.all([ending, sending]), 'the dialogue to end');
    // Behind an error there is nothing to be quiet about.
    const isQuiet = 'result' in ended && conversation.quiet();
    return { ...ended, isQuiet, output: peer.heard(), left: Buffer.alloc(0) };
  }, options);
}
