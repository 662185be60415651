/** Answers of servers in the text protocols: by code (SMTP, LMTP, FTP, NNTP), and in lines up to a dot (POP3, NNTP). */
import { escapeText } from '../protocol/escape.js';
import { broken, mostAnswerLines, readLine, refused, say } from './dialogue.js';
import type { ClientRole, Dialogue, ServerRole } from './types.js';

/** An answer of one or more lines. */
export interface Reply {
  /** Three digits. */
  readonly code: string;
  /** Text of each line without its code; never empty. */
  readonly lines: readonly [string, ...string[]];
}

/** SMTP and LMTP: RFC 5321 section 4.2.1, every line has the code. */
export function* readReply(): Dialogue<Reply> {
  const first = yield* replyLine();
  const lines: [string, ...string[]] = [first.text];
  for (let goesOn = first.goesOn; goesOn;) {
    if (lines.length === mostAnswerLines) throw broken(`an answer of more than ${mostAnswerLines} lines`);
    const next = yield* replyLine();
    if (next.code !== first.code) throw broken(`an answer that begins with ${first.code} and goes on with ${next.code}`);
    lines.push(next.text);
    goesOn = next.goesOn;
  }
  return { code: first.code, lines };
}

/** FTP: RFC 959 section 4.2, what is between the first and the last line may look like anything. The last line's text is left out. */
export function* readFtpReply(): Dialogue<Reply> {
  const first = yield* replyLine();
  const lines: [string, ...string[]] = [first.text];
  for (let goesOn = first.goesOn; goesOn;) {
    if (lines.length === mostAnswerLines) throw broken(`an answer of more than ${mostAnswerLines} lines`);
    const line = yield* readLine();
    goesOn = !(line === first.code || line.startsWith(`${first.code} `));
    if (goesOn) lines.push(line);
  }
  return { code: first.code, lines };
}

function* replyLine(): Dialogue<{ code: string; goesOn: boolean; text: string }> {
  const line = yield* readLine();
  const [, code, mark, text = ''] = /^([1-5][0-9]{2})(?:([ -])(.*))?$/su.exec(line) ?? [];
  if (code === undefined) throw broken(`an answer without a code of three digits: ${escapeText(line, 80)}`);
  return { code, goesOn: mark === '-', text };
}

/** A reply with this code, or PREAMBLE_REFUSED. */
export function expectCode(reply: Reply, code: string, what: string): Reply {
  if (reply.code !== code) throw refused(what, `${reply.code} ${reply.lines[0]}`);
  return reply;
}

/** How a protocol begins that greets, and answers the request for TLS with a code (FTP, NNTP). */
interface Beginning {
  /** Throws PREAMBLE_REFUSED for what is no greeting; `who` is for its text. */
  readonly readGreeting: (who: string) => Dialogue<string>;
  /** The request for TLS, without its line end. */
  readonly request: string;
  readonly readAnswer: () => Dialogue<Reply>;
  /** What the answer must begin with. */
  readonly code: string;
}

/** settle() and the client role of such a protocol: behind TLS there is no second greeting, and before it nothing is to be known. */
export function greetAndAsk({ readGreeting, request, readAnswer, code }: Beginning): { readonly settle: NonNullable<ServerRole['settle']>; readonly client: ClientRole } {
  return {
    * settle() { yield* readGreeting('backend'); },
    * client() {
      yield* readGreeting('server');
      yield* say(`${request}\r\n`);
      expectCode(yield* readAnswer(), code, 'the server does not begin TLS');
      return {};
    },
  };
}

/** Lines up to the one with a dot alone (RFC 1939 section 3, RFC 3977 section 3.1.1), without the dots that were stuffed. */
export function* readDotLines(): Dialogue<readonly string[]> {
  const lines: string[] = [];
  for (;;) {
    const line = yield* readLine();
    if (line === '.') return lines;
    if (lines.length === mostAnswerLines) throw broken(`an answer of more than ${mostAnswerLines} lines`);
    lines.push(line.startsWith('.') ? line.slice(1) : line);
  }
}

/** Lines as readDotLines() takes them. */
export const dotLines = (lines: readonly string[]): string => [...lines.map((line) => line.startsWith('.') ? `.${line}` : line), '.', ''].join('\r\n');

/** Several lines of one code: all but the last have a hyphen behind it. */
export const codedLines = (code: string, lines: readonly string[]): string =>
  lines.map((line, index) => `${code}${index === lines.length - 1 ? ' ' : '-'}${line}\r\n`).join('');
