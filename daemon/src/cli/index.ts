/** `tlspool`, the operator's command. */
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import type { Pool } from 'libtlspool';
import { TlsPoolError } from 'libtlspool/protocol';
import { exitCodeOf, exitCodes } from 'tlspool-common/process';
import type { ExitCode } from 'tlspool-common/process';
import { asPoolError } from '../api/faults.js';
import { PoolClient } from './client.js';
import { poolCommands } from './commands.js';
import type { PoolCommand, Shown } from './commands.js';
import { printable } from './format.js';
import { StandardOutput, type Output } from './output.js';
import { addPkiCommands } from './pki.js';
import { addServiceCommands } from './services.js';
import { version } from './version.js';

export type { Output } from './output.js';

interface GlobalOptions { readonly socket?: string; readonly json?: boolean; readonly timeout: number }

const defaultTimeoutS = 10;
const maxTimeoutS = 3600;

const help = `
Exit codes:
  0  done
  1  the pool refused or failed
  2  the command line, the configuration or the credentials are wrong
  3  no pool answers (not running, wrong socket, no access, too slow)

The socket is looked for at --socket, else $TLSPOOL_SOCKET, else /run/tlspool/pool.sock,
else $XDG_RUNTIME_DIR/tlspool/pool.sock. status, sessions, identities, reload and unlock are
for root, the user that the pool runs as, and whom the configuration makes an operator.`;

const descriptions: Readonly<Record<keyof typeof poolCommands, string>> = {
  ping: 'does the pool answer?',
  status: 'state and counters of the pool',
  sessions: 'established TLS sessions',
  identities: 'identities as they are published now',
  reload: 'read configuration and credentials again, all or nothing',
};

/** Runs one command line. Resolves with the exit code; never rejects. */
export async function runCli(argv: readonly string[], output: Output = new StandardOutput()): Promise<ExitCode> {
  // Looked at here because a command line that cannot be parsed is reported, too.
  const isJson = argv.slice(2).includes('--json');
  const code = await runCommand(argv, isJson, output);
  const failure = await output.written?.();
  if (failure === undefined) return code;
  const text = `the answer could not be written to standard output: ${failure.code ?? failure.message}`;
  report(isJson, new TlsPoolError('SYSTEM', { text, cause: failure }), output);
  return code === exitCodes.ok ? exitCodes.failed : code;
}

async function runCommand(argv: readonly string[], isJson: boolean, output: Output): Promise<ExitCode> {
  const program = build(isJson, output);
  try {
    await program.parseAsync([...argv]);
    return exitCodes.ok;
  } catch (thrown) {
    if (thrown instanceof CommanderError && thrown.exitCode === 0) return exitCodes.ok;
    if (thrown instanceof CommanderError && !isJson) return exitCodes.usage;
    const error = thrown instanceof CommanderError ? usageError(thrown) : asPoolError(thrown);
    report(isJson, error, output);
    return exitCodeOf(error);
  }
}

/** For scripts: people have been told by the parser itself. */
function usageError({ code, message }: CommanderError): TlsPoolError {
  const text = code === 'commander.help' ? 'a command is missing' : message.replace(/^error: /, '').trim();
  return new TlsPoolError('BAD_ARGUMENT', { text: `${text}; see tlspool --help` });
}

function build(isJson: boolean, output: Output): Command {
  const program = new Command('tlspool')
    .description('Looks at a running pool, and makes development certificates.')
    .version(version, '-V, --version')
    .option('-s, --socket <path>', 'socket of the pool')
    .option('--json', 'print JSON, for scripts')
    .option('--timeout <seconds>', 'how long to wait for the pool', parseSeconds, defaultTimeoutS)
    .addHelpText('after', help)
    .exitOverride()
    .configureOutput({ writeOut: (text) => { output.out(text); }, writeErr: (text) => { if (!isJson) output.err(text); } });
  for (const [name, run] of Object.entries(poolCommands) as [keyof typeof poolCommands, PoolCommand][]) {
    program.command(name).description(descriptions[name]).action(() => { show(program.opts<GlobalOptions>(), askPool(program, run), output); });
  }
  program.command('check').description('check a configuration and the credentials that it names, without starting anything')
    .argument('[file]', 'configuration file; without it the development default is checked')
    .action(async (file: string | undefined) => {
      // The engine is loaded only by the commands that need it.
      const { checkConfiguration } = await import('./check.js');
      show(program.opts<GlobalOptions>(), await checkConfiguration(file, {}), output);
    });
  const shown = (what: Shown) => { show(program.opts<GlobalOptions>(), what, output); };
  addServiceCommands(program, {
    ask: (run) => askPool(program, run), connected: (run) => connected(program, run), show: shown, out: (text) => { output.out(text); },
  });
  addPkiCommands(program, shown);
  return program;
}

/** For commands that the pool asks back: the library, which does not block. */
async function connected<T>(program: Command, run: (pool: Pool) => Promise<T>): Promise<T> {
  const { connectPool } = await import('libtlspool');
  const { socket, timeout } = program.opts<GlobalOptions>();
  const pool = await connectPool({ timeoutMs: timeout * 1000, ...(socket !== undefined && { path: socket }) });
  try {
    return await run(pool);
  } finally {
    pool.close();
  }
}

function askPool(program: Command, run: PoolCommand): Shown {
  const { socket, timeout } = program.opts<GlobalOptions>();
  const pool = new PoolClient({ path: socket, timeoutMs: timeout * 1000 });
  try {
    return run(pool);
  } finally {
    pool.close();
  }
}

function show({ json }: GlobalOptions, { value, text }: Shown, output: Output): void {
  output.out(json === true ? `${JSON.stringify(value, binaryAsBase64, 2)}\n` : `${text}\n`);
}

function report(isJson: boolean, error: TlsPoolError, output: Output): void {
  const { code, kind, field, message } = error;
  if (isJson) output.err(`${JSON.stringify({ error: { code, kind, text: message, ...(field !== undefined && { field }) } })}\n`);
  else output.err(`tlspool: ${message.split('\n').map(printable).join('\n')} (${code})\n`);
}

function binaryAsBase64(_key: string, value: unknown): unknown {
  return value instanceof Uint8Array ? Buffer.from(value).toString('base64') : value;
}

function parseSeconds(text: string): number {
  const seconds = Number(text);
  if (!(seconds > 0 && seconds <= maxTimeoutS)) throw new InvalidArgumentError(`It must be a number of seconds above 0, up to ${maxTimeoutS}.`);
  return seconds;
}
