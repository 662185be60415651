// SEARCH (RFC 3501 section 6.4.4): from its keys to a test of a mail.
import { headerValue } from './mail.mjs';
import { chosen, parseDate } from './wire.mjs';

const flagKeys = ['ANSWERED', 'DELETED', 'DRAFT', 'FLAGGED', 'SEEN'];
const flagOf = (key) => `\\${key[0]}${key.slice(1).toLowerCase()}`;
const has = (text, part) => (text ?? '').toLowerCase().includes(part.toLowerCase());
const day = (date) => Math.floor(date.getTime() / 86_400_000);
const bodyOf = (text) => text.slice(text.indexOf('\r\n\r\n') + 4);

/** Keys with one argument. */
const tests = {
  ...Object.fromEntries(['FROM', 'TO', 'CC', 'BCC', 'SUBJECT'].map((key) => [key, (argument) => ({ text }) => has(headerValue(text, key.toLowerCase()), argument)])),
  TEXT: (argument) => ({ text }) => has(text, argument),
  BODY: (argument) => ({ text }) => has(bodyOf(text), argument),
  LARGER: (argument) => ({ text }) => text.length > Number(argument),
  SMALLER: (argument) => ({ text }) => text.length < Number(argument),
  SINCE: (argument) => ({ date }) => day(date) >= day(dateOf(argument)),
  BEFORE: (argument) => ({ date }) => day(date) < day(dateOf(argument)),
  ON: (argument) => ({ date }) => day(date) === day(dateOf(argument)),
};

function dateOf(text) {
  const date = parseDate(text);
  if (date === undefined) throw new SyntaxError('that is no date');
  return date;
}

/** `(mail, sequence) => boolean`. Throws SyntaxError for keys that there are not. */
export function searchTest(keys, mails) {
  const left = [...keys];
  const each = [];
  while (left.length > 0) each.push(oneTest(left, mails));
  return (mail, sequence) => each.every((test) => test(mail, sequence));
}

/** Takes one key with its arguments off the list. */
function oneTest(left, mails) {
  const word = left.shift();
  if (Array.isArray(word)) return searchTest(word, mails);
  const key = word?.toUpperCase() ?? '';
  const argument = () => {
    const next = left.shift();
    if (typeof next !== 'string') throw new SyntaxError(`${key} what?`);
    return next;
  };
  if (key === 'ALL' || key === 'OLD') return () => true;
  if (key === 'NEW' || key === 'RECENT') return () => false;
  if (flagKeys.includes(key)) return ({ flags }) => flags.has(flagOf(key));
  if (flagKeys.includes(key.slice(2)) && key.startsWith('UN')) return ({ flags }) => !flags.has(flagOf(key.slice(2)));
  if (key === 'NOT') {
    const test = oneTest(left, mails);
    return (mail, sequence) => !test(mail, sequence);
  }
  if (key === 'OR') {
    const [one, other] = [oneTest(left, mails), oneTest(left, mails)];
    return (mail, sequence) => one(mail, sequence) || other(mail, sequence);
  }
  if (key === 'HEADER') {
    const [name, part] = [argument().toLowerCase(), argument()];
    return ({ text }) => headerValue(text, name) !== undefined && has(headerValue(text, name), part);
  }
  if (key === 'UID') {
    const found = chosen(argument(), mails, ({ uid }) => uid);
    return (mail) => found.includes(mail);
  }
  if (tests[key] !== undefined) return tests[key](argument());
  const found = chosen(key, mails, (_mail, at) => at + 1);
  return (mail) => found.includes(mail);
}
