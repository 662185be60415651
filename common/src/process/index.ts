/** What a process that runs for long says to its service manager, and hears from it. */
export { exitCodeOf, exitCodes, type ExitCode } from './exitcodes.js';
export { Signals } from './signals.js';
