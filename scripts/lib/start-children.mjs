// The two processes of `npm start`: the pool and the application.
import { spawn } from 'node:child_process';
import { closeSync, openSync, readSync, rmSync } from 'node:fs';
import path from 'node:path';
import { root, ScriptError } from './run.mjs';

/** Longer than the pool and the application need to end in an orderly way. */
const endMs = 5_000;
const lookMs = 100;

/** A child process in a process group of its own: Ctrl-C goes to its parent alone, which ends it in order. */
class Child {
  constructor(name, args, options) {
    this.name = name;
    this.process = spawn(process.execPath, args, { cwd: root, detached: true, ...options });
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
 * tlspoold as a development pool. It writes its log to a file, not to us: then it does not matter to it when we are killed.
 * `onFailure` is told of handshakes that failed.
 */
export class PoolChild extends Child {
  constructor({ state, socket, onFailure }) {
    const logFile = path.join(state, 'tlspoold.log');
    // A new file: a pool of an earlier start that is just ending may still write to the old one.
    rmSync(logFile, { force: true });
    const log = openSync(logFile, 'wx', 0o600);
    super('tlspoold', [path.join(root, 'daemon/bin/tlspoold.js'), '--state', state, '--socket', socket], { stdio: ['ignore', log, log] });
    closeSync(log);
    this.logFile = logFile;
    const errors = [];
    /** Resolves with the CA's file once the pool listens; rejects with its own words when it ends instead. */
    this.ready = new Promise((resolve, reject) => {
      const tail = new Tail(logFile, (line) => {
        const entry = parseLine(line);
        if (entry === undefined) errors.push(line);
        else if (entry.socket === socket && typeof entry.ca === 'string') resolve(entry.ca);
        else if (entry.msg === 'handshake failed') onFailure(entry);
      });
      this.ended.then((text) => {
        tail.close();
        reject(new ScriptError([text, ...errors].join('\n')));
      });
    });
    this.ready.catch(() => {}); // It may end while nobody waits for it to be ready.
  }
}

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

/** The application; prints its own lines. `onTaken` is told of a port that somebody else has. */
export class AppChild extends Child {
  constructor({ socket, poolPid, onTaken }) {
    super('the application', [path.join(root, 'examples/demo/app.mjs')], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'], env: { ...process.env, TLSPOOL_SOCKET: socket },
    });
    this.process.send({ poolPid }, () => {}); // An application that has ended already says so by `exit`.
    /** Resolves with {host, port} once it listens. */
    this.ready = new Promise((resolve, reject) => {
      this.process.on('message', ({ listening, taken, failed }) => {
        if (listening !== undefined) resolve(listening);
        if (taken !== undefined) onTaken(taken);
        if (failed !== undefined) reject(new ScriptError(`the application: ${failed}`));
      });
      this.ended.then((text) => reject(new ScriptError(text)));
    });
    this.ready.catch(() => {});
  }
}
