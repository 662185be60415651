// `npm start`: a development pool, a small web application behind it, and a proxy with a mailbox behind it, until Ctrl-C.
//   npm start                            port 8443, or the next that is free; mail at 1143, 1993, 1025 or the next ones; state in .state/
//   PORT=9443 npm start                  that port or none for the web; 0 lets the kernel choose all of them
//   npm start -- --state DIR             another state folder, so that several can run
import path from 'node:path';
import { lineStart, printable } from '../examples/demo/line.mjs';
import { endProcess, processesWith } from './lib/left-over.mjs';
import { portOwner } from './lib/port-owner.mjs';
import { root, script, ScriptError } from './lib/run.mjs';
import { AppChild, mailServices, MailboxChild, PoolChild, ProxyChild, proxyWords } from './lib/start-children.mjs';
import { lockHolder, openPlace, takeLock } from './lib/start-place.mjs';

/** What an earlier pool gets to end in an orderly way. */
const leftOverMs = 5_000;
const sameSignalMs = 1_000;
const portsToTry = 20;
const host = '127.0.0.1';
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
    await endLeftOverProxies(place.state);
    await endLeftOver(place.socket, { connectPool, sockets });
    await runUntil(stop, { place, port, running, sockets });
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

/** After kill -9 of an earlier start its proxy may still be there, and would go on with our pool and our mailbox. */
async function endLeftOverProxies(state) {
  const words = proxyWords(state);
  for (const pid of processesWith(...words)) {
    console.log(`Ending tlspool-proxy (process ${pid}), which an earlier start left behind.`);
    await endProcess(pid, { words, afterMs: leftOverMs });
  }
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

async function runUntil(stop, { place, port, running, sockets }) {
  const children = [];
  /** The last one started is the first to be stopped: without clients the pool has nothing to wait for, and without the proxy the mailbox. */
  const begin = (child) => { children.unshift(child); return child; };
  stop.again = () => { for (const child of children) child.kill('SIGKILL'); };
  try {
    const pool = begin(new PoolChild({ ...place, onFailure: (entry) => console.log(failureLine(entry)) }));
    const caFile = await orStop(pool.ready, stop);
    if (caFile === undefined) return;
    const app = begin(new AppChild({ socket: place.socket, onTaken: (taken) => console.log(takenLine(taken, port)) }));
    const mailbox = begin(new MailboxChild({ socket: place.socket }));
    for (const child of [app, mailbox]) child.watchOver([pool]);
    const [address, account] = await orStop(Promise.all([app.ready, mailbox.ready]), stop) ?? [];
    if (account === undefined) return;
    const listening = openMailPorts(port, sockets);
    const ports = Object.fromEntries(mailServices.map(({ name }, index) => [name, sockets.socketInfo(listening[index]).local.port]));
    const proxy = begin(new ProxyChild({ ...place, listening, onConnection: (entry) => console.log(turnedAwayLine(entry)) }));
    // The proxy has its own now: only it is to hold the ports.
    for (const fd of listening) sockets.close(fd);
    for (const child of [app, mailbox]) child.watchOver([proxy, pool]);
    if (await orStop(proxy.ready, stop) === undefined) return;
    running.url = `https://localhost:${address.port}/`;
    console.log(banner({ url: running.url, port: address.port, caFile, socket: place.socket, pool, app, mailbox, proxy, ports, account }));
    const ended = await orStop(Promise.race(children.map((child) => child.ended)), stop);
    if (ended !== undefined) throw new ScriptError(`${ended}, so the rest is stopped too. Logs: ${pool.logFile}, ${proxy.logFile}`);
  } finally {
    for (const child of children) await child.stop();
    process.stdout.write('Stopped.\n');
  }
}

/** A listening socket for each service of the mailbox, on the first free port from its usual one on. */
function openMailPorts(asked, sockets) {
  return mailServices.map(({ port }) => (asked === '0' ? sockets.tcpListen({ host, port: 0 }) : openFreePort(port, sockets)));
}

function openFreePort(first, sockets) {
  for (let port = first; ; port++) {
    try {
      return sockets.tcpListen({ host, port });
    } catch (error) {
      if (!error.message.includes('EADDRINUSE') || port + 1 >= first + portsToTry) throw new ScriptError(error.message);
      console.log(`Port ${port} is taken by ${portOwner(port)}; trying the next one.`);
    }
  }
}

/** The promise's value, or undefined when a signal comes first. */
const orStop = (promise, stop) => Promise.race([promise, stop.asked.then(() => undefined)]);

function failureLine({ remote, remotePort, code, text }) {
  return `${lineStart(`${remote ?? '?'}:${remotePort ?? '?'}`, 'tls')}  handshake failed  ${printable(String(code))}  ${printable(String(text))}`;
}

/** Of a connection that the mailbox never saw. */
function turnedAwayLine({ peer, service, ended, code, error }) {
  const why = ended === 'left' ? 'left before TLS' : `${printable(String(code))}  ${printable(String(error))}`;
  return `${lineStart(String(peer ?? '?'), printable(String(service)))}  ${why}`;
}

function takenLine(taken, port) {
  const cure = port === undefined ? 'trying the next one; PORT=NUMBER npm start chooses another' : 'choose another: PORT=NUMBER npm start';
  return `Port ${taken} is taken by ${portOwner(taken)}; ${cure}.`;
}

/** As one word of a POSIX shell. */
const shellWord = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

function banner({ url, port, caFile, socket, pool, app, mailbox, proxy, ports, account: { user, password } }) {
  const bold = (text) => (process.stdout.isTTY === true && !process.env.NO_COLOR ? `\x1b[1m${text}\x1b[0m` : text);
  const ca = shellWord(caFile);
  const client = `openssl s_client -connect localhost:${port} -servername localhost -CAfile ${ca}`;
  // Not npx: in another folder it would fetch from npm's registry whatever has that name there.
  const cli = `${shellWord(path.join(root, 'daemon/bin/tlspool.js'))} --socket ${shellWord(socket)}`;
  return `
  ${bold(url)}
  ${bold(`imap://localhost:${ports.imap}/`)}   STARTTLS; TLS at once: imaps://localhost:${ports.imaps}/   user ${user}, password ${password}
  ${bold(`smtp://localhost:${ports.smtp}/`)}   STARTTLS; to anybody, into that mailbox

  pool          process ${pool.pid}, holds the keys     (log: ${pool.logFile})
  application   process ${app.pid}, holds none
  proxy         process ${proxy.pid}, holds none         (log: ${proxy.logFile}, configuration: ${proxy.config})
  mailbox       process ${mailbox.pid}, holds none
  CA            ${caFile}

  Try, in another terminal:
    curl --cacert ${ca} ${url}
    ${client} -tls1_3
    ${client} -tls1_2
    openssl s_client -starttls imap -crlf -connect localhost:${ports.imap} -servername localhost -CAfile ${ca}
    curl --cacert ${ca} --ssl-reqd --user ${user}:${password} 'imap://localhost:${ports.imap}/INBOX;MAILINDEX=1'
    printf 'Subject: hello\\r\\n\\r\\nby curl\\r\\n' | curl --cacert ${ca} --ssl-reqd smtp://localhost:${ports.smtp} --mail-from me@example.org --mail-rcpt ${user}@localhost --upload-file -
    ${cli} status
    ${cli} sessions

  Ctrl-C stops it. One line per connection:
  time, peer, service, protocol, cipher, group, server name, ALPN, octets in and out, how it ended
`;
}

await script(main);
// The signal handlers would not keep the process, but what a killed child left half open might.
process.exit();
