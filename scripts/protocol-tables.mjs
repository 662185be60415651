/**
 * Writes the tables of docs/protocol.md from the message table and the error table, between their markers.
 *
 *   node scripts/protocol-tables.mjs           rewrite the file
 *   node scripts/protocol-tables.mjs --check   exit 1 when it is stale (a unit test does this)
 *
 * Needs libtlspool to be built.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import {
  backend, callbacks, ctlkeyOctets, defaultMaxMessageOctets, encodeMessage, endpoint, errorBody, errorTable, events, highestMaxMessageOctets, maxDepth, maxKeyOctets,
  maxMapFields, maxMessageFds, maxPacketMessages, requests, sessionInfo,
} from 'libtlspool/protocol';

const file = new URL('../docs/protocol.md', import.meta.url);

/** Shapes with a table of their own. */
const named = new Map([[endpoint, 'endpoint'], [backend, 'backend'], [sessionInfo, 'session info']]);
const anchor = (name) => `[${name}](#${name.replaceAll(' ', '-')})`;

const number = (value) => (value === Number.MAX_SAFE_INTEGER ? '2^53 - 1' : value === 0xffff_ffff ? '2^32 - 1' : String(value));

function octets({ minOctets, maxOctets, secret }) {
  const size = minOctets === maxOctets ? `${maxOctets} octets` : minOctets === 0 ? `up to ${maxOctets} octets` : `${minOctets} to ${maxOctets} octets`;
  return `bin, ${size}${secret ? ', secret' : ''}`;
}

/** One shape in words. */
function words(shape) {
  switch (shape.kind) {
    case 'uint': return `uint, up to ${number(shape.max)}`;
    case 'text': return `text, up to ${shape.maxOctets} octets`;
    case 'bin': return octets(shape);
    case 'bool': return 'bool';
    case 'word': return shape.words.map((word) => `\`${word}\``).join(' or ');
    case 'list': return `list of up to ${shape.maxItems}: ${shape.of.kind === 'map' && !named.has(shape.of) ? 'map' : words(shape.of)}`;
    case 'map': return named.has(shape) ? anchor(named.get(shape)) : 'map';
    default: return words(shape.of);
  }
}

/** Rows of the fields of a map; those of maps without a name of their own are written out beneath. */
function rows(shape, prefix = '') {
  return Object.entries(shape.fields).flatMap(([key, field]) => {
    const value = field.kind === 'optional' ? field.of : field;
    const inner = value.kind === 'list' ? value.of : value;
    const below = inner.kind === 'map' && !named.has(inner) ? rows(inner, `${prefix}${key}${value.kind === 'list' ? '[]' : ''}.`) : [];
    return [`| \`${prefix}${key}\` | ${words(value)} | ${field.kind === 'optional' ? 'optional' : 'yes'} |`, ...below];
  });
}

function fieldTable(shape) {
  const lines = rows(shape);
  return lines.length === 0 ? 'No fields: an empty map.' : ['| field | value | required |', '|---|---|---|', ...lines].join('\n');
}

const fdText = (fds) => (fds.length === 0 ? 'none' : fds.map((name) => (name.endsWith('?') ? `\`${name.slice(0, -1)}\` (may be absent)` : `\`${name}\``)).join(', '));

const messageText = (title, { body, fds }) => `${title}. Descriptors: ${fdText(fds)}.\n\n${fieldTable(body)}`;

function pairs(table, first, second) {
  return Object.entries(table).map(([op, entry]) => [
    `### ${op}`,
    `${entry.doc}${entry.operator === true ? ' **Operators only.**' : ''}`,
    messageText(`${first[0].toUpperCase()}${first.slice(1)} body`, entry[first]),
    messageText(`${second[0].toUpperCase()}${second.slice(1)} body`, entry[second]),
  ].join('\n\n')).join('\n\n');
}

function hex(message) {
  const packet = encodeMessage(message).toString('hex');
  return packet.match(/.{1,64}/g).map((line) => `    ${line.replaceAll(/(.{2})(?=.)/g, '$1 ')}`).join('\n');
}

function example(title, message) {
  const shown = JSON.stringify(message).replaceAll('"', '').replaceAll(/([:,])/g, '$1 ');
  return `${title}:\n\n    ${shown}\n\n${hex(message)}`;
}

const sections = {
  limits: [
    '| what | limit |', '|---|---|',
    `| octets in one packet | ${defaultMaxMessageOctets}, unless the pool's \`hello\` reply says otherwise; never over ${highestMaxMessageOctets} |`,
    `| descriptors in one packet to the pool | ${maxMessageFds} |`,
    `| events, and descriptors, in one packet from the pool | ${maxPacketMessages} |`, `| containers within containers | ${maxDepth} |`, `| fields of one map | ${maxMapFields} |`,
    `| octets of a field name | ${maxKeyOctets} |`, `| octets of a control key | ${ctlkeyOctets} |`,
  ].join('\n'),
  errors: ['| code | kind | meaning |', '|---|---|---|', ...Object.entries(errorTable).map(([code, { kind, text }]) => `| \`${code}\` | ${kind} | ${text} |`)].join('\n'),
  'error-body': fieldTable(errorBody),
  shapes: [...named].map(([shape, name]) => `### ${name}\n\n${fieldTable(shape)}`).join('\n\n'),
  requests: pairs(requests, 'request', 'reply'),
  callbacks: pairs(callbacks, 'callback', 'answer'),
  events: Object.entries(events).map(([op, { body, fds, doc }]) => `### ${op}\n\n${doc}\n\n${messageText('Event body', { body, fds })}`).join('\n\n'),
  example: [
    example('Client', { type: 'request', op: 'hello', id: 1, body: { versions: [1], client: 'example/1' } }),
    example('Pool', { type: 'reply', op: 'hello', id: 1, body: { version: 1, pool: 'tlspool/0.1.0', maxMessageOctets: 65_536 } }),
    example('Client, with one descriptor (the listening socket)', { type: 'request', op: 'listen', id: 2, body: { localid: 'www', alpn: ['http/1.1'] } }),
    example('Pool', { type: 'reply', op: 'listen', id: 2, body: { listener: 1, local: { family: 'IPv4', address: '127.0.0.1', port: 8443 } } }),
    example('Client, a mistake', { type: 'request', op: 'unlisten', id: 3, body: { listener: 9 } }),
    example('Pool', { type: 'error', op: 'unlisten', id: 3, body: { code: 'LISTENER_UNKNOWN', text: 'this connection has no listener 9', field: 'body.listener' } }),
  ].join('\n\n'),
};

function fill(text) {
  let filled = text;
  for (const [name, content] of Object.entries(sections)) {
    const begin = `<!-- generated: ${name} -->`;
    const end = '<!-- end -->';
    const start = filled.indexOf(begin);
    const stop = filled.indexOf(end, start);
    if (start < 0 || stop < 0) throw new Error(`docs/protocol.md has no section between "${begin}" and "${end}"`);
    filled = `${filled.slice(0, start + begin.length)}\n${content}\n${filled.slice(stop)}`;
  }
  return filled;
}

const before = readFileSync(file, 'utf8');
const after = fill(before);
if (!process.argv.includes('--check')) writeFileSync(file, after);
else if (before !== after) {
  process.stderr.write('docs/protocol.md is stale: run `node scripts/protocol-tables.mjs`\n');
  process.exitCode = 1;
}
