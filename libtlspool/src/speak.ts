/** The plain-text part of a protocol, spoken for an application that wants a protected socket in one call. */
import { hostname } from 'node:os';
import type { Link } from './link.js';
import type { BorrowedFd } from './native.js';
import { Conversation } from './preamble/driver.js';
import { farewellFor } from './preamble/farewell.js';
import { preambles } from './preamble/registry.js';
import type { PreambleName } from './preamble/registry.js';
import type { Face, Preamble, ServerOutcome, ServerRole } from './preamble/types.js';
import { escapeText } from './protocol/escape.js';
import { TlsPoolError } from './protocol/index.js';

const defaultPreambleMs = 60_000;

/** A proxy that the socket is connected to, and what it is asked to connect to. */
export interface ViaOptions {
  /** HTTP CONNECT (RFC 9110 section 9.3.6) or SOCKS version 5 (RFC 1928, RFC 1929). */
  readonly proxy: 'http-connect' | 'socks5';
  /** Name or address of the server, resolved by the proxy. Default: remoteid. */
  readonly host?: string;
  /** TCP port of the server, 1 to 65535. */
  readonly port: number;
  /** Sent to the proxy in plain text. */
  readonly credentials?: {
    /** Name. */
    readonly user: string;
    /** Password. */
    readonly password: string;
  };
}

/** What is spoken in plain text before TLS. */
export interface PreambleOptions {
  /**
   * Speaks this protocol up to and with its go-ahead, on a socket from which nothing was read yet: as a server beginning with the greeting, and refusing
   * everything that needs TLS; as a client beginning with what the server says first. Absent: the application has done that, see `goAhead`.
   */
  readonly preamble?: PreambleName;
  /** Our name, in greetings, EHLO and the like: 1 to 255 printable ASCII characters without spaces. Default: the host's. */
  readonly hostname?: string;
  /** Server: text of the greeting, without its code. Default: the hostname and a word. */
  readonly greeting?: string;
  /** Server: capabilities to show before TLS, in the protocol's own spelling, one each ("SIZE 1000", "IDLE"). Those about TLS and authentication are left out and put in as the protocol demands. */
  readonly capabilities?: readonly string[];
  /** Deadline of the plain-text dialogue in milliseconds. Default 60,000. */
  readonly preambleMs?: number;
  /** Client: the socket is connected to a proxy, which is asked for the server first. */
  readonly via?: ViaOptions;
}

/** @internal */
export interface SpeakOptions extends PreambleOptions {
  readonly role: 'server' | 'client';
  readonly remoteid?: string;
  readonly servername?: string;
  readonly goAhead?: string | Uint8Array;
  readonly signal?: AbortSignal;
}

/** @internal What TLS and the application need of it. */
export interface Spoken {
  /** Application protocol that has to be negotiated. */
  readonly alpn?: string;
  readonly state?: Uint8Array;
}

/** @internal Is there anything to say? Throws BAD_ARGUMENT for options that do not go together. */
export function speaks(options: SpeakOptions): boolean {
  const { role, preamble, via, goAhead } = options;
  if (preamble === undefined && via === undefined) return false;
  if (goAhead !== undefined) throw bad('goAhead', 'the preamble has a go-ahead of its own: leave one of the two out');
  if (preamble !== undefined) {
    const found = Object.hasOwn(preambles, preamble) ? preambles[preamble] : undefined;
    if (found === undefined) throw bad('preamble', `there is no preamble "${escapeText(preamble)}"; there are ${Object.keys(preambles).join(', ')}`);
    if (found.server === undefined) throw bad('preamble', `${preamble} is a way through a proxy: name it in \`via\``);
    if (found[role] === undefined) throw bad('preamble', `${preamble} has no ${role} role`);
  }
  if (via !== undefined) {
    if (role === 'server') throw bad('via', 'a server is not connected through a proxy');
    // The type says so; callers in JavaScript have none.
    if (!['http-connect', 'socks5'].includes(via.proxy)) throw bad('via.proxy', 'it is http-connect or socks5');
  }
  if (role === 'client' && nameOf(options) === '') throw bad('remoteid', 'the server\'s name is needed: the certificate must carry it, and the dialogue may');
  checkTexts(options);
  return true;
}

/**
 * @internal Speaks it. The descriptor stays the caller's; when this rejects, the other end was told in the words of the protocol, and the connection is to be closed.
 * Rejects with PREAMBLE, PREAMBLE_REFUSED, EARLY_OCTETS, PEER_CLOSED, TIMEOUT, ABORTED, POOL_LOST (before the go-ahead), SYSTEM.
 */
export async function speakPreamble(fd: BorrowedFd, link: Link | Promise<Link>, options: SpeakOptions): Promise<Spoken> {
  const { preambleMs: deadlineMs = defaultPreambleMs, signal } = options;
  const talk = new Conversation(fd, { deadlineMs, ...(signal === undefined ? {} : { signal }) });
  try {
    return await (options.role === 'server' ? answer(talk, link, options) : ask(talk, options));
  } finally {
    talk.close();
  }
}

async function answer(talk: Conversation, link: Link | Promise<Link>, options: SpeakOptions): Promise<Spoken> {
  const role = roleOf(options);
  const face = faceOf(options);
  /** Turns the client away in the words of the protocol, should this go wrong. */
  const orTellWhy = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      const why = error instanceof TlsPoolError ? farewellFor(error) : 'unavailable';
      if (why !== undefined) talk.tell(role.farewell(why, face));
      throw error;
    }
  };
  const outcome = await orTellWhy(talk.run(role.serve({ face, tls: 'required' })));
  if (outcome.next === 'end') throw new TlsPoolError('PREAMBLE_REFUSED', { text: outcome.refused ?? 'the client said goodbye instead of asking for TLS' });
  if (outcome.next === 'plain') throw new TlsPoolError('INTERNAL', { text: 'plain text where TLS is required' });
  try {
    // Behind the go-ahead there are no words left to say that there is nobody to do the handshake.
    await (await link).whenUp();
  } catch (error) {
    talk.tell(outcome.refusal.length > 0 ? outcome.refusal : role.farewell('unavailable', face));
    throw error;
  }
  await orTellWhy(begin(talk, outcome));
  return outcome;
}

/** RFC 3207 section 4 and its kin: nothing that came before the go-ahead may be taken for protected. */
async function begin(talk: Conversation, { direct, goAhead }: ServerOutcome & { next: 'tls' }): Promise<void> {
  if (direct !== true) talk.refuseEarly();
  await talk.write(goAhead);
}

async function ask(talk: Conversation, options: SpeakOptions): Promise<Spoken> {
  const { preamble, via } = options;
  const names = { hostname: options.hostname ?? hostname(), remoteid: nameOf(options) };
  if (via !== undefined) {
    const { host = names.remoteid, port, credentials } = via;
    await talk.run(clientOf(preambles[via.proxy])({ ...names, remoteid: host, port, ...(credentials === undefined ? {} : { credentials }) }));
  }
  // What the server adds behind its go-ahead is found where every session of a client begins, in startSession().
  return preamble === undefined ? {} : talk.run(clientOf(preambles[preamble])(names));
}

function roleOf({ preamble }: SpeakOptions): ServerRole {
  const server = preamble === undefined ? undefined : preambles[preamble].server;
  if (server === undefined) throw new TlsPoolError('INTERNAL');
  return server;
}

function clientOf({ client }: Preamble): NonNullable<Preamble['client']> {
  if (client === undefined) throw new TlsPoolError('INTERNAL');
  return client;
}

const nameOf = ({ remoteid, servername }: SpeakOptions): string => remoteid ?? servername ?? '';

/** Dialogues speak octets, one a character. */
const asOctets = (text: string): string => Buffer.from(text).toString('latin1');

function faceOf(options: SpeakOptions): Face {
  const { greeting, capabilities } = options;
  return {
    hostname: options.hostname ?? hostname(),
    ...(greeting === undefined ? {} : { greeting: asOctets(greeting) }),
    ...(capabilities === undefined ? {} : { capabilities: capabilities.map(asOctets) }),
  };
}

/** A line end in one of them would be a command, or an answer, of its own. */
function checkTexts(options: SpeakOptions): void {
  const ours = options.hostname;
  if (ours !== undefined && !/^[\x21-\x7e]{1,255}$/u.test(ours)) throw bad('hostname', 'a name of 1 to 255 printable ASCII characters without spaces');
  for (const [field, texts] of [['greeting', [options.greeting ?? '']], ['capabilities', options.capabilities ?? []]] as const) {
    if (texts.some((text) => /[\0-\x1f\x7f]/u.test(text))) throw bad(field, 'a control character, such as a line end');
  }
}

const bad = (field: string, text: string): TlsPoolError => new TlsPoolError('BAD_ARGUMENT', { text: `${field}: ${text}`, field });
