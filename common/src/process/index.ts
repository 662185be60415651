/** What a process that runs for long is told, by its command line and by signals, and what it says at its end. */
export { parseOptions } from './arguments.js';
export { exitCodeOf, exitCodes, type ExitCode } from './exitcodes.js';
export { Signals } from './signals.js';
