/** `tlspoold`: puts the parts together. Decides nothing itself. */
import path from 'node:path';
import { exitCodeOf, exitCodes, Signals } from 'tlspool-common/process';
import type { ExitCode } from 'tlspool-common/process';
import { Acceptor, Front, Shutdown, admit, asPoolError, openPoolSocket } from './api/index.js';
import { parseDaemonArguments } from './cli/daemon-args.js';
import type { DaemonArguments } from './cli/daemon-args.js';
import { product } from './cli/version.js';
import { loadConfig, prepareState } from './config/index.js';
import type { Config, Overrides } from './config/index.js';
import type { EngineAddon, EngineEvent } from './engine.js';
import { Choices, OnTheFly, Reloader, Store } from './identity/index.js';
import { Log } from './observe/index.js';
import { RuleAccess } from './policy/index.js';
import { serveV2, type V2Service } from './v2/index.js';

/** Runs until it is told to end; resolves with the exit code. Errors are printed, one per line. */
export async function main(argv: readonly string[]): Promise<ExitCode> {
  const args = parseDaemonArguments(argv);
  if (typeof args === 'number') return args;
  try {
    return await run(args);
  } catch (thrown) {
    const error = asPoolError(thrown);
    process.stderr.write(`${error.code === 'INTERNAL' ? String(thrown) : error.message}\n`);
    const code = exitCodeOf(error);
    return code === exitCodes.usage ? code : exitCodes.failed;
  }
}

async function run(args: DaemonArguments): Promise<ExitCode> {
  const overrides: Overrides = { ...(args.socket !== undefined && { socket: args.socket }), ...(args.state !== undefined && { state: args.state }) };
  // Loaded here so that --help and --version need no engine; hardened before the first octet of a key is read.
  const { engine: addon } = await import('./engine.js');
  addon.harden();
  if (args.check === true) {
    const { checkConfiguration } = await import('./cli/check.js');
    process.stdout.write(`${(await checkConfiguration(args.config, overrides)).text}\n`);
    return exitCodes.ok;
  }
  const config = loadConfig(args.config, overrides);
  const { caFile } = await prepareState(config);
  return await serve(addon, config, overrides, caFile);
}

async function serve(addon: EngineAddon, config: Config, overrides: Overrides, caFile: string | undefined): Promise<ExitCode> {
  const log = new Log(config.log.level);
  const choices = await Choices.open({ file: path.join(config.state, 'choices.json'), log });
  const { engine, front, reloader } = assemble(addon, { config, overrides, log, choices });
  const signals = new Signals();
  try {
    await reloader.start();
    // Failures are logged by the reloader.
    signals.onReload = () => { reloader.reload().then(() => { front.services.unlocking.retry(); }, () => undefined); };
    const acceptor = new Acceptor({ socket: openPoolSocket(config.socket), log, admit: (fd) => { admit(front, fd); } });
    let v2: V2Service | undefined;
    try {
      announce(config, caFile, log);
      if (config.v2 !== undefined) v2 = serveV2(config.v2, front);
      await signals.firstEnd;
      const shutdown = new Shutdown({ front, log, drainMs: config.drainMs, lingerMs: config.limits.lingerMs, closeSocket: () => { acceptor.close(); v2?.closeSocket(); } });
      signals.onEnd = () => { shutdown.now(); };
      await shutdown.finished;
    } finally {
      acceptor.close();
      v2?.close();
    }
    log.info('stopped');
    return exitCodes.ok;
  } finally {
    signals.close();
    reloader.stop();
    front.close('now');
    engine.stop();
    await choices.flushed();
    await log.close();
  }
}

interface Settings { readonly config: Config; readonly overrides: Overrides; readonly log: Log; readonly choices: Choices }

function assemble(addon: EngineAddon, { config, overrides, log, choices }: Settings) {
  const { limits, workers, workerCpus, socket, file } = config;
  let deliver = (_events: readonly EngineEvent[]): void => undefined;
  const engine = new addon.Engine({
    workers, ...(workerCpus !== undefined && { workerCpus }), sessionsMax: limits.sessions, handshakesMax: limits.handshakes, handshakeMs: limits.handshakeMs, lingerMs: limits.lingerMs,
    onEvents: (events) => { deliver(events); },
  });
  const access = new RuleAccess({ rules: config.access, sessionsPerClient: limits.sessionsPerClient });
  const store = new Store({ engine, access });
  const onTheFly = new OnTheFly({ engine, access, log });
  const reloader = new Reloader({ config, overrides, store, access, onTheFly, log: { info: log.info.bind(log), warn: log.warn.bind(log), error: log.error.bind(log) } });
  const front = new Front({
    engine, access, store, signer: onTheFly, limits, log, reloads: reloader.record, reload: () => reloader.reload(), choices, unlock: (localid, pin) => reloader.unlock(localid, pin),
    identification: {
      pool: product, openssl: engine.openssl, workers, socket: socket.path, startedAtMs: performance.now(), ...(file !== undefined && { config: file }),
    },
  });
  deliver = (events) => { front.onEvents(events); };
  return { engine, front, reloader };
}

function announce(config: Config, caFile: string | undefined, log: Log): void {
  const { file, socket } = config;
  if (config.development) log.info(`listening at ${socket.path}: the development default, because no configuration was given`, { socket: socket.path, state: config.state, ca: caFile });
  else log.info(`listening at ${socket.path}`, { socket: socket.path, config: file });
}
