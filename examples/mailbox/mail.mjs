// What IMAP shows of a mail: header fields, ENVELOPE, BODYSTRUCTURE and sections (RFC 3501 sections 6.4.5 and 7.4.2).
import { literal, string } from './wire.mjs';

/** Parts of parts of a mail that are looked at. */
const deepest = 8;

/** Header with its empty line, and body. */
function split(text) {
  if (text.startsWith('\r\n')) return { header: '\r\n', body: text.slice(2) };
  const end = text.indexOf('\r\n\r\n');
  return end < 0 ? { header: text, body: '' } : { header: text.slice(0, end + 4), body: text.slice(end + 4) };
}

/** The fields of a header, each with its name, its text as it stands, and its value on one line. */
function fieldsOf(header) {
  return (header.match(/^[!-9;-~]+[ \t]*:[^\r\n]*\r?\n?(?:[ \t][^\r\n]*\r?\n?)*/gmu) ?? []).map((text) => {
    const [, name, value] = /^([!-9;-~]+)[ \t]*:([^]*)$/u.exec(text);
    return { name: name.toLowerCase(), text, value: value.replace(/\r?\n[ \t]*/gu, ' ').trim() };
  });
}

/** The value of a mail's header field, or undefined. */
export const headerValue = (text, name) => fieldsOf(split(text).header).find((field) => field.name === name)?.value;

/** Addresses without groups and comments: `A B <a@b>, "C, D" <c@d>, e@f`. */
function addresses(value) {
  const list = (value?.match(/(?:"(?:[^"\\]|\\.)*"|[^,"])+/gu) ?? []).map((text) => {
    const [, name, mailbox, host] = /^\s*(?:(.*?)\s*<)?\s*([^<>@\s]+)@([^<>@\s]+?)\s*>?\s*$/u.exec(text) ?? [];
    return host === undefined ? '' : `(${string(name?.replace(/^"(.*)"$/u, '$1') || undefined)} NIL ${string(mailbox)} ${string(host)})`;
  }).join('');
  return list === '' ? 'NIL' : `(${list})`;
}

export function envelope(text) {
  const value = (name) => headerValue(text, name);
  const from = addresses(value('from'));
  return `(${[
    string(value('date')), string(value('subject')), from,
    ...['sender', 'reply-to'].map((name) => (value(name) === undefined ? from : addresses(value(name)))),
    ...['to', 'cc', 'bcc'].map((name) => addresses(value(name))), string(value('in-reply-to')), string(value('message-id')),
  ].join(' ')})`;
}

/** A MIME part: type with parameters, and the parts that it is made of. */
function parsePart(text, depth = 0) {
  const { header, body } = split(text);
  const fields = fieldsOf(header);
  const value = (name) => fields.find((field) => field.name === name)?.value;
  const [, type = 'text', subtype = 'plain', rest = ''] = /^([\w.+-]+)\/([\w.+-]+)(.*)$/u.exec(value('content-type') ?? '') ?? [];
  const params = [...rest.matchAll(/;\s*([\w*.-]+)=(?:"([^"]*)"|([^;\s]+))/gu)].map(([, name, quoted, plain]) => [name, quoted ?? plain]);
  const boundary = params.find(([name]) => name.toLowerCase() === 'boundary')?.[1];
  const isMultipart = type.toLowerCase() === 'multipart' && boundary !== undefined && depth < deepest;
  const parts = isMultipart ? partsOf(body, boundary).map((part) => parsePart(part, depth + 1)) : [];
  return { header, body, value, type, subtype, params, parts };
}

/** What stands between the lines with the boundary; the line ends before them belong to them. */
function partsOf(body, boundary) {
  const pieces = `\r\n${body}`.split(`\r\n--${boundary}`);
  const last = pieces.findIndex((piece, index) => index > 0 && piece.startsWith('--'));
  return pieces.slice(1, last < 0 ? undefined : last).map((piece) => piece.slice(piece.indexOf('\r\n') + 2));
}

const paramList = (params) => (params.length === 0 ? 'NIL' : `(${params.map((pair) => pair.map(string).join(' ')).join(' ')})`);

/** BODY, and with `isExtended` BODYSTRUCTURE. */
export function structure(text, isExtended) {
  const show = ({ body, value, type, subtype, params, parts }) => {
    const extension = isExtended ? ` ${[...(parts.length > 0 ? [paramList(params)] : [string(value('content-md5'))]), disposition(value('content-disposition')), 'NIL', 'NIL'].join(' ')}` : '';
    if (parts.length > 0) return `(${parts.map(show).join('')} ${string(subtype)}${extension})`;
    const lines = type.toLowerCase() === 'text' ? ` ${body.split('\r\n').length - 1}` : '';
    // A message in a message would need its envelope here; it is shown as what any mail is, octets.
    const shownType = type.toLowerCase() === 'message' ? ['application', 'octet-stream'] : [type, subtype];
    return `(${[...shownType.map(string), paramList(params), string(value('content-id')), string(value('content-description')), string(value('content-transfer-encoding') ?? '7bit'), body.length].join(' ')}${lines}${extension})`;
  };
  return show(parsePart(text));
}

function disposition(value) {
  if (value === undefined) return 'NIL';
  const [, kind = 'attachment'] = /^([\w-]+)/u.exec(value) ?? [];
  const params = [...value.matchAll(/;\s*([\w*.-]+)=(?:"([^"]*)"|([^;\s]+))/gu)].map(([, name, quoted, plain]) => [name, quoted ?? plain]);
  return `(${string(kind)} ${paramList(params)})`;
}

/** BODY[section]<from.count>: the octets, or NIL where there is no such part. */
export function section(text, name, range) {
  const found = sectionText(text, name);
  if (found === undefined) return 'NIL';
  return literal(range === undefined ? found : found.substr(range[0], range[1]));
}

function sectionText(text, name) {
  const [, numbers, what, list] = /^((?:\d+(?:\.(?=.)|$))*)(?:(HEADER\.FIELDS(?:\.NOT)?) \(([^)]*)\)|(?:HEADER|TEXT|MIME)?)$/iu.exec(name) ?? [];
  if (numbers === undefined) throw new SyntaxError('that is no section');
  const part = partAt(text, numbers.split('.').filter((number) => number !== '').map(Number));
  if (part === undefined) return undefined;
  if (what !== undefined) return someFields(part.header, list, /NOT$/iu.test(what));
  switch (name.slice(numbers.length).toUpperCase()) {
    case '': return numbers === '' ? text : part.body;
    case 'TEXT': return part.body;
    default: return part.header;
  }
}

function partAt(text, numbers) {
  let part = parsePart(text);
  for (const number of numbers) {
    // A mail of one part is its own part 1.
    const next = part.parts.length === 0 && number === 1 ? { ...part, parts: [] } : part.parts[number - 1];
    if (next === undefined) return undefined;
    part = next;
  }
  return part;
}

function someFields(header, list, isNot) {
  const names = list.toLowerCase().replaceAll('"', '').split(/\s+/u);
  return `${fieldsOf(header).filter(({ name }) => names.includes(name) !== isNot).map((field) => field.text).join('')}\r\n`;
}
