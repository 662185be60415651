/** Plain-text backends that remember every octet that they were sent. */
import net from 'node:net';
import path from 'node:path';
import { parse } from 'tlspool-proxy/dist/proxyprotocol/index.js';
import type { Header } from 'tlspool-proxy/dist/proxyprotocol/index.js';
import { tempFolder } from './cleanup.js';
import { until } from './wait.js';

/** What a backend does with a connection. */
export type Talk = (connection: ToyConnection) => void;

/** One connection to a backend. */
export class ToyConnection {
  received = Buffer.alloc(0);
  /** The PROXY header, which is not in `received`; see behindHeader(). */
  header: Header | undefined;
  /** What came first: end, in order; error, a reset. */
  state: 'open' | 'end' | 'error' = 'open';

  /** Of the other end, and of ours: a socket that has closed does not know them any more. */
  readonly ports: readonly [remote: number | undefined, local: number | undefined];

  constructor(readonly socket: net.Socket) {
    this.ports = [socket.remotePort, socket.localPort];
    socket.on('data', (octets: Buffer) => { this.received = Buffer.concat([this.received, octets]); });
    socket.on('end', () => { if (this.state === 'open') this.state = 'end'; });
    socket.on('error', () => { if (this.state === 'open') this.state = 'error'; });
  }

  get text(): string { return this.received.toString('latin1'); }
  say(text: string | Uint8Array): void { if (this.socket.writable) this.socket.write(text); }

  /** Calls `take` for each line, without its end, and ends when the other side does. */
  eachLine(take: (line: string) => void): void {
    let at = 0;
    const look = (): void => {
      for (let end = this.received.indexOf('\r\n', at); end >= 0; end = this.received.indexOf('\r\n', at)) {
        const line = this.received.toString('latin1', at, end);
        at = end + 2;
        take(line);
      }
    };
    this.socket.on('data', look);
    this.socket.on('end', () => this.socket.end());
    look();
  }

  /** Waits until this is in what was received. */
  async heard(text: string): Promise<void> {
    await until(() => this.text.includes(text), { what: `the backend to hear ${JSON.stringify(text)}`, context: () => `${this.state} ${JSON.stringify(this.text.slice(-500))}` });
  }

  async over(): Promise<void> {
    await until(() => this.state !== 'open', { what: 'the connection of the backend to end' });
  }
}

/** Listens on 127.0.0.1, or on a UNIX socket. */
export class ToyBackend {
  readonly connections: ToyConnection[] = [];
  readonly #sockets = new Set<net.Socket>();
  readonly #server: net.Server;
  readonly #path: string | undefined;
  /** May be changed at any time. */
  talk: Talk;

  private constructor(talk: Talk, socketPath: string | undefined) {
    this.talk = talk;
    this.#path = socketPath;
    this.#server = net.createServer({ allowHalfOpen: true }, (socket) => {
      const connection = new ToyConnection(socket);
      this.#sockets.add(socket);
      this.connections.push(connection);
      this.talk(connection);
    });
  }

  static async listen(talk: Talk, kind: 'tcp' | 'unix' = 'tcp'): Promise<ToyBackend> {
    const backend = new ToyBackend(talk, kind === 'unix' ? path.join(tempFolder(), 'b.sock') : undefined);
    await new Promise<void>((resolve) => {
      if (backend.#path === undefined) backend.#server.listen(0, '127.0.0.1', resolve);
      else backend.#server.listen(backend.#path, resolve);
    });
    return backend;
  }

  /** As the configuration has it. */
  get address(): string { return this.#path === undefined ? `127.0.0.1:${(this.#server.address() as net.AddressInfo).port}` : `unix:${this.#path}`; }

  /** The last connection, once there are so many. */
  async connection(count: number): Promise<ToyConnection> {
    return until(() => this.connections[count - 1], { what: `connection ${count} of the backend` });
  }

  /** Forgets what was. */
  forget(): void { this.connections.length = 0; }

  /** Of the listening socket and of all connections. */
  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    if (this.#server.listening) await new Promise((resolve) => { this.#server.close(resolve); });
  }
}

const bye = (connection: ToyConnection, text: string): void => { connection.say(text); connection.socket.end(); };

/** An IMAP server of few words, with authentication in what it says of itself. */
export const toyImap: Talk = (connection) => {
  let user = '';
  connection.say('* OK [CAPABILITY IMAP4rev1 IDLE SASL-IR AUTH=PLAIN] Toy IMAP ready\r\n');
  connection.eachLine((line) => {
    const [tag = '*', command = '', name = ''] = line.split(' ');
    switch (command.toUpperCase()) {
      case 'CAPABILITY': return connection.say(`* CAPABILITY IMAP4rev1 IDLE SASL-IR AUTH=PLAIN\r\n${tag} OK listed\r\n`);
      case 'LOGIN': user = name; return connection.say(`${tag} OK you are ${user}\r\n`);
      case 'LOGOUT': return bye(connection, `* BYE\r\n${tag} OK\r\n`);
      case 'SELECT': return connection.say(user === '' ? `${tag} BAD log in first\r\n` : `* 1 EXISTS\r\n${tag} OK\r\n`);
      default: return connection.say(`${tag} OK\r\n`);
    }
  });
};

/** An SMTP (EHLO) or LMTP (LHLO) server that insists on its hello. */
export const toyMail = (hello: 'EHLO' | 'LHLO'): Talk => (connection) => {
  let greeted = false;
  connection.say('220 toy.example.org ESMTP\r\n');
  connection.eachLine((line) => {
    const command = line.slice(0, 4).toUpperCase();
    if (command === hello) greeted = true;
    if (command === hello) return connection.say('250-toy.example.org\r\n250-SIZE 1000\r\n250-AUTH PLAIN\r\n250 CHUNKING\r\n');
    if (command === 'QUIT') return bye(connection, '221 bye\r\n');
    return connection.say(greeted ? `250 ${line}\r\n` : '503 5.5.1 hello first\r\n');
  });
};

/** A POP3 server. */
export const toyPop3: Talk = (connection) => {
  connection.say('+OK Toy ready <1.2@toy>\r\n');
  connection.eachLine((line) => {
    switch (line.slice(0, 4).toUpperCase()) {
      case 'CAPA': return connection.say('+OK list\r\nUSER\r\nSASL PLAIN\r\nTOP\r\n.\r\n');
      case 'QUIT': return bye(connection, '+OK bye\r\n');
      default: return connection.say(`+OK ${line}\r\n`);
    }
  });
};

/** Says this at once, and hears everything to the end. */
export const canned = (text: string | Uint8Array): Talk => (connection) => {
  connection.say(text);
  connection.socket.on('end', () => connection.socket.end());
};

/** Reads a PROXY header, which must be there, before anything else happens. */
export const behindHeader = (talk: Talk): Talk => (connection) => {
  const look = (): void => {
    const parsed = parse(connection.received);
    if (parsed.kind === 'more') return;
    connection.socket.removeListener('data', look);
    connection.header = parsed.header;
    connection.received = connection.received.subarray(parsed.length);
    talk(connection);
  };
  connection.socket.on('data', look);
};

/** Sends everything back. */
export const echo: Talk = ({ socket }) => { socket.pipe(socket); };
