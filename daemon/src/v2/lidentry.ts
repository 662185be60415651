/**
 * LIDENTRY: a program that picks the client certificate for a remote. It is the chooser of its user; the candidates are what the original had in its data base of
 * disclosures, and what is remembered is asked first in any case, which is all that the SKIP flags want. One question at a time: the selectors that there are
 * read one message after the other and would mix the entries of two.
 */
import type { Choice, Chooser, Question } from '../api/services.js';
import type { V2Connection } from './connection.js';
import type { V2Call } from './dispatch.js';
import { V2Error } from './errors.js';
import { arms, codec, commands } from './frames.js';
import { answerMs, question } from './registrations.js';

const flags = { WANT_DBENTRY: 0x100, DBENTRY: 0x1000, registered: 0xfff } as const;
/** What fits into a name of the frame, less its NUL. */
const maxNameOctets = arms.lidentry.localid.size - 1;

/** No reply when it succeeds: the message stays with us until there is a question. */
export function registerChooser({ v2, connection, frame }: V2Call): void {
  const { timeout } = codec.read(frame, 'lidentry');
  const selector = new Selector(connection, frame);
  v2.registrations.add(v2.front.parts, connection, 'chooser', () => v2.front.services.offerChooser(connection.client.uid, selector, answerMs(timeout * 1000)));
}

class Selector implements Chooser {
  readonly #connection: V2Connection;
  readonly #flags: number;
  readonly #timeoutS: number;
  /** The registration, then the last answer, by which the client has registered anew. */
  #frame: Buffer;
  #line: Promise<unknown> = Promise.resolve();

  constructor(connection: V2Connection, frame: Buffer) {
    const { flags: asked, timeout } = codec.read(frame, 'lidentry');
    this.#connection = connection;
    this.#frame = frame;
    this.#flags = asked & flags.registered;
    this.#timeoutS = timeout;
  }

  choose(asked: Question, signal: AbortSignal): Promise<Choice> {
    const choice = this.#line.then(() => this.#dialogue(asked, signal));
    // Also after a question that nobody waits for any more: its answer is still to come.
    this.#line = choice.catch(() => undefined);
    return choice;
  }

  async #dialogue({ remoteid = '', candidates }: Question, signal: AbortSignal): Promise<Choice> {
    if ((this.#flags & flags.WANT_DBENTRY) !== 0) {
      for (const { localid } of candidates) {
        signal.throwIfAborted();
        if (Buffer.byteLength(localid) <= maxNameOctets) await this.#ask(localid, remoteid, flags.DBENTRY);
      }
    }
    signal.throwIfAborted();
    const answer = await this.#ask('', remoteid, 0);
    if (codec.read(answer, 'head').cmd !== commands.LIDENTRY_CALLBACK) throw new V2Error('CLIENT_REFUSES_CALLBACK');
    const { localid } = codec.read(answer, 'lidentry');
    return localid === '' ? {} : { localid };
  }

  /** `timeout` is a time of day here, unlike in the registration. */
  async #ask(localid: string, remoteid: string, kind: number): Promise<Buffer> {
    codec.patch(this.#frame, 'lidentry', {
      flags: this.#flags | kind, maxlevels: levelsOf(remoteid), timeout: Math.floor(Date.now() / 1000) + Math.min(this.#timeoutS, 600), localid, remoteid,
    });
    this.#frame = await question(this.#connection, this.#frame, commands.LIDENTRY_CALLBACK);
    return this.#frame;
  }
}

/** Steps from `user@a.b` up to the root: each label, and the root, with the user and without. */
function levelsOf(remoteid: string): number {
  const at = remoteid.lastIndexOf('@');
  const steps = remoteid.slice(at + 1).split('.').length + 1;
  return at > 0 ? 2 * steps : steps;
}
