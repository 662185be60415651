/**
 * Asks the pool about control keys that it may not use, over and over, and measures. Argument: JSON {questions: {kind: {op, body, keys: [hex, ...]}}, rounds}. In each round every kind is asked once, in an
 * order that changes. Prints JSON {kind: {micros: [...], answers: [...]}}.
 */
import { PoolWire, WireError } from '../pool-wire.js';
import { Random } from '../random.js';

/** What is asked with the keys of one kind. */
export interface Question { readonly op: string; readonly body?: Readonly<Record<string, unknown>>; readonly keys: readonly string[] }
/** In microseconds, one for each round, and what was answered, each text once. */
export interface Probed { readonly micros: readonly number[]; readonly answers: readonly string[] }

const { questions, rounds } = JSON.parse(process.argv[2] ?? '{}') as { readonly questions: Readonly<Record<string, Question>>; readonly rounds: number };
const random = new Random(7);
const wire = new PoolWire(process.env['TLSPOOL_SOCKET'] ?? '');
const seen = Object.entries(questions).map(([kind, question]) => ({ kind, question, micros: [] as number[], answers: new Set<string>() }));

function ask({ question: { op, body, keys }, micros, answers }: (typeof seen)[number], round: number): void {
  const ctlkey = Buffer.from(keys[round % keys.length] ?? '', 'hex');
  const begin = process.hrtime.bigint();
  let answer = 'granted';
  try {
    wire.request(op, { ctlkey, ...body });
  } catch (error) {
    answer = error instanceof WireError ? error.message : String(error);
  }
  micros.push(Number(process.hrtime.bigint() - begin) / 1000);
  answers.add(answer);
}

for (let round = 0; round < rounds; round += 1) {
  const order = [...seen];
  for (let left = order.length; left > 0; left -= 1) ask(order.splice(random.below(left), 1)[0] as (typeof seen)[number], round);
}
console.log(JSON.stringify(Object.fromEntries(seen.map(({ kind, micros, answers }) => [kind, { micros, answers: [...answers] }]))));
process.exit(0);
