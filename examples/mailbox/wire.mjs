// How IMAP writes things (RFC 3501 section 9): commands with their literals in, strings and lists out. Texts are latin1, one character an octet.

const lineOctets = 8192;
/** Of one literal, so of one mail that is appended. */
export const literalOctets = 4 * 2 ** 20;

/** Reads a stream by lines and by counts. */
export class Input {
  #chunks;
  #rest = Buffer.alloc(0);

  constructor(stream) { this.#chunks = stream[Symbol.asyncIterator](); }

  /** The next line without CRLF; undefined at the end of the stream. */
  async line() {
    for (;;) {
      const end = this.#rest.indexOf('\n');
      if (end > lineOctets || (end < 0 && this.#rest.length > lineOctets)) throw new Error('a line that is too long');
      if (end >= 0) return this.#take(end + 1).replace(/\r?\n$/u, '');
      if (!await this.#more()) return undefined;
    }
  }

  async octets(count) {
    while (this.#rest.length < count) if (!await this.#more()) throw new Error('the stream ends in a literal');
    return this.#take(count);
  }

  #take(count) {
    const taken = this.#rest.toString('latin1', 0, count);
    this.#rest = this.#rest.subarray(count);
    return taken;
  }

  async #more() {
    const { done, value } = await this.#chunks.next();
    if (done !== true) this.#rest = Buffer.concat([this.#rest, value]);
    return done !== true;
  }
}

/**
 * The next command, as {tag, name, rest}; `rest` is parsed by parseArguments(). Undefined at the end of the stream. `goOn` is called for
 * each literal that the client wants to be asked for.
 */
export async function readCommand(input, goOn) {
  let text = await input.line();
  if (text === undefined) return undefined;
  for (let line = text; ;) {
    const [, count, isUnasked] = /\{(\d{1,9})(\+?)\}$/u.exec(line) ?? [];
    if (count === undefined) break;
    if (Number(count) > literalOctets) throw new Error('a literal that is too long');
    if (isUnasked === '') goOn();
    text += `\r\n${await input.octets(Number(count))}`;
    line = await input.line() ?? '';
    text += line;
  }
  const [, tag = '*', name = '', rest = ''] = /^([^\s(){%*"\\+]+) +([A-Za-z]+)(?: +([^]*))?$/u.exec(text) ?? [];
  return { tag, name: name.toUpperCase(), rest };
}

/** Atoms, quoted strings and literals as strings; lists in brackets as arrays. An atom may have a section: `BODY[HEADER.FIELDS (TO)]<0.9>`. */
export function parseArguments(text) {
  const lists = [[]];
  const token = /\s+|(\()|(\))|"((?:[^"\\\r\n]|\\["\\])*)"|\{(\d+)\+?\}\r\n|((?:[^\s()"{[]|\[[^\]]*\])+)/uy;
  while (token.lastIndex < text.length) {
    const found = token.exec(text);
    if (found === null) throw new SyntaxError('that is not how arguments are written');
    const [, opens, closes, quoted, count, atom] = found;
    if (opens !== undefined) lists.push([]);
    else if (closes !== undefined) {
      if (lists.length === 1) throw new SyntaxError('brackets that do not match');
      lists.at(-2).push(lists.pop());
    } else if (count !== undefined) {
      lists.at(-1).push(text.substr(token.lastIndex, Number(count)));
      token.lastIndex += Number(count);
    } else {
      const value = quoted?.replace(/\\(.)/gu, '$1') ?? atom;
      if (value !== undefined) lists.at(-1).push(value);
    }
  }
  if (lists.length !== 1) throw new SyntaxError('brackets that do not match');
  return lists[0];
}

/** A string, quoted where it may be, else a literal; undefined is NIL. */
export function string(text) {
  if (text === undefined) return 'NIL';
  return /^[\x20\x21\x23-\x5b\x5d-\x7e]{0,200}$/u.test(text) ? `"${text}"` : literal(text);
}

export const literal = (text) => `{${text.length}}\r\n${text}`;

const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const two = (number) => String(number).padStart(2, '0');

/** `"21-Nov-2026 07:05:09 +0000"` */
export function dateTime(date) {
  const day = `${String(date.getUTCDate()).padStart(2)}-${months[date.getUTCMonth()]}-${date.getUTCFullYear()}`;
  return `"${day} ${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())} +0000"`;
}

/** Of dateTime(), and of the dates in SEARCH; undefined when it is neither. */
export function parseDate(text) {
  const [, day, month, year, time = '00:00:00', zone = '+0000'] = /^ ?(\d{1,2})-([A-Za-z]{3})-(\d{4})(?: (\d\d:\d\d:\d\d) ([+-]\d{4}))?$/u.exec(text) ?? [];
  const date = new Date(`${day} ${month} ${year} ${time} ${zone}`);
  return Number.isNaN(date.getTime()) ? undefined : date;
}

/** What a sequence set (`1:3,7,9:*`) chooses from a list of which `numberOf` gives the number. */
export function chosen(set, list, numberOf) {
  if (!/^(?:\d{1,10}|\*)(?::(?:\d{1,10}|\*))?(?:,(?:\d{1,10}|\*)(?::(?:\d{1,10}|\*))?)*$/u.test(set)) throw new SyntaxError('that is no sequence set');
  const last = list.length === 0 ? 0 : numberOf(list.at(-1), list.length - 1);
  const ranges = set.split(',').map((range) => {
    const ends = range.split(':').map((end) => (end === '*' ? last : Number(end)));
    return [Math.min(...ends), Math.max(...ends)];
  });
  return list.filter((item, index) => ranges.some(([low, high]) => low <= numberOf(item, index) && numberOf(item, index) <= high));
}
