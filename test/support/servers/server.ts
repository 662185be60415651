/** What all starters of real servers share: free ports, accounts, being ready, being stopped. */
import { chownSync, cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { atEnd, tempFolder } from '../cleanup.js';
import { Program } from '../program.js';
import type { ProgramOptions } from '../program.js';
import { until, within } from '../wait.js';

/** Certificate chain and key in PEM, for a server's own STARTTLS. */
export interface TlsFiles {
  readonly certFile: string;
  readonly keyFile: string;
  /** Roots of client certificates, for servers that look at those that they are shown (MariaDB). */
  readonly caFile?: string;
}

export interface ServerOptions {
  /** Its own STARTTLS with these; plain text only where absent. */
  readonly tls?: TlsFiles;
}

/** Name, password and domain that every server knows. */
export const account = { user: 'joe', password: 'secret', domain: 'example.org', address: 'joe@example.org' } as const;

/** A server that runs until it is stopped, or until the tests end. */
export interface TestServer {
  readonly pid: number;
  /** Everything that it printed. */
  log(): string;
  /** Resolves when the process is gone. May be called twice. */
  stop(): Promise<void>;
}

/** Ports of 127.0.0.1 that nobody listens on. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => net.createServer());
  try {
    return await Promise.all(servers.map((server) => new Promise<number>((resolve, reject) => {
      server.once('error', reject).listen(0, '127.0.0.1', () => { resolve((server.address() as net.AddressInfo).port); });
    })));
  } finally {
    await Promise.all(servers.map((server) => new Promise((resolve) => { server.close(resolve); })));
  }
}

/** Does somebody listen there? */
export function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.once('connect', () => { socket.destroy(); resolve(true); });
    socket.once('error', () => { resolve(false); });
  });
}

/** Numbers of a user of /etc/passwd, which comes with the Debian package of the server. */
export function userNamed(name: string): { uid: number; gid: number } {
  const [, , uid, gid] = readFileSync('/etc/passwd', 'utf8').split('\n').map((line) => line.split(':')).find(([first]) => first === name) ?? [];
  if (uid === undefined || gid === undefined) throw new Error(`there is no user ${name}: install the Debian package of the server`);
  return { uid: Number(uid), gid: Number(gid) };
}

const isRoot = (): boolean => process.getuid?.() === 0;

/** For servers that refuse to run as root: their own user when we are root, and ourselves otherwise. */
export const asUser = (name: string): { uid?: number; gid?: number } => isRoot() ? userNamed(name) : {};

/** For servers that need root to change to their users. */
export function needRoot(what: string): void {
  if (!isRoot()) throw new Error(`${what} can only be started by root`);
}

/** A server's own folder with its configuration, and with its own copy of the credentials; all of it is the user's. */
export interface Place {
  readonly folder: string;
  readonly tls: TlsFiles | undefined;
  readonly owner: { readonly uid?: number; readonly gid?: number };
  write(name: string, text: string): string;
  makeFolder(name: string): string;
}

export function makePlace({ tls }: ServerOptions, owner: { readonly uid?: number; readonly gid?: number } = {}): Place {
  const folder = tempFolder('tlss-');
  const own = (file: string): string => {
    if (owner.uid !== undefined) chownSync(file, owner.uid, owner.gid ?? owner.uid);
    return file;
  };
  own(folder);
  const copy = (from: string, name: string): string => {
    const to = path.join(folder, name);
    cpSync(from, to);
    return own(to);
  };
  return {
    folder, owner,
    tls: tls === undefined ? undefined : { certFile: copy(tls.certFile, 'tls.crt'), keyFile: copy(tls.keyFile, 'tls.key'), ...(tls.caFile === undefined ? {} : { caFile: copy(tls.caFile, 'ca.crt') }) },
    write: (name, text) => {
      const file = path.join(folder, name);
      mkdirSync(path.dirname(file), { recursive: true });
      writeFileSync(file, text, { mode: 0o600 });
      return own(file);
    },
    makeFolder: (name) => {
      const made = path.join(folder, name);
      mkdirSync(made, { recursive: true });
      for (const parent of readdirSync(folder)) if (name === parent || name.startsWith(`${parent}/`)) own(path.join(folder, parent));
      return own(made);
    },
  };
}

export interface Running extends ProgramOptions {
  readonly command: string;
  readonly args: readonly string[];
  /** All of them answer when it is ready. */
  readonly ports: readonly number[];
  /** What it prints when it is ready, if that is later than its ports are. */
  readonly says?: RegExp;
  readonly stopSignal?: NodeJS.Signals;
}

const startDeadlineMs = 30_000;

/** Starts the program and waits until it listens. It is stopped at the end of the run when the test does not do so. */
export async function startServer({ command, args, ports, says, stopSignal = 'SIGTERM', ...options }: Running): Promise<TestServer> {
  const program = new Program(command, args, options);
  const stop = async (): Promise<void> => {
    if (program.running) program.kill(stopSignal);
    await within(program.ended.catch(() => undefined), `${command} to end`, startDeadlineMs, () => program.tail());
  };
  atEnd(stop);
  for (const port of ports) {
    await until(() => {
      if (!program.running) throw new Error(`${command} ended before it was ready\n${program.tail()}`);
      return isListening(port);
    }, { what: `${command} to listen`, deadlineMs: startDeadlineMs, context: () => program.tail() });
  }
  if (says !== undefined) await program.output(says, 'either', startDeadlineMs);
  return { pid: program.pid, log: () => `${program.stdout}${program.stderr}`, stop };
}
