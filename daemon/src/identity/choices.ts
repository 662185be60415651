/**
 * Choices of choosers that are remembered: which identity a user's outgoing sessions to a remote use. Kept in a file of the state folder, so that they outlive the
 * pool. Nothing in them is secret, and nothing is lost but questions: a file that cannot be read, or written, is an error in the log and no more.
 */
import { existsSync } from 'node:fs';
import { fitText } from 'libtlspool/protocol';
import { z } from 'zod';
import type { Log } from '../observe/index.js';
import { writePrivateFile } from '../pki/write.js';
import { readOwnFile } from './files.js';

/** Remembered choices in all. When there are more, the user with the most loses the one that ends first. */
export const maxChoices = 4096;
/** Each has two names of at most 255 octets, twice as long where JSON escapes them. */
const maxFileOctets = 8_388_608;
const maxReasonOctets = 512;

/** No identity: the choice was to have none. */
export interface Remembered { readonly localid?: string }

export interface ChoicesParts {
  /** Absent: they end with the pool. */
  readonly file?: string;
  readonly log: Pick<Log, 'error'>;
  /** Wall clock in milliseconds; tests set it. */
  readonly now?: () => number;
}

const name = z.string().max(255);
const row = z.strictObject({ uid: z.int().min(0).max(0xffff_ffff), remoteid: name, localid: name.optional(), untilMs: z.int().min(0) });
const content = z.strictObject({ version: z.literal(1), choices: z.array(row).max(maxChoices) });
type Row = z.output<typeof row>;

/** DNS names are the same in any case. */
const keyOf = (uid: number, remoteid: string): string => `${uid} ${remoteid.toLowerCase()}`;

export class Choices {
  readonly #parts: ChoicesParts;
  readonly #rows = new Map<string, Row>();
  #writing: Promise<void> = Promise.resolve();
  #isDue = false;
  #failure: string | undefined;

  private constructor(parts: ChoicesParts) {
    this.#parts = parts;
  }

  /** Never rejects: what cannot be read is logged, and nothing is remembered then. */
  static async open(parts: ChoicesParts): Promise<Choices> {
    const choices = new Choices(parts);
    await choices.#read();
    return choices;
  }

  /** For pools without a state folder: what is remembered ends with the pool. */
  static inMemory(parts: Omit<ChoicesParts, 'file'>): Choices {
    return new Choices(parts);
  }

  get size(): number { return this.#rows.size; }

  find(uid: number, remoteid: string): Remembered | undefined {
    const found = this.#rows.get(keyOf(uid, remoteid));
    if (found === undefined || found.untilMs <= this.#now()) return undefined;
    return found.localid === undefined ? {} : { localid: found.localid };
  }

  /** From now on, in place of what was remembered for this user and remote. */
  remember(uid: number, remoteid: string, { localid }: Remembered, seconds: number): void {
    const key = keyOf(uid, remoteid);
    this.#rows.delete(key);
    if (this.#rows.size >= maxChoices) this.#makeRoom();
    this.#rows.set(key, { uid, remoteid: remoteid.toLowerCase(), ...(localid !== undefined && { localid }), untilMs: Math.round(this.#now() + seconds * 1000) });
    this.#write();
  }

  /** Forgets what is remembered for this user, for one remote or all of them; returns how many that were in force. */
  forget(uid: number, remoteid?: string): number {
    let forgotten = 0;
    let isChanged = false;
    for (const [key, one] of this.#rows) {
      if (one.uid !== uid || (remoteid !== undefined && key !== keyOf(uid, remoteid))) continue;
      if (one.untilMs > this.#now()) forgotten += 1;
      this.#rows.delete(key);
      isChanged = true;
    }
    if (isChanged) this.#write();
    return forgotten;
  }

  /** Resolves when everything so far was written, or could not be. */
  flushed(): Promise<void> { return this.#writing; }

  #now(): number { return (this.#parts.now ?? Date.now)(); }

  #makeRoom(): void {
    for (const [key, { untilMs }] of this.#rows) if (untilMs <= this.#now()) this.#rows.delete(key);
    if (this.#rows.size < maxChoices) return;
    const counts = new Map<number, number>();
    for (const { uid } of this.#rows.values()) counts.set(uid, (counts.get(uid) ?? 0) + 1);
    const [greediest] = [...counts].reduce((most, one) => (one[1] > most[1] ? one : most));
    const theirs = [...this.#rows].filter(([, { uid }]) => uid === greediest);
    const [first] = theirs.reduce((soonest, one) => (one[1].untilMs < soonest[1].untilMs ? one : soonest));
    this.#rows.delete(first);
  }

  async #read(): Promise<void> {
    const { file, log } = this.#parts;
    if (file === undefined || !existsSync(file)) return;
    try {
      const octets = await readOwnFile(file, maxFileOctets);
      const { choices } = content.parse(JSON.parse(octets.toString('utf8')));
      for (const one of choices) if (one.untilMs > this.#now()) this.#rows.set(keyOf(one.uid, one.remoteid), one);
    } catch (error) {
      this.#rows.clear();
      log.error('remembered choices cannot be read; none is remembered', { file, reason: reasonOf(error) });
    }
  }

  /** At most one write at a time; what comes meanwhile goes with the next. */
  #write(): void {
    const { file } = this.#parts;
    if (file === undefined || this.#isDue) return;
    this.#isDue = true;
    this.#writing = this.#writing.then(async () => {
      this.#isDue = false;
      try {
        await writePrivateFile(file, JSON.stringify({ version: 1, choices: [...this.#rows.values()] }));
        this.#failure = undefined;
      } catch (error) {
        const reason = reasonOf(error);
        if (this.#failure !== reason) this.#parts.log.error('remembered choices cannot be written; they end with the pool', { file, reason });
        this.#failure = reason;
      }
    });
  }
}

function reasonOf(error: unknown): string {
  const reason = error instanceof z.ZodError || error instanceof SyntaxError ? 'not what the pool has written' : error instanceof Error ? error.message : String(error);
  return fitText(reason, maxReasonOctets);
}
