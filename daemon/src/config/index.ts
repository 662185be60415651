/** Configuration: from a YAML file to a checked value. */
export { ConfigError, loadConfig, maxConfigOctets } from './load.js';
export { prepareState, type PreparedState } from './state.js';
export type { AccessRule, Config, IdentityConfig, LimitsConfig, LogConfig, Overrides, SocketConfig, SourceConfig } from './types.js';
export type { Problem } from './yaml.js';
