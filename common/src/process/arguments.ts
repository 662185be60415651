/** The command line of a program that runs for long and has options only. */
import type { Command } from 'commander';
import { exitCodes, type ExitCode } from './exitcodes.js';

/** The options in `argv`, or the code to exit with: help was printed, or what is wrong. */
export function parseOptions<Options extends object>(program: Command, argv: readonly string[]): Options | ExitCode {
  // Not `instanceof CommanderError`: an installation may have given the program a commander of its own.
  const over = new Error('the command line says to end');
  let code: ExitCode = exitCodes.usage;
  program.allowExcessArguments(false).exitOverride(({ exitCode }) => {
    code = exitCode === 0 ? exitCodes.ok : exitCodes.usage;
    throw over;
  });
  try {
    program.parse([...argv]);
  } catch (error) {
    if (error !== over) throw error;
    return code;
  }
  return program.opts<Options>();
}
