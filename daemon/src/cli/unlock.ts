/** `tlspool unlock`: gives the PINs of locked keys, from the terminal or from a file. */
import { setTimeout as delay } from 'node:timers/promises';
import { TlsPoolError } from 'libtlspool/protocol';
import type { PinQuestion, Pool, ReplyBody } from 'libtlspool';
import { readSecretLine } from '../identity/files.js';
import type { Shown } from './commands.js';
import { printable } from './format.js';
import { askSecret } from './prompt.js';

export interface UnlockOptions {
  /** File whose first line is the PIN of all of them, held to the permissions of a key. Absent: the terminal. */
  readonly pinFile?: string;
  /** Stay, and give PINs whenever the pool asks. */
  readonly wait?: boolean;
}

/** The pool asks no more often. */
const maxAttempts = 3;
/** As long as a register may say: people take their time. */
const answerMs = 600_000;
const lookMs = 100;
/** The pool asks for the next one sooner than this, or not at all. */
const quietMs = 2000;

type Identity = ReplyBody<'identities'>['identities'][number];

/** Resolves when no locked identity is left that a PIN could be given for; with `wait`, not before the pool goes. Throws IDENTITY_LOCKED when some are left. */
export async function unlock(pool: Pool, options: UnlockOptions): Promise<Shown> {
  const before = await lockedOf(pool);
  if (before.length === 0 && options.wait !== true) return { value: { unlocked: [], locked: [] }, text: 'no identity is locked' };
  const asker = new Asker(options.pinFile);
  const offer = await pool.offerPinEntry((question, signal) => asker.enter(question, signal), { timeoutMs: answerMs, onEnded: (error) => { asker.failed(error); } });
  try {
    await (options.wait === true ? asker.failure : Promise.race([settled(pool, asker), asker.failure]));
  } finally {
    // The pool tries what it has got before it answers this.
    await offer.withdraw();
  }
  return outcome(before, await lockedOf(pool));
}

/** Answers the pool, and remembers what has had its last chance. */
class Asker {
  readonly spent = new Set<string>();
  /** Rejects when there is no use in going on. */
  readonly failure: Promise<never>;
  failed: (error: unknown) => void = () => undefined;
  isAsking = false;
  lastAskedAt = performance.now();

  constructor(private readonly pinFile: string | undefined) {
    this.failure = new Promise((_resolve, reject) => { this.failed = reject; });
    // Also when nobody is looking at that moment.
    this.failure.catch(() => undefined);
  }

  async enter(question: PinQuestion, signal: AbortSignal): Promise<Uint8Array | 'refuse'> {
    const { localid, attempt } = question;
    this.isAsking = true;
    try {
      const pin = this.pinFile === undefined ? await askSecret(promptFor(question), signal) : await pinFrom(this.pinFile, attempt);
      if (pin === undefined || attempt >= maxAttempts) this.spent.add(localid);
      return pin ?? 'refuse';
    } catch (error) {
      this.failed(error);
      return 'refuse';
    } finally {
      this.isAsking = false;
      this.lastAskedAt = performance.now();
    }
  }
}

function promptFor({ localid, source, attempt }: PinQuestion): string {
  return `${attempt > 1 ? 'That is not it. ' : ''}PIN for ${printable(localid)} (${printable(source)}): `;
}

/** The first line. The same one is of no use a second time. */
async function pinFrom(file: string, attempt: number): Promise<Buffer | undefined> {
  return attempt > 1 ? undefined : readSecretLine(file);
}

async function settled(pool: Pool, asker: Asker): Promise<void> {
  for (;;) {
    const left = (await lockedOf(pool)).filter((localid) => !asker.spent.has(localid));
    if (!asker.isAsking && (left.length === 0 || performance.now() - asker.lastAskedAt > quietMs)) return;
    await delay(lookMs);
  }
}

async function lockedOf(pool: Pool): Promise<string[]> {
  const locked: Identity[] = [];
  let after: string | undefined;
  do {
    const page: ReplyBody<'identities'> = await pool.request('identities', after === undefined ? {} : { after });
    locked.push(...page.identities.filter((identity) => identity.locked === true));
    after = page.next;
  } while (after !== undefined);
  return locked.map(({ localid }) => localid);
}

function outcome(before: readonly string[], left: readonly string[]): Shown {
  if (left.length > 0) throw new TlsPoolError('IDENTITY_LOCKED', { text: `still locked: ${left.join(', ')}; the log of the pool says why` });
  return { value: { unlocked: before, locked: left }, text: `unlocked: ${before.map(printable).join(', ')}` };
}
