// The processes of `npm start`: the pool, the web application, the mailbox, and the proxy in front of it.
import { spawn } from 'node:child_process';
import { closeSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { root, ScriptError } from './run.mjs';

/** Longer than the pool and the application need to end in an orderly way. */
const endMs = 5_000;
const lookMs = 100;

/** A child process in a process group of its own: Ctrl-C goes to its parent alone, which ends it in order. */
class Child {
  constructor(name, [program, ...args], options) {
    this.name = name;
    this.process = spawn(program, args, { cwd: root, detached: true, ...options });
    this.isOver = false;
    /** Resolves with a text that says how it ended. */
    this.ended = new Promise((resolve) => {
      this.process.once('error', (error) => resolve(`cannot be started: ${error.message}`));
      this.process.once('exit', (code, signal) => resolve(signal === null ? `ended with exit code ${code}` : `was ended by ${signal}`));
    }).then((text) => {
      this.isOver = true;
      return `${this.name} (process ${this.pid}) ${text}`;
    });
  }

  get pid() { return this.process.pid; }

  kill(signal) { if (!this.isOver) this.process.kill(signal); }

  /** Asks it to end, and after a while makes it. */
  async stop() {
    this.kill('SIGTERM');
    const timer = setTimeout(() => this.kill('SIGKILL'), endMs);
    await this.ended;
    clearTimeout(timer);
  }
}

/**
 * A program that writes its log to a file, not to us: then it does not matter to it when we are killed. `onEntry` gets each line of the log that is JSON,
 * and a function that says that the program is ready. `passed` are descriptors that it gets from 3 on.
 */
class LoggingChild extends Child {
  constructor({ name, command, logFile, onEntry, passed = [] }) {
    // A new file: a program of an earlier start that is just ending may still write to the old one.
    rmSync(logFile, { force: true });
    const log = openSync(logFile, 'wx', 0o600);
    super(name, command, { stdio: ['ignore', log, log, ...passed] });
    closeSync(log);
    this.logFile = logFile;
    const errors = [];
    /** Resolves once it is ready; rejects with its own words when it ends instead. */
    this.ready = new Promise((resolve, reject) => {
      const tail = new Tail(logFile, (line) => {
        const entry = parseLine(line);
        if (entry === undefined) errors.push(line);
        else onEntry(entry, resolve);
      });
      this.ended.then((text) => {
        tail.close();
        reject(new ScriptError([text, ...errors].join('\n')));
      });
    });
    this.ready.catch(() => {}); // It may end while nobody waits for it to be ready.
  }
}

/** tlspoold as a development pool. `ready` gives the file of its CA; `onFailure` is told of handshakes that failed. */
export class PoolChild extends LoggingChild {
  constructor({ state, socket, onFailure }) {
    super({
      name: 'tlspoold', command: [process.execPath, path.join(root, 'daemon/bin/tlspoold.js'), '--state', state, '--socket', socket], logFile: path.join(state, 'tlspoold.log'),
      onEntry: (entry, isReady) => {
        if (entry.socket === socket && typeof entry.ca === 'string') isReady(entry.ca);
        else if (entry.msg === 'handshake failed') onFailure(entry);
      },
    });
  }
}

/** What the proxy serves, and the port that it usually has. Both IMAP services lead to the same backend. */
export const mailServices = [
  { name: 'imap', protocol: 'imap', port: 1143, socket: 'imap.sock' },
  { name: 'imaps', protocol: 'none', port: 1993, socket: 'imap.sock' },
  { name: 'smtp', protocol: 'smtp', port: 1025, socket: 'smtp.sock' },
];

/** The program and the argument by which a proxy of this state folder is known. */
export const proxyWords = (state) => [path.join(root, 'proxy/bin/tlspool-proxy.js'), path.join(state, 'proxy.yaml')];

/** sd_listen_fds(3) wants to be told the process for which the sockets are. */
const withListenPid = ['/bin/sh', '-c', 'LISTEN_PID=$$ exec "$@"', 'sh', '/usr/bin/env', `LISTEN_FDS=${mailServices.length}`, `LISTEN_FDNAMES=${mailServices.map(({ name }) => name).join(':')}`];

/**
 * tlspool-proxy with the services of the mailbox. `listening` has a listening socket for each of them, which stays the caller's: so no port that was free when
 * it was looked for is somebody else's when the proxy comes. `onConnection` is told of connections that it did not hand over.
 */
export class ProxyChild extends LoggingChild {
  constructor({ state, socket, listening, onConnection }) {
    const [program, config] = proxyWords(state);
    writeFileSync(config, proxyConfig(socket), { mode: 0o600 });
    super({
      name: 'tlspool-proxy', command: [...withListenPid, process.execPath, program, '--config', config],
      logFile: path.join(state, 'tlspool-proxy.log'), passed: listening,
      onEntry: (entry, isReady) => {
        if (entry.msg === 'ready') isReady(true);
        else if (entry.msg === 'connection' && (entry.ended === 'left' || entry.ended === 'refused')) onConnection(entry);
      },
    });
    this.config = config;
  }
}

const proxyConfig = (socket) => `# Written by npm start, each time anew. docs/proxy-configuration.md explains the keys.
pool: ${JSON.stringify(socket)}
drainMs: 1000
services:
${mailServices.map(({ name, protocol, socket: file }) => `  - name: ${name}
    protocol: ${protocol}
    listen: systemd:${name}  # npm start opens it, as systemd would; or an address, such as 127.0.0.1:143
    hostname: localhost
    backend: { fd: ${JSON.stringify(path.join(path.dirname(socket), file))} }
`).join('')}`;

/** The lines of a file that grows. Looks at it ten times a second: not every file system tells of changes. */
class Tail {
  #fd;
  #timer;
  #rest = '';
  #onLine;

  constructor(file, onLine) {
    this.#fd = openSync(file, 'r');
    this.#onLine = onLine;
    this.#timer = setInterval(() => this.#read(), lookMs);
  }

  #read() {
    const buffer = Buffer.alloc(65_536);
    for (let count = -1; count !== 0;) {
      count = readSync(this.#fd, buffer);
      const lines = (this.#rest + buffer.toString('utf8', 0, count)).split('\n');
      this.#rest = lines.pop();
      lines.forEach(this.#onLine);
    }
  }

  /** Reads what is left. */
  close() {
    clearInterval(this.#timer);
    this.#read();
    closeSync(this.#fd);
  }
}

function parseLine(line) {
  try {
    return JSON.parse(line) ?? undefined;
  } catch {
    return undefined; // What Node or the pool says before it has a log.
  }
}

/** A program of examples/ that tells us by IPC when it is ready, and prints its own lines. `others` are processes that it ends when we are killed. */
class ExampleChild extends Child {
  constructor({ name, file, args = [], socket, onMessage = () => {} }) {
    super(name, [process.execPath, path.join(root, 'examples', file), ...args], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'], env: { ...process.env, TLSPOOL_SOCKET: socket } });
    /** Resolves with what it says of itself. */
    this.ready = new Promise((resolve, reject) => {
      this.process.on('message', (message) => {
        if (message.ready !== undefined) resolve(message.ready);
        else if (message.failed !== undefined) reject(new ScriptError(`${name}: ${message.failed}`));
        else onMessage(message);
      });
      this.ended.then((text) => reject(new ScriptError(text)));
    });
    this.ready.catch(() => {});
  }

  /** Processes that it has to end when we are killed and cannot. */
  watchOver(children) {
    if (!this.isOver) this.process.send({ others: children.map(({ pid }) => pid) }, () => {}); // One that has ended already says so by `exit`.
  }
}

/** The web application. `ready` gives {host, port}; `onTaken` is told of a port that somebody else has. */
export class AppChild extends ExampleChild {
  constructor({ socket, onTaken }) {
    super({ name: 'the application', file: 'demo/app.mjs', socket, onMessage: ({ taken }) => { if (taken !== undefined) onTaken(taken); } });
  }
}

/** The mailbox, with its hand-off sockets beside the pool's. `ready` gives {user, password}. */
export class MailboxChild extends ExampleChild {
  constructor({ socket }) {
    super({ name: 'the mailbox', file: 'mailbox/app.mjs', args: [path.dirname(socket)], socket });
  }
}
