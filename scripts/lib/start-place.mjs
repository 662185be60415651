// Where `npm start` keeps its things: folders that are ours alone, a socket path that is short enough, and a lock that says
// who is running.
import { createHash } from 'node:crypto';
import { lstatSync, mkdirSync, realpathSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ScriptError } from './run.mjs';

/** sun_path of unix(7), less the final NUL. */
const maxSocketPathOctets = 107;
const maxAnswerOctets = 4096;
const pollIn = 1;
const pollReadable = 1;
const answerMs = 2_000;

/**
 * Makes a folder with mode 0700, or takes one that is there already if nobody else could have put anything into it.
 * Throws ScriptError otherwise: a socket in somebody else's folder is somebody else's socket.
 */
export function privateFolder(folder) {
  try {
    mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    if (error.code !== 'EEXIST') throw new ScriptError(`${folder} cannot be made: ${error.message}`);
  }
  // lstat: a symbolic link is not a folder, whatever it points to.
  const stat = lstatSync(folder);
  const uid = process.getuid();
  if (!stat.isDirectory()) throw new ScriptError(`${folder} is no folder; remove it`);
  if (stat.uid !== uid) throw new ScriptError(`${folder} belongs to uid ${stat.uid}, not to you (uid ${uid}); remove it, or give another folder with --state`);
  if ((stat.mode & 0o077) !== 0) throw new ScriptError(`${folder} is open to other users (mode 0${(stat.mode & 0o777).toString(8)}); run: chmod 0700 '${folder}'`);
  return folder;
}

const digest = (text, length) => createHash('sha256').update(text).digest('hex').slice(0, length);

function runtimeFolder() {
  const folder = process.env.XDG_RUNTIME_DIR;
  if (folder === undefined || !path.isAbsolute(folder)) return undefined;
  try {
    const stat = lstatSync(folder);
    return stat.isDirectory() && stat.uid === process.getuid() && (stat.mode & 0o077) === 0 ? folder : undefined;
  } catch {
    return undefined;
  }
}

/**
 * The state folder (made if need be), and a path for the pool's socket: in the state folder, unless its path is too long for
 * a UNIX socket; then in a folder of its own below $XDG_RUNTIME_DIR or the folder for temporary files. `clean` removes the latter.
 */
export function openPlace(folder) {
  const made = privateFolder(path.resolve(folder));
  const state = realpathSync(made);
  const inState = path.join(state, 'pool.sock');
  if (Buffer.byteLength(inState) <= maxSocketPathOctets) return { state, socket: inState, clean: () => {} };
  const uid = process.getuid();
  const candidates = [runtimeFolder(), tmpdir(), '/tmp'].filter((parent) => parent !== undefined)
    .map((parent) => path.join(parent, `tlspool-${uid}-${digest(state, 12)}`));
  const short = candidates.find((candidate) => Buffer.byteLength(path.join(candidate, 'pool.sock')) <= maxSocketPathOctets);
  privateFolder(short);
  return { state, socket: path.join(short, 'pool.sock'), clean: () => { try { rmdirSync(short); } catch { /* something is in it: it stays */ } } };
}

/**
 * Takes the lock of a state folder: a listening socket in the abstract UNIX namespace, which the kernel takes back however its holder
 * ends, so that nothing stale can be left. To whoever connects it tells what `describe` returns. Undefined when another
 * process holds it.
 *
 * Not by node:net: Node 20 fills such names up with NULs and later versions do not, so that they would not find each other.
 */
export function takeLock(state, describe, sockets) {
  let fd;
  try {
    fd = sockets.unixListen({ path: lockName(state), kind: 'stream' });
  } catch (error) {
    if (error.message.includes('EADDRINUSE')) return undefined;
    throw error;
  }
  const poll = sockets.poll(fd, () => {
    let visitor = null;
    try {
      visitor = sockets.accept(fd);
      if (visitor !== null) sockets.send(visitor, Buffer.from(JSON.stringify(describe())));
    } catch {
      // It did not wait for the answer, or there is no descriptor left: it is told less.
    } finally {
      if (visitor !== null) sockets.close(visitor);
    }
  });
  poll.start(pollReadable);
  poll.unref();
  return {
    release: () => {
      poll.close();
      sockets.close(fd);
    },
  };
}

const lockName = (state) => `\0tlspool-start-${process.getuid()}-${digest(state, 32)}`;

/** Who holds the lock: {pid, uid} as the kernel says, and {url} as the holder says, once it has one. Undefined when it has just gone. */
export function lockHolder(state, sockets) {
  let fd;
  try {
    fd = sockets.unixConnect(lockName(state), 'stream');
  } catch {
    return undefined;
  }
  try {
    const { pid, uid } = sockets.peerCredentials(fd);
    return { pid, uid, ...(uid === process.getuid() ? readAnswer(fd, sockets) : {}) };
  } finally {
    sockets.close(fd);
  }
}

function readAnswer(fd, sockets) {
  const deadline = performance.now() + answerMs;
  let text = '';
  while (text.length < maxAnswerOctets) {
    const leftMs = Math.ceil(deadline - performance.now());
    if (leftMs <= 0 || sockets.pollWait(fd, pollIn, leftMs) === 0) return {};
    const received = sockets.receive(fd, maxAnswerOctets, 0);
    if (received?.eof === true) break;
    text += received?.data.toString() ?? '';
  }
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}
