/** `tlspool-proxy`: puts the parts together. Decides nothing itself. */
import { connectPool } from 'libtlspool';
import type { Pool } from 'libtlspool';
import { TlsPoolError } from 'libtlspool/protocol';
import { Log } from 'tlspool-common/log';
import { exitCodeOf, exitCodes, Signals } from 'tlspool-common/process';
import type { ExitCode } from 'tlspool-common/process';
import { parseProxyArguments } from './args.js';
import type { ProxyArguments } from './args.js';
import { loadProxyConfig } from './config/load.js';
import type { ProxyConfig } from './config/types.js';
import { hideInherited, mostDescriptors } from './descriptors.js';
import { addressName } from './listening.js';
import { logConnection } from './log.js';
import { Proxy } from './proxy.js';
import { ProxyReloader, stateOf } from './reload.js';
import { takeSystemdSockets } from './systemd.js';
import { version } from './version.js';

/** Runs until it is told to end; resolves with the exit code. Errors are printed, one per line. */
export async function main(argv: readonly string[]): Promise<ExitCode> {
  const args = parseProxyArguments(argv);
  if (typeof args === 'number') return args;
  try {
    return args.check === true ? check(args) : await run(args);
  } catch (error) {
    const known = error instanceof TlsPoolError;
    process.stderr.write(`${known ? error.message : error instanceof Error ? error.stack : String(error)}\n`);
    return known && exitCodeOf(error) === exitCodes.usage ? exitCodes.usage : exitCodes.failed;
  }
}

function check({ config: file }: ProxyArguments): ExitCode {
  const { services } = loadProxyConfig(file);
  const addresses = services.reduce((sum, { listen }) => sum + listen.size, 0);
  process.stdout.write(`${file}: good, ${services.length} ${services.length === 1 ? 'service' : 'services'} on ${addresses} ${addresses === 1 ? 'address' : 'addresses'}\n`);
  return exitCodes.ok;
}

async function run({ config: file }: ProxyArguments): Promise<ExitCode> {
  const systemdSockets = takeSystemdSockets();
  hideInherited();
  const state = stateOf(file);
  const config = loadProxyConfig(file);
  const log = new Log(config.log.level, { format: config.log.format });
  const signals = new Signals();
  try {
    const pool = await reachPool(config, signals, log);
    if (pool === undefined) return exitCodes.ok;
    try {
      const proxy = Proxy.start(config, {
        pool, systemdSockets,
        onRecord: (record) => { logConnection(log, record); },
        onTrouble: (where, error) => { log.failure('cannot accept for the moment', { address: where, code: error.code, reason: error.message }); },
        onProgramOutput: (service, line) => { log.info('program', { service, line }); },
      });
      const reloader = new ProxyReloader({
        file, state, config, log,
        apply: (fresh) => {
          proxy.apply(fresh);
          announce(proxy, fresh, log);
          tellUnused(systemdSockets, log);
          tellScarce(fresh, log);
        },
      });
      announce(proxy, config, log);
      tellUnused(systemdSockets, log);
      tellScarce(config, log);
      reloader.start();
      log.info('ready', { version, config: file });
      signals.onReload = () => { void reloader.reload(); };
      await signals.firstEnd;
      reloader.stop();
      await drain(proxy, reloader.config.drainMs, signals, log);
      log.info('stopped');
    } finally {
      pool.close();
    }
    return exitCodes.ok;
  } finally {
    signals.close();
    await log.close();
  }
}

/** The pool, or undefined when a signal came first. */
async function reachPool({ pool: path }: ProxyConfig, signals: Signals, log: Log): Promise<Pool | undefined> {
  const abort = new AbortController();
  const connecting = connectPool({ ...(path !== undefined && { path }), signal: abort.signal });
  const ended = signals.firstEnd.then(() => { abort.abort(); return undefined; });
  const pool = await Promise.race([connecting, ended]);
  if (pool === undefined) {
    // The attempt ends with ABORTED, or came to its end at the same moment.
    connecting.then((late) => { late.close(); }, () => undefined);
    return undefined;
  }
  pool.on('lost', (error) => { log.warn('the pool is gone; new connections are turned away until it is back', { code: error.code, reason: error.message }); });
  pool.on('reconnected', () => { log.info('the pool is back'); });
  pool.on('drain', ({ deadlineMs }) => { log.warn('the pool goes down', { deadlineMs }); });
  return pool;
}

function announce(proxy: Proxy, { services }: ProxyConfig, log: Log): void {
  for (const { name: service, protocol, listen } of services) {
    for (const [listener, address] of listen) {
      const text = addressName(address);
      const port = proxy.ports.get(text);
      log.info('listening', { service, protocol, listener, address: text, ...(port !== undefined && port > 0 && { port }) });
    }
  }
}

/** The proxy has taken out those that it listens on. Whoever connects to the others waits in the kernel for ever. */
function tellUnused(systemdSockets: ReadonlyMap<string, unknown>, log: Log): void {
  for (const name of systemdSockets.keys()) log.error('systemd passed a socket that no service listens on; name it under "listen" as systemd:NAME, or remove its .socket unit', { name });
}

/** Without descriptors the proxy turns clients away at random, and sooner than its own limits do it in the words of the protocol. */
function tellScarce({ connections }: ProxyConfig, log: Log): void {
  const [most, needed] = [mostDescriptors(), 2 * connections];
  if (most !== undefined && most < needed) log.warn('fewer descriptors than the connections may need; raise LimitNOFILE, or lower connections', { descriptors: most, needed, connections });
}

async function drain(proxy: Proxy, drainMs: number, signals: Signals, log: Log): Promise<void> {
  const second = new Promise<void>((resolve) => { signals.onEnd = resolve; });
  // It stops listening at once, and so before the log says it.
  const drained = proxy.drain(drainMs);
  log.info('draining', { connections: proxy.connections, drainMs });
  await Promise.race([drained, second]);
  await proxy.close();
}
