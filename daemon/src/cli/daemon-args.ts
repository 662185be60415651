/** The command line of `tlspoold`. */
import { Command } from 'commander';
import { parseOptions } from 'tlspool-common/process';
import type { ExitCode } from 'tlspool-common/process';
import { version } from './version.js';

export interface DaemonArguments {
  readonly config?: string;
  readonly socket?: string;
  readonly state?: string;
  /** Check and end. */
  readonly check?: boolean;
}

const help = `
Without --config the pool runs as the development default: a user-level socket, and a CA and an
identity "localhost" that are made in the state folder.

Signals:
  SIGHUP            read configuration and credentials again, all or nothing
  SIGTERM, SIGINT   drain: accept nothing new, let sessions finish until drainMs; a second one ends at once

Exit codes:
  0  ended as asked
  1  could not start, or could not go on
  2  the command line, the configuration or the credentials are wrong`;

/** The arguments, or the code to exit with (usage was printed). */
export function parseDaemonArguments(argv: readonly string[]): DaemonArguments | ExitCode {
  const program = new Command('tlspoold')
    .description('Owns the TLS keys and handshakes of a host.')
    .version(version, '-V, --version')
    .option('-c, --config <file>', 'configuration file (YAML)')
    .option('--check', 'check configuration and credentials, start nothing')
    .option('-s, --socket <path>', 'socket for clients, instead of the configuration\'s')
    .option('--state <folder>', 'state folder, instead of the configuration\'s')
    .addHelpText('after', help);
  return parseOptions<DaemonArguments>(program, argv);
}
