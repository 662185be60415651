/** `tlspool choose`: a chooser for a terminal. One question at a time; the answers are lines of standard input. */
import { createInterface } from 'node:readline';
import type { IdentityChoice, IdentityQuestion, Pool } from 'libtlspool';
import { moment, printable, table } from './format.js';

export interface ChooseOptions {
  /** Seconds for which the pool remembers each choice. */
  readonly rememberS?: number;
}

export interface Terminal {
  readonly input: NodeJS.ReadableStream;
  out(text: string): void;
}

/** How long the pool waits for one answer, and so how long a question is of interest. */
const answerMs = 120_000;

/** Chooses until the input ends. Rejects with SERVICE_TAKEN and the like. */
export async function choose(pool: Pool, { rememberS }: ChooseOptions, terminal: Terminal): Promise<void> {
  const lines = createInterface({ input: terminal.input, terminal: false });
  const next = lines[Symbol.asyncIterator]();
  let isOver: () => void = () => undefined;
  let fail: (error: unknown) => void = () => undefined;
  const over = new Promise<void>((resolve, reject) => { isOver = resolve; fail = reject; });
  lines.once('close', isOver);
  const ask = async (question: IdentityQuestion): Promise<IdentityChoice | 'refuse'> => {
    terminal.out(textOf(question));
    for (;;) {
      const line = await next.next();
      if (line.done === true) return 'refuse';
      const answer = parseChoice(line.value, question);
      if (answer === 'refuse') return answer;
      if (answer !== undefined) return { ...answer, ...(rememberS !== undefined && { rememberS }) };
      terminal.out(`0 to ${question.candidates.length}, or r: `);
    }
  };
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = (question: IdentityQuestion, signal: AbortSignal): Promise<IdentityChoice | 'refuse'> => {
    const askedAt = performance.now();
    // Who has waited too long for its turn is no longer waited for.
    const answer = last.then(() => (signal.aborted || performance.now() - askedAt > answerMs ? 'refuse' as const : ask(question)));
    last = answer.catch(() => undefined);
    return answer;
  };
  const offer = await pool.offerChooser(inTurn, { timeoutMs: answerMs, onEnded: fail });
  terminal.out('choosing; end with Ctrl-D\n');
  try {
    await over;
  } finally {
    lines.close();
    await offer.withdraw();
  }
}

function textOf({ remoteid, candidates, pid }: IdentityQuestion): string {
  const rows = candidates.map(({ localid, subject, notAfterMs }, index) => [index + 1, localid, subject, notAfterMs === undefined ? undefined : moment(notAfterMs)]);
  const whom = remoteid === undefined ? 'a server that it does not verify' : printable(remoteid);
  return `\nprocess ${pid} connects to ${whom}\n${table(['', 'identity', 'subject', 'expires'], [[0, '(none)', undefined, undefined], ...rows])}\nwhich one? r refuses: `;
}

/** Undefined: that was no answer. */
export function parseChoice(line: string, { candidates }: Pick<IdentityQuestion, 'candidates'>): IdentityChoice | 'refuse' | undefined {
  const text = line.trim();
  if (text === 'r') return 'refuse';
  if (!/^\d{1,4}$/u.test(text)) return undefined;
  if (Number(text) === 0) return {};
  const chosen = candidates[Number(text) - 1];
  return chosen === undefined ? undefined : { localid: chosen.localid };
}
