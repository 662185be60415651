/** Configuration files: YAML with the line and column of every mistake, and what zod needs to say them in words for people. */
export { lookupAccount, lookupId, type Account, type Database } from './accounts.js';
export { checkConfig, show, type ConfigFormat } from './check.js';
export { isHostName, normalizeHostName } from './hostname.js';
export { ConfigError, loadChecked, maxConfigOctets, socketPathReason } from './load.js';
export { editDistance, nearest } from './suggest.js';
export { keyRows, keyTable, type KeyRow } from './table.js';
export { account, file, hostName, int, localid, oneOrMore, parsedBy, runAs, socketMode } from './values.js';
export { fieldName, parseYaml, type FieldPath, type Problem, type Yaml } from './yaml.js';
