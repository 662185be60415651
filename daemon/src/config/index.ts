/** Configuration: from a YAML file to a checked value. */
export { ConfigError, maxConfigOctets, type Problem } from 'tlspool-common/config';
export { loadConfig } from './load.js';
export { checkStateFolder, prepareState, type PreparedState } from './state.js';
export type { AccessRule, Config, IdentityConfig, LimitsConfig, LogConfig, Overrides, SocketConfig, SourceConfig, V2Config } from './types.js';
