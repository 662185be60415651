/** A way out through an HTTP proxy: CONNECT of RFC 9110 section 9.3.6, in HTTP/1.1 (RFC 9112). */
import { TlsPoolError } from '../protocol/errors.js';
import { broken, readLine, refused, say } from './dialogue.js';
import type { ClientOptions, Dialogue, Preamble } from './types.js';

const mostFields = 128;
/** 1xx before the answer: RFC 9110 section 15.2. */
const mostInterim = 8;

/** Name, IPv4 or IPv6 address (in brackets) and port: RFC 9112 section 3.2.3. */
function authority({ remoteid, port }: ClientOptions): string {
  if (!/^[A-Za-z0-9._-]{1,255}$|^[0-9A-Fa-f:.]{2,45}$/u.test(remoteid)) throw new TlsPoolError('BAD_ARGUMENT', { text: 'an HTTP proxy takes a name or an address as remoteid', field: 'remoteid' });
  if (port === undefined) throw new TlsPoolError('BAD_ARGUMENT', { text: 'an HTTP proxy needs to know which port to connect to', field: 'port' });
  return `${remoteid.includes(':') ? `[${remoteid}]` : remoteid}:${port}`;
}

/** RFC 7617. */
function authorization({ credentials }: ClientOptions): string {
  if (credentials === undefined) return '';
  const { user, password } = credentials;
  if (user.includes(':') || /[\0-\x1f\x7f]/u.test(user + password)) throw new TlsPoolError('BAD_ARGUMENT', { text: 'a user name with a colon, or control characters, cannot be sent to an HTTP proxy', field: 'credentials' });
  return `Proxy-Authorization: Basic ${Buffer.from(`${user}:${password}`).toString('base64')}\r\n`;
}

function* client(options: ClientOptions): Dialogue<object> {
  const target = authority(options);
  yield* say(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n${authorization(options)}\r\n`);
  for (let count = 0; count <= mostInterim; count++) {
    const line = yield* readLine();
    const [, status = ''] = /^HTTP\/1\.[0-9] ([0-9]{3})(?: .*)?$/u.exec(line) ?? [];
    if (status === '') throw broken('the proxy does not answer in HTTP/1.1');
    yield* skipFields();
    if (status.startsWith('1')) continue;
    // "Any 2xx (Successful) response indicates that the sender will switch to tunnel mode immediately after the response header section".
    if (status.startsWith('2')) return {};
    throw refused('the proxy does not connect', line);
  }
  throw broken('the proxy does not come to an answer');
}

/** Content-Length and Transfer-Encoding too: "A client MUST ignore" them in an answer to CONNECT. */
function* skipFields(): Dialogue<void> {
  for (let count = 0; count <= mostFields; count++) {
    if ((yield* readLine()) === '') return;
  }
  throw broken(`more than ${mostFields} header fields`);
}

export const httpConnect: Preamble = {
  name: 'http-connect',
  title: 'HTTP proxy (CONNECT, RFC 9110 section 9.3.6)',
  client,
};
