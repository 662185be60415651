/**
 * A program per connection, as inetd and systemd's Accept=yes have it: the plain-text socket is its standard input and output, and descriptor 3
 * by the rules of sd_listen_fds(3).
 *
 * LISTEN_PID must be the process id of the program, which nobody knows before there is a process. So a shell is started, which sets the
 * variable and becomes the program by `exec`. Just before, it closes descriptor 4 and thereby says that it has got that far.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { accessSync, closeSync, constants, openSync, readSync, statSync } from 'node:fs';
import type { Stats } from 'node:fs';
import net from 'node:net';
import type { Readable } from 'node:stream';
import { escapeText, TlsPoolError } from 'libtlspool/protocol';
import { sockets } from 'libtlspool/native';
import type { BorrowedFd, OwnedFd } from 'libtlspool/native';
import type { Account } from 'tlspool-common/config';
import type { BackendConfig } from '../config/types.js';
import { environmentOf } from './environment.js';
import type { Told } from './environment.js';
import { unless } from '../service.js';
import { eachLine } from './lines.js';
import type { HandedOver } from './types.js';

/** A program is run. */
export type ExecConfig = Extract<BackendConfig, { handoff: 'exec' }>;

/** One connection for a program. */
export interface ExecConnection extends Told {
  /** Stays its owner's, who closes it in any case; the program has copies. O_NONBLOCK is cleared on it, so do not read from it afterwards. */
  readonly plainfd: BorrowedFd;
}

/** What the hand-off needs from its surroundings. */
export interface ExecSurroundings {
  /** Takes one of the `config.max` places, or throws LIMIT_CLIENTS; the function gives it back when the program has ended. */
  readonly enter: () => () => void;
  /** Then `done` resolves although the program runs on. */
  readonly signal: AbortSignal;
  /** A line of the program's standard error, escaped and of a bounded length; also how it ended, when that was not with 0. */
  readonly onOutput: (line: string) => void;
}

/** `-f` and `-x` as the user that the program will run as. Variables that shells make up are not the program's business (of bash, SHLVL comes back). */
const script = '[ -f "$1" ] && [ -x "$1" ] || { echo no >&4; exit 126; }; LISTEN_PID=$$; export LISTEN_PID; unset PWD OLDPWD SHLVL _; exec 4>&-; exec "$@"';

/**
 * Starts the program for a connection. Resolves when it runs; `done` when it has ended, or the signal is given, and it never rejects. The program gets descriptors 0, 1 and 3
 * (the socket, blocking), 2 (ours to read) and no other of ours, the environment of environmentOf(), the folder `/`, and a session of its own; with a user, that user and no
 * supplementary groups. It has no control key.
 * Rejects: LIMIT_CLIENTS; BACKEND_FAILED when the program is missing, is not executable for the user, is neither a binary nor a script with an
 * interpreter, or no process can be made. Nothing of it runs then, and nothing was written to the socket.
 */
export async function execHandoff(config: ExecConfig, connection: ExecConnection, surroundings: ExecSurroundings): Promise<HandedOver> {
  const leave = surroundings.enter();
  try {
    checkProgram(config.command[0]);
    const { child, stderr, status } = await start(config, connection);
    const ended = new Promise<string>((resolve) => { child.once('exit', (code, signal) => resolve(signal ?? `code ${String(code)}`)); });
    void ended.then(leave);
    eachLine(stderr, (line) => surroundings.onOutput(`[${child.pid ?? 0}] ${line}`));
    await running(status, config);
    const name = escapeText(config.command[0], 200);
    return {
      to: `${name}[${child.pid ?? 0}]`, followed: true,
      done: unless(ended, surroundings.signal).then((how) => { if (how !== undefined && how !== 'code 0') surroundings.onOutput(`[${child.pid ?? 0}] ${name} ended with ${how}`); }),
    };
  } catch (error) {
    leave();
    throw error;
  }
}

const failed = (program: string, text: string, cause?: unknown): TlsPoolError =>
  new TlsPoolError('BACKEND_FAILED', { text: `the program ${escapeText(program, 200)} ${text}`, cause });

/**
 * What makes exec(2) fail, found while there is somebody to tell: a program that is not there, and a file that is no program (which a shell
 * would take for a script of its own). What this user may not read is left to the kernel. Throws BACKEND_FAILED; fit for checking a configuration, too.
 */
export function checkProgram(program: string): void {
  if (!program.startsWith('/')) throw failed(program, 'has no absolute path');
  const stats = statsOf(program);
  if (stats === 'missing') throw failed(program, 'does not exist');
  if (stats === 'hidden') return;
  if (!stats.isFile()) throw failed(program, 'is no file');
  if ((stats.mode & 0o111) === 0) throw failed(program, 'is not executable; set its mode with chmod');
  const start = beginningOf(program);
  if (start === undefined || start.subarray(0, 4).equals(Buffer.from('\x7fELF', 'latin1'))) return;
  const [, interpreter] = /^#![ \t]*(\/[^ \t\r\n]*)/u.exec(start.toString('latin1')) ?? [];
  if (interpreter === undefined) throw failed(program, 'is neither a binary nor a script that begins with #! and the path of its interpreter');
  if (!isExecutable(interpreter)) throw failed(program, `needs the interpreter ${escapeText(interpreter, 200)}, which is missing or not executable`);
}

/** hidden: in a folder that is closed to us, and perhaps open to the user that the program will run as. */
function statsOf(file: string): Stats | 'missing' | 'hidden' {
  try {
    return statSync(file, { throwIfNoEntry: false }) ?? 'missing';
  } catch {
    return 'hidden';
  }
}

function beginningOf(file: string): Buffer | undefined {
  let fd: number;
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch {
    return undefined;
  }
  try {
    const start = Buffer.alloc(256);
    return start.subarray(0, readSync(fd, start));
  } catch {
    return undefined;
  } finally {
    closeSync(fd);
  }
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

interface Started {
  readonly child: ChildProcess;
  readonly stderr: Readable;
  /** Ends when the shell is about to become the program. */
  readonly status: Readable;
}

/**
 * Rejects with BACKEND_FAILED when there is no process. The two streams have socket pairs of ours: those that Node makes for `pipe` it forgets, and leaves open, when a
 * process cannot be started for want of descriptors.
 */
async function start(config: ExecConfig, connection: ExecConnection): Promise<Started> {
  const theirs: OwnedFd[] = [];
  const streams: Readable[] = [];
  try {
    const [stderr, status] = [reader(theirs, streams), reader(theirs, streams)];
    return { child: await startChild(config, connection, theirs as [OwnedFd, OwnedFd]), stderr, status };
  } catch (error) {
    for (const stream of streams) stream.destroy();
    throw notStarted(config, error);
  } finally {
    for (const fd of theirs) sockets.close(fd);
  }
}

function reader(theirs: OwnedFd[], streams: Readable[]): Readable {
  const [ours, other] = sockets.socketpair('stream');
  theirs.push(other);
  const stream = new net.Socket({ fd: ours, writable: false });
  streams.push(stream);
  return stream;
}

async function startChild({ command, user }: ExecConfig, connection: ExecConnection, [stderr, status]: [BorrowedFd, BorrowedFd]): Promise<ChildProcess> {
  const { plainfd } = connection;
  // The name that the shell goes by ($0) is the third argument.
  const child = spawn('/bin/sh', ['-c', script, 'tlspool-proxy', ...command], {
    // libuv makes the description of descriptors 0 to 2 blocking in the child, and 3 shares it. A session of its own: a signal from
    // the proxy's terminal is not meant for it.
    stdio: [plainfd, plainfd, stderr, plainfd, status], env: environmentOf(connection), cwd: '/', detached: true,
    ...(user !== undefined && !isOurs(user) && { uid: user.uid, gid: user.gid }),
  });
  if (child.pid === undefined) await new Promise((_resolve, reject) => { child.once('error', reject); });
  // Of a signal that could not be sent, later; we send none.
  child.on('error', () => undefined);
  return child;
}

/** Then there is nothing to change, which an unprivileged process could not do. */
const isOurs = ({ uid, gid }: Account): boolean => process.geteuid?.() === uid && process.getegid?.() === gid;

function notStarted({ command: [program], user }: ExecConfig, error: unknown): TlsPoolError {
  const { code } = error as NodeJS.ErrnoException;
  const denied = code === 'EPERM' && user !== undefined;
  return failed(program, `could not be started: ${denied ? `this process may not change to the user ${escapeText(user.name)}; that takes CAP_SETUID and CAP_SETGID` : error instanceof TlsPoolError ? error.message : code ?? 'unknown error'}`, error);
}

/** Resolves when the shell is about to become the program. */
function running(status: Readable, config: ExecConfig): Promise<void> {
  const program = config.command[0];
  return new Promise((resolve, reject) => {
    let said = '';
    status.on('data', (octets: Buffer) => { said += octets.toString('latin1'); });
    status.once('error', (error) => reject(failed(program, 'could not be started: its shell does not answer', error)));
    status.once('end', () => {
      if (said === '') resolve();
      else reject(failed(program, `is missing or not executable${config.user === undefined ? '' : ` for the user ${escapeText(config.user.name)}`}`));
    });
  });
}
