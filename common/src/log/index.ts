/** The log of a process that runs for long. */
export { cut, Log, type LogFields, type LogFormat, type LogLevel, type LogOptions } from './log.js';
export { Output } from './output.js';
export { RateLimit } from './ratelimit.js';
