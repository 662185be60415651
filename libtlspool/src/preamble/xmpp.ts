/**
 * XMPP: STARTTLS of RFC 6120 section 5, for clients (c2s) and for servers (s2s). Behind the handshake the client opens a new stream (section 5.4.3.3), so
 * a plain-text backend begins there as if nothing had been.
 */
import { randomBytes } from 'node:crypto';
import { broken, mostCommands, mostStateOctets, octets, refused, say } from './dialogue.js';
import type { PreambleName } from './registry.js';
import type { ClientOptions, Dialogue, Face, Farewell, Preamble, ServeOptions, ServerOutcome } from './types.js';
import { escapeXml, XmlReader } from './xml.js';
import type { Element, Tag } from './xml.js';

const streams = 'http://etherx.jabber.org/streams';
const tlsNamespace = 'urn:ietf:params:xml:ns:xmpp-tls';
const saslNamespace = 'urn:ietf:params:xml:ns:xmpp-sasl';
const endOfStream = '</stream:stream>';

type ContentNamespace = 'jabber:client' | 'jabber:server';

/** Names of ours, as the latin1 of their UTF-8. */
const ours = (text: string): string => Buffer.from(text).toString('latin1');

/** Attributes in their order; undefined ones are left out. Values are latin1 of octets. */
function header(content: ContentNamespace, attributes: Readonly<Record<string, string | undefined>>): string {
  const written = Object.entries(attributes).flatMap(([key, value]) => value === undefined ? [] : [` ${key}='${escapeXml(value)}'`]);
  return `<stream:stream xmlns='${content}' xmlns:stream='${streams}'${written.join('')} version='1.0'>`;
}

/** The other end's stream header. Section 4.8.5: an implementation may accept only the prefix `stream`. */
function* readHeader(reader: XmlReader, content: ContentNamespace): Dialogue<Tag> {
  const tag = yield* reader.next();
  if (tag.kind !== 'open' || tag.name !== 'stream:stream') throw broken('no stream header of XMPP');
  const { attributes } = tag;
  if (attributes.get('xmlns:stream') !== streams || attributes.get('xmlns') !== content) throw broken(`not a stream of ${content}: look at the namespaces`);
  if (!/^[1-9][0-9]*\.[0-9]+$/u.test(attributes.get('version') ?? '')) throw broken('a stream of before version 1.0, which has no STARTTLS');
  return tag;
}

const isTls = ({ name, attributes }: Tag, wanted: string): boolean => name === wanted && attributes.get('xmlns') === tlsNamespace;

/** What we answer to a stream header. The id must not be guessed (section 4.7.3). */
function* greet(content: ContentNamespace, { attributes }: Tag, { face, tls }: ServeOptions): Dialogue<void> {
  const to = attributes.get('from');
  const answer = header(content, {
    id: randomBytes(12).toString('base64url'), from: attributes.get('to') ?? ours(face.hostname),
    // Section 4.7.2: the bare address of a client, or the name of a server.
    to: to?.replace(/\/.*$/u, ''), 'xml:lang': 'en',
  });
  const starttls = tls === 'required' ? `<starttls xmlns='${tlsNamespace}'><required/></starttls>` : `<starttls xmlns='${tlsNamespace}'/>`;
  // Where TLS is required, nothing else is offered before it (section 5.3.1).
  const others = tls === 'required' ? [] : (face.capabilities ?? []).filter((feature) => !feature.startsWith('<starttls'));
  yield* say(`<?xml version='1.0'?>${answer}<stream:features>${starttls}${others.join('')}</stream:features>`);
}

function* serve(content: ContentNamespace, options: ServeOptions): Dialogue<ServerOutcome> {
  const reader = new XmlReader();
  const asked = yield* readHeader(reader, content);
  yield* greet(content, asked, options);
  for (let count = 0; count < mostCommands; count++) {
    const tag = yield* reader.next();
    if (tag.kind === 'close') {
      if (tag.name !== 'stream:stream') throw broken(`the end of ${tag.name}, which did not begin`);
      yield* say(endOfStream);
      return { next: 'end' };
    }
    if (isTls(tag, 'starttls')) {
      const { children } = yield* reader.element(tag);
      if (children.length > 0) throw broken('elements in the request for TLS');
      // Section 5.4.3.3 warns of this: what was sent in plain text would be taken for protected.
      if (reader.rest !== '') throw broken('octets behind the request for TLS');
      return { next: 'tls', goAhead: octets(`<proceed xmlns='${tlsNamespace}'/>`), refusal: octets(`<failure xmlns='${tlsNamespace}'/>${endOfStream}`) };
    }
    if (options.tls === 'optional') {
      if (asked.raw.length > mostStateOctets) throw broken(`a stream header of more than ${mostStateOctets} octets`);
      return { next: 'plain', ahead: octets(tag.raw + reader.rest), introduce: () => introduce(content, asked), state: octets(asked.raw) };
    }
    if (tag.name !== 'auth' || tag.attributes.get('xmlns') !== saslNamespace) {
      yield* say(`${streamError('policy-violation', 'TLS is required')}${endOfStream}`);
      return { next: 'end', refused: 'the client did not ask for TLS' };
    }
    yield* reader.element(tag);
    // Section 6.5.4.
    yield* say(`<failure xmlns='${saslNamespace}'><encryption-required/></failure>`);
  }
  throw broken(`more than ${mostCommands} elements before STARTTLS`);
}

/** Opens the client's stream at the backend, and swallows the answer: the client has had ours. */
function* introduce(content: ContentNamespace, asked: Tag): Dialogue<void> {
  yield* say(asked.raw);
  const reader = new XmlReader();
  yield* readFeatures(reader, content);
  if (reader.rest !== '') throw broken('the backend says more than its features');
}

/** Header and features of the other end. */
function* readFeatures(reader: XmlReader, content: ContentNamespace): Dialogue<readonly Element[]> {
  yield* readHeader(reader, content);
  const { tag, children } = yield* firstLevel(reader);
  if (tag.name !== 'stream:features') throw broken(`${tag.name} instead of the features of a stream`);
  return children;
}

/** The next element. Errors of the stream, and its end, are refusals. */
function* firstLevel(reader: XmlReader): Dialogue<Element> {
  const tag = yield* reader.next();
  if (tag.kind === 'close' && tag.name === 'stream:stream') throw refused('the other end closes the stream');
  const element = yield* reader.element(tag);
  if (tag.name === 'stream:error') throw refused('the other end ends the stream with an error', element.children[0]?.tag.name);
  return element;
}

/** The features are the capabilities, each as it is written. Nothing is learnt from a backend that does not serve our name: it may serve the client's. */
function* learn(content: ContentNamespace, hostname: string): Dialogue<Omit<Face, 'hostname'>> {
  yield* say(header(content, { to: ours(hostname) }));
  const reader = new XmlReader();
  yield* readHeader(reader, content);
  const element = yield* reader.element(yield* reader.next());
  yield* say(endOfStream);
  if (element.tag.name === 'stream:error' && element.children[0]?.tag.name === 'host-unknown') return {};
  if (element.tag.name !== 'stream:features') throw refused('the backend has no features', element.children[0]?.tag.name);
  return { capabilities: element.children.map(({ raw }) => raw) };
}

const streamError = (condition: string, text: string): string =>
  `<stream:error><${condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/><text xmlns='urn:ietf:params:xml:ns:xmpp-streams' xml:lang='en'>${text}</text></stream:error>`;

/** Conditions of section 4.9.3. */
const farewells: Readonly<Record<Farewell, readonly [condition: string, text: string]>> = {
  unavailable: ['internal-server-error', 'the service is not available now, try again later'],
  timeout: ['connection-timeout', 'too slow'],
  limit: ['resource-constraint', 'too many connections, try again later'],
  syntax: ['bad-format', 'that is not XMPP'],
  early: ['policy-violation', 'octets behind the request for TLS'],
};

/** Without an XML declaration, and so well-formed also when our header was sent before. */
function farewell(content: ContentNamespace, why: Farewell, { hostname }: Face): Buffer {
  return octets(`${header(content, { id: randomBytes(12).toString('base64url'), from: ours(hostname) })}${streamError(...farewells[why])}${endOfStream}`);
}

function* client(content: ContentNamespace, { hostname, remoteid }: ClientOptions): Dialogue<object> {
  // A client does not tell its address in plain text (section 4.7.1); a server must say its name.
  const from = content === 'jabber:server' ? ours(hostname) : undefined;
  yield* say(`<?xml version='1.0'?>${header(content, { from, to: ours(remoteid) })}`);
  const reader = new XmlReader();
  const features = yield* readFeatures(reader, content);
  if (!features.some(({ tag }) => isTls(tag, 'starttls'))) throw refused('the server has no TLS');
  yield* say(`<starttls xmlns='${tlsNamespace}'/>`);
  const { tag } = yield* firstLevel(reader);
  if (isTls(tag, 'failure')) throw refused('the server does not begin TLS');
  if (!isTls(tag, 'proceed')) throw broken(`${tag.name} instead of the go-ahead`);
  if (reader.rest !== '') throw broken('octets behind the go-ahead');
  return {};
}

function xmpp(name: PreambleName, title: string, content: ContentNamespace): Preamble {
  return {
    name,
    title,
    server: {
      serve: (options) => serve(content, options), learn: (hostname) => learn(content, hostname), learnOnly: 'optional',
      farewell: (why, face) => farewell(content, why, face), plainBackend: true,
    },
    client: (options) => client(content, options),
  };
}

export const xmppClient = xmpp('xmpp-client', 'XMPP from client to server (RFC 6120 section 5)', 'jabber:client');
export const xmppServer = xmpp('xmpp-server', 'XMPP from server to server (RFC 6120 section 5)', 'jabber:server');
