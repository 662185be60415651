/** Everything the benchmark starts is started here, so that all of it ends when the benchmark does, however that comes about. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, readdirSync } from 'node:fs';
import net from 'node:net';
import readline from 'node:readline';

/** Descriptors each process may have; 2,000 proxied connections need some 4,000, and the load generator its own 2,000. */
const descriptors = 16_384;
const startMs = 15_000;
const stopMs = 5_000;

/** @type {Set<Started>} */
const running = new Set();

/**
 * @typedef {object} Started
 * @property {string} name
 * @property {import('node:child_process').ChildProcess} child
 * @property {() => string} log  last octets of standard error
 * @property {() => Promise<void>} stop  ends the process and its children; may be called twice
 */

/**
 * Starts a program in a process group of its own. The kernel ends it when we die without having been able to.
 * @param {{name: string, argv: string[], env?: Record<string, string>, cwd?: string}} what
 * @returns {Started}
 */
export function start({ name, argv, env = {}, cwd }) {
  const wrapped = ['--pdeathsig', 'TERM', '--', 'sh', '-c', `ulimit -n ${descriptors} 2>/dev/null; exec "$@"`, 'sh', ...argv];
  const child = spawn('setpriv', wrapped, { detached: true, cwd, env: { ...process.env, ...env }, stdio: ['pipe', 'pipe', 'pipe'] });
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text) => { log = (log + text).slice(-4000); });
  child.stdin.on('error', () => undefined); // a program that ended before it read is reported by its exit status
  const ended = new Promise((resolve) => { child.once('close', resolve).once('error', (error) => { log += error.message; resolve(undefined); }); });
  const started = { name, child, log: () => log, stop };
  async function stop() {
    if (!running.delete(started)) return;
    signalGroup(child, 'SIGTERM');
    const timer = setTimeout(() => signalGroup(child, 'SIGKILL'), stopMs);
    await ended;
    clearTimeout(timer);
    signalGroup(child, 'SIGKILL'); // workers that outlived their master
  }
  running.add(started);
  return started;
}

function signalGroup(child, signal) {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch (error) {
    if (error.code !== 'ESRCH') throw error;
  }
}

/** Ends everything that still runs. */
export async function stopAll() {
  await Promise.all([...running].map((started) => started.stop()));
}

/** For process 'exit' handlers, where nothing can be awaited. */
export function killAll() {
  for (const { child } of running) signalGroup(child, 'SIGKILL');
  running.clear();
}

/**
 * Runs a program to its end and gives its standard output; throws with its standard error when it fails.
 * @param {{name: string, argv: string[], env?: Record<string, string>}} what
 */
export async function run(what) {
  const started = start(what);
  let output = '';
  started.child.stdout.setEncoding('utf8').on('data', (text) => { output += text; });
  started.child.stdin.end();
  const [code] = await once(started.child, 'close').finally(() => running.delete(started));
  if (code !== 0) throw new Error(`${what.name} failed (status ${code}): ${started.log().trim()}`);
  return output;
}

/**
 * The next line of JSON on a program's standard output; throws when the program ends first or is silent for too long.
 * @param {Started} started
 * @param {number} [timeoutMs]
 */
export async function nextJsonLine(started, timeoutMs = startMs) {
  const lines = readline.createInterface({ input: started.child.stdout });
  const signal = AbortSignal.timeout(timeoutMs);
  try {
    const [line] = await Promise.race([
      once(lines, 'line', { signal }),
      once(lines, 'close', { signal }).then(() => { throw new Error('it ended'); }),
    ]);
    return JSON.parse(line);
  } catch (error) {
    throw new Error(`${started.name} did not report: ${error.message}\n${started.log().trim()}`, { cause: error });
  } finally {
    lines.close();
    started.child.stdout.resume();
  }
}

/** A port of 127.0.0.1 that was free a moment ago. */
export async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/**
 * Resolves when the program accepts connections; throws when it ends first or takes too long.
 * @param {Started} started
 * @param {number} port
 */
export async function accepting(started, port) {
  const until = Date.now() + startMs;
  while (Date.now() < until) {
    if (started.child.exitCode !== null) break;
    if (await mayConnect(port)) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${started.name} does not accept connections on port ${port}:\n${started.log().trim()}`);
}

async function mayConnect(port) {
  const socket = net.connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

/**
 * A process and all its descendants.
 * @param {number} pid
 * @returns {number[]}
 */
export function tree(pid) {
  const children = readdirSync(`/proc/${pid}/task`).flatMap((thread) => childrenOf(`/proc/${pid}/task/${thread}/children`));
  return [pid, ...children.flatMap(tree)];
}

function childrenOf(file) {
  try {
    return readFileSync(file, 'utf8').split(' ').map(Number).filter((pid) => pid > 0);
  } catch (error) {
    if (error.code === 'ENOENT' || error.code === 'ESRCH') return []; // a thread that has ended since the folder was read
    throw error;
  }
}
