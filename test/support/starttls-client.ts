/** Clients of protocols with STARTTLS that go as far as a test wants. */
import { readFileSync } from 'node:fs';
import tls from 'node:tls';
import { octetsOf } from './dialogue.js';
import type { Octets } from './dialogue.js';
import { preambleScripts } from './preamble-scripts.js';
import { RawTcp } from './raw-tcp.js';
import { until, within } from './wait.js';

/** What comes last before TLS in each protocol, in the words of the proxy; for `good` of preamble-scripts.ts. */
export const goAheads: Readonly<Record<string, RegExp>> = {
  imap: /^b OK begin TLS/mu, smtp: /^220 2\.0\.0 /mu, submission: /^220 2\.0\.0 /mu, lmtp: /^220 2\.0\.0 /mu, pop3: /^\+OK begin TLS/mu, sieve: /^OK "begin TLS/mu, nntp: /^382 /mu,
  ftp: /^234 /mu, 'xmpp-client': /<proceed/u, 'xmpp-server': /<proceed/u, ldap: /1\.3\.6\.1\.4\.1\.1466\.20037$/u, postgres: /S$/u, irc: / 670 /u,
};

export interface TlsWishes {
  readonly caFile: string;
  readonly servername?: string;
  readonly alpn?: readonly string[];
  readonly client?: { readonly certFile: string; readonly keyFile: string };
  readonly maxVersion?: 'TLSv1.2' | 'TLSv1.3';
}

/** A connection in plain text. */
export class PlainClient extends RawTcp {
  static override async connect(port: number, host = '127.0.0.1'): Promise<PlainClient> { return await super.connect(port, host) as PlainClient; }

  get text(): string { return this.received.toString('latin1'); }
  say(words: Octets): void { this.send(octetsOf(words)); }

  async hears(pattern: RegExp): Promise<void> { await this.when((tcp) => pattern.test(tcp.received.toString('latin1')), `the server to say ${String(pattern)}`); }
  /** Says something and waits for an answer that was not there before; gives all that is new. */
  async ask(words: Octets, pattern: RegExp): Promise<string> {
    const before = this.received.length;
    this.say(words);
    await this.when((tcp) => pattern.test(tcp.received.toString('latin1', before)), `an answer like ${String(pattern)}`);
    return this.received.toString('latin1', before);
  }

  /** Asks for TLS in the words of the protocol, and waits for the go-ahead. */
  async askForTls(protocol: string): Promise<void> {
    const words = preambleScripts[protocol]?.server?.good ?? '';
    // The server must greet first where the packet that asks for TLS is an answer to that.
    if (protocol === 'mysql') await this.when((tcp) => tcp.received.length > 4, 'a greeting');
    if (protocol !== 'none') this.say(words);
    const goAhead = goAheads[protocol];
    if (goAhead !== undefined) await this.hears(goAhead);
  }

  /** The handshake; rejects when it fails. */
  async secure({ caFile, servername = 'localhost', alpn, client, maxVersion }: TlsWishes): Promise<TlsClient> {
    const socket = tls.connect({
      socket: this.socket, ca: readFileSync(caFile), servername, checkServerIdentity: () => undefined,
      ...(alpn !== undefined && { ALPNProtocols: [...alpn] }), ...(maxVersion !== undefined && { maxVersion }),
      ...(client !== undefined && { cert: readFileSync(client.certFile), key: readFileSync(client.keyFile) }),
    });
    const made = new TlsClient(socket);
    await within(new Promise<void>((resolve, reject) => {
      socket.once('secureConnect', resolve);
      socket.once('error', reject);
      socket.once('close', () => { reject(new Error('the connection ended in the handshake')); });
    }), 'a TLS handshake');
    return made;
  }
}

/** A connection under TLS. */
export class TlsClient {
  received = Buffer.alloc(0);
  /** end: in order; error: anything else. */
  state: 'open' | 'end' | 'error' = 'open';
  error: NodeJS.ErrnoException | undefined;

  constructor(readonly socket: tls.TLSSocket) {
    socket.on('data', (octets: Buffer) => { this.received = Buffer.concat([this.received, octets]); });
    socket.on('end', () => { if (this.state === 'open') this.state = 'end'; });
    socket.on('error', (error: NodeJS.ErrnoException) => { this.state = 'error'; this.error = error; });
    socket.on('close', () => { if (this.state === 'open') this.state = 'error'; });
  }

  get text(): string { return this.received.toString('latin1'); }
  say(words: Octets): void { this.socket.write(octetsOf(words)); }

  async hears(pattern: RegExp): Promise<void> {
    await until(() => {
      const found = pattern.test(this.text);
      if (!found && this.state !== 'open') throw new Error(`the connection ended (${String(this.error)}) without ${String(pattern)}: ${JSON.stringify(this.text)}`);
      return found;
    }, { what: `the server to say ${String(pattern)}`, context: () => JSON.stringify(this.text.slice(-500)) });
  }

  async ask(words: Octets, pattern: RegExp): Promise<string> {
    const before = this.received.length;
    this.say(words);
    await until(() => pattern.test(this.received.toString('latin1', before)), { what: `an answer like ${String(pattern)}`, context: () => `${this.state} ${JSON.stringify(this.text.slice(-500))}` });
    return this.received.toString('latin1', before);
  }

  async over(): Promise<void> { await until(() => this.state !== 'open', { what: 'the connection to end' }); }
  /** Ends in order, with close_notify, and waits for the end of the connection. */
  async finish(): Promise<void> {
    this.socket.end();
    await until(() => this.socket.closed, { what: 'the connection to close' });
  }
  /** Ends as a client does that is killed. */
  close(): void { this.socket.destroy(); }
}

/** From nothing to TLS. */
export async function startTls(to: { readonly port: number; readonly host?: string; readonly protocol: string }, wishes: TlsWishes): Promise<TlsClient> {
  const plain = await PlainClient.connect(to.port, to.host);
  try {
    await plain.askForTls(to.protocol);
    return await plain.secure(wishes);
  } catch (error) {
    plain.close();
    throw error;
  }
}
