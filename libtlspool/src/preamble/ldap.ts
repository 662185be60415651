/** LDAP: the StartTLS operation of RFC 4511 section 4.14. */
import { element, elementsOf, number, numberOf, readElement, tags } from './ber.js';
import type { Element } from './ber.js';
import { broken, mostCommands, octets, refused, say } from './dialogue.js';
import type { Dialogue, Farewell, Preamble, ServeOptions, ServerOutcome } from './types.js';

const startTls = '1.3.6.1.4.1.1466.20037';
/** RFC 4511 section 4.4.1. */
const noticeOfDisconnection = '1.3.6.1.4.1.1466.20036';

/** RFC 4511 appendix A. */
const result = { success: 0, protocolError: 2, confidentialityRequired: 13, unavailable: 52 } as const;

/** Tags of RFC 4511 section 4.2 to 4.12. */
const op = { unbind: 0x42, abandon: 0x50, extended: 0x77, extendedResponse: 0x78 } as const;
/** Request -> its (last) response. */
const responses: ReadonlyMap<number, number> = new Map([
  [0x60, 0x61], // bind
  [0x63, 0x65], // search: searchResultDone
  [0x66, 0x67], // modify
  [0x68, 0x69], // add
  [0x4a, 0x6b], // delete
  [0x6c, 0x6d], // modify DN
  [0x6e, 0x6f], // compare
  [op.extended, op.extendedResponse],
]);

/** A bind with a SASL token, or a search, before TLS. Directory entries come later. */
const mostMessageOctets = 16_384;

interface Message {
  readonly id: number;
  readonly operation: Element;
  /** All octets of it, to pass on. */
  readonly whole: Buffer;
}

function* readMessage(): Dialogue<Message> {
  const whole = yield* readElement(tags.sequence, mostMessageOctets);
  const [{ body } = { body: Buffer.alloc(0) }] = elementsOf(whole);
  const [id, operation, controls, ...rest] = elementsOf(body);
  if (id?.tag !== tags.integer || operation === undefined) throw broken('not an LDAP message');
  if ((controls !== undefined && controls.tag !== tags.controls) || rest.length > 0) throw broken('an LDAP message with more in it than controls');
  return { id: numberOf(id), operation, whole };
}

const message = (id: number, operation: Buffer): Buffer => element(tags.sequence, number(tags.integer, id), operation);

/** LDAPResult of RFC 4511 section 4.1.9, and for an extended response what it is about. */
function response(tag: number, code: number, text: string, about?: string): Buffer {
  return element(tag, number(tags.enumerated, code), element(tags.octets), element(tags.octets, octets(text)), ...(about === undefined ? [] : [element(0x8a, octets(about))]));
}

/** Name of an extended request, and whether it has a value. */
function extended({ body }: Element): { name: string; hasValue: boolean } {
  const [name, value, ...rest] = elementsOf(body);
  if (name?.tag !== 0x80 || (value !== undefined && value.tag !== 0x81) || rest.length > 0) throw broken('not an extended request');
  return { name: name.body.toString('latin1'), hasValue: value !== undefined };
}

function* serve({ tls }: ServeOptions): Dialogue<ServerOutcome> {
  for (let count = 0; count < mostCommands; count++) {
    const { id, operation, whole } = yield* readMessage();
    // Section 4.1.1.1: zero is for what the server says unasked.
    if (id === 0) throw broken('a request with message ID 0');
    const asked = operation.tag === op.extended ? extended(operation) : undefined;
    if (asked?.name === startTls && !asked.hasValue) {
      return {
        next: 'tls', goAhead: message(id, response(op.extendedResponse, result.success, '', startTls)),
        refusal: message(id, response(op.extendedResponse, result.unavailable, 'TLS is not available now', startTls)),
      };
    }
    if (asked?.name === startTls) {
      yield* say(message(id, response(op.extendedResponse, result.protocolError, 'StartTLS takes no value', startTls)));
      continue;
    }
    if (operation.tag === op.unbind) return { next: 'end' };
    const answer = responses.get(operation.tag);
    if (answer === undefined && operation.tag !== op.abandon) throw broken(`operation ${operation.tag} is none of LDAP`);
    if (tls === 'optional') return { next: 'plain', ahead: whole };
    // Section 4.11: abandon has no response.
    if (answer !== undefined) yield* say(message(id, response(answer, result.confidentialityRequired, 'StartTLS first')));
  }
  throw broken(`more than ${mostCommands} operations before StartTLS`);
}

const farewells: Readonly<Record<Farewell, readonly [code: number, text: string]>> = {
  unavailable: [result.unavailable, 'the service is not available now'],
  timeout: [result.unavailable, 'too slow'],
  limit: [result.unavailable, 'too many connections'],
  syntax: [result.protocolError, 'that is not LDAP'],
  early: [result.protocolError, 'octets behind StartTLS'],
};

function farewell(why: Farewell): Buffer {
  const [code, text] = farewells[why];
  return message(0, response(op.extendedResponse, code, text, noticeOfDisconnection));
}

function* client(): Dialogue<object> {
  yield* say(message(1, element(op.extended, element(0x80, octets(startTls)))));
  const { id, operation } = yield* readMessage();
  if (operation.tag !== op.extendedResponse || id > 1) throw broken('the server does not answer StartTLS with an extended response');
  const [code, , text] = elementsOf(operation.body);
  if (code?.tag !== tags.enumerated) throw broken('an extended response without a result');
  const said = `result ${numberOf(code)} ${text?.body.toString('latin1') ?? ''}`;
  // Message ID 0 is the notice of disconnection.
  if (id === 0 || numberOf(code) !== result.success) throw refused('the server does not begin TLS', said.trimEnd());
  return {};
}

export const ldap: Preamble = {
  name: 'ldap',
  title: 'LDAP (RFC 4511 section 4.14)',
  server: { serve, farewell, plainBackend: true },
  client,
};
