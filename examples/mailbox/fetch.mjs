// FETCH (RFC 3501 section 6.4.5): which items a client asks for, and the answer for one mail.
import { envelope, section, structure } from './mail.mjs';
import { dateTime, literal } from './wire.mjs';

const macros = {
  FAST: ['FLAGS', 'INTERNALDATE', 'RFC822.SIZE'],
  ALL: ['FLAGS', 'INTERNALDATE', 'RFC822.SIZE', 'ENVELOPE'],
  FULL: ['FLAGS', 'INTERNALDATE', 'RFC822.SIZE', 'ENVELOPE', 'BODY'],
};

const shown = {
  'UID': ({ uid }) => uid,
  'FLAGS': ({ flags }) => `(${[...flags].join(' ')})`,
  'INTERNALDATE': ({ date }) => dateTime(date),
  'RFC822.SIZE': ({ text }) => text.length,
  'ENVELOPE': ({ text }) => envelope(text),
  'BODY': ({ text }) => structure(text, false),
  'BODYSTRUCTURE': ({ text }) => structure(text, true),
  'RFC822': ({ text }) => literal(text),
  'RFC822.HEADER': ({ text }) => section(text, 'HEADER'),
  'RFC822.TEXT': ({ text }) => section(text, 'TEXT'),
};

const bodyItem = /^BODY(\.PEEK)?\[([^\]]*)\](?:<(\d{1,9})\.(\d{1,9})>)?$/iu;

/** The items as they are answered. Throws SyntaxError for one that there is not. */
export function fetchItems(asked, isByUid) {
  const items = (asked.length === 1 ? macros[String(asked[0]).toUpperCase()] ?? asked : asked).map((item) => {
    const name = String(item).toUpperCase();
    if (shown[name] === undefined && !bodyItem.test(name)) throw new SyntaxError('FETCH what?');
    return name;
  });
  if (items.length === 0) throw new SyntaxError('FETCH what?');
  return isByUid && !items.includes('UID') ? ['UID', ...items] : items;
}

/** Reading a body, not only looking at it, is what makes a mail seen. */
export const marksSeen = (items) => items.some((item) => /^(?:BODY\[|RFC822$|RFC822\.TEXT$)/u.test(item));

export function fetchAnswer(mail, sequence, items) {
  return `* ${sequence} FETCH (${items.map((item) => itemAnswer(mail, item)).join(' ')})`;
}

function itemAnswer(mail, item) {
  if (shown[item] !== undefined) return `${item} ${shown[item](mail)}`;
  const [, , name, from, count] = bodyItem.exec(item);
  const range = from === undefined ? undefined : [Number(from), Number(count)];
  return `BODY[${name}]${from === undefined ? '' : `<${from}>`} ${section(mail.text, name, range)}`;
}
