/** The command line of a program that runs for long and has options only. */
import { CommanderError } from 'commander';
import type { Command } from 'commander';
import { exitCodes, type ExitCode } from './exitcodes.js';

/** The options in `argv`, or the code to exit with: help was printed, or what is wrong. */
export function parseOptions<Options extends object>(program: Command, argv: readonly string[]): Options | ExitCode {
  program.allowExcessArguments(false).exitOverride();
  try {
    program.parse([...argv]);
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
  }
  return program.opts<Options>();
}
