// `npm start`: a development pool and a small web application behind it, until Ctrl-C.
//   npm start                            port 8443, or the next that is free; state in .state/
//   PORT=9443 npm start                  that port or none; 0 lets the kernel choose
//   npm start -- --state DIR             another state folder, so that several can run
import path from 'node:path';
import { printable } from '../examples/demo/line.mjs';
import { portOwner } from './lib/port-owner.mjs';
import { root, script, ScriptError } from './lib/run.mjs';
import { AppChild, PoolChild } from './lib/start-children.mjs';
import { lockHolder, openPlace, takeLock } from './lib/start-place.mjs';

/** What an earlier pool gets to end in an orderly way. */
const leftOverMs = 5_000;
const sameSignalMs = 1_000;
const usage = 'usage: npm start [-- --state DIR], with PORT=NUMBER in the environment for another port than 8443';

async function main() {
  const { folder, port } = parseArguments(process.argv.slice(2));
  const { connectPool } = await import('libtlspool');
  const { sockets } = await import('libtlspool/native');
  const stop = stopSignal();
  const place = openPlace(folder);
  const running = { url: undefined };
  const lock = takeLock(place.state, () => running, sockets);
  if (lock === undefined) throw new ScriptError(alreadyRunning(lockHolder(place.state, sockets), place));
  try {
    await endLeftOver(place.socket, { connectPool, sockets });
    await runUntil(stop, { place, port, running });
  } finally {
    lock.release();
    place.clean();
  }
}

function parseArguments(words) {
  const port = process.env.PORT;
  if (port !== undefined && !(/^\d{1,5}$/.test(port) && Number(port) <= 65_535)) {
    throw new ScriptError(`PORT is ${JSON.stringify(port)}; it must be a number from 0 to 65535`);
  }
  if (words.length === 0) return { folder: path.join(root, '.state'), port };
  if (words.length === 2 && words[0] === '--state') return { folder: path.resolve(words[1]), port };
  throw new ScriptError(usage);
}

/** `asked` resolves with the first signal that asks us to end; `again` is called when somebody insists. */
function stopSignal() {
  const stop = { again: () => {} };
  let askedAt;
  let resolveAsked;
  stop.asked = new Promise((resolve) => { resolveAsked = resolve; });
  const end = () => {
    askedAt ??= performance.now();
    resolveAsked('asked');
    // One Ctrl-C comes twice: from the terminal, and from npm, which passes on what the terminal sent to it as well.
    if (performance.now() - askedAt > sameSignalMs) stop.again();
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, end);
  // Nobody reads what we print any more.
  process.stdout.on('error', end);
  process.stderr.on('error', () => {});
  return stop;
}

function alreadyRunning(holder, { state, socket }) {
  if (holder === undefined) return 'Another start has just ended; try again.';
  const { pid, uid, url } = holder;
  if (uid !== process.getuid()) return `Process ${pid} of uid ${uid} holds the lock of ${state}; give another folder with --state.`;
  const where = url === undefined ? 'and is still starting' : `at ${printable(String(url))}`;
  return `Already running: process ${pid} ${where}\nIts pool: ${socket}\nStop it with Ctrl-C there, or: kill ${pid}\nTo run another one beside it: npm start -- --state DIR`;
}

/** After kill -9 of an earlier start its pool may still be there. We hold the lock, so it is nobody's. */
async function endLeftOver(socket, { connectPool, sockets }) {
  let fd;
  try {
    fd = sockets.unixConnect(socket, 'seqpacket');
  } catch {
    return; // Nobody answers: a stale file at most, which tlspoold removes.
  }
  let pid;
  try {
    // From the kernel: this is the process that listens there, whatever is written in any file.
    pid = sockets.peerCredentials(fd).pid;
  } finally {
    sockets.close(fd);
  }
  const pool = await connectPool({ path: socket, reconnect: false });
  const gone = new Promise((resolve) => { pool.once('lost', resolve); });
  console.log(`Ending tlspoold (process ${pid}), which an earlier start left behind.`);
  process.kill(pid, 'SIGTERM');
  // Also keeps this process alive meanwhile: a connection to the pool does not.
  const timer = setTimeout(() => { try { process.kill(pid, 'SIGKILL'); } catch { /* it ends just now */ } }, leftOverMs);
  await gone;
  clearTimeout(timer);
}

async function runUntil(stop, { place, port, running }) {
  const children = [];
  stop.again = () => { for (const child of children) child.kill('SIGKILL'); };
  const pool = new PoolChild({ ...place, onFailure: (entry) => console.log(failureLine(entry)) });
  children.push(pool);
  let app;
  try {
    const caFile = await orStop(pool.ready, stop);
    if (caFile === undefined) return;
    app = new AppChild({ socket: place.socket, poolPid: pool.pid, onTaken: (taken) => console.log(takenLine(taken, port)) });
    children.unshift(app);
    const address = await orStop(app.ready, stop);
    if (address === undefined) return;
    running.url = `https://localhost:${address.port}/`;
    console.log(banner({ url: running.url, port: address.port, caFile, socket: place.socket, pool, app }));
    const ended = await orStop(Promise.race([pool.ended, app.ended]), stop);
    if (ended !== undefined) throw new ScriptError(`${ended}, so the rest is stopped too. The pool's log: ${pool.logFile}`);
  } finally {
    // The application first: without clients the pool has nothing to wait for.
    for (const child of children) await child.stop();
    process.stdout.write('Stopped.\n');
  }
}

/** The promise's value, or undefined when a signal comes first. */
const orStop = (promise, stop) => Promise.race([promise, stop.asked.then(() => undefined)]);

const time = () => new Date().toTimeString().slice(0, 8);

function failureLine({ remote, remotePort, code, text }) {
  return `${time()}  ${`${remote ?? '?'}:${remotePort ?? '?'}`.padEnd(21)}  handshake failed  ${printable(String(code))}  ${printable(String(text))}`;
}

function takenLine(taken, port) {
  const cure = port === undefined ? 'trying the next one; PORT=NUMBER npm start chooses another' : 'choose another: PORT=NUMBER npm start';
  return `Port ${taken} is taken by ${portOwner(taken)}; ${cure}.`;
}

/** As one word of a POSIX shell. */
const shellWord = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

function banner({ url, port, caFile, socket, pool, app }) {
  const bold = (text) => (process.stdout.isTTY === true && !process.env.NO_COLOR ? `\x1b[1m${text}\x1b[0m` : text);
  const ca = shellWord(caFile);
  const client = `openssl s_client -connect localhost:${port} -servername localhost -CAfile ${ca}`;
  const cli = `npx tlspool --socket ${shellWord(socket)}`;
  return `
  ${bold(url)}

  pool          process ${pool.pid}, holds the keys     (log: ${pool.logFile})
  application   process ${app.pid}, holds none
  CA            ${caFile}

  Try, in another terminal:
    curl --cacert ${ca} ${url}
    ${client} -tls1_3
    ${client} -tls1_2
    ${cli} status
    ${cli} sessions

  Ctrl-C stops it. One line per connection:
  time, peer, protocol, cipher, group, server name, ALPN, octets in and out, how it ended
`;
}

await script(main);
// The signal handlers would not keep the process, but what a killed child left half open might.
process.exit();
