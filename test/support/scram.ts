/** SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), as far as a test of channel bindings needs them: one user, and names without `=` or `,`. */
import { createHash, createHmac, pbkdf2Sync, randomBytes, timingSafeEqual } from 'node:crypto';
import type { Duplex } from 'node:stream';

/** Names of RFC 5929 and RFC 9266. */
export type BindingType = 'tls-unique' | 'tls-server-end-point' | 'tls-exporter';
/** The octets that both ends must have; undefined where this end has none of that type. */
export type Bindings = (type: BindingType) => Promise<Uint8Array | undefined>;

const iterations = 4096;
const hmac = (key: Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest();
const hash = (octets: Buffer): Buffer => createHash('sha256').update(octets).digest();
const xor = (one: Buffer, other: Buffer): Buffer => Buffer.from(one.map((octet, at) => octet ^ (other[at] ?? 0)));
const nonce = (): string => randomBytes(18).toString('base64');

/** One attribute of a message, such as `r`. */
const attribute = (message: string, name: string): string => message.split(',').find((part) => part.startsWith(`${name}=`))?.slice(2) ?? '';

/** RFC 5802 section 3. Checked with the example of RFC 7677 section 3. */
export function proofs(password: string, salt: Buffer, rounds: number, authMessage: string): { readonly client: Buffer; readonly server: Buffer } {
  const salted = pbkdf2Sync(password, salt, rounds, 32, 'sha256');
  const clientKey = hmac(salted, 'Client Key');
  return { client: xor(clientKey, hmac(hash(clientKey), authMessage)), server: hmac(hmac(salted, 'Server Key'), authMessage) };
}

/** Lines of a stream, one at a time. */
export class Lines {
  #text = '';
  #ended = false;
  #wake: (() => void) | undefined;
  constructor(private readonly stream: Duplex) {
    stream.setEncoding('utf8').on('data', (chunk: string) => { this.#text += chunk; this.#wake?.(); });
    for (const name of ['end', 'error', 'close']) stream.on(name, () => { this.#ended = true; this.#wake?.(); });
  }

  say(line: string): void { this.stream.write(`${line}\n`); }
  /** Rejects when the stream ends before. */
  async hear(): Promise<string> {
    for (;;) {
      const end = this.#text.indexOf('\n');
      if (end >= 0) {
        const line = this.#text.slice(0, end);
        this.#text = this.#text.slice(end + 1);
        return line;
      }
      if (this.#ended) throw new Error('the other end has gone');
      await new Promise<void>((resolve) => { this.#wake = resolve; });
    }
  }
}

export interface Account { readonly user: string; readonly password: string }

/** Client. With a type of binding it is SCRAM-SHA-256-PLUS. Resolves with `authenticated`, when the server has proved that it knows the password too, or with the server's error. */
export async function authenticate(lines: Lines, { user, password }: Account, type: BindingType | undefined, bindings: Bindings): Promise<string> {
  const gs2 = type === undefined ? 'n,,' : `p=${type},,`;
  const firstBare = `n=${user},r=${nonce()}`;
  lines.say(`${gs2}${firstBare}`);
  const serverFirst = await lines.hear();
  if (attribute(serverFirst, 'e') !== '') return attribute(serverFirst, 'e');
  const binding = type === undefined ? undefined : await bindings(type);
  const bare = `c=${Buffer.concat([Buffer.from(gs2), binding ?? Buffer.alloc(0)]).toString('base64')},r=${attribute(serverFirst, 'r')}`;
  const made = proofs(password, Buffer.from(attribute(serverFirst, 's'), 'base64'), Number(attribute(serverFirst, 'i')), `${firstBare},${serverFirst},${bare}`);
  lines.say(`${bare},p=${made.client.toString('base64')}`);
  const serverFinal = await lines.hear();
  if (attribute(serverFinal, 'e') !== '') return attribute(serverFinal, 'e');
  return attribute(serverFinal, 'v') === made.server.toString('base64') ? 'authenticated' : 'the server does not know the password';
}

/** Server. Resolves with `authenticated` or with the error that it told the client (RFC 5802 section 7). */
export async function verify(lines: Lines, { user, password }: Account, bindings: Bindings): Promise<string> {
  const [, gs2 = '', type, firstBare = ''] = /^((?:n|p=([a-z-]+)),,)(.*)$/u.exec(await lines.hear()) ?? [];
  const refuse = (error: string): string => { lines.say(`e=${error}`); return error; };
  const expected = type === undefined ? Buffer.alloc(0) : await bindings(type as BindingType);
  if (expected === undefined) return refuse('unsupported-channel-binding-type');
  const salt = randomBytes(16);
  const serverFirst = `r=${attribute(firstBare, 'r')}${nonce()},s=${salt.toString('base64')},i=${String(iterations)}`;
  lines.say(serverFirst);
  const final = await lines.hear();
  const bare = final.slice(0, final.lastIndexOf(',p='));
  const isBound = isEqual(Buffer.from(attribute(final, 'c'), 'base64'), Buffer.concat([Buffer.from(gs2), expected]));
  if (!isBound) return refuse('channel-bindings-dont-match');
  const made = proofs(password, salt, iterations, `${firstBare},${serverFirst},${bare}`);
  if (attribute(firstBare, 'n') !== user || attribute(bare, 'r') !== attribute(serverFirst, 'r') || !isEqual(Buffer.from(attribute(final, 'p'), 'base64'), made.client)) return refuse('invalid-proof');
  lines.say(`v=${made.server.toString('base64')}`);
  return 'authenticated';
}

const isEqual = (one: Buffer, other: Buffer): boolean => one.length === other.length && timingSafeEqual(one, other);
