export { Log, cut } from './log.js';
export type { LogFields, LogLevel } from './log.js';
export { RateLimit } from './ratelimit.js';
export { statusOf, uptimeMs } from './status.js';
export type { Gauges, Identification, ReloadRecord } from './status.js';
