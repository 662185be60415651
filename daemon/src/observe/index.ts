export { Log, cut, RateLimit } from 'tlspool-common/log';
export type { LogFields, LogLevel } from 'tlspool-common/log';
export { statusOf, uptimeMs } from './status.js';
export type { Gauges, Identification, ReloadRecord } from './status.js';
