/**
 * Dialogues as the documentation writes them down, and their replay on a socket pair.
 *
 *   ```trace serve learnt      what is run, and words about it
 *   P: 220 mail.example.org    a line that somebody says (C client, S server, P proxy, B backend)
 *   K: QUIT                    what the client has sent and nobody has read
 *   A: NOOP                    what was read and is the backend's
 *   -- TLS                     how it ends: TLS, plain text, closed, done, or the code of an error
 *   ```
 *
 * Lines end with CRLF; with the word `xml` they end with nothing; with `octets` they are hexadecimal digits and quoted texts. `…` is anything.
 */
import assert from 'node:assert/strict';
import type { Dialogue, Step } from 'libtlspool/preamble';
import { TlsPoolError } from 'libtlspool/protocol';
import { withConversation } from './dialogue.js';

/** A block of the documentation. */
export interface Block { readonly part: string; readonly words: ReadonlySet<string>; readonly line: number; readonly lines: readonly string[] }
/** What one side says before another one speaks. */
export interface Turn { readonly who: string; readonly octets: Buffer; readonly pattern: RegExp }

const deadlineMs = 1000;
/** Who is played by the test; the others are the dialogue, whatever it is called. */
const oursBy: Readonly<Record<string, string>> = { serve: 'P', learn: 'P', settle: 'P', introduce: 'P', client: 'C' };

/** All traces of a page. */
export function blocksOf(page: string): Block[] {
  return [...page.matchAll(/^```trace (\S+)(.*)\n([^]*?)^```$/gmu)].map(({ 1: part = '', 2: words = '', 3: text = '', index }) => ({
    part, words: new Set(words.trim().split(/\s+/u)), line: page.slice(0, index).split('\n').length, lines: text.trimEnd().split('\n'),
  }));
}

/** "00 0a "text" ff". */
export function octetsIn(text: string): Buffer {
  assert.match(text, /^(?:\s*(?:(?:[0-9a-fA-F]{2})+|"[^"]*"))*\s*$/u, `these are no octets: ${text}`);
  return Buffer.concat([...text.matchAll(/"([^"]*)"|([0-9a-fA-F]+)/gu)].map(([, quoted, hex = '']) => quoted === undefined ? Buffer.from(hex, 'hex') : Buffer.from(quoted, 'latin1')));
}

const escaped = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/]/gu, '\\$&');

/** Octets of a line, and what matches it. In hexadecimal notation an ellipsis outside of quotes stands between spaces. */
function saidIn(text: string, words: ReadonlySet<string>): { octets: Buffer; source: string } {
  const pieces = text.split(/(…)/u);
  if (words.has('octets')) {
    let isQuoted = false;
    const parts = pieces.filter((piece) => piece !== '…').map((piece) => {
      const whole = `${isQuoted ? '"' : ''}${piece}`;
      if ((whole.split('"').length - 1) % 2 === 0) {
        isQuoted = false;
        return octetsIn(whole);
      }
      isQuoted = true;
      return octetsIn(`${whole}"`);
    });
    return { octets: Buffer.concat(parts), source: parts.map((part) => escaped(part.toString('latin1'))).join('[^]*?') };
  }
  const end = words.has('xml') ? '' : '\r\n';
  return { octets: Buffer.from(text + end, 'latin1'), source: pieces.map((piece) => piece === '…' ? '[^]*?' : escaped(piece)).join('') + end };
}

/** What is said, turn by turn. */
export function turnsOf({ words, lines }: Block): Turn[] {
  const turns: { who: string; octets: Buffer[]; sources: string[] }[] = [];
  for (const line of lines) {
    if (line.startsWith('-- ')) continue;
    const [, who = '', text = ''] = /^([A-Za-z]+): ?(.*)$/u.exec(line) ?? assert.fail(`not a line of a trace: ${line}`);
    const said = saidIn(text, words);
    const last = turns.at(-1);
    const turn = last?.who === who ? last : { who, octets: [], sources: [] };
    if (turn !== last) turns.push(turn);
    turn.octets.push(said.octets);
    turn.sources.push(said.source);
  }
  return turns.map(({ who, octets, sources }) => ({ who, octets: Buffer.concat(octets), pattern: new RegExp(`^${sources.join('')}$`, 'u') }));
}

interface Said { readonly isOurs: boolean; readonly octets: Buffer }

/** Notes who says what, in the order in which it happens. */
function* noting<Result>(dialogue: Dialogue<Result>, said: Said[]): Dialogue<Result> {
  let next = dialogue.next();
  while (next.done !== true) {
    const step: Step = next.value;
    const answer: Buffer = yield step;
    if (step.do === 'write') said.push({ isOurs: true, octets: Buffer.from(step.octets) });
    else if (step.do === 'line') said.push({ isOurs: false, octets: Buffer.concat([answer, Buffer.from('\r\n')]) });
    else if (step.do !== 'peek') said.push({ isOurs: false, octets: answer });
    next = dialogue.next(answer);
  }
  return next.value;
}

/** One entry for each change of the speaker. */
function merged(said: readonly Said[]): Said[] {
  const turns: Said[] = [];
  for (const one of said) {
    const last = turns.at(-1);
    if (last?.isOurs === one.isOurs) turns[turns.length - 1] = { isOurs: one.isOurs, octets: Buffer.concat([last.octets, one.octets]) };
    else if (one.octets.length > 0) turns.push(one);
  }
  return turns;
}

interface Outcome { readonly next?: string; readonly goAhead?: Uint8Array; readonly direct?: boolean; readonly ahead?: Uint8Array }

/** Runs the dialogue against the other side of the block, and compares all of it. `early`: last words to whoever pipelines. Gives the result, if there is one. */
export async function replay<Result>(block: Block, dialogue: Dialogue<Result>, early?: Uint8Array): Promise<Result | undefined> {
  const turns = turnsOf(block);
  const ours = oursBy[block.part] ?? assert.fail(`there is no trace of kind ${block.part}`);
  const said: Said[] = [];
  return withConversation(async (conversation, peer) => {
    const ended = conversation.run(noting(dialogue, said)).then((result) => ({ result }), (error: unknown) => ({ error }));
    for (const { who, octets } of turns) {
      if (who === ours || who === 'A') continue;
      peer.send(octets);
      await Promise.race([peer.taken(), ended]);
    }
    const end: { result?: Result; error?: unknown } = await ended;
    const outcome = (end.result ?? {}) as Outcome;
    let ending = end.error === undefined ? endingOf(block, outcome) : codeOf(end.error);
    if (outcome.next === 'tls' && outcome.direct !== true) {
      try {
        conversation.refuseEarly();
        said.push({ isOurs: true, octets: Buffer.from(outcome.goAhead ?? []) });
      } catch (error) {
        ending = codeOf(error);
        said.push({ isOurs: true, octets: Buffer.from(early ?? []) });
      }
    }
    compare(turns.filter(({ who }) => who !== 'K' && who !== 'A'), merged(said), ours);
    const ahead = turns.find(({ who }) => who === 'A');
    assert.equal(Buffer.from(outcome.ahead ?? []).toString('latin1'), ahead?.octets.toString('latin1') ?? '', 'what is the backend\'s');
    assert.equal(`-- ${ending}`, block.lines.at(-1));
    return end.result;
  }, { deadlineMs });
}

/** What waits for its reader is there, and nobody else has read it. */
function endingOf({ part }: Block, { next }: Outcome): string {
  if (part === 'client') return 'TLS';
  switch (next) {
    case 'tls': return 'TLS';
    case 'plain': return 'plain text';
    case 'end': return 'closed';
    default: return 'done';
  }
}

function codeOf(error: unknown): string {
  if (error instanceof TlsPoolError) return error.code;
  throw error;
}

function compare(expected: readonly Turn[], said: readonly Said[], ours: string): void {
  for (const [index, { who, octets, pattern }] of joined(expected).entries()) {
    const one = said[index];
    assert(one !== undefined, `${who} does not say ${JSON.stringify(octets.toString('latin1'))}`);
    assert.equal(one.isOurs, who === ours, `turn ${index}: ${JSON.stringify(one.octets.toString('latin1'))}`);
    const text = one.octets.toString('latin1');
    if (!pattern.test(text)) assert.equal(text, octets.toString('latin1'));
  }
  assert.equal(said.length, joined(expected).length, `more was said: ${JSON.stringify(said.at(-1)?.octets.toString('latin1'))}`);
}

/** Without what lies between them in the block, two turns may be one. */
function joined(turns: readonly Turn[]): Turn[] {
  const whole: Turn[] = [];
  for (const turn of turns) {
    const last = whole.at(-1);
    if (last?.who !== turn.who) whole.push(turn);
    else whole[whole.length - 1] = { who: turn.who, octets: Buffer.concat([last.octets, turn.octets]), pattern: new RegExp(last.pattern.source.slice(0, -1) + turn.pattern.source.slice(1), 'u') };
  }
  return whole;
}
