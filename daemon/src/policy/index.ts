/** What may be negotiated, and which client of the pool may do what. */
export type { AccessPolicy, Client, Permission } from './access.js';
export { identifyClient, type ClientHost } from './client.js';
export { hasAllow, type PeerNames, type PeerRules } from './peers.js';
export { presets, type Preset } from './presets.js';
export { RuleAccess, type AccessSettings } from './rules.js';
