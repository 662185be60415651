/** The command line of `tlspool-proxy`. */
import { Command } from 'commander';
import { parseOptions } from 'tlspool-common/process';
import type { ExitCode } from 'tlspool-common/process';
import { defaultConfigFile } from './config/load.js';
import { version } from './version.js';

export interface ProxyArguments {
  readonly config: string;
  /** Check and end. */
  readonly check?: boolean;
}

const help = `
Signals:
  SIGHUP            read the configuration again, all or nothing; a change of the file does the same
  SIGTERM, SIGINT   drain: accept nothing new, hand over what is under way until drainMs; a second one ends at once

Sockets that systemd passes (LISTEN_FDS) are listened on by services with "listen: systemd:NAME".

Exit codes:
  0  ended as asked
  1  could not start: no pool, or an address is taken
  2  the command line or the configuration is wrong`;

/** The arguments, or the code to exit with (usage was printed). */
export function parseProxyArguments(argv: readonly string[]): ProxyArguments | ExitCode {
  const program = new Command('tlspool-proxy')
    .description('STARTTLS for servers that know nothing of TLS: hands protected connections to backends.')
    .version(version, '-V, --version')
    .option('-c, --config <file>', 'configuration file (YAML)', defaultConfigFile)
    .option('--check', 'check the configuration, start nothing')
    .addHelpText('after', help);
  return parseOptions<ProxyArguments>(program, argv);
}
